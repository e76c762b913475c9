"""Sampling with vLLM on this machine: one engine in a child process, kept warm while weights change.

Weights are told apart by the manifest's hashes. Where only they differ the engine takes the new ones in place, else it
is started anew. An engine that failed in any way is never used again.

Reproducibility: in float32 on a CPU a completion is a function of prompt, policy, settings and seed: the same with
other neighbours, in another order, after a restart (vLLM 0.32.0). On a GPU the batch changes the last digits, as with
transformers. The two backends draw different completions from the same seed; their greedy completions agree.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from paced_rl.generation.requests import check_requests, make_completions
from paced_rl.generation.vllm_engine import EngineDiedError, Sampled, VllmEngine
from paced_rl.generation.vllm_requests import WORKER_EXTENSION, sampling_fields
from paced_rl.policies import describe_policy, text_digests, verify_files
from paced_rl.types import Checkpoint, Completion, GenerationRequest, SamplingSettings

logger = logging.getLogger(__name__)

NUM_ATTEMPTS = 2
"""An engine that dies is started again once per call: twice on the same prompts is no accident."""
GIB = 1024**3


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """What an engine may take of the machine; see `paced_rl.rollout_parameters.VllmParameters`."""

    memory_share: float = 0.5
    kv_cache_gib: float | None = 1.0
    tensor_parallel_size: int = 1
    enforce_eager: bool = True
    release: Literal["keep", "sleep", "restart"] = "keep"

    @property
    def memory_parameters(self) -> str:
        """The two parameters that decide how much memory is taken."""
        return f"rollout.vllm.{'memory_share' if self.kv_cache_gib is None else 'kv_cache_gib'} or rollout.batch_size"


class VllmGenerator:
    """Samples with an engine that lives until `close`."""

    def __init__(self, *, dtype: str, batch_size: int, settings: EngineSettings) -> None:
        """Starts nothing yet.

        Args:
            dtype: of weights and forward pass, `float32` or `bfloat16`; log-probabilities are float32 either way.
            batch_size: completions decoded at once.
            settings: of the engine.
        """
        self._dtype = dtype
        self._batch_size = batch_size
        self._settings = settings
        self._engine: VllmEngine | None = None
        self._loaded: Checkpoint | None = None
        """What the engine runs, or ran when it was put to sleep."""
        self._is_asleep = False

    def generate(
        self,
        checkpoint: Checkpoint,
        requests: Sequence[GenerationRequest],
        settings: SamplingSettings,
        *,
        on_progress: Callable[[int], None] | None = None,
    ) -> list[tuple[Completion, ...]]:
        """See `paced_rl.generation.protocol.Generator.generate`.

        Raises:
            ValueError: a setting is out of range, a prompt is empty or too long, or the policy's logits are not finite.
            PolicyFolderError: the folder is not what the manifest says; the engine never sees it.
            EngineDiedError: the engine failed twice.
            EngineMemoryError: the engine needs more memory than there is.
        """
        if not requests:
            return []
        policy = describe_policy(checkpoint)
        check_requests(requests, settings, num_positions=policy.num_positions)
        fields = sampling_fields(settings, eos_token_ids=policy.eos_token_ids)
        seeds = [(index, seed) for index, request in enumerate(requests) for seed in request.seeds]
        prompts = [request.prompt_token_ids for request in requests]
        sampled = self._sample(checkpoint, prompts, seeds, fields, on_progress)
        completions = iter(
            make_completions([row.token_ids for row in sampled], [row.log_probs for row in sampled], policy)
        )
        return [tuple(next(completions) for _ in request.seeds) for request in requests]

    @property
    def process_id(self) -> int | None:
        """Of the engine that is running; None without one."""
        return None if self._engine is None or self._engine.is_closed else self._engine.process_id

    def close(self) -> None:
        """Ends the engine and frees its memory."""
        if self._engine is not None:
            self._engine.close()
        self._engine = self._loaded = None
        self._is_asleep = False

    def _sample(
        self,
        checkpoint: Checkpoint,
        prompts: list[tuple[int, ...]],
        seeds: list[tuple[int, int]],
        fields: dict[str, Any],
        on_progress: Callable[[int], None] | None,
    ) -> list[Sampled]:
        """One completion per (index of prompt, seed); what a dying engine left unfinished is asked of the next one."""
        finished: dict[int, Sampled] = {}

        def keep(row: int, completion: Sampled) -> None:
            finished[row] = completion
            if on_progress is not None:
                on_progress(1)

        for attempt in range(NUM_ATTEMPTS):
            rows = {row: entry for row, entry in enumerate(seeds) if row not in finished}
            if not rows:
                break
            try:
                self._running_engine(checkpoint).generate(fields, prompts, rows, keep)
            except EngineDiedError as error:
                self.close()
                if attempt + 1 == NUM_ATTEMPTS:
                    raise
                logger.warning("vLLM is started again for %d completions: %s", len(seeds) - len(finished), error)
        self._release()
        return [finished[row] for row in range(len(seeds))]

    def _running_engine(self, checkpoint: Checkpoint) -> VllmEngine:
        """An engine that runs the weights of `checkpoint`."""
        is_other_model = self._loaded is not None and text_digests(self._loaded) != text_digests(checkpoint)
        if self._engine is not None and (self._engine.is_closed or is_other_model):
            self.close()
        if self._engine is None:
            verify_files(checkpoint)
            arguments = engine_arguments(
                checkpoint, dtype=self._dtype, batch_size=self._batch_size, settings=self._settings
            )
            with _timed("vLLM started"):
                self._engine = VllmEngine(arguments, memory_parameters=self._settings.memory_parameters)
        elif self._is_asleep or self._loaded is None or self._loaded.files != checkpoint.files:
            verify_files(checkpoint)
            with _timed("vLLM took the weights of policy version %d", checkpoint.policy_version):
                self._engine.load(checkpoint.folder)
        self._loaded, self._is_asleep = checkpoint, False
        return self._engine

    def _release(self) -> None:
        """Gives back what the engine holds between two calls, as the settings say."""
        if self._settings.release == "restart":
            self.close()
        elif self._settings.release == "sleep" and self._engine is not None:
            try:
                self._engine.sleep()
                self._is_asleep = True
            except EngineDiedError as error:  # what was sampled is whole, and the memory is free
                logger.warning("vLLM could not be put to sleep and was ended: %s", error)
                self.close()


@contextmanager
def _timed(message: str, *arguments: object) -> Iterator[None]:
    start = time.perf_counter()
    yield
    logger.info(f"{message} in %.2f s", *arguments, time.perf_counter() - start)


def engine_arguments(
    checkpoint: Checkpoint, *, dtype: str, batch_size: int, settings: EngineSettings
) -> dict[str, Any]:
    """Arguments of `vllm.LLM` under which it samples from the policy itself, and says with what probability."""
    return {
        "model": str(checkpoint.folder.absolute()),
        "dtype": dtype,
        "max_num_seqs": batch_size,
        "tensor_parallel_size": settings.tensor_parallel_size,
        "enforce_eager": settings.enforce_eager,
        "gpu_memory_utilization": settings.memory_share,
        "kv_cache_memory_bytes": None if settings.kv_cache_gib is None else int(settings.kv_cache_gib * GIB),
        "enable_sleep_mode": settings.release == "sleep",
        # The default leaves the temperature and the cut tokens out.
        "logprobs_mode": "processed_logprobs",
        # Else temperature, top-p and penalties of the folder's generation_config.json would come in.
        "generation_config": "vllm",
        # Ids go in and come out; no text is read.
        "skip_tokenizer_init": True,
        "worker_extension_cls": WORKER_EXTENSION,
    }
