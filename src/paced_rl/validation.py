"""The rules of one table as a Great Expectations suite, checked before the table is written.

Bound in the catalog:

    rollouts:
      type: paced_rl.datasets.parquet_table.ParquetTable
      validator:
        class: paced_rl.validation.ExpectationSuite
        on: save
        options: {path: conf/base/expectations/rollouts.json}

A suite holds what a schema cannot say (unique ids, allowed values, ranges, one column against another); columns, types,
nulls and finite floats are the schema's, see `paced_rl.datasets.table_contract`.
"""

import functools
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
from kedro.validation.exceptions import CheckFailure, DataValidationError, ValidationConfigurationError

if TYPE_CHECKING:
    import great_expectations as gx
    from great_expectations.core import ExpectationValidationResult
    from great_expectations.core.batch_definition import BatchDefinition
    from great_expectations.expectations.expectation import Expectation
    from great_expectations.validator.metric_configuration import MetricConfigurationID
    from great_expectations.validator.validation_graph import MetricEdge

ID_COLUMNS = ("rollout_id", "prompt_id", "optimizer_step", "curve_round", "name")
"""Columns whose values tell a reader which row is meant; the first one that a table has is used."""

NUM_EXAMPLES = 5
"""Rows that a failure names; Kedro prints no more."""

_ROW_NUMBER = "row"


class ExpectationSuite:
    """A validator for the catalog's `validator:` key."""

    def __init__(self, path: str) -> None:
        """
        Args:
            path: a suite in Great Expectations' JSON form (`name`, `expectations`), named like its table.
        """
        self._path = Path(path)
        self._table = self._path.stem

    def validate(self, data: pd.DataFrame | pa.Table | pa.RecordBatchReader) -> Any:
        """Returns the data unchanged when it keeps every rule.

        A reader is not consumed: it comes back as a reader that checks each batch on its way to the disk, where the
        dataset drops the whole file when one fails. Rules over many rows (uniqueness, row counts) then hold within
        each batch and not across batches, since no more than one batch is ever in memory.

        Raises:
            DataValidationError: names table, rule, number of violating rows and the ids of some.
            ValidationConfigurationError: there is no such suite.
        """
        if isinstance(data, pa.RecordBatchReader):
            return pa.RecordBatchReader.from_batches(data.schema, self._checked_batches(data))
        self._check(data)
        return data

    def _checked_batches(self, reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        for batch in reader:
            self._check(pa.Table.from_batches([batch]))
            yield batch

    def _check(self, data: pd.DataFrame | pa.Table) -> None:
        plan = _plan(self._suite_text())
        frame, id_column = _select(data, plan.columns, table=self._table)
        if frame.empty and plan.is_about_rows:
            return
        if _keeps_every_rule(frame, plan):
            return
        # Only now what a reader needs: counts, values and rows, which take Great Expectations several times as long.
        batch = _batch_definition().get_batch({"dataframe": frame})
        report = batch.validate(
            plan.suite, result_format={"result_format": "COMPLETE", "unexpected_index_column_names": [id_column]}
        )
        if report.success:  # the public answer counts, should a later version need more than the plan holds
            return
        failures = [_failure(result, self._table, id_column) for result in report.results if not result.success]
        raise DataValidationError(f"table {self._table} breaks {len(failures)} of its rules", failures=failures)

    def _suite_text(self) -> str:
        try:
            return self._path.read_text(encoding="utf-8")
        except FileNotFoundError as error:
            raise ValidationConfigurationError(
                f"there is no suite {self._path}; write one, or take `validator:` off the dataset"
            ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """What Great Expectations works out about a suite before it looks at a row.

    It is the same for every table of the suite, and takes three times as long as looking at the rows of a round.
    """

    suite: "gx.ExpectationSuite"
    columns: frozenset[str]
    """Columns that the rules are about."""
    is_about_rows: bool
    """Whether every rule is about each row, so that a table without rows keeps them all."""
    edges: "tuple[MetricEdge, ...]"
    """The metrics to compute, each with one that it needs first."""
    rules: "tuple[tuple[Expectation, Mapping[str, MetricConfigurationID]], ...]"
    """Each rule with the metrics that it is judged by: name → identity."""


_BATCH_ID = "table"
_YES_OR_NO = {"result_format": "BOOLEAN_ONLY"}


@functools.cache
def _plan(suite_text: str) -> _Plan:
    """The plan of a suite in JSON, once per process: what `batch.validate` does first, in the same calls."""
    _forbid_telemetry()
    import great_expectations as gx
    from great_expectations.execution_engine.pandas_execution_engine import PandasExecutionEngine
    from great_expectations.expectations.expectation import (
        ColumnMapExpectation,
        ColumnPairMapExpectation,
        MulticolumnMapExpectation,
    )
    from great_expectations.validator.validation_graph import ValidationGraph

    suite = gx.ExpectationSuite(**json.loads(suite_text))
    engine = PandasExecutionEngine()
    graph = ValidationGraph(execution_engine=engine)
    rules = []
    for configuration in suite.expectation_configurations:
        configuration.kwargs["batch_id"] = _BATCH_ID
        rule = configuration.to_domain_obj()
        needed = rule.get_validation_dependencies(execution_engine=engine, runtime_configuration=_YES_OR_NO)
        for metric in needed.get_metric_configurations():
            graph.build_metric_dependency_graph(metric, _YES_OR_NO)
        rules.append((rule, {name: metric.id for name, metric in needed.metric_configurations.items()}))
    of_rows = (ColumnMapExpectation, ColumnPairMapExpectation, MulticolumnMapExpectation)
    return _Plan(
        suite=suite,
        columns=_columns_of(suite),
        is_about_rows=all(isinstance(rule, of_rows) for rule, _ in rules),
        edges=tuple(graph.edges),
        rules=tuple(rules),
    )


def _keeps_every_rule(frame: pd.DataFrame, plan: _Plan) -> bool:
    """The plain yes or no of Great Expectations; no also where a rule cannot be computed."""
    from great_expectations.execution_engine.pandas_execution_engine import PandasExecutionEngine
    from great_expectations.validator.validation_graph import ValidationGraph

    engine = PandasExecutionEngine()  # one per table, since tables are saved from several threads under `--async`
    engine.load_batch_data(_BATCH_ID, frame)
    graph = ValidationGraph(execution_engine=engine, edges=list(plan.edges))
    metrics, aborted = graph.resolve(_YES_OR_NO, show_progress_bars=False)
    if aborted or any(not metrics.keys() >= set(ids.values()) for _, ids in plan.rules):
        return False
    return all(
        # The method that every rule of Great Expectations implements. The public `metrics_validate` around it plans the
        # rule once more.
        rule._validate(
            {name: metrics[id_] for name, id_ in ids.items()}, runtime_configuration=_YES_OR_NO, execution_engine=engine
        )["success"]
        for rule, ids in plan.rules
    )


def _forbid_telemetry() -> None:
    """Great Expectations reads this when it is imported; a user's own setting wins."""
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")


@functools.cache
def _batch_definition() -> "BatchDefinition":
    """The one context of this process; building another for every table would cost as much as the checks."""
    _forbid_telemetry()
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    asset = context.data_sources.add_pandas("tables").add_dataframe_asset("table")
    return asset.add_batch_definition_whole_dataframe("whole table")


def _columns_of(suite: "gx.ExpectationSuite") -> frozenset[str]:
    """Columns that the suite's rules are about."""
    columns: set[str] = set()
    for configuration in suite.expectation_configurations:
        kwargs = configuration.kwargs
        columns |= {kwargs[key] for key in ("column", "column_A", "column_B") if key in kwargs}
        columns |= set(kwargs.get("column_list", ()))
    return frozenset(columns)


def _select(data: pd.DataFrame | pa.Table, columns: frozenset[str], *, table: str) -> tuple[pd.DataFrame, str]:
    """The columns that matter, with one that names rows; long list columns are never converted.

    Raises:
        DataValidationError: the table lacks a column that a rule is about.
    """
    names = list(data.columns) if isinstance(data, pd.DataFrame) else data.column_names
    missing = sorted(columns - set(names))
    if missing:
        failures = [CheckFailure(f"table {table} has no such column", column=name) for name in missing]
        raise DataValidationError(f"table {table} lacks columns {missing}", failures=failures)
    id_column = next((name for name in ID_COLUMNS if name in names), _ROW_NUMBER)
    wanted = [name for name in names if name in columns or name == id_column]
    frame = data.select(wanted).to_pandas() if isinstance(data, pa.Table) else data[wanted].reset_index(drop=True)
    if id_column == _ROW_NUMBER:
        frame = frame.assign(**{_ROW_NUMBER: range(len(frame))})
    return frame, id_column


def _failure(result: "ExpectationValidationResult", table: str, id_column: str) -> CheckFailure:
    """One broken rule in Kedro's form, which prints column, check, count and examples."""
    configuration = result.expectation_config
    if configuration is None:
        raise ValueError(f"Great Expectations returned a result without its rule for table {table}")
    kwargs = {key: value for key, value in configuration.kwargs.items() if key != "batch_id"}
    column = kwargs.pop("column", None)
    rule = configuration.type.removeprefix("expect_").removeprefix("column_").replace("_", " ")
    limits = ", ".join(f"{key}={value}" for key, value in kwargs.items())
    check = f"{rule} ({limits})" if limits else rule
    report = result.result
    error = _exception_message(result.exception_info)
    examples: list[str] = []
    if error:
        check = f"{check} could not be checked in table {table}: {error}"
    elif "observed_value" in report:
        check = f"{check} in table {table}"
        examples = [f"observed {report['observed_value']}"]
    else:
        check = f"{check} in table {table}, rows by {id_column}"
        # An example is "id: value"; Kedro cuts it after 40 characters, so the id comes first.
        examples = [_example(row, id_column) for row in report.get("unexpected_index_list", [])[:NUM_EXAMPLES]]
    return CheckFailure(
        message=check,
        check=check,
        column=column,
        failure_count=report.get("unexpected_count", 1),
        failure_examples=examples,
    )


def _example(row: dict[str, Any], id_column: str) -> str:
    values = ", ".join(str(value) for name, value in row.items() if name != id_column)
    return f"{row[id_column]}: {values}" if values else str(row[id_column])


def _exception_message(info: dict[str, Any] | None) -> str | None:
    """The error of a rule that could not be computed; Great Expectations nests it under the metric's name."""
    if not info:
        return None
    nested = info if "exception_message" in info else next(iter(info.values()))
    return nested.get("exception_message")
