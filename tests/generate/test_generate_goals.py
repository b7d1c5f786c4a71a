"""A run that was trained on goals is asked for one, whoever samples from it or scores with it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from popmargin.cli.main import main
from popmargin.config import RunConfig
from popmargin.data.augment import augment
from popmargin.data.goals import HEAD
from popmargin.data.load import load_preferences
from popmargin.data.read_prompts import Prompts, load_prompts
from popmargin.data.responses import Responses
from popmargin.data.tokenize import tokenize_prompts
from popmargin.errors import ConfigError, DataError
from popmargin.generate.from_policy import policy_responses
from popmargin.generate.sample import Sampling
from popmargin.models.named_policy import find_policy
from popmargin.rewards.base import Answer
from popmargin.rewards.implicit import ImplicitReward
from popmargin.training.run import train


@pytest.fixture
def run(configure: Callable[..., RunConfig], data_path: str, tmp_path: Path) -> Path:
    """Trained for a step on goals of ratings from 0 to 5."""
    path = tmp_path / "goals.parquet"
    augment(load_preferences(data_path), scale=(0, 5)).save(path)
    config = configure({"data": {"train": str(path), "max_length": 192}, "train": {"max_steps": 1}})
    return train(config)[0].path


def test_prompts_ask_for_the_best_goal_or_another_one(run: Path, tmp_path: Path) -> None:
    """Responses keep the prompts without goals; what the sampler saw holds the goal. An implicit reward gives the same
    number for a prompt with the best goal and without it, and says where it was added."""
    policy, sampling = find_policy(str(run)), Sampling(samples=1, max_new_tokens=4)
    assert policy.goal is not None and policy.goal.best is not None
    prompts = Prompts(["the sky?", "old birds?"])
    lengths: list[Any] = []
    for goal, line in ((None, f"Overall score: {policy.goal.best[0]:g}"), (4, "Overall score: 4"), ("none", "")):
        made = policy_responses(prompts, policy, sampling, goal=goal)  # pyright: ignore[reportArgumentType]
        assert made.responses.prompts == prompts.prompts
        seen = [f"{HEAD}{line}\n\n{prompt}" if line else prompt for prompt in prompts.prompts]
        counted = tokenize_prompts(seen, policy.tokenizer).lengths.tolist()  # pyright: ignore[reportArgumentType]
        assert made.responses.column("prompt_tokens") == counted
        assert ("goal" in made.responses.column_names) == bool(line)
        assert not line or made.responses.column("goal") == [line] * 2
        assert any(line in note for note in made.notes) if line else not made.notes
        lengths.append(counted)
    assert lengths[0] > lengths[2]
    with pytest.raises(DataError, match="would lose the goal"):
        policy_responses(prompts, policy, sampling, max_prompt_tokens=20)
    with pytest.raises(ConfigError, match="outside the scale"):
        policy_responses(prompts, policy, sampling, goal=11)
    reward, best = ImplicitReward(str(run)), policy.goal.line(policy.goal.best)
    asked = f"{policy.goal.prefix(policy.goal.best)}\n\nthe sky?"
    plain, given = (reward.score_answers([Answer(prompt, "is blue")])[0] for prompt in ("the sky?", asked))
    assert plain == pytest.approx(given, abs=1e-6)
    assert any(f"under the goal '{best}'" in note and "1 of 2" in note for note in reward.take_notes())


def test_the_command_says_what_was_asked(
    run: Path, tmp_path: Path, model_path: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prompts of the augmented file itself, which differ in their goal only, are one."""
    monkeypatch.chdir(tmp_path)
    words = ["generate", "goals.parquet", "--model", str(run), "--max-new-tokens", "2", "--limit", "6"]
    assert main([*words, "--out", "a.parquet"]) == 0
    said = capsys.readouterr().out
    made = Responses.load("a.parquet")
    assert len(made) == len(load_prompts("goals.parquet").first(6)) - 3 == 3
    assert not any(str(prompt).startswith(HEAD) for prompt in made.prompts)
    assert "prompts asked for 'Overall score: " in said and "differ in their goal only, one each: 3 left out" in said
    assert main([*words, "--out", "b.parquet", "--goal", "Overall score=3.5"]) == 0
    assert set(Responses.load("b.parquet").column("goal")) == {"Overall score: 3.5"}
    for goal, message in (("high", "give a score"), ("Score=3", "no attribute 'Score'")):
        assert main([*words, "--out", "c.parquet", "--goal", goal]) == 2
        assert message in capsys.readouterr().err
    plain = ["generate", "goals.parquet", "--model", model_path, "--out", "c.parquet", "--goal", "7"]
    assert main(plain) == 2
    assert "was trained on no goals" in capsys.readouterr().err
