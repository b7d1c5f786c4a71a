"""A lead's month over the API, short: what the report says of it is computed a second time by the benchmark."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.slow
def test_every_figure_of_a_month_is_right(
    tmp_path: Path, model_path: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from lead_month import run

    code = run(tmp_path / "month", rows=16, more=4, seed=0, base=model_path)
    said = capsys.readouterr().out
    assert code == 0 and "DIFFERS" not in said, said
    for figure in ("versions.2.alpha", "adjudications.majority", "without.agreement.preference.alpha.low",
                   "agreement.preference.judges.judge.kappa", "drift.agreement", "criteria.good.alpha", "pooled.r0",
                   "calibration.2 models pooled.confidence", "annotators.zack.left", "trained rows"):  # fmt: skip
        assert f"\n{figure} " in said
