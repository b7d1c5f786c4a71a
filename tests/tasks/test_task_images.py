"""Text-to-image models: training on tiny pipelines, with every objective, in any batches, resumed."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from image_runs import Configure, metrics
from safetensors.torch import load_file

from popmargin.errors import ConfigError, DataError
from popmargin.evaluation.run import evaluate_run
from popmargin.tasks.image_guards import SaturationWatch
from popmargin.training.build import Run
from popmargin.training.run import train
from popmargin.training.trainer import PreferenceTrainer


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {name: value for file in sorted(folder.rglob("*.safetensors")) for name, value in load_file(file).items()}


def same(one: Path, other: Path) -> bool:
    ours, theirs = weights(one), weights(other)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_two_steps(configure: Configure) -> None:
    run, model = train(configure(), keep_model=True)
    first, second = metrics(run)
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-6) and first["accuracy"] == 0.5
    assert first["winner_error_change"] == first["loser_error_change"] == first["d_std"] == first["inside_std"] == 0
    assert second["loss"] != first["loss"] and second["d_std"] > 0
    assert second["inside_std"] == pytest.approx(1000 * second["d_std"])
    assert second["reward_margin"] == pytest.approx(-1000 * second["d_mean"], rel=1e-4)
    assert second["winner_error_change"] - second["loser_error_change"] == pytest.approx(second["d_mean"], abs=1e-9)
    assert model.config["sample_size"] == 8 and run.facts()["objective"] == "dpo"


OBJECTIVES: dict[str, dict[str, Any]] = {
    **{name: {} for name in ("ipo", "hinge", "ropo", "aps", "amapo", "simpo", "dpo_rating_margin", "dpo_fixed_margin")},
    "geometric_dpo": {"data": {"soft_label_temperature": "range"}},
    "smpo": {"data": {"soft_label_temperature": "quantiles"}},
    "pop": {"target": {"kind": "ema"}},
    "pop policy": {"target": {"kind": "policy"}},
    "pop bank": {"target": {"kind": "bank"}},
    "amapo bank": {"target": {"kind": "bank"}, "margin": {"source": "pop"}, "objective": {"name": "simpo"}},
    "pop_rank": {},
    "pop_scale": {},
    "dpo sft": {"regularizers": [{"name": "sft"}]},
    "dpo ratings": {"margin": {"source": "ratings", "scale": 1.0}},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_trains(configure: Configure, name: str) -> None:
    run, _ = train(configure({"objective": {"name": name.split()[0]}}, OBJECTIVES[name]))
    lines = metrics(run)
    assert len(lines) == 2 and all(math.isfinite(line["loss"]) for line in lines) and lines[0]["grad_norm"] > 0


SETTINGS: dict[str, dict[str, Any]] = {
    "shared": {},
    "inversion": {"task": {"noise": {"source": "inversion", "steps": 2}}},
    "fixed draws": {"task": {"draws": 2, "prompt_dropout": 0.5}},
    "edges": {"objective": {"name": "pop"}, "target": {"kind": "policy"}},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
def test_batches_of_one_give_what_one_batch_gives(configure: Configure, name: str) -> None:
    """A pair's time and noise are its own, and the mean is outside log σ (a trap of the public code)."""
    big, _ = train(configure(SETTINGS[name], name="big"))
    small, _ = train(configure(SETTINGS[name], {"train": {"micro_batch_size": 1}}, name="small"))
    # Errors that are read from the cache differ from the same ones in the last digits, and the first d are 0.
    counted = ("accuracy", "implicit_accuracy", "won_by_loser_alone") if "draws" in name else ()
    for ours, theirs in zip(metrics(big), metrics(small), strict=True):
        values = {key: value for key, value in theirs.items() if key not in counted}
        assert {key: ours[key] for key in values} == pytest.approx(values, rel=2e-3, abs=1e-4 if counted else 1e-6)


RESUMED: dict[str, dict[str, Any]] = {
    "full": {"train": {"average": 0.5}},
    "lora": {"model": {"lora_rank": 2, "lora_dropout": 0.1}},
    "inversion": {"task": {"noise": {"source": "inversion", "steps": 2}}, "objective": {"name": "pop"}},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", RESUMED)
def test_interrupted_is_uninterrupted(configure: Configure, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    change: dict[str, Any] = {"train": {"max_steps": 4, "save_steps": 2}}
    whole, _ = train(configure(RESUMED[name], change, name="whole"))
    config = configure(RESUMED[name], change, name="parts")
    finish = PreferenceTrainer.finish_step

    def killed(self: PreferenceTrainer) -> None:
        if self.state.global_step == 3:
            raise KeyboardInterrupt
        finish(self)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(PreferenceTrainer, "finish_step", killed)
        train(config)
    resumed, _ = train(config, resume=True)
    assert resumed.facts()["resumed"]
    assert (resumed.path / "metrics.jsonl").read_bytes() == (whole.path / "metrics.jsonl").read_bytes()
    assert same(resumed.model, whole.model)


@pytest.mark.slow
def test_averaged_weights_are_saved_and_evaluated(configure: Configure) -> None:
    last, _ = train(configure(name="last"))
    run, model = train(configure({"train": {"average": 0.5}}, name="average"), keep_model=True)
    assert metrics(run) == metrics(last) and not same(run.model / "unet", last.model / "unet")
    saved = weights(run.model / "unet")
    assert all(torch.equal(saved[name], value) for name, value in model.state_dict().items())
    start = weights(Path(configure().model.path) / "unet")
    moved = {name: (saved[name] - start[name]).norm() for name in start}
    assert sum(moved.values()) < sum((weights(last.model / "unet")[name] - start[name]).norm() for name in start)


@pytest.mark.slow
def test_evaluation_uses_the_same_draws_of_every_run(configure: Configure) -> None:
    """Held-out margins do not depend on batches, and those of an untrained model are 0."""
    run, _ = train(configure())
    found = [
        evaluate_run(Run.opened(run.path, configure({"evaluation": {"tokens_per_batch": size}})))["intervals"]
        for size in (1, 4096)
    ]
    for name, interval in found[0].items():
        if interval["estimate"] is not None:
            assert interval["estimate"] == pytest.approx(found[1][name]["estimate"], rel=1e-3, abs=1e-5), name
    untrained, _ = train(configure({"train": {"learning_rate": 0.0}}, name="untrained"))
    margins = evaluate_run(Run.opened(untrained.path))["intervals"]
    assert margins["accuracy"]["estimate"] == 0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": {"prompt_dropout": 1.0}}, "prompt_dropout must be"),
        ({"task": {"noise": {"source": "inverted"}}}, "noise.source is 'inverted'"),
        ({"objective": {"name": "spa"}}, "'spa'"),
        ({"tokens": {"name": "selective"}}, "tokens has no meaning for a text-to-image model"),
        (
            {"task": {"noise": "inversion"}},
            "task.noise must be a mapping of keys to values, not 'inversion'. Write {source",
        ),
        (
            {"data": {"max_length": 77}},
            "data.max_length has no meaning for a text-to-image model: images have no tokens",
        ),
        ({"data": {"truncation": "drop"}}, "data.truncation has no meaning"),
    ],
)
def test_what_has_no_meaning_is_refused(configure: Configure, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        Run.read(configure(change))
    assert message in str(error.value)


def test_more_denoising_steps_than_times_are_refused_before_training(configure: Configure) -> None:
    steps = {"reward": "popmargin.demo.images.digit_rewards:ink", "denoising_steps": 5000}
    config = configure({"evaluation": steps})
    with pytest.raises(ConfigError, match=r"denoising_steps 5,000 does not fit .* Set at most 1,000"):
        train(config)
    assert not (Path(config.output) / "metrics.jsonl").exists()


def test_preferences_between_texts_are_refused(configure: Configure, data_path: str) -> None:
    with pytest.raises(DataError, match=r"is between texts: '.*A text-to-image model is trained on"):
        train(configure({"data": {"train": data_path}}))


@pytest.mark.parametrize("task", ["policy", "reward"])
def test_language_models_refuse_preferences_between_images(configure: Configure, task: str) -> None:
    with pytest.raises(DataError, match="are between images, which a language model cannot read"):
        train(configure({"task": task, "objective": {"name": "dpo"}}))


def test_too_large_a_beta_is_said_once(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> None:
    watch, logs = SaturationWatch(2000.0), list[dict[str, float]]()
    for step, spread in ((1, 0.0), (2, 0.02), (10, 0.004), (11, 0.006), (12, 0.01)):
        state: Any = type("State", (), {"global_step": step, "is_world_process_zero": True})
        logs.append({"d_std": spread})
        watch.on_log(None, state, None, logs=logs[-1])
    said = [record.getMessage() for record in caplog.records]
    assert capsys.readouterr().err == "spread of (β/2)·d over pairs at step 1: 0 (β 2000)\n"
    assert len(said) == 1 and "at step 11 the spread of (β/2)·d over pairs is 6.0, above 5" in said[0]
    assert [line["inside_std"] for line in logs] == pytest.approx([0.0, 20.0, 4.0, 6.0, 10.0])
