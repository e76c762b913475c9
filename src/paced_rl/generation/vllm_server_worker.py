"""What runs inside vLLM's workers to take new weights, in a server that was started with
`--worker-extension-cls paced_rl.generation.vllm_server_worker.PolicyReload` and in the offline engine.

vLLM is at hand wherever this runs. Of the project nothing else is needed: on a server's machine its source may simply
lie on the PYTHONPATH.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any

NOT_COMPARED = {"_name_or_path", "_commit_hash", "dtype", "transformers_version"}
"""Of two configurations; they may differ between versions of one model."""


class PolicyReload:
    """Becomes a base class of vLLM's worker, whose methods it calls; `POST /collective_rpc` calls `reload_policy`."""

    model_config: Any
    model_runner: Any
    reload_weights: Any

    def reload_policy(self, weights_path: str) -> None:
        """Replaces the weights by those of a folder, in every form in which the engine holds them.

        On a CPU, vLLM multiplies float32 by a packed copy of each matrix. Its own `reload_weights` does not pack an
        output layer again that is tied to the embedding, and the engine would go on with the old one without a word
        (vLLM 0.32.0).

        Args:
            weights_path: folder in Hugging Face format, as the worker's machine sees it.

        Raises:
            FileNotFoundError: the worker's machine sees no such folder.
            ValueError: the folder holds another model. Both are found out before any weight is touched, since an engine
                in which a reload has failed half-way cannot be used again.
        """
        if not (Path(weights_path) / "config.json").is_file():
            raise FileNotFoundError(f"{weights_path} is no policy's folder on the machine of this vLLM engine")
        old, new = _configuration(self.model_config.model), _configuration(weights_path)
        changed = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
        if changed:
            raise ValueError(
                f"the policy in {weights_path} is another model, by {', '.join(changed)} of its config.json"
            )
        self.reload_weights(weights_path=weights_path)

        from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm
        from vllm.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding
        from vllm.platforms import current_platform

        if current_platform.is_cpu():
            for module in self.model_runner.get_model().modules():
                if isinstance(module, VocabParallelEmbedding):
                    dispatch_cpu_unquantized_gemm(module, remove_weight=False)


@lru_cache(maxsize=2)  # of the loaded policy, whose folder may be gone by now, and of the next one
def _configuration(folder: str) -> dict[str, Any]:
    from vllm.transformers_utils.config import get_config

    config = get_config(folder, trust_remote_code=False).to_dict()
    return {name: value for name, value in config.items() if name not in NOT_COMPARED}
