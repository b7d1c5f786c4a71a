"""Evaluating a trained run: independent of batch sizes, repeatable, and paired."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from popmargin.code_permission import allow_code
from popmargin.config import RunConfig
from popmargin.errors import ConfigError, RunError
from popmargin.evaluation.generations import Generations
from popmargin.evaluation.run import HeldOutMargins, evaluate_run
from popmargin.training.build import Run
from popmargin.training.run import train
from popmargin.training.run_directory import RunDirectory

Configure = Callable[..., RunConfig]


@pytest.fixture
def run(configure: Configure, reward_path: str) -> RunDirectory:
    return train(configure({"evaluation": {"reward": reward_path}, "data": {"test_size": 12}}))[0]


def with_evaluation(run: RunDirectory, **changes: Any) -> RunConfig:
    config = run.config()
    return replace(config, evaluation=replace(config.evaluation, **changes))


def margins(run: RunDirectory) -> np.ndarray:
    return HeldOutMargins.load(run.evaluation / "margins.parquet").reward_margin


def test_metrics_do_not_depend_on_the_scoring_batch(run: RunDirectory) -> None:
    found: list[dict[str, Any]] = []
    scores: list[np.ndarray] = []
    for size in (1, 5, 64):
        found.append(evaluate_run(Run.opened(run.path, with_evaluation(run, tokens_per_batch=size))))
        scores.append(margins(run))
    for metrics, score in zip(found[1:], scores[1:], strict=True):
        np.testing.assert_allclose(score, scores[0], atol=1e-5)
        for name in ("accuracy", "pop_accuracy", "spearman", "mean_reward", "length", "win_rate_reference"):
            assert metrics["intervals"][name] == found[0]["intervals"][name], name
        assert metrics["intervals"]["kl_per_token"]["estimate"] == pytest.approx(
            found[0]["intervals"]["kl_per_token"]["estimate"], abs=1e-5
        )


def test_the_same_evaluation_twice_gives_the_same_bytes(run: RunDirectory) -> None:
    metrics = evaluate_run(run.path)
    file = run.evaluation / "metrics.json"
    first = file.read_bytes()
    assert json.loads(first) == json.loads(json.dumps(metrics))
    evaluate_run(run.path)
    assert file.read_bytes() == first


def test_a_policy_against_itself(run: RunDirectory, tmp_path: Path) -> None:
    evaluate_run(run.path)
    metrics = evaluate_run(run.path, against=run.path)
    assert metrics["intervals"]["win_rate_baseline"]["estimate"] == 0.5
    with pytest.raises(RunError, match="has no generations: evaluate it with a reward first"):
        evaluate_run(run.path, against=tmp_path)


def test_the_start_model_has_no_kl(configure: Configure, reward_path: str) -> None:
    still = {"train": {"learning_rate": 0.0, "max_steps": 1}, "evaluation": {"reward": reward_path}}
    run, _ = train(configure(still))
    metrics = evaluate_run(run.path)
    assert metrics["intervals"]["kl_per_token"]["estimate"] == pytest.approx(0, abs=1e-5)
    assert metrics["intervals"]["win_rate_reference"]["estimate"] == 0.5
    assert np.abs(margins(run)).max() < 1e-5
    own = Generations.load(run.evaluation / "generations.parquet")
    reference = Generations.load(run.evaluation / "reference_generations.parquet")
    assert own.responses.texts == reference.responses.texts and len(own.responses) == 4


def test_the_order_of_the_reference_in_a_score_that_is_no_ratio(configure: Configure, tmp_path: Path) -> None:
    """Before training the policy's order is its reference's; afterwards the reference's is still the same."""
    of_reference: list[np.ndarray] = []
    for rate in (0.0, 1e-2):
        changes = {"objective": {"name": "simpo"}, "train": {"learning_rate": rate, "max_steps": 3}}
        run, _ = train(configure(changes, {"output": str(tmp_path / str(rate))}))
        accuracy = evaluate_run(run.path)["intervals"]["accuracy_reference"]["estimate"]
        found = HeldOutMargins.load(run.evaluation / "margins.parquet")
        assert found.of_reference is not None
        assert accuracy == np.mean(found.of_reference > 0)
        assert np.allclose(found.reward_margin, found.of_reference, atol=1e-5) == (rate == 0)
        of_reference.append(found.of_reference)
    np.testing.assert_array_equal(*of_reference)


def test_a_ratio_to_the_reference_gives_the_reference_no_order(run: RunDirectory) -> None:
    assert evaluate_run(run.path)["intervals"]["accuracy_reference"]["estimate"] is None
    assert HeldOutMargins.load(run.evaluation / "margins.parquet").of_reference is None


def test_margins_of_another_version_are_refused(run: RunDirectory) -> None:
    evaluate_run(run.path)
    file = run.evaluation / "margins.parquet"
    pq.write_table(pq.read_table(file).drop_columns(["reference_margin"]), file)
    with pytest.raises(RunError, match=r"margins.parquet is from another version of popmargin"):
        HeldOutMargins.load(file)


def test_rewards_come_from_the_users_function(run: RunDirectory) -> None:
    evaluate_run(run.path)
    generations = Generations.load(run.evaluation / "generations.parquet")
    texts = [str(text) for text in generations.responses.texts]
    expected = [sum(c in "aeiou" for c in text) / max(len(text), 1) for text in texts]
    np.testing.assert_allclose(generations.responses.score("reward"), expected)


def test_texts_that_a_reward_model_cuts_are_in_the_account(run: RunDirectory, model_path: str, tmp_path: Path) -> None:
    """Of the policy and of the reference, each its own; and with its generations, for runs that share a reference."""
    classifier = AutoModelForSequenceClassification.from_pretrained(model_path, num_labels=1, use_safetensors=True)
    classifier.save_pretrained(tmp_path / "rm")
    AutoTokenizer.from_pretrained(model_path).save_pretrained(tmp_path / "rm")
    config = with_evaluation(run, reward=f"model:{tmp_path / 'rm'}", reward_options={"max_length": 4}, prompts=3)
    with pytest.warns(UserWarning, match="longer than the reward model's 4 tokens"):
        metrics = evaluate_run(Run.opened(run.path, config))
    told = {step["name"]: [note for note in step["notes"] if "reward model" in note] for step in metrics["account"]}
    for whose in ("the reference", "the policy"):
        (note,) = told[f"generations of {whose}"]
        assert note.endswith("lost tokens at the start: 3 of 3")
    stored = Generations.load(run.evaluation / "reference_generations.parquet")
    assert list(stored.notes) == told["generations of the reference"] and stored.first(1).notes == stored.notes


def test_no_room_for_prompts(run: RunDirectory) -> None:
    with pytest.raises(RunError, match=r"max_new_tokens 96 leaves no room for prompts within data.max_length 96"):
        evaluate_run(Run.opened(run.path, with_evaluation(run, max_new_tokens=96)))


def test_a_run_that_has_not_finished(run: RunDirectory) -> None:
    (run.path / "run.json").unlink()
    with pytest.raises(RunError, match="has not finished training"):
        evaluate_run(run.path)


FURTHER = """
def vowels(prompts, completions):
    return [sum(letter in "aeiou" for letter in text) for text in completions]

def reward(prompts, completions):
    return [0.0] * len(completions)
"""


def test_further_rewards_are_measured_beside_the_first(run: RunDirectory, tmp_path: Path) -> None:
    (tmp_path / "more.py").write_text(FURTHER)
    metrics = evaluate_run(Run.opened(run.path, with_evaluation(run, also=[f"{tmp_path / 'more.py'}:vowels"])))
    generations = Generations.load(run.evaluation / "generations.parquet")
    expected = [sum(letter in "aeiou" for letter in str(text)) for text in generations.responses.texts]
    assert generations.responses.score("vowels").tolist() == expected
    assert metrics["intervals"]["mean_vowels"]["estimate"] == pytest.approx(np.mean(expected))
    assert generations.further == ("vowels",)


def test_further_rewards_have_names_of_their_own(run: RunDirectory, tmp_path: Path) -> None:
    place = tmp_path / "more.py"
    place.write_text(FURTHER)
    for also, message in (
        ([f"{place}:reward"], "would be called 'reward', but generations have it already"),
        ([f"{place}:vowels", f"{place}:vowels"], "would be called 'vowels', but .* has it as well"),
        (["judge:m@http://localhost:1/v1"], "takes functions and models, not 'judge:m"),
    ):
        with pytest.raises(ConfigError, match=message):
            evaluate_run(Run.opened(run.path, with_evaluation(run, also=also)))
    with pytest.raises(ConfigError, match=r"further rewards beside evaluation.reward, which is not set"):
        with_evaluation(run, reward=None, also=[f"{place}:vowels"])


def test_code_of_further_rewards_is_kept_and_compared(configure: Configure, reward_path: str, tmp_path: Path) -> None:
    place = tmp_path / "more.py"
    place.write_text(FURTHER)
    config = configure({"evaluation": {"reward": reward_path, "also": [f"{place}:vowels"]}, "data": {"test_size": 12}})
    run = train(config)[0]
    kept = run.path / "code" / "also.0" / "more.py"
    assert kept.read_text() == FURTHER
    place.write_text(FURTHER.replace("aeiou", "e"))
    with pytest.raises(RunError, match="the further reward 'vowels'"):
        evaluate_run(run.path)
    place.unlink()
    with pytest.raises(RunError, match=rf"--code {kept}"):
        evaluate_run(run.path)
    allow_code([kept])
    assert evaluate_run(run.path)["intervals"]["mean_vowels"]["estimate"] > 0
