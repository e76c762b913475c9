"""Sampling completions: one protocol, and the backends that follow it."""

from paced_rl.generation.protocol import Generator

__all__ = ["Generator", "get_generator"]


def get_generator(backend: str, *, device: str, dtype: str, batch_size: int) -> Generator:
    """The generator of the parameters `rollout.backend`, `policy.device`, `policy.dtype` and `rollout.batch_size`.

    Raises:
        ValueError: there is no such backend.
    """
    if backend == "transformers":
        # Here and not above: torch and transformers take seconds, and whoever only names a Generator need not wait.
        from paced_rl.generation.transformers_backend import TransformersGenerator

        return TransformersGenerator(device=device, dtype=dtype, batch_size=batch_size)
    raise ValueError(f"unknown generation backend {backend!r}; set rollout.backend to one of: transformers")
