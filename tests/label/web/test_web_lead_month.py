"""A lead's month over the API, short: what the report says of it is computed a second time by the benchmark."""

import math
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.slow
def test_every_figure_of_a_month_is_right(
    tmp_path: Path, model_path: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from lead_month import run

    code = run(tmp_path / "month", rows=22, more=8, seed=0, base=model_path)
    said = capsys.readouterr().out
    assert code == 0 and "DIFFERS" not in said, said
    figures = (
        "versions.2.agreement.preference.alpha", "adjudications.majority", "without.agreement.preference.alpha.low",
        "agreement.preference.judges.judge.kappa", "drift.agreement", "criteria.good.alpha", "pooled.r0",
        "calibration.3 models pooled.confidence", "calibration.sure.after", "calibrated.r0", "drift.seconds.low",
        "annotators.zack.kappa.low", "without.drift.blocks.0.seconds", "trained rows",
    )  # fmt: skip
    for figure in figures:
        assert f"\n{figure} " in said


def test_a_number_that_is_not_computed_again_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a new figure of the report cannot be forgotten; and none is computed that the report lacks."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from lead_month_compare import beside, numbers

    share = {"estimate": 0.5, "low": None, "high": 1}
    report = {
        "labels": 3,
        "by": [{"name": "anna", "ok": True, "share": share}, {"name": "ben"}],
        "curve": [{"at": 2.0}],
    }
    found = numbers(report)
    assert list(found) == ["labels", "by.anna.share", "by.anna.share.low", "by.anna.share.high", "curve.0.at"]
    assert math.isnan(found["by.anna.share.low"])
    table = beside(found, {"labels": 3.0, "gone": 1.0})
    assert [name for name, said, value in table if said != value] == [*list(found)[1:], "gone"]
