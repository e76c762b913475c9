"""Runs the preflight checks: names and values when the project is loaded, the previous round before a run."""

import copy
import os
from collections.abc import Iterator, Mapping
from typing import Any

from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.io import CatalogProtocol
from kedro.pipeline import Pipeline

from paced_rl.stages import round_pipeline


class PreflightHook:
    """Stops a run that cannot work before it starts, with one readable message."""

    @hook_impl(tryfirst=True)
    def after_context_created(self, context: KedroContext) -> None:
        """Checks parameters; Kedro's own validation comes later and shows pydantic's dump.

        Raises:
            PreflightError: naming every parameter that is unknown or cannot be used.
        """
        from paced_rl import preflight

        loader = context.config_loader
        runtime_params = loader.runtime_params or {}
        if runtime_params:
            preflight.check_parameter_names(runtime_params, _known_parameters(loader, runtime_params))
        parameters = loader["parameters"]
        preflight.check_round(parameters.get("round", 1))
        preflight.check_experiment_name(parameters.get("experiment", "paced"))
        preflight.check_seed(parameters.get("seed", 0))
        policy = preflight.check_groups(parameters)["policy"]
        preflight.check_determinism(policy, os.environ)
        preflight.check_lora(policy)

    @hook_impl(tryfirst=True)
    def before_pipeline_run(self, run_params: Mapping[str, Any], pipeline: Pipeline, catalog: CatalogProtocol) -> None:
        """Checks that device and engine can be used, that the previous round has been run, and that the selector fits.

        Raises:
            PreflightError: naming the device or the engine, or the command that runs the previous round or the pipeline
                that fits.
        """
        if "params:policy" in pipeline.all_inputs():
            from paced_rl import preflight

            policy = preflight.check_groups({"policy": catalog["params:policy"].load()})["policy"]
            preflight.check_device(policy.device)  # type: ignore[attr-defined]
        if "params:rollout" in pipeline.all_inputs():
            from paced_rl import preflight

            rollout: Any = preflight.check_groups({"rollout": catalog["params:rollout"].load()})["rollout"]
            preflight.check_backend(rollout.backend)
            if rollout.backend == "vllm_server" and "params:policy" in pipeline.all_inputs():
                preflight.check_servers(rollout.vllm_server.urls, dtype=policy.dtype)  # type: ignore[attr-defined]
        selector = _selector(catalog)
        # The two nodes that differ between the pipelines of a round.
        readers = [node for node in pipeline.nodes if {"schedule", "round_summary"} & set(node.outputs)]
        if readers and selector:
            from paced_rl.hooks import preflight_rounds

            preflight_rounds.check_selector_fits(
                selector,
                is_measuring=any("measured_accuracies" in node.inputs for node in readers),
                env=run_params.get("env"),
                params=run_params.get("runtime_params"),
            )
        missing = sorted(_missing_state(pipeline, catalog))
        if missing:
            from paced_rl.hooks import preflight_rounds

            preflight_rounds.check_previous_round(
                missing=missing,
                round_number=catalog["params:round"].load(),
                experiment=catalog["params:experiment"].load(),
                pipeline=round_pipeline(selector),
                env=run_params.get("env"),
                params=run_params.get("runtime_params"),
            )


def _selector(catalog: CatalogProtocol) -> str:
    """`scheduling.selector` of the run; empty where there are no such parameters, as in somebody's own pipeline."""
    from paced_rl import preflight

    if "params:scheduling" not in catalog:
        return ""
    scheduling: Any = preflight.check_groups({"scheduling": catalog["params:scheduling"].load()})["scheduling"]
    return str(scheduling.selector)


def _known_parameters(loader: Any, runtime_params: Mapping[str, Any]) -> dict[str, Any]:
    """The package's parameters, and top-level ones that somebody added to a parameters file."""
    from paced_rl import preflight

    known = preflight.known_parameters()
    if set(runtime_params) <= set(known):
        return known
    files_only = copy.copy(loader)
    files_only.runtime_params = {}
    return {**dict.fromkeys(files_only["parameters"]), **known}


def _missing_state(pipeline: Pipeline, catalog: CatalogProtocol) -> Iterator[str]:
    """State of the previous round that the pipeline reads, does not itself write, and that is not on disk."""
    written = {name.partition("@")[0] for name in pipeline.all_outputs()}
    for name in {name for node in pipeline.nodes for name in node.inputs}:
        base, _, transcoding = name.partition("@")
        if base.startswith("previous_") and transcoding == "round" and name in catalog:
            # In round 1 the start stage of the same run writes it; later, what that stage writes is round 0 still.
            is_written = base in written and catalog["params:round"].load() == 1
            if not is_written and not catalog.exists(name):
                yield name
