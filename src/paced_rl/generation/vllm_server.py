"""Sampling by vLLM servers that run elsewhere: any number of replicas, whose work others take when they fail.

A server samples only while it says that it has the checkpoint's weights: it is asked before its first completion, after
each failure and after its last completion.

Reproducibility: in float32 on a CPU the completions are those of vLLM's offline engine, whatever the number of replicas
and whichever of them answers (vLLM 0.32.0). On a GPU, as far as vLLM's kernels do not depend on the batch.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from paced_rl.generation.requests import check_requests, make_completions
from paced_rl.generation.vllm_dispatch import Answer, Dispatch, Job, no_replica_left, wait_seconds
from paced_rl.generation.vllm_replica import (
    OtherWeightsError,
    Replica,
    ReplicaError,
    ReplicaUnreachableError,
    weights_version,
)
from paced_rl.generation.vllm_requests import sampling_fields
from paced_rl.policies import describe_policy, verify_files
from paced_rl.types import Checkpoint, Completion, GenerationRequest, SamplingSettings

logger = logging.getLogger(__name__)


class VllmServerGenerator:
    """Samples by servers; one that failed is asked again at the next call."""

    def __init__(
        self, *, urls: Sequence[str], dtype: str, timeout_seconds: float, max_retries: int, max_concurrency: int
    ) -> None:
        """Asks nothing yet; see `paced_rl.rollout_parameters.VllmServerParameters`.

        Args:
            urls: of the servers, e.g. `http://10.0.0.5:8000`.
            dtype: that they compute in, `float32` or `bfloat16`.
            timeout_seconds: for one completion, and for one change of weights.
            max_retries: times that a failing server is asked again.
            max_concurrency: completions in flight per server.

        Raises:
            ValueError: there is no url.
        """
        if not urls:
            raise ValueError("the backend vllm_server needs running servers: set rollout.vllm_server.urls")
        self._dtype = dtype
        self._max_retries = max_retries
        self._max_concurrency = max_concurrency
        self._verified: Mapping[str, str] | None = None
        self._given: dict[Replica, str] = {}
        """Name of the weights that this object gave each server last."""
        self._replicas = [
            Replica(url, timeout_seconds=timeout_seconds, max_concurrency=max_concurrency)
            for url in dict.fromkeys(urls)
        ]

    def generate(
        self,
        checkpoint: Checkpoint,
        requests: Sequence[GenerationRequest],
        settings: SamplingSettings,
        *,
        on_progress: Callable[[int], None] | None = None,
    ) -> list[tuple[Completion, ...]]:
        """See `paced_rl.generation.protocol.Generator.generate`; the servers open `checkpoint.folder` themselves.

        Raises:
            ValueError: a setting is out of range, or a prompt is empty or too long; no server has seen it.
            PolicyFolderError: the folder is not what the manifest says; no server has seen it.
            NoReplicaLeftError: every server failed.
        """
        jobs = [
            Job(prompt_token_ids=request.prompt_token_ids, seed=seed) for request in requests for seed in request.seeds
        ]
        if not jobs:
            return [() for _ in requests]
        policy = describe_policy(checkpoint)
        if self._verified != checkpoint.files:
            verify_files(checkpoint)
            self._verified = checkpoint.files
        check_requests(requests, settings, num_positions=policy.num_positions)
        fields = sampling_fields(settings, eos_token_ids=policy.eos_token_ids)
        num_tokens = max(len(job.prompt_token_ids) for job in jobs) + settings.max_new_tokens
        try:
            replicas = self._ready_replicas(checkpoint, num_tokens=num_tokens, num_jobs=len(jobs))
            version, report = weights_version(checkpoint), on_progress or (lambda count: None)
            answers = self._collect(jobs, fields, replicas, version, report)
        finally:
            self._disconnect()  # a server ends idle connections, in the worst case just when the next call uses one
        completions = iter(
            make_completions([answer.token_ids for answer in answers], [answer.log_probs for answer in answers], policy)
        )
        return [tuple(next(completions) for _ in request.seeds) for request in requests]

    def close(self) -> None:
        """Leaves the servers, which run on. Used again, this object gives each of them its weights anew."""
        self._disconnect()
        self._verified = None
        self._given.clear()

    def _disconnect(self) -> None:
        for replica in self._replicas:
            replica.close()

    def _ready_replicas(self, checkpoint: Checkpoint, *, num_tokens: int, num_jobs: int) -> list[Replica]:
        """The servers that have the weights now; silent ones are waited for only while there is no other."""
        asked, errors, ready = self._replicas, dict[Replica, ReplicaError](), list[Replica]()
        for num_failures in range(self._max_retries + 1):
            if num_failures:
                time.sleep(wait_seconds(num_failures))
            with ThreadPoolExecutor(len(asked)) as pool:
                outcomes = list(pool.map(lambda replica: self._prepare(replica, checkpoint, num_tokens), asked))
            errors |= {replica: error for replica, error in zip(asked, outcomes, strict=True) if error is not None}
            ready = [replica for replica, error in zip(asked, outcomes, strict=True) if error is None]
            asked = [replica for replica, error in errors.items() if isinstance(error, ReplicaUnreachableError)]
            if ready or not asked:
                break
        if not ready:
            raise no_replica_left(errors, num_jobs)
        for replica, error in errors.items():
            if replica not in ready:
                logger.warning("vLLM server %s gives no completions this time: %s", replica.url, error)
        return ready

    def _prepare(self, replica: Replica, checkpoint: Checkpoint, num_tokens: int) -> ReplicaError | None:
        """Sees to it that a server has the weights; otherwise the reason why it has not.

        What it has from somebody else it is given again, whatever the name: a name alone proves nothing, and a round
        that was stopped over wrong weights must not find them once more.
        """
        version = weights_version(checkpoint)
        try:
            reload_method = replica.check_settings(dtype=self._dtype, num_tokens=num_tokens)
            if replica.weights() != version or self._given.get(replica) != version:
                start = time.perf_counter()
                replica.load_weights(checkpoint.folder.absolute(), version, method=reload_method)
                self._given[replica] = version
                seconds = time.perf_counter() - start
                logger.info("vLLM server %s took the weights %s in %.2f s", replica.url, version, seconds)
        except ReplicaError as error:
            return error
        return None

    def _collect(
        self,
        jobs: Sequence[Job],
        fields: Mapping[str, Any],
        replicas: list[Replica],
        version: str,
        on_progress: Callable[[int], None],
    ) -> list[Answer]:
        """One answer per job, in their order, all of them by servers that had the weights before and after."""
        answers: dict[int, Answer] = {}
        while missing := {number: job for number, job in enumerate(jobs) if number not in answers}:
            dispatch = Dispatch(missing, fields, version=version, max_retries=self._max_retries)
            for answer in dispatch.answers(replicas, max_concurrency=self._max_concurrency):
                answers[answer.number] = answer
                on_progress(1)
            failed = dispatch.lost | {
                replica: error
                for replica in replicas
                if replica not in dispatch.lost and (error := _failure(replica, version)) is not None
            }
            # Whose weights were replaced under way has given completions of nobody knows what.
            changed = {replica for replica, error in failed.items() if isinstance(error, OtherWeightsError)}
            answers = {number: answer for number, answer in answers.items() if answer.replica not in changed}
            replicas = [replica for replica in replicas if replica not in failed]
            if not replicas and len(answers) < len(jobs):
                raise no_replica_left(failed, len(jobs) - len(answers))
        return [answers[number] for number in range(len(jobs))]


def _failure(replica: Replica, version: str) -> ReplicaError | None:
    """What keeps a server from saying, after its last completion, that it still has the weights."""
    try:
        replica.confirm_weights(version)
    except ReplicaError as error:
        logger.warning("vLLM server %s has failed after its last completion: %s", replica.url, error)
        return error
    return None
