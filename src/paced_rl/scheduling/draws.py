"""What a round draws whatever the estimates: its audit slice, its candidates, its part of the uniform stream."""

import numpy as np
from jaxtyping import Int

from paced_rl.scheduling.selectors import uniform_positions
from paced_rl.seeds import derive_generator


def audit_slice(
    num_prompts_total: int, *, num_prompts: int, audit_fraction: float, round_number: int, experiment_seed: int
) -> Int[np.ndarray, " num_audit"]:
    """The round's audit slice: `round(num_prompts · audit_fraction)` prompts of a stream of its own, halves to even.

    Every prompt is in it once per ⌈N / slice⌉ rounds.
    """
    num_audit = round(num_prompts * audit_fraction)
    return uniform_positions(
        num_prompts_total,
        experiment_seed=experiment_seed,
        stream="audit",
        start=(round_number - 1) * num_audit,
        count=num_audit,
    )


def candidates(
    num_prompts_total: int,
    audit: Int[np.ndarray, " num_audit"],
    *,
    candidate_pool_size: int,
    round_number: int,
    experiment_seed: int,
) -> Int[np.ndarray, " num_candidates"]:
    """The round's uniform candidates without the audit slice, in ascending order, so that ties go by lower index."""
    is_candidate = np.ones(num_prompts_total, dtype=bool)
    if 0 < candidate_pool_size < num_prompts_total:
        generator = derive_generator(experiment_seed, "candidates", round_number)
        pool = generator.choice(num_prompts_total, size=candidate_pool_size, replace=False, shuffle=False)
        is_candidate[:] = False
        is_candidate[pool] = True
    is_candidate[audit] = False
    return np.flatnonzero(is_candidate)


def candidates_to_measure(
    num_prompts_total: int,
    *,
    num_prompts: int,
    candidate_pool_size: int,
    audit_fraction: float,
    warm_up_rounds: int,
    round_number: int,
    experiment_seed: int,
) -> Int[np.ndarray, " num_candidates"]:
    """What `oracle` chooses among in this round and must know the accuracy of; nothing during the warm-up."""
    if round_number <= warm_up_rounds:
        return np.empty(0, dtype=np.int64)
    audit = audit_slice(
        num_prompts_total,
        num_prompts=num_prompts,
        audit_fraction=audit_fraction,
        round_number=round_number,
        experiment_seed=experiment_seed,
    )
    return candidates(
        num_prompts_total,
        audit,
        candidate_pool_size=candidate_pool_size,
        round_number=round_number,
        experiment_seed=experiment_seed,
    )


def uniform_besides(
    audit: Int[np.ndarray, " num_audit"], num_prompts_total: int, *, count: int, round_number: int, experiment_seed: int
) -> Int[np.ndarray, " count"]:
    """The round's part of the epoch-aware stream, prompts of the audit slice replaced by others drawn uniformly.

    Rounds that draw by one count draw every prompt once per epoch. A round that needs fewer takes the first of them.
    """
    drawn = uniform_positions(
        num_prompts_total,
        experiment_seed=experiment_seed,
        stream="uniform",
        start=(round_number - 1) * count,
        count=count,
    )
    is_repeat = np.isin(drawn, audit)
    if is_repeat.any():
        is_left = np.ones(num_prompts_total, dtype=bool)
        is_left[audit] = False
        is_left[drawn] = False
        generator = derive_generator(experiment_seed, "substitutes", round_number)
        drawn = drawn.copy()
        drawn[is_repeat] = generator.choice(np.flatnonzero(is_left), size=int(is_repeat.sum()), replace=False)
    return drawn
