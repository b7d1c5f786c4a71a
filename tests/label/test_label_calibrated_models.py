"""Confidences of models as chances that people agree: the map, whom it applies to, and how it is stored."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy.optimize import minimize
from tests.label.test_label_judge_calibration import judged, said, simulated
from tests.label.test_label_quality import table

from popmargin.cli.main import main
from popmargin.errors import DataError
from popmargin.label.export.calibrated_models import calibrate_models, with_calibration
from popmargin.label.export.preferences import preferences_of
from popmargin.label.quality.judge_calibration import judge_calibrations
from popmargin.label.store.label_store import LabelStore
from popmargin.statistics.platt import RIDGE, cross_fitted, fit_platt


def test_the_map_is_the_minimum_that_a_general_optimiser_finds() -> None:
    rng = np.random.default_rng(0)
    sure, right = rng.uniform(0.5, 1.0, 80), rng.choice([0.0, 0.5, 1.0], 80)
    x = np.log(np.clip(sure, 0.001, 0.999) / (1 - np.clip(sure, 0.001, 0.999)))

    def loss(at: Any) -> Any:
        p = 1 / (1 + np.exp(-(at[0] + at[1] * x)))
        likelihood = (right * np.log(p) + (1 - right) * np.log(1 - p)).sum()
        return -likelihood + RIDGE / 2 * (at[0] ** 2 + (at[1] - 1) ** 2)

    found, best = fit_platt(sure, right), minimize(loss, [0.0, 1.0], tol=1e-12).x
    assert (found.intercept, found.slope) == pytest.approx(tuple(best), abs=1e-5)
    across = cross_fitted(sure, right, folds=10)
    others = np.arange(80) % 10 != 3
    assert across[13] == pytest.approx(float(fit_platt(sure[others], right[others])(sure[13])), abs=1e-12)
    constant = fit_platt(np.ones(200), np.r_[np.ones(150), np.zeros(50)])  # a judge without probabilities
    assert float(constant(1.0)) == pytest.approx(0.75, abs=0.01)


def test_a_judge_that_is_too_sure_is_mended_and_the_report_says_so() -> None:
    """The judge says people's own probability to the third power in logits; the map finds the third root."""
    rows = simulated(3.0, items=800)
    [report] = judge_calibrations([row for row in table(*rows).to_pylist() if row["repeat_of"] is None])
    assert report.slope == pytest.approx(1 / 3, abs=0.09) and abs(report.intercept) < 0.25
    assert report.error.low > 0.08 and report.after.estimate < 0.04
    [few] = judge_calibrations(table(*rows[:58]).to_pylist())
    assert few.items == 29 and np.isnan(few.after.estimate) and np.isnan(few.slope)


def test_a_vote_does_not_calibrate_its_own_item_and_people_and_ties_stay() -> None:
    rows = [said(n, "first" if n % 4 else "second") for n in range(40)]
    rows += [judged(n, "first", 0.95) for n in range(41)] + [judged(50, "tie", 0.5), judged(51, "second", 0.6)]
    labels = table(*rows)
    found = calibrate_models(labels)["judge:x"]
    assert (found.items, found.people) == (40, 40)
    changed = with_calibration(labels, {"judge:x": found}).to_pylist()
    assert changed[:40] == labels.to_pylist()[:40] and changed[81] == labels.to_pylist()[81]
    assert changed[80]["confidence"] == pytest.approx(float(found.overall(0.95)))  # nobody else decided item 40
    assert len({round(found.chances[n], 9) for n in range(10)}) > 1, "other folds, other maps"
    flipped = [
        row | {"verdict": "second"} if row["annotator"] != "judge:x" and row["item"] == 7 else row for row in rows
    ]
    again = calibrate_models(table(*flipped))["judge:x"]
    assert again.chances[7] == found.chances[7] and again.chances[8] != found.chances[8]


def test_a_side_that_people_contradict_is_turned_round() -> None:
    rows = [said(n, "second") for n in range(40)] + [judged(n, "first", 0.9) for n in range(41)]
    changed = with_calibration(table(*rows), calibrate_models(table(*rows))).to_pylist()[-1]
    assert changed["verdict"] == "second" and 0.5 < changed["confidence"] < 1.0


def test_too_few_items_are_refused_with_the_number() -> None:
    rows = [said(n, "first") for n in range(20)] + [judged(n, "first", 0.9) for n in range(20)]
    with pytest.raises(DataError, match=r"judge:x prefers a side on 20 items .* needs 30\. Let people label 10 more"):
        calibrate_models(table(*rows))
    with pytest.raises(DataError, match="no labels of models"):
        calibrate_models(table(said(0, "first")))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabelStore]:
    """60 preferences; a judge has said 0.95 on each, and a person has decided 40 of them, agreeing in 30."""
    folder = tmp_path_factory.mktemp("calibrated")
    rows = [{"id": f"p{n}", "prompt": f"{n}?", "chosen": "a", "rejected": "b"} for n in range(60)]
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    votes = [{"id": f"p{n}", "annotator": "ann", "verdict": "chosen" if n % 4 else "rejected"} for n in range(40)]
    (folder / "votes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in votes))
    db = str(folder / "labels.db")
    assert main(["label", "import", str(folder / "data.jsonl"), "--db", db, "--kind", "preference"]) == 0
    assert main(["label", "import-labels", str(folder / "votes.jsonl"), "--db", db]) == 0
    with LabelStore.open(db) as opened:
        project = opened.project("default")
        who = opened.add_annotator(project.id, "judge", kind="judge")[0].id
        items = [row["item"] for batch in opened.items(project.id) for row in batch.to_pylist()]
        count = len(items)
        opened.record_many(who, pa.table({
            "item": pa.array(items, pa.int64()), "verdict": ["first"] * count, "confidence": [0.95] * count,
            "seconds": pa.nulls(count, pa.float64()), "note": [""] * count, "request": [f"r-{n:08}" for n in items],
            "swap_pairs": [False] * count, "swap_first": [False] * count, "swap_second": [False] * count,
        }))  # fmt: skip
        yield opened


def test_an_export_has_the_map_beside_it_and_people_still_decide(
    store: LabelStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project = store.project("default")
    raw = preferences_of(store, project)
    assert sorted(set(np.round(raw.soft_label, 3))) == [0.95, 1.0]
    out, words = tmp_path / "out.jsonl", ["label", "export", "--db", store.name, "--as", "preferences", "--calibrate"]
    assert main([*words, "--out", str(out)]) == 0
    assert "confidence of judge calibrated by people on 40 items" in capsys.readouterr().out
    [kept] = json.loads((tmp_path / "out.jsonl.calibration.json").read_text())
    assert (kept["model"], kept["items"]) == ("judge", 40) and kept["people"] == 40
    before, after = (kept[f"calibration_error_{when}"]["estimate"] for when in ("before", "after"))
    assert before > 0.15 > 0.1 > after
    rows = {row["id"]: row for row in map(json.loads, out.read_text().splitlines())}
    x = np.log(0.95 / 0.05)
    expected = 1 / (1 + np.exp(-(kept["intercept"] + kept["slope"] * x)))
    assert expected == pytest.approx(0.75, abs=0.02) and rows["p50"]["soft_label"] == pytest.approx(expected)
    assert rows["p4"]["chosen"] == "b" and rows["p5"]["soft_label"] == 1.0  # people's votes, untouched
    assert main([*words, "--out", str(out)]) == 2 and "exists" in capsys.readouterr().err
    assert main([*words[:-3], "--as", "dataset", "--calibrate", "--out", str(tmp_path / "set")]) == 0
    assert "logit(p) = " in (tmp_path / "set" / "README.md").read_text()
    for more, message in (
        (["--pool", "dawid-skene"], "which --pool does not read"),
        (["--votes", "whole"], "which --votes whole does not read"),
    ):
        assert main([*words, *more, "--out", str(tmp_path / "no.jsonl")]) == 2
        assert message in capsys.readouterr().err
    assert main([*words[:-3], "--as", "labels", "--calibrate", "--out", str(tmp_path / "no.jsonl")]) == 2
    assert "--calibrate is only for preferences" in capsys.readouterr().err
    assert main([*words, "--without", "ann", "--out", str(tmp_path / "no.jsonl")]) == 2
    assert "judge prefers a side on 0 items" in capsys.readouterr().err
