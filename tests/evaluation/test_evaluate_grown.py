"""Responses that grow with training: no other watcher sees it, and sampling does."""

import json
from collections.abc import Callable

import pytest

from popmargin.config import RunConfig
from popmargin.data.responses import Responses
from popmargin.evaluation.grown import grown
from popmargin.evaluation.run import evaluate_run
from popmargin.training import watch
from popmargin.training.build import make_loss
from popmargin.training.run import train
from popmargin.training.watch import Watch, watchers_of

Configure = Callable[..., RunConfig]


def sampled(*lengths: int, cut: int = 0) -> Responses:
    """One response a prompt, the first ones cut."""
    finished = [place >= cut for place in range(len(lengths))]
    return Responses([f"p{n}" for n in range(len(lengths))], [["x"]] * len(lengths), tokens=lengths, finished=finished)


def test_the_log_of_a_training_is_silent_and_samples_are_not(configure: Configure) -> None:
    """The log has no lengths: a policy of ever longer responses looks like any other."""
    lines = [{"step": step, "loss": 0.6, "chosen_logps": -50.0, "chosen_logratio": -1.0, "rejected_logratio": -3.0,
              "reward_margin": 0.2, "kl_estimate": 0.1} for step in range(1, 50)]  # fmt: skip
    assert Watch(watchers_of(make_loss(configure()))).see_all(lines) == []
    before = sampled(40, 44, 36, 40)
    said = grown(sampled(90, 95, 85, 90), before, "the reference") or ""
    assert "from 40 tokens (the reference; 0% were cut) to 90 (0% are cut)" in said and "simpo" in said
    hidden = grown(sampled(64, 64, 40, 40, cut=2), before, "the first round") or ""
    assert "(the first round; 0% were cut) to 52 (50% are cut)" in hidden


@pytest.mark.parametrize(
    "now, before",
    [
        (sampled(80, 80), sampled(40, 40)),
        (sampled(9, 9), sampled(1, 1)),  # ten times a word is still short
        (sampled(64, 64, cut=2), sampled(64, 64, cut=2)),  # models without an end
        (sampled(20, 20), sampled(40, 40)),
        (Responses(["p"], [["x"]]), sampled(40)),  # nobody counted
        (sampled(), sampled(40)),
    ],
)
def test_what_is_no_explosion(now: Responses, before: Responses) -> None:
    assert grown(now, before, "the reference") is None


def test_an_evaluation_says_it(configure: Configure, reward_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run, _ = train(configure({"evaluation": {"reward": reward_path}, "train": {"max_steps": 1}}))
    assert "responses have grown" not in json.dumps(evaluate_run(run.path)["account"])
    monkeypatch.setattr(watch, "GROWN", 0.5)
    monkeypatch.setattr(watch, "GROWN_TOKENS", -100)
    notes = [note for step in evaluate_run(run.path)["account"] for note in step["notes"]]
    assert sum(note.startswith("warning: responses have grown") for note in notes) == 1
