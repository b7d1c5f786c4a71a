import json
import math
from dataclasses import replace

import pytest

from popmargin.errors import RunError
from popmargin.report import ArmResult, StudyResults
from popmargin.statistics.intervals import Interval


def test_json_round_trip_keeps_everything(study: StudyResults) -> None:
    # Numbers of the reference's interval are nan, which is unequal to itself: compare those as text.
    again = StudyResults.from_json(study.to_json())
    assert again.arms == study.arms
    assert replace(again, reference={}) == replace(study, reference={})
    assert again.to_json() == study.to_json()
    assert math.isnan(again.reference["win_rate_reference"].low)


def test_json_is_strict_although_numbers_are_not_finite() -> None:
    arm = ArmResult(
        "a", "dpo", "A", "ours", [0],
        metrics={"accuracy": Interval(0.5, math.nan, math.inf)},
        curves={"accuracy": [[0, 0.5, math.nan, math.nan]]},
        overhead={"train_seconds": math.nan},
        samples=[{"prompt": "p", "completion": "c", "reward": math.nan}],
    )  # fmt: skip
    text = StudyResults("t", [arm], {}, "a").to_json()
    json.loads(text, parse_constant=lambda constant: pytest.fail(f"not JSON: {constant}"))
    again = StudyResults.from_json(text).arms[0]
    assert math.isnan(again.metrics["accuracy"].high)
    assert math.isnan(again.curves["accuracy"][0][2])
    assert math.isnan(again.overhead["train_seconds"])
    assert math.isnan(again.samples[0]["reward"])


def test_save_and_load(study: StudyResults, tmp_path) -> None:
    path = tmp_path / "new" / "study.json"
    study.save(path)
    assert StudyResults.load(path).arms == study.arms
    assert [entry.name for entry in path.parent.iterdir()] == ["study.json"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tree: tree.update(titel="x"), "unknown field 'titel'. Did you mean 'title'"),
        (lambda tree: tree.pop("baseline"), "field 'baseline' is missing"),
        (lambda tree: tree["arms"][2].update(metric={}), "arm 2: unknown field 'metric'. Did you mean 'metrics'"),
        (lambda tree: tree["arms"][0].update(origin="mine"), "origin 'mine'"),
        (lambda tree: tree.update(format="other"), "not a popmargin study"),
        (lambda tree: tree["arms"][0].update(metrics={"accuracy": {"estimate": 1}}), "does not contain a study"),
        (lambda tree: tree["arms"][0].update(metrics=[1]), "does not contain a study"),
    ],
)
def test_a_file_that_does_not_fit_is_named(study: StudyResults, change, words: str) -> None:
    tree = json.loads(study.to_json())
    change(tree)
    with pytest.raises(RunError) as error:
        StudyResults.from_json(json.dumps(tree), where="study.json")
    assert words in str(error.value)


def test_unreadable_files(tmp_path) -> None:
    with pytest.raises(RunError, match="cannot be read"):
        StudyResults.load(tmp_path / "missing.json")
    (tmp_path / "half.json").write_text('{"format": ', encoding="utf-8")
    with pytest.raises(RunError, match=r"half\.json: not JSON"):
        StudyResults.load(tmp_path / "half.json")


def test_two_arms_of_one_name() -> None:
    arm = ArmResult("a", "dpo", "A", "ours", [0])
    with pytest.raises(RunError, match="Two arms of the study are called 'a'"):
        StudyResults("t", [arm, arm], {}, "a")
