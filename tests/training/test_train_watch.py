"""Each watcher speaks once, about what its metric shows, and not about a normal training."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from popmargin.config import RunConfig
from popmargin.training import watch
from popmargin.training.build import make_loss
from popmargin.training.run import train
from popmargin.training.watch import Watch, watchers_of

Configure = Callable[..., RunConfig]
# Lines of the demo's seven arms at their ends, where each metric is furthest from its start.
NORMAL = {
    "chosen_logps": -57.0, "chosen_logratio": -7.75, "rejected_logratio": -14.2, "kl_estimate": 1.07,
    "reward_margin": 3.2, "target_margin_mean": 2.9, "target_margin_std": 2.4, "target_margin_clipped": 0.75,
    "tokens_kept": 0.42, "lambda": 1.7, "tau_at_max": 0.4,
}  # fmt: skip
STILL = {"target_margin_mean": 1e-6, "target_margin_std": 1e-6, "target_margin_clipped": 0.0}
WRONG = [
    ({"chosen_logps": -110.0, "chosen_logratio": -60.0}, "lost more log-prob than they had", "budget or sft"),
    ({"kl_estimate": 13829.3}, "gone far from its reference", "train.learning_rate"),
    ({"target_margin_clipped": 1.0}, "nearly all target margins are clipped", "margin_max"),
    ({"reward_margin": -41.0}, "differ by -41 reward units", "objective.beta"),
    (STILL, "target does not move", "tau"),
    ({"tau_at_max": 1.0}, "largest scale", "objective.tau_max"),
    ({"tokens_kept": 1.0}, "keeps every token", "tokens.tolerance"),
    ({"lambda": 99.9}, "multiplier has reached its bound", "lambda_lr"),
]  # fmt: skip


@pytest.fixture
def watched(configure: Configure) -> Watch:
    made = configure({"objective": {"name": "pop_lagrangian"}, "tokens": {"name": "selective"}})
    found = watchers_of(make_loss(made))
    assert len(found) == len(WRONG)
    return Watch(found)


def test_a_normal_training_is_not_warned_about(watched: Watch) -> None:
    start = dict.fromkeys(NORMAL, 0.0) | {"chosen_logps": -50.0, "tokens_kept": 1.0}
    lines = [start if step <= 10 else NORMAL for step in range(1, 200)]
    assert watched.see_all({**line, "step": step} for step, line in enumerate(lines, 1)) == []
    assert watched.see_all({"step": step, "loss": 0.5} for step in range(50)) == []  # nothing to read


@pytest.mark.parametrize(("entries", "said", "remedy"), WRONG)
def test_what_goes_wrong_is_said_once(watched: Watch, entries: dict[str, float], said: str, remedy: str) -> None:
    """With the step, the number and what to try; a single line says nothing."""
    wrong = {**NORMAL, **entries}
    now_and_then = [NORMAL if step % 2 else wrong for step in range(60)]
    assert watched.see_all({**line, "step": step} for step, line in enumerate(now_and_then)) == []
    (sentence,) = watched.see_all({**wrong, "step": step} for step in range(100, 160))
    assert re.match(r"step 1\d\d: ", sentence) and said in sentence and remedy in sentence


def test_what_is_on_purpose_is_not_watched(configure: Configure) -> None:
    everything = make_loss(configure({"tokens": {"name": "selective", "share": 1.0}}))
    assert watch.TOKENS not in watchers_of(everything)


def test_a_run_says_it_stores_it_and_does_not_repeat_it(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(watch, "KL_PER_TOKEN", -1.0)
    config = configure({"model": {"lora_rank": 2}, "train": {"max_steps": 4, "save_steps": 3}})
    run, _ = train(config)
    (said,) = run.facts()["warnings"]
    assert said.startswith("step 3: the policy has gone far") and caplog.text.count(said) == 1
    assert f"warning at {said}" in run.facts()["account"][-1]["notes"]
    (run.path / "run.json").unlink()
    shutil.rmtree(run.path / "checkpoints" / "checkpoint-4", ignore_errors=True)
    assert Path(run.checkpoint() or "").name == "checkpoint-3"
    caplog.clear()
    again, _ = train(config, resume=True)
    assert again.facts()["warnings"] == [said] and said not in caplog.text
