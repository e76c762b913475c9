"""A vLLM engine in a child process: starting it, asking it, and finding out that it died."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paced_rl.generation import vllm_worker
from paced_rl.generation.messages import ProtocolError, receive, send

LOAD_SECONDS = 1800.0
"""Reading a large model and compiling it on a GPU takes minutes; a cold disk more."""
SILENCE_SECONDS = 300.0
"""An engine that samples says something after every step, at least each second."""
_LOG_NAME = "engine.log"
_MAX_LOG_CHARS = 2000

ENVIRONMENT = {
    # The engine's core in the worker itself: one import of vLLM instead of three, and none that needs spawning.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_NO_USAGE_STATS": "1",
    # A policy is a folder on this machine.
    "HF_HUB_OFFLINE": "1",
    # On a busy machine threads that wait actively take the time of those they wait for.
    "OMP_WAIT_POLICY": "passive",
}
EAGER_ENVIRONMENT = {
    # `enforce_eager` leaves one function compiled, the ranks of log-probabilities, at 25 s of the first batch.
    "TORCHDYNAMO_DISABLE": "1",
}


class EngineError(RuntimeError):
    """There is no engine any more, and the message says why."""


class EngineDiedError(EngineError):
    """The engine's process ended, hangs or failed."""


class EngineMemoryError(EngineError):
    """The engine needs more memory than it was given, or than there is."""


@dataclass(frozen=True, slots=True)
class Sampled:
    """One completion as the engine gave it."""

    token_ids: list[int]
    log_probs: list[float]


class VllmEngine:
    """One engine, from its start to its end. After any error it is over: close it and start another."""

    def __init__(self, arguments: Mapping[str, Any], *, memory_parameters: str) -> None:
        """Starts the process and waits until the model is loaded.

        Args:
            arguments: of `vllm.LLM`; values that JSON can hold.
            memory_parameters: names of the parameters to lower when memory runs out, for messages.

        Raises:
            EngineDiedError: the process ended or stalled before the model was loaded.
            EngineMemoryError: there is too little memory.
        """
        self._memory_parameters = memory_parameters
        self._scratch = tempfile.TemporaryDirectory(prefix="paced_rl_vllm_", ignore_cleanup_errors=True)
        self._channel, theirs = socket.socketpair()
        is_eager = bool(arguments.get("enforce_eager"))
        with theirs, self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", vllm_worker.__name__, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **ENVIRONMENT, **(EAGER_ENVIRONMENT if is_eager else {})},
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C is the host's to handle; and one signal ends all of vLLM's processes
            )
        with self._closed_on_error():
            self._channel.settimeout(LOAD_SECONDS)
            self._send({"start": arguments})
            self._receive("ready")

    @property
    def process_id(self) -> int:
        """Of the child; it leads a session and a process group of its own."""
        return self._process.pid

    @property
    def is_closed(self) -> bool:
        """Whether the engine is over, by `close` or by an error."""
        return self._channel.fileno() < 0

    @property
    def _log(self) -> Path:
        return Path(self._scratch.name) / _LOG_NAME

    def load(self, folder: Path) -> None:
        """Replaces the weights; `folder` is whole and holds another version of the same model.

        Raises:
            EngineDiedError: it failed, and with it the engine.
        """
        self._ask({"load": str(folder)})

    def sleep(self) -> None:
        """Frees the GPU's memory; only `load` wakes the engine. Without effect on a CPU."""
        self._ask({"sleep": True})

    def generate(
        self,
        fields: Mapping[str, Any],
        prompts: Sequence[Sequence[int]],
        rows: Mapping[int, tuple[int, int]],
        on_finished: Callable[[int, Sampled], None],
    ) -> None:
        """Samples completions and hands each over as soon as it is finished, every row exactly once.

        Args:
            fields: of `vllm.SamplingParams`, without the seed.
            prompts: token ids.
            rows: number → index of its prompt, seed.
            on_finished: called with the number of a row and its completion.

        Raises:
            EngineDiedError: the engine died before all rows were finished; those handed over are good.
            EngineMemoryError: there is too little memory.
        """
        waiting = set(rows)
        with self._closed_on_error():
            self._channel.settimeout(SILENCE_SECONDS)
            request = {"fields": fields, "prompts": [list(prompt) for prompt in prompts]}
            self._send({"generate": {**request, "rows": [[row, *entry] for row, entry in rows.items()]}})
            while not (message := self._receive("finished", "done")).get("done"):
                for row, token_ids, log_probs in message["finished"]:
                    if row not in waiting or not token_ids or len(token_ids) != len(log_probs):
                        raise EngineDiedError(f"the vLLM engine gave row {row} twice, unasked or not whole")
                    waiting.remove(row)
                    on_finished(row, Sampled(token_ids, log_probs))
            if waiting:
                raise EngineDiedError(f"the vLLM engine was done with {len(waiting)} of {len(rows)} rows missing")

    def close(self) -> None:
        """Ends the process and everything it started; nothing happens the second time."""
        if self.is_closed:
            return
        self._channel.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._scratch.cleanup()

    def _ask(self, message: Mapping[str, Any]) -> None:
        with self._closed_on_error():
            self._channel.settimeout(LOAD_SECONDS)
            self._send(message)
            self._receive("done")

    @contextlib.contextmanager
    def _closed_on_error(self) -> Iterator[None]:
        """Whatever leaves the block by an exception, Ctrl-C included, leaves no engine in an unknown state."""
        is_over = True
        try:
            yield
            is_over = False
        finally:
            if is_over:
                self.close()

    def _send(self, message: Mapping[str, Any]) -> None:
        try:
            send(self._channel, message)
        except OSError as error:
            raise self._death(str(error)) from error

    def _receive(self, *expected: str) -> dict[str, Any]:
        try:
            message = receive(self._channel)
        except TimeoutError as error:
            raise self._death(f"it was silent for {self._channel.gettimeout():.0f} s") from error
        except (ProtocolError, OSError) as error:
            raise self._death(str(error)) from error
        if message.get("is_memory"):
            raise EngineMemoryError(
                f"the vLLM engine ran out of memory: lower {self._memory_parameters}. It said: {message['error']}"
            )
        if not any(name in message for name in expected):
            raise self._death(str(message.get("error", message)))
        return message

    def _death(self, reason: str) -> EngineDiedError:
        """What to raise; reads the log before it is removed."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=1.0)
        code = self._process.poll()
        how = "" if code is None else f", exit code {code}"
        if code == -signal.SIGKILL:
            how += f" (killed; if for memory, lower {self._memory_parameters})"
        said = self._log.read_text(errors="replace")[-_MAX_LOG_CHARS:]
        return EngineDiedError(f"the vLLM engine failed: {reason}{how}. It last said:\n{said}")
