"""Every suite accepts a valid table, and every rule of every suite refuses a table that breaks it."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from kedro.io import DataCatalog, DatasetError
from kedro.validation.exceptions import DataValidationError, ValidationConfigurationError
from table_examples import ROWS, example_table

from paced_rl.schemas import TABLES
from paced_rl.validation import ExpectationSuite

SUITES = Path(__file__).parents[1] / "conf" / "base" / "expectations"

# For each rule, in the suite's order: what to change in the last example row so that it breaks the rule; "empty" takes
# all rows away, "twice" repeats the last one.
BREAKS: dict[str, list[dict[str, Any] | str]] = {
    "prompts": ["empty", "twice", {"split": "dev"}, {"text": ""}, {"verifier": ""}],
    "prompt_embeddings": ["empty", "twice", {"split": "dev"}],
    "accuracy_estimates": ["twice", {"split": "validation"}, {"estimated_accuracy": 1.5}],
    "schedule": ["empty", "twice", {"reason": "luck"}, {"estimated_accuracy": -0.1}],
    "measured_accuracies": ["twice", {"num_correct": -1}, {"num_correct": 9}],
    "rollouts": ["twice", {"sample_index": 0}, {"num_tokens": 0}, {"finish_reason": "tired"}],
    "verdicts": ["twice", {"status": "maybe"}, {"reward": 0.5}, {"status": "right", "reward": None}],
    "training_batch": ["twice", {"origin": "stale"}, {"finish_reason": "tired"}, {"reward": 2.0}, {"staleness": -1}],
    "behaviour_log_probs": ["twice", {"max_log_prob_gap": -0.1}],
    "replay_buffer": ["twice", {"reward": 0.5}, {"age": -1}],
    "replay_audit": ["twice", {"state": "lost"}, {"age": 0}, {"expected_priority": 0.75}, {"log_z_shift": -1.0}],
    "training_metrics": [
        "twice",
        {"num_replayed": 9},
        {"gradient_norm": -1.0},
        {"learning_rate": -1.0},
        {"clip_fraction": 1.5},
        {"mean_importance_correction": -0.5},
        {"capped_correction_fraction": 1.5},
    ],
    "outcome_history": ["twice", {"reason": "luck"}, {"num_correct": 9}],
    "evaluation": ["twice", {"split": "dev"}, {"num_scored": 5}, {"num_correct": 5}, {"num_distinct_correct": 4}],
    "learning_curve": [
        "twice",
        {"validation_accuracy": -0.5},
        {"validation_accuracy_low": 0.5, "validation_accuracy_high": 0.25},
    ],
    "round_summary": ["twice", {"accuracy": 1.5}, {"informative_fraction": -0.5}],
    "timings": [{"name": ""}, {"seconds": -1.0}],
    "starter_corpus": ["empty", {"prompt": ""}, {"completion": ""}, {"kind": ""}],
    "starter_losses": [{"step": 0}, {"loss": -1.0}],
}


def _broken(table: str, change: dict[str, Any] | str) -> pa.Table:
    rows = [dict(row) for row in ROWS[table]]
    if change == "empty":
        rows = []
    elif change == "twice":
        rows.append(rows[-1])
    else:
        assert isinstance(change, dict)
        rows[-1].update(change)
    return example_table(table, rows)


def _rules(table: str) -> list[dict[str, Any]]:
    return json.loads((SUITES / f"{table}.json").read_text())["expectations"]


def _catalog(table: str, folder: Path) -> tuple[DataCatalog, Path]:
    path = folder / "experiment=paced" / "round=0002" / f"{table}.parquet"
    entry = {
        "type": "paced_rl.datasets.parquet_table.ParquetTable",
        "filepath": str(path),
        "schema": table,
        "validator": {
            "class": "paced_rl.validation.ExpectationSuite",
            "on": "save",
            "options": {"path": str(SUITES / f"{table}.json")},
        },
    }
    return DataCatalog.from_config({table: entry}), path


def test_every_table_has_a_suite_an_example_and_a_violation_per_rule() -> None:
    assert {path.stem for path in SUITES.glob("*.json")} == set(TABLES) == set(ROWS) == set(BREAKS)
    for table in TABLES:
        assert len(_rules(table)) == len(BREAKS[table]), table
        assert json.loads((SUITES / f"{table}.json").read_text())["name"] == table


@pytest.mark.parametrize("table", sorted(TABLES))
def test_a_valid_table_passes_unchanged_and_round_trips(table: str, tmp_path: Path) -> None:
    catalog, path = _catalog(table, tmp_path)
    frame = example_table(table).to_pandas()
    catalog.save(table, frame)
    loaded = catalog.load(table)
    assert path.is_file()
    assert loaded.pop("experiment").eq("paced").all()
    assert loaded.pop("round").eq(2).all()
    pd.testing.assert_frame_equal(loaded, frame)


@pytest.mark.parametrize(
    ("table", "index"), [(table, index) for table in sorted(BREAKS) for index in range(len(BREAKS[table]))]
)
def test_each_rule_refuses_what_breaks_it_and_nothing_reaches_the_disk(table: str, index: int, tmp_path: Path) -> None:
    rule = _rules(table)[index]
    catalog, path = _catalog(table, tmp_path)
    with pytest.raises(DataValidationError) as caught:
        catalog.save(table, _broken(table, BREAKS[table][index]).to_pandas())
    wanted = rule["type"].removeprefix("expect_").removeprefix("column_").replace("_", " ")
    limits = {value for key, value in rule["kwargs"].items() if isinstance(value, int | float)}
    hits = [failure for failure in caught.value.failures if failure.check and failure.check.startswith(wanted)]
    hits = [failure for failure in hits if failure.column == rule["kwargs"].get("column")]
    assert hits, str(caught.value)
    assert all(str(limit) in hits[0].message for limit in limits)
    assert not path.parent.exists()


@pytest.mark.parametrize("table", sorted(TABLES))
def test_the_verdict_is_that_of_great_expectations_on_its_own(table: str) -> None:
    import great_expectations as gx

    own_words = gx.ExpectationSuite(name="own", expectations=_rules(table))
    source = gx.get_context(mode="ephemeral").data_sources.add_pandas(f"own {table}").add_dataframe_asset("table")
    whole = source.add_batch_definition_whole_dataframe("whole")
    rows = ROWS[table]
    tables = [example_table(table, rows * n) for n in (0, 1, 2)] + [_broken(table, change) for change in BREAKS[table]]
    verdicts = []
    for data in tables:
        frame = data.to_pandas()
        try:
            ExpectationSuite(str(SUITES / f"{table}.json")).validate(frame)
            verdicts.append(True)
        except DataValidationError:
            verdicts.append(False)
        # The verdict alone: a list of the rows that break a rule takes time, and nobody reads it here.
        result = whole.get_batch({"dataframe": frame}).validate(own_words, result_format="BOOLEAN_ONLY")
        assert result.success == verdicts[-1]
    assert set(verdicts) == {True, False}


def test_an_edited_suite_counts_in_the_same_process(tmp_path: Path) -> None:
    path = tmp_path / "rollouts.json"
    suite = json.loads((SUITES / "rollouts.json").read_text())
    path.write_text(json.dumps(suite))
    frame = example_table("rollouts").to_pandas()
    ExpectationSuite(str(path)).validate(frame)
    suite["expectations"].append({"type": "expect_table_row_count_to_equal", "kwargs": {"value": 99}})
    path.write_text(json.dumps(suite))
    with pytest.raises(DataValidationError, match="row count"):
        ExpectationSuite(str(path)).validate(frame)


def test_a_failure_prints_table_rule_count_and_ids(tmp_path: Path) -> None:
    catalog, _ = _catalog("verdicts", tmp_path)
    rows = [dict(row) for row in ROWS["verdicts"]]
    rows[1]["reward"] = 0.5
    rows[2]["reward"] = 7.0
    with pytest.raises(DataValidationError) as caught:
        catalog.save("verdicts", example_table("verdicts", rows))
    printed = str(caught.value)
    assert "Validation failed for dataset 'verdicts' on save" in printed
    assert (
        "reward: values to be in set (value_set=[0.0, 1.0]) in table verdicts, rows by rollout_id"
        " — 2 cases (e.g. r1: 0.5, r2: 7.0)" in printed
    )


def test_a_table_without_ids_names_row_numbers() -> None:
    rows = [dict(row) for row in ROWS["starter_corpus"]] * 3
    rows[2] = rows[2] | {"prompt": ""}
    with pytest.raises(DataValidationError, match=r"rows by row — 1 case \(e\.g\. 2\)"):
        ExpectationSuite(str(SUITES / "starter_corpus.json")).validate(example_table("starter_corpus", rows))


def test_a_bad_save_keeps_the_good_file(tmp_path: Path) -> None:
    catalog, path = _catalog("rollouts", tmp_path)
    catalog.save("rollouts", example_table("rollouts"))
    before = path.read_bytes()
    with pytest.raises(DataValidationError):
        catalog.save("rollouts", _broken("rollouts", {"num_tokens": 0}))
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_frame_with_repeated_index_labels_is_judged_by_its_rows() -> None:
    frame = example_table("rollouts").to_pandas()
    frame.index = pd.Index([7, 7])
    validated = ExpectationSuite(str(SUITES / "rollouts.json")).validate(frame)
    assert validated is frame
    with pytest.raises(DataValidationError, match="r1"):
        ExpectationSuite(str(SUITES / "rollouts.json")).validate(frame.assign(num_tokens=[3, 0]))


def test_a_stream_is_checked_batch_by_batch_on_its_way_to_the_disk(tmp_path: Path) -> None:
    catalog, path = _catalog("prompt_embeddings", tmp_path)
    good = example_table("prompt_embeddings").to_batches()[0]
    bad = _broken("prompt_embeddings", {"split": "dev"}).to_batches()[0]
    taken: list[int] = []

    def batches() -> Any:
        for index, batch in enumerate((good, bad, good)):
            taken.append(index)
            yield batch

    stream = ExpectationSuite(str(SUITES / "prompt_embeddings.json")).validate(
        pa.RecordBatchReader.from_batches(good.schema, batches())
    )
    assert taken == []
    assert stream.read_next_batch().equals(good)
    with pytest.raises(DataValidationError, match=r"split.*p1: dev"):
        stream.read_next_batch()
    taken.clear()
    with pytest.raises(
        DatasetError, match=r"split.*p1: dev"
    ):  # the catalog wraps what a dataset raises while it writes
        catalog.save("prompt_embeddings", pa.RecordBatchReader.from_batches(good.schema, batches()))
    assert taken == [0, 1]
    assert list(path.parent.iterdir()) == []
    catalog.save("prompt_embeddings", pa.RecordBatchReader.from_batches(good.schema, [good, good]))
    assert len(catalog.load("prompt_embeddings")) == 4


def test_a_missing_column_and_a_missing_suite_are_named() -> None:
    frame = example_table("rollouts").to_pandas().drop(columns=["num_tokens"])
    with pytest.raises(DataValidationError, match="num_tokens: table rollouts has no such column"):
        ExpectationSuite(str(SUITES / "rollouts.json")).validate(frame)
    with pytest.raises(ValidationConfigurationError, match=r"there is no suite .*nowhere\.json"):
        ExpectationSuite("nowhere.json").validate(frame)


def test_a_rule_that_cannot_be_computed_is_a_failure_and_not_a_pass() -> None:
    frame = example_table("rollouts").to_pandas().assign(num_tokens=["many", "few"])
    with pytest.raises(DataValidationError, match=r"num_tokens: values to be between .*could not be checked"):
        ExpectationSuite(str(SUITES / "rollouts.json")).validate(frame)
