"""A whole study on the tiny model: train, evaluate, compare, report; and what happens the second time."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from popmargin.cli.main import main
from popmargin.errors import DataError, RunError
from popmargin.report.results import ArmResult, StudyResults
from popmargin.study.compare import compare
from popmargin.study.config import StudyConfig
from popmargin.study.gather import collect, group_runs
from popmargin.study.power_of_study import plan_study
from popmargin.study.standard import keep_possible
from popmargin.training.run_directory import RunDirectory

MakeStudy = Callable[..., StudyConfig]


def snapshot(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in (folder / "runs").rglob("*") if path.is_file()}


def test_a_study_and_its_second_call(tmp_path: Path, make_study: MakeStudy, capsys: pytest.CaptureFixture[str]) -> None:
    study = make_study()
    results, report = compare(study)
    assert [arm.name for arm in results.arms] == ["dpo", "pop"] and results.baseline == "dpo"
    pop = results.arms[1]
    for metric in ("accuracy", "pop_accuracy", "win_rate_reference", "mean_reward", "kl_per_token", "spearman"):
        assert metric in pop.metrics, metric
    assert {"accuracy", "mean_reward"} <= pop.differences.keys() and not results.arms[0].differences
    assert [point[0] for point in pop.curves["accuracy"]] == [2, 3]  # what was measured, and no step 0
    assert all(len(point) == 4 for points in pop.curves.values() for point in points) and "kl_per_token" in pop.curves
    assert "target_margin_mean" in pop.training and pop.overhead["time_ratio"] > 0 and pop.samples
    assert pop.seeds == [0, 1] and any("2 training seeds" in line for line in results.reading)
    page = report.read_text()
    assert "DPO-PoP" in page and "<svg" in page
    assert repr(StudyResults.load(report.with_name("results.json"))) == repr(results)  # nan is not nan
    tables = Path(__file__).parents[2] / "docs" / "studies" / "tables.py"
    printed = subprocess.run([sys.executable, tables, report.parent], capture_output=True, text=True, check=True).stdout
    rows = [line.split(" | ") for line in printed.splitlines() if line.startswith("|")]
    assert [row[0] for row in rows[2:]] == ["| DPO", "| DPO-PoP", "| the longer one wins (no training)"]
    assert rows[2][-2] == "baseline" and rows[3][1].startswith(f"{pop.metrics['accuracy'].estimate:.1%} [")
    gap = 100 * (pop.metrics["accuracy"].estimate - pop.metrics["accuracy_longer"].estimate)
    assert float(rows[3][-1].split()[0].replace("−", "-")) == pytest.approx(gap, abs=0.06)
    the_power_of_larger_studies(report.parent, pop, capsys)
    before = snapshot(tmp_path / "study")
    capsys.readouterr()
    again, _ = compare(study)
    assert snapshot(tmp_path / "study") == before
    assert capsys.readouterr().err.count("already done") == 4
    assert again.arms[1].metrics == pop.metrics


def the_power_of_larger_studies(folder: Path, pop: ArmResult, capsys: pytest.CaptureFixture[str]) -> None:
    """`study power` takes the report's own differences, and refuses what it cannot know."""
    for metric in ("accuracy", "mean_reward"):
        plan = plan_study([folder], metric=metric, difference=0.02, prompts=[20, 80], seeds=[2, 8], studies=50)
        assert plan.differences["pop"] == pop.differences[metric] and (plan.baseline, plan.seeds) == ("dpo", 2)
        assert len(plan.designs) == 4 and all(0 <= (design.power or 0) <= 1 for design in plan.designs)
    capsys.readouterr()
    flags = ["--prompts", "20", "--seeds", "2,4", "--arm", "pop"]
    assert main(["study", "power", str(folder), *flags, "--difference", "5"]) == 0
    said = capsys.readouterr().out
    assert "2 seeds; accuracy against 'dpo', points" in said and said.splitlines()[-1].startswith("20 ")
    assert main(["study", "power", str(folder), *flags, "--json"]) == 0
    assert [design["seeds"] for design in json.loads(capsys.readouterr().out)["designs"]] == [2, 4]
    assert main(["study", "power", str(folder), "--baseline", "dppo"]) == 2
    assert "Did you mean 'dpo'" in capsys.readouterr().err
    with pytest.raises(DataError, match="needs two arms, and the pilot has one"):
        plan_study([folder / "runs" / "pop" / "seed-0"])
    with pytest.raises(DataError, match="needs at least two of both"):
        plan_study([folder / "runs" / "pop" / "seed-0", folder / "runs" / "dpo" / "seed-0"])


@pytest.mark.slow
def test_samples_that_are_not_of_the_policy_itself_have_no_kl(make_study: MakeStudy) -> None:
    results, report = compare(make_study({"evaluation": {"temperature": 0.7, "top_k": 9}}, seeds=[0]))
    name = "log_ratio_per_token_t0.7_k9"
    for arm in results.arms:
        assert "kl_per_token" not in arm.metrics and name in arm.metrics
        assert [point[0] for point in arm.curves[name]] == [2, 3]
    assert results.reference[name].estimate == 0
    page = report.read_text()
    assert "Log-ratio per token (T = 0.7, top-k 9) over training" in page


@pytest.mark.slow
def test_curves_take_no_more_prompts_than_the_evaluation(make_study: MakeStudy) -> None:
    results, _ = compare(make_study({"evaluation": {"prompts": 1}}, seeds=[0]))
    assert all("kl_per_token" in arm.curves for arm in results.arms)


@pytest.mark.slow
def test_what_training_adds_is_said_of_scores_that_are_no_ratio(make_study: MakeStudy) -> None:
    arms = {"dpo": {"objective": {"name": "dpo"}}, "simpo": {"label": "SimPO", "objective": {"name": "simpo"}}}
    results, report = compare(make_study(arms=arms, seeds=[0]))
    said = [line for line in results.reading if "by which the reference model is already right" in line]
    own, accuracy = (results.arms[1].metrics[name].estimate for name in ("accuracy_reference", "accuracy"))
    assert (
        len(said) == 1 and said[0].startswith("SimPO scores by the policy's own log-probs") and f"{own:.1%}" in said[0]
    )
    assert f"training adds {100 * (accuracy - own):+.1f} points" in said[0]
    assert said[0] in report.read_text().replace("&#39;", "'")


@pytest.mark.slow
def test_an_interrupted_study_goes_on(
    tmp_path: Path, make_study: MakeStudy, capsys: pytest.CaptureFixture[str]
) -> None:
    study = make_study(seeds=[0])
    first, _ = compare(study)
    run = RunDirectory(tmp_path / "study" / "runs" / "pop" / "seed-0")
    (run.path / "run.json").unlink()  # as if it had been killed
    before = snapshot(tmp_path / "study")
    capsys.readouterr()
    second, _ = compare(study)
    after = snapshot(tmp_path / "study")
    assert capsys.readouterr().err.count("already done") == 1
    assert {path: after[path] for path in before if "/dpo/" in str(path)} == {
        path: data for path, data in before.items() if "/dpo/" in str(path)
    }
    assert second.arms[1].metrics == first.arms[1].metrics
    other = make_study({"train": {"max_steps": 1}}, seeds=[0])
    with pytest.raises(RunError, match=r"dpo/seed-0 contains a run with other settings:\n  train.max_steps: 3 → 1\n"):
        compare(other)
    assert snapshot(tmp_path / "study") == after
    changed, _ = compare(other, overwrite=True)
    assert changed.arms[0].training["loss"][-1][0] == 1


@pytest.mark.slow
def test_curves_do_not_change_the_training(tmp_path: Path, make_study: MakeStudy) -> None:
    study = make_study(seeds=[0])
    compare(study)
    compare(make_study({"evaluation": {"curve_points": 0}}, seeds=[0], output=str(tmp_path / "other")))
    for arm in study.arms:
        files = [tmp_path / name / "runs" / arm / "seed-0" / "metrics.jsonl" for name in ("study", "other")]
        assert files[0].read_bytes() == files[1].read_bytes()


def test_without_a_reward_there_are_no_generations(make_study: MakeStudy) -> None:
    results, report = compare(make_study({"evaluation": {"reward": None}}, seeds=[0]))
    assert "mean_reward" not in results.arms[0].metrics and "accuracy" in results.arms[0].metrics
    assert "kl_per_token" not in results.arms[0].curves and report.is_file()


def test_the_standard_study_leaves_arms_out_loudly(
    make_study: MakeStudy, unrated_path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arms = make_study().arms | {
        "ipo": {"objective": {"name": "ipo"}},
        "margin": {"objective": {"name": "dpo_rating_margin"}},
    }
    assert keep_possible(make_study(arms=arms)).arms == arms
    kept = keep_possible(make_study({"data": {"train": unrated_path}}, arms=arms))
    assert list(kept.arms) == ["dpo", "ipo"]
    said = capsys.readouterr().err
    assert "skipping pop: some of the 32 training preferences have no strengths" in said
    assert "skipping margin" in said and "chosen_rating" in said
    with pytest.raises(DataError, match="fewer than two arms"):
        keep_possible(make_study({"data": {"train": unrated_path}}))


@pytest.mark.slow
def test_runs_that_cannot_be_compared(tmp_path: Path, make_study: MakeStudy) -> None:
    compare(make_study({"evaluation": {"reward": None}}, seeds=[0]))
    other = make_study(
        {"evaluation": {"reward": None}, "data": {"split_seed": 9}}, seeds=[1], output=str(tmp_path / "b")
    )
    compare(other)
    runs = group_runs([tmp_path / "study"])
    foreign = group_runs([tmp_path / "b"])
    settings: dict[str, Any] = {"title": "t", "labels": {}, "config": ""}
    with pytest.raises(RunError, match="different held-out preferences"):
        collect({"dpo": runs["dpo"], "pop": foreign["pop"]}, baseline="dpo", **settings)
    with pytest.raises(RunError, match="'ipo' is not among the runs: dpo, pop"):
        collect(runs, baseline="ipo", **settings)
    with pytest.raises(RunError, match="same seed"):
        group_runs([tmp_path / "study", tmp_path / "study" / "runs" / "dpo" / "seed-0"])
    (runs["pop"][0].evaluation / "margins.parquet").unlink()
    with pytest.raises(RunError, match="popmargin eval"):
        collect(runs, baseline="dpo", **settings)
