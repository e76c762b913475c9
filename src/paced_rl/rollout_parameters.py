"""The parameters of sampling: the distribution, and the engine that draws from it."""

import re
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from paced_rl.training_parameters import Group


class VllmParameters(Group):
    """The engine of `rollout.backend: vllm`, in a process of its own on this machine."""

    memory_share: float = Field(0.5, gt=0, le=1)
    """Share of the GPU's (without one: of the machine's) memory that weights and cache may take together; the trainer
    needs the rest, unless `release` gives it back. Read where `kv_cache_gib` is null."""
    kv_cache_gib: float | None = Field(1.0, gt=0)
    """Size of the cache of keys and values in GiB; null takes what `memory_share` leaves."""
    tensor_parallel_size: int = Field(1, ge=1)
    """GPUs that hold one copy of the policy together."""
    enforce_eager: bool = True
    """Whether to do without compiling: a start of seconds instead of minutes, and slower steps on a GPU."""
    release: Literal["keep", "sleep", "restart"] = "keep"
    """What becomes of the engine between two calls: `keep` leaves it as it is, `sleep` frees the GPU's memory,
    `restart` ends it."""


class VllmServerParameters(Group):
    """The servers of `rollout.backend: vllm_server`. They are no part of what a result is made from: no node runs again
    because its completions would now come from other servers."""

    urls: tuple[str, ...] = ()
    """Of running vLLM servers, e.g. `http://10.0.0.5:8000`; all of them sample. On the command line, where commas part
    parameters, one text with spaces between the urls."""
    timeout_seconds: float = Field(600.0, gt=0)
    """For one completion, and for one change of weights. A server that takes longer is given up for this call, and
    others take its work."""
    max_retries: int = Field(3, ge=0)
    """Times that a server which fails is asked again, each time after twice as long, before it is given up; 0 gives it
    up at once."""
    max_concurrency: int = Field(64, ge=1)
    """Completions in flight per server; changes speed, not results."""

    @field_validator("urls", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return value.split() if isinstance(value, str) else value

    @field_validator("urls")
    @classmethod
    def _are_roots(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for url in value:
            if re.fullmatch(r"https?://[^/\s]+/?", url) is None:
                raise ValueError(f"{url!r} must be scheme, host and port alone, e.g. http://10.0.0.5:8000, without /v1")
        return value


class RolloutParameters(Group):
    """How completions are sampled."""

    backend: Literal["transformers", "vllm", "vllm_server"] = "transformers"
    """What samples; `vllm` must be installed here, and `vllm_server` run somewhere (README)."""
    group_size: int = Field(8, ge=1)
    """Completions per prompt (G)."""
    sampling_temperature: float = Field(1.0, gt=0, le=10)
    top_p: float = Field(1.0, gt=0, le=1)
    """Share of the probability that the tokens to draw from must reach together; 1 draws from all of them. What is
    trained is the whole distribution, see docs/decisions/0014."""
    top_k: int = Field(0, ge=0)
    """Number of tokens to draw from, the likeliest ones; 0 draws from all of them. Comes before `top_p`."""
    max_new_tokens: int = Field(32, ge=1)
    """Tokens per completion, the end-of-sequence token included."""
    batch_size: int = Field(256, ge=1)
    """Completions sampled at once; changes memory and speed, not results."""
    vllm: VllmParameters = VllmParameters()
    vllm_server: VllmServerParameters = Field(VllmServerParameters(), exclude=True)

    @model_validator(mode="after")
    def _servers_are_named(self) -> Self:
        if self.backend == "vllm_server" and not self.vllm_server.urls:
            raise ValueError(
                "backend = vllm_server samples by servers that run already; set rollout.vllm_server.urls, e.g. "
                "http://127.0.0.1:8000"
            )
        return self

    @property
    def is_truncated(self) -> bool:
        """Whether some tokens are never drawn."""
        return self.top_p < 1 or self.top_k > 0
