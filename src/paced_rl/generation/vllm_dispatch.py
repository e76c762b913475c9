"""Sharing completions out among vLLM servers, so that each is had exactly once whatever becomes of a server.

A job is in one place at a time: in the queue, in the hands of one thread, or answered. A thread that fails puts its job
back before it waits, for whichever thread is free.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any

from paced_rl.generation.vllm_replica import OtherWeightsError, Replica, ReplicaError, ReplicaTimeoutError

logger = logging.getLogger(__name__)

FIRST_WAIT_SECONDS = 0.5
MAX_WAIT_SECONDS = 30.0


class NoReplicaLeftError(ReplicaError):
    """Every server has failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One completion to be asked for."""

    prompt_token_ids: tuple[int, ...]
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One completion as a server gave it."""

    number: int
    """Of the job."""
    token_ids: list[int]
    log_probs: list[float]
    replica: Replica


def wait_seconds(num_failures: int) -> float:
    """How long to wait after a number of failures in a row: twice as long each time, up to `MAX_WAIT_SECONDS`."""
    return min(FIRST_WAIT_SECONDS * 2 ** (num_failures - 1), MAX_WAIT_SECONDS)


def no_replica_left(errors: Mapping[Replica, ReplicaError], num_missing: int) -> NoReplicaLeftError:
    """What to raise when every server has failed, with each one's reason."""
    reasons = "\n".join(f"  {replica.url}: {error}" for replica, error in errors.items())
    return NoReplicaLeftError(
        f"no vLLM server is left to give the {num_missing} completions that are missing:\n{reasons}\n"
        "Start them anew, or name others in rollout.vllm_server.urls, and repeat the command; if they were only slow, "
        "raise rollout.vllm_server.timeout_seconds"
    )


class Dispatch:
    """Threads that take jobs from one queue, several per server."""

    def __init__(self, jobs: Mapping[int, Job], fields: Mapping[str, Any], *, version: str, max_retries: int) -> None:
        """Asks nothing yet.

        Args:
            jobs: number → job.
            fields: of `paced_rl.generation.vllm_requests.sampling_fields`.
            version: name of the weights to sample from, which every server had when it was last asked.
            max_retries: failures in a row, one thread's, after which its server is given up, less one.
        """
        self._jobs = jobs
        self._fields = fields
        self._version = version
        self._max_retries = max_retries
        self._waiting: SimpleQueue[int | None] = SimpleQueue()
        self._events: SimpleQueue[Answer | Replica | None] = SimpleQueue()
        self._is_over = Event()
        self.lost: dict[Replica, ReplicaError] = {}
        """Servers that were given up, and why."""

    def answers(self, replicas: Sequence[Replica], *, max_concurrency: int) -> Iterator[Answer]:
        """One answer per job, as they come.

        Args:
            replicas: servers to ask; at least one.
            max_concurrency: requests at once, per server.

        Raises:
            NoReplicaLeftError: jobs are unanswered and every server was given up.
        """
        for number in self._jobs:
            self._waiting.put(number)
        # Daemons, because one that waits for a hanging server cannot be told to stop.
        threads = [
            Thread(target=self._work, args=(replica,), name=f"vllm {replica.url}", daemon=True)
            for replica in replicas
            for _ in range(min(max_concurrency, len(self._jobs)))
        ]
        for thread in threads:
            thread.start()
        num_missing = len(self._jobs)
        try:
            while num_missing:
                event = self._events.get()
                if isinstance(event, Answer):
                    num_missing -= 1
                    yield event
                elif isinstance(event, Replica):
                    if len(self.lost) == len(replicas):
                        raise no_replica_left(self.lost, num_missing)
                    logger.warning("vLLM server %s is given up, others take its work: %s", event.url, self.lost[event])
                else:
                    raise RuntimeError("a thread that asks vLLM servers failed; its traceback is above")
        finally:
            self._is_over.set()
            for _ in threads:
                self._waiting.put(None)

    def _work(self, replica: Replica) -> None:
        is_whole = False
        try:
            self._take_jobs(replica)
            is_whole = True
        finally:
            if not is_whole:  # the job in its hands is gone
                self._events.put(None)

    def _take_jobs(self, replica: Replica) -> None:
        """One thread's work, until there is none or its server is given up."""
        num_failures = 0
        while not self._is_over.is_set() and replica not in self.lost:
            number = None
            try:
                if num_failures:
                    # Before a job is taken. A server may have been started again meanwhile, with other weights.
                    replica.confirm_weights(self._version)
                number = self._waiting.get()
                if number is None:
                    return
                if replica in self.lost:  # given up while this thread waited
                    self._waiting.put(number)
                    return
                job = self._jobs[number]
                token_ids, log_probs = replica.complete(job.prompt_token_ids, job.seed, self._fields)
            except ReplicaError as error:
                num_failures += 1
                is_hopeless = isinstance(error, ReplicaTimeoutError | OtherWeightsError)
                is_lost = is_hopeless or num_failures > self._max_retries
                if is_lost and self.lost.setdefault(replica, error) is error:  # the first thread to say so
                    self._events.put(replica)
                if number is not None:  # last, so that no other thread of a lost server takes it
                    self._waiting.put(number)
                if is_lost:
                    return
                logger.debug("vLLM server %s failed and is asked again: %s", replica.url, error)
                self._is_over.wait(wait_seconds(num_failures))
            else:
                num_failures = 0
                self._events.put(Answer(number=number, token_ids=token_ids, log_probs=log_probs, replica=replica))
