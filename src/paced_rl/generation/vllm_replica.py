"""One running vLLM server: what it is asked over HTTP, and which of its answers are believed.

Completions are OpenAI's (`/v1/completions`), with token ids both ways. Weights are replaced through the endpoints that
vLLM opens with `VLLM_SERVER_DEV_MODE=1`. Those let anybody who reaches the port run methods of the engine: such a
server belongs on a private interface.
"""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import urllib3
from pydantic import BaseModel, Field, ValidationError

from paced_rl.generation.vllm_requests import WORKER_EXTENSION
from paced_rl.types import Checkpoint

LOGPROBS_MODE = "processed_logprobs"
CONNECT_SECONDS = 10.0
PROBE_SECONDS = 60.0
"""For questions that cost the engine nothing; it answers them between two steps of decoding."""
CHANGING = "changing"
"""Name of the weights between those of two policies."""
BROKEN = "broken"
"""Name of the weights after a change that failed."""
NEUTRAL_FIELDS = {"min_p": 0.0, "repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}
"""Said aloud, because a server may have other defaults, e.g. of the model's generation_config.json."""
MAX_LOG_PROB = 1e-4
"""Zero, but for rounding."""
MAX_SHOWN_CHARACTERS = 300


Content = TypeVar("Content", bound=BaseModel)


class ReplicaError(OSError):
    """A server did not do what it was asked."""


class ReplicaUnreachableError(ReplicaError):
    """A server cannot be connected to, or ended the connection."""


class ReplicaTimeoutError(ReplicaError):
    """A server took a request and did not answer in time."""


class OtherWeightsError(ReplicaError):
    """A server has other weights than those it should sample from."""


class _LogProbs(BaseModel):
    token_logprobs: list[Annotated[float, Field(le=MAX_LOG_PROB, allow_inf_nan=False)]]


class _Choice(BaseModel):
    prompt_token_ids: list[int]
    token_ids: list[int] = Field(min_length=1)
    logprobs: _LogProbs
    finish_reason: Literal["stop", "length"]


class _Answer(BaseModel):
    """What is read of the answer of `/v1/completions`."""

    choices: tuple[_Choice]


class _ModelConfig(BaseModel):
    dtype: str
    logprobs_mode: str
    max_model_len: int


class _ParallelConfig(BaseModel):
    worker_extension_cls: str


class _DeviceConfig(BaseModel):
    device: str


class _VllmConfig(BaseModel):
    model_config_: _ModelConfig = Field(alias="model_config")
    parallel_config: _ParallelConfig
    device_config: _DeviceConfig


class _ServerInfo(BaseModel):
    """What is read of the answer of `/server_info`."""

    vllm_config: _VllmConfig


class _WeightInfo(BaseModel):
    weight_version: str


class _Done(BaseModel):
    """An answer of which nothing is read."""


class _Reset(BaseModel):
    success: Literal[True]


def weights_version(checkpoint: Checkpoint) -> str:
    """A name for the bytes of a policy, e.g. `round-7-0123456789abcdef`; equal for no two policies."""
    digest = hashlib.sha256(json.dumps(sorted(checkpoint.files.items())).encode()).hexdigest()[:16]
    return f"round-{checkpoint.policy_version}-{digest}"


class Replica:
    """Talks to one server; several threads may use it at once."""

    def __init__(self, url: str, *, timeout_seconds: float, max_concurrency: int = 1) -> None:
        """Asks nothing yet.

        Args:
            url: e.g. `http://10.0.0.5:8000`.
            timeout_seconds: for one completion, and for one change of weights.
            max_concurrency: connections that are kept open.
        """
        self.url = url.rstrip("/")
        self._timeout_seconds = timeout_seconds
        self._pool = urllib3.PoolManager(maxsize=max_concurrency, retries=False)

    def check_settings(self, *, dtype: str, num_tokens: int = 0) -> str:
        """Looks at how the server was started.

        Args:
            dtype: of the policy's forward pass, `float32` or `bfloat16`.
            num_tokens: of the longest prompt and its completion together.

        Returns:
            The name of the method of its workers that takes new weights.

        Raises:
            ReplicaError: it cannot be reached, or has settings under which completions would be wrong.
        """
        config = self._ask(_ServerInfo, "GET", "/server_info?config_format=json", seconds=PROBE_SECONDS).vllm_config
        model, extension = config.model_config_, config.parallel_config.worker_extension_cls
        wrong = []
        if model.dtype != f"torch.{dtype}":
            wrong.append(f"--dtype {dtype} (it has {model.dtype})")
        if model.logprobs_mode != LOGPROBS_MODE:
            wrong.append(f"--logprobs-mode {LOGPROBS_MODE} (it has {model.logprobs_mode})")
        if model.max_model_len < num_tokens:
            wrong.append(f"--max-model-len {num_tokens} or more (it has {model.max_model_len})")
        if extension != WORKER_EXTENSION and config.device_config.device == "cpu":  # the only place that needs it
            wrong.append(f"--worker-extension-cls {WORKER_EXTENSION} (it has {extension or 'none'})")
        if wrong:
            raise ReplicaError(f"it must be started with {', '.join(wrong)}")
        return "reload_policy" if extension == WORKER_EXTENSION else "reload_weights"

    def weights(self) -> str:
        """The name of the weights that the server has; vLLM's own is `default`.

        Raises:
            ReplicaError: it does not say, or has none since a change of weights failed.
        """
        name = self._ask(_WeightInfo, "GET", "/weight_info", seconds=PROBE_SECONDS).weight_version
        if name == BROKEN:  # another attempt would hang the engine
            raise ReplicaError("an earlier change of its weights failed: start it anew")
        return name

    def confirm_weights(self, version: str) -> None:
        """Raises OtherWeightsError if the server has others than these, and ReplicaError as `weights` does."""
        name = self.weights()
        if name != version:
            raise OtherWeightsError(f"it has the weights {name!r} and not {version!r}")

    def load_weights(self, folder: Path, version: str, *, method: str) -> None:
        """Replaces the server's weights. What it is working on is finished first; its caches are emptied.

        The old name goes first and the new one comes last, so that a server never has a policy's name wrongly. Where
        anything fails it stays paused: its next completion would end it, while `/health` still says 200.

        Args:
            folder: in Hugging Face format; the server opens it under the same path, on a file system that both see.
            version: name of these weights.
            method: what `check_settings` said.

        Raises:
            ReplicaError: the server is left with no weights that it may sample from.
        """
        reload = {"method": method, "kwargs": {"weights_path": str(folder)}}
        seconds = self._timeout_seconds
        try:
            self._name_weights(CHANGING)
            self._ask(_Done, "POST", "/pause?mode=wait", seconds=seconds)
            self._ask(_Done, "POST", "/collective_rpc", reload, seconds=seconds)
            # Not part of a reload: keys and values of the old weights would go on answering for shared prefixes.
            self._ask(_Reset, "POST", "/reset_prefix_cache", seconds=seconds)
            self._name_weights(version)
            self._ask(_Done, "POST", "/resume", seconds=seconds)
            self.confirm_weights(version)
        except ReplicaError as error:
            with suppress(ReplicaError):
                self._name_weights(BROKEN)
            raise ReplicaError(
                f"it did not take the weights in {folder}, which its machine must see under this very path: {error}. "
                "Start it anew: what it holds now is no policy"
            ) from error

    def complete(
        self, prompt_token_ids: tuple[int, ...], seed: int, fields: Mapping[str, Any]
    ) -> tuple[list[int], list[float]]:
        """Token ids and log-probabilities of one completion.

        Args:
            prompt_token_ids: [prompt length].
            seed: of this completion alone, in [0, 2⁶³).
            fields: of `paced_rl.generation.vllm_requests.sampling_fields`.

        Raises:
            ReplicaTimeoutError: no answer in time.
            ReplicaError: no answer, or none that can be one to this request.
        """
        body = {
            **NEUTRAL_FIELDS,
            **fields,
            "prompt": prompt_token_ids,
            "seed": seed,
            "return_token_ids": True,
            "return_tokens_as_token_ids": True,  # spares the server the decoding of each token
        }
        answer = self._ask(_Answer, "POST", "/v1/completions", body, seconds=self._timeout_seconds)
        (choice,) = answer.choices
        token_ids, log_probs = choice.token_ids, choice.logprobs.token_logprobs
        *earlier, last = (token_id in fields["stop_token_ids"] for token_id in token_ids)
        if (
            tuple(choice.prompt_token_ids) != prompt_token_ids
            or len(log_probs) != len(token_ids)
            or any(earlier)
            or choice.finish_reason != ("stop" if last else "length")
            or (len(token_ids) > fields["max_tokens"] if last else len(token_ids) != fields["max_tokens"])
        ):
            raise ReplicaError(f"its answer does not fit the request {_shortened(body)}: {_shortened(choice)}")
        return token_ids, log_probs

    def close(self) -> None:
        """Closes the connections that are kept open."""
        self._pool.clear()

    def _name_weights(self, version: str) -> None:
        self._ask(_Done, "POST", "/update_weight_version", {"new_version": version}, seconds=PROBE_SECONDS)

    def _ask(
        self, content: type[Content], method: str, path: str, body: dict[str, Any] | None = None, *, seconds: float
    ) -> Content:
        timeout = urllib3.Timeout(connect=min(CONNECT_SECONDS, seconds), read=seconds)
        try:
            response = self._pool.request(method, self.url + path, json=body, timeout=timeout)
        except urllib3.exceptions.ReadTimeoutError as error:
            raise ReplicaTimeoutError(f"{method} {path} was not answered within {seconds:g} s") from error
        except urllib3.exceptions.HTTPError as error:
            # Before the last colon stands what is said above, e.g. the host.
            raise ReplicaUnreachableError(f"{method} {path} failed: {str(error).rpartition(': ')[2]}") from error
        if response.status != 200:
            said = _shortened(response.data.decode(errors="replace"))
            hint = "; was it started with VLLM_SERVER_DEV_MODE=1?" if response.status == 404 else ""
            raise ReplicaError(f"{method} {path} gave HTTP {response.status}: {said}{hint}")
        try:
            return content.model_validate_json(response.data)
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in problem["loc"])
            raise ReplicaError(f"{method} {path} gave an answer that is none: {where} {problem['msg']}") from error


@lru_cache
def find_server(url: str, *, dtype: str) -> None:
    """Asks a server whether it is there and was started rightly; once per process, if it was.

    Raises:
        ReplicaError: it is not.
    """
    replica = Replica(url, timeout_seconds=PROBE_SECONDS)
    replica.check_settings(dtype=dtype)
    replica.close()


def _shortened(value: object) -> str:
    text = str(value)
    return text if len(text) <= MAX_SHOWN_CHARACTERS else f"{text[:MAX_SHOWN_CHARACTERS]}…"
