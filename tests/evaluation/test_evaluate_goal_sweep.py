"""A sweep over goals: what a policy that follows them gives, and how a trained run is asked and reported."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from popmargin.cli.main import main
from popmargin.config import RunConfig
from popmargin.data.augment import augment
from popmargin.data.goals import as_given, asking, goal_facts
from popmargin.data.load import load_preferences
from popmargin.data.responses import Responses
from popmargin.errors import ConfigError, DataError
from popmargin.evaluation.generations import Generations
from popmargin.evaluation.goal_sweep import GOALS, GoalSweep, goal_curve
from popmargin.evaluation.prompt_set import PromptSet
from popmargin.evaluation.run import evaluate_run
from popmargin.training.build import Run
from popmargin.training.run import train

Configure = Callable[..., RunConfig]


def sweep(rewards: Sequence[Sequence[float]], goals: Sequence[float] = (1, 4, 10)) -> GoalSweep:
    """Rewards (goals, prompts · 2 samples)."""

    def of(row: Sequence[float]) -> Generations:
        prompts = [f"p{number}" for number in range(len(row) // 2)]
        return Generations(Responses(prompts, [["a", "b"]] * len(prompts), {"reward": list(row)}))

    return GoalSweep({goal: of(row) for goal, row in zip(goals, rewards, strict=True)})


def test_a_policy_that_follows_its_goals_and_one_that_does_not() -> None:
    """By hand: two prompts with levels 0 and 0.5, to which goals 1, 4, 10 add 1, 2, 3. So 10 is best, on every prompt 2
    above goal 1 and 1 above goal 4 (intervals of no width). The correlation is scipy's."""
    levels = [0.0, 0.0, 0.5, 0.5]
    found = goal_curve([sweep([[level + step for level in levels] for step in (1, 2, 3)])])
    assert (found.best, found.next_best, found.gain.estimate, found.lead.estimate) == (10, 4, 2, 1)
    assert found.gain.low == pytest.approx(2) and found.rows()[0][:2] == [1, 1.25]
    expected = spearmanr([1, 1, 4, 4, 10, 10], [1, 1.5, 2, 2.5, 3, 3.5])[0]
    assert found.spearman.estimate == pytest.approx(expected) and "best goal is 10" in found.note()
    flat = goal_curve([sweep([levels] * 3)])
    assert flat.best == 1 and flat.spearman.estimate == 0 and flat.gain.estimate == 0
    json.dumps(flat.to_dict(), allow_nan=False)


def test_seeds_share_the_interval_and_must_match() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(2, 3, 40))
    rows[1, 2] += 1.0  # the second seed alone follows goal 10
    one, both = goal_curve([sweep(rows[0].tolist())]), goal_curve([sweep(row.tolist()) for row in rows])
    assert both.rewards[10].estimate == pytest.approx(rows[:, 2].mean())
    assert both.rewards[10].high - both.rewards[10].low > one.rewards[10].high - one.rewards[10].low
    assert both.spearman.low < both.spearman.estimate < both.spearman.high
    for other in (sweep(rows[0].tolist(), goals=(1, 4, 9)), sweep(rows[0, :, :38].tolist())):
        with pytest.raises(DataError, match="other goals, or other prompts"):
            goal_curve([sweep(rows[0].tolist()), other])


@pytest.fixture
def run(configure: Configure, data_path: str, tmp_path: Path, reward_path: str) -> Path:
    """Trained for a step on goals of ratings from 0 to 5."""
    path = tmp_path / "goals.parquet"
    augment(load_preferences(data_path), scale=(0, 5)).save(path)
    changes = {
        "data": {"train": str(path), "test_size": 6, "max_length": 192},
        "train": {"max_steps": 1},
        "evaluation": {"reward": reward_path, "max_new_tokens": 5},
    }
    return train(configure(changes))[0].path


@pytest.mark.slow
def test_the_same_prompts_are_asked_for_each_goal(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command writes generations for each goal, on prompts without goals and in the same order; answers at one goal
    do not depend on the others; a page with a plot comes of it, and an evaluation without goals leaves none behind."""
    assert main(["eval", str(run), "--goals", "10, 1,4.5"]) == 0
    assert "Sweep over goals: goal and reward have a rank correlation of" in capsys.readouterr().out
    folder = run / "evaluation" / GOALS
    found = GoalSweep.load(folder)
    assert found is not None and list(found.by_goal) == [1, 4.5, 10]
    prompts = PromptSet.of(Run.opened(run).workspace(), None).bodies
    for goal, generations in found.by_goal.items():
        assert generations.responses.prompts == prompts[: len(generations.responses)]
        assert set(generations.responses.column("goal")) == {f"Overall score: {goal:g}"}
    stored = json.loads((run / "evaluation" / "metrics.json").read_text())["goals"]
    assert [row["goal"] for row in stored["rewards"]] == [1, 4.5, 10] and stored["best"] in (1, 4.5, 10)

    page = tmp_path / "report.html"
    assert main(["report", str(run), "--out", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    assert 'id="goals"' in text and "Mean reward by goal. " in text and "at goal 4.5" in text
    assert "the best goal is" in text

    assert main(["eval", str(run), "--goals", "4.5,7", "--evaluation.generation_batch_size", "1"]) == 0
    again = GoalSweep.load(folder)
    assert again is not None and list(again.by_goal) == [4.5, 7]
    assert again.by_goal[4.5].responses.texts == found.by_goal[4.5].responses.texts
    evaluate_run(run)
    assert not folder.exists()


def test_goals_without_a_sweep_are_refused(
    run: Path, configure: Configure, reward_path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run without goals (before it trains, and when it is evaluated), a lone goal, one off the scale, no reward."""
    with pytest.raises(ConfigError, match="two or more different goals"):
        configure({"evaluation": {"goals": [4.0]}})
    with pytest.raises(ConfigError, match=r"evaluation.goals.*10"):
        configure({"evaluation": {"goals": [4.0, 11.0]}})
    changes = {"reward": reward_path, "goals": [1.0, 10.0]}
    with pytest.raises(ConfigError, match="was trained on no goals"):
        train(configure({"output": str(run.parent / "plain"), "train": {"max_steps": 1}, "evaluation": changes}))
    plain = train(configure({"output": str(run.parent / "plain"), "train": {"max_steps": 1}}))[0].path
    assert main(["eval", str(plain), "--goals", "1,4", "--evaluation.reward", reward_path]) == 2
    assert "was trained on no goals" in capsys.readouterr().err
    assert main(["eval", str(run), "--goals", "1,4", "--evaluation.reward", "null"]) == 2
    assert "name the reward of the answers" in capsys.readouterr().err
    assert main(["eval", str(run), "--goals", "high"]) == 2
    assert "evaluation.goals" in capsys.readouterr().err


def test_a_policy_without_goals_can_be_compared(data_path: str) -> None:
    """Held-out preferences have one fingerprint, whether a run asks for a goal in them or not."""
    given = load_preferences(data_path)
    rows = augment(given, scale=(0, 5))
    asked = asking(given, goal_facts(rows))
    assert asked.fingerprint() != given.fingerprint() == as_given(asked).fingerprint()
    assert as_given(given) is given
