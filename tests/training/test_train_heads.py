"""A head on a frozen trunk, and the last layers: as in ordinary training with the rest frozen, without running it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.utils import FullyShardedDataParallelPlugin
from transformers import AutoModelForSequenceClassification, LlamaModel
from transformers.integrations import deepspeed

from popmargin.config import ModelConfig, RunConfig, dump_yaml, merge
from popmargin.engine.rewards import HEAD
from popmargin.errors import ConfigError
from popmargin.evaluation.run import HeldOutMargins, evaluate_run, held_out_margins
from popmargin.models import reward_models
from popmargin.models.reward_heads import HiddenHead, TrainedHead
from popmargin.models.sharding import Sharding
from popmargin.rewards.load import load_reward
from popmargin.tasks import reward
from popmargin.training.build import Run
from popmargin.training.run import train
from popmargin.training.run_directory import RunDirectory

Configure = Callable[..., RunConfig]
Metrics = Callable[[RunDirectory], list[dict[str, Any]]]
HEAD_ALONE: dict[str, Any] = {"task": "reward", "model": {"train": "head"}}
FULL: dict[str, Any] = {"task": "reward", "model": {"train": "full"}}
FAST = ("averaged target",)


@pytest.fixture
def frozen_trunk(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Makes `train: full` train the head alone, with the trunk in every forward pass."""

    def freeze(start: Any, config: ModelConfig, *, own: Any = None) -> Any:
        model = reward_models.make_reward_model(start, config, own=own)
        model.requires_grad_(False).get_submodule(HEAD).requires_grad_(True)
        return model

    return lambda: monkeypatch.setattr(reward, "make_reward_model", freeze)


def refuse_the_trunk(monkeypatch: pytest.MonkeyPatch) -> None:
    def forward(*_: Any, **__: Any) -> Any:
        raise AssertionError("the trunk was run")

    monkeypatch.setattr(LlamaModel, "forward", forward)


CASES: dict[str, dict[str, Any]] = {
    "dpo": {"objective": {"name": "dpo"}, "regularizers": [{"name": "center", "weight": 0.1}]},
    "averaged target": {"objective": {"name": "pop"}, "target": {"tau": 0.5}},
    "bank": {"objective": {"name": "pop"}, "target": {"kind": "bank"}},
    "two-sided": {"objective": {"name": "pop_rank"}, "train": {"tokens_per_batch": 200, "edge_batching": "clustered"}},
    "margin": {"margin": {"source": "ratings"}, "train": {"average": 0.5}},
    "scale": {"objective": {"name": "pop_scale"}, "pop": {"k": 2}},
}


@pytest.mark.parametrize(
    "case", [case if case in FAST else pytest.param(case, marks=pytest.mark.slow) for case in CASES]
)
def test_equal_to_training_with_a_frozen_trunk(
    tmp_path: Path, configure: Configure, metrics: Metrics, weights: Any, frozen_trunk: Any, case: str
) -> None:
    """Losses, everything else that is logged, and weights."""
    mine, _ = train(configure(HEAD_ALONE, CASES[case], {"output": str(tmp_path / "head")}))
    frozen_trunk()
    plain, _ = train(configure(FULL, CASES[case], {"output": str(tmp_path / "plain")}))
    for one, other in zip(metrics(mine), metrics(plain), strict=True):
        assert one.keys() == other.keys()
        for name in one:
            assert one[name] == pytest.approx(other[name], rel=1e-4, abs=1e-5), name
    ours, theirs = weights(mine.model), weights(plain.model)
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-4, atol=1e-5 if name == "score.weight" else 0.0)
    assert mine.facts()["tokens"] == plain.facts()["tokens"]
    assert (mine.model / "config.json").read_text() == (plain.model / "config.json").read_text()


def test_the_trunk_runs_once_for_all_runs_and_their_evaluation(
    tmp_path: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = {"reference": {"cache": str(tmp_path / "cache")}}
    first = configure(HEAD_ALONE, cache, {"output": str(tmp_path / "first")})
    workspace = Run.read(first).workspace()
    run, model = train(first, workspace=workspace, keep_model=True)
    margins = held_out_margins(model, Run.opened(run.path), workspace)
    alone = held_out_margins(TrainedHead(model.get_submodule(HEAD)), Run.opened(run.path), workspace)  # as in training
    np.testing.assert_array_equal(alone.reward_margin, margins.reward_margin)
    refuse_the_trunk(monkeypatch)
    other = configure(HEAD_ALONE, cache, CASES["averaged target"], {"output": str(tmp_path / "other"), "seed": 3})
    again, model = train(other, workspace=workspace, keep_model=True)
    found = held_out_margins(model, Run.opened(again.path), workspace)
    assert found.ids == margins.ids and not np.array_equal(found.reward_margin, margins.reward_margin)


def test_what_is_saved_is_an_ordinary_classifier(tmp_path: Path, configure: Configure) -> None:
    config = configure(HEAD_ALONE, {"train": {"learning_rate": 0.1}})
    workspace = Run.read(config).workspace()
    run, model = train(config, workspace=workspace, keep_model=True)
    again = AutoModelForSequenceClassification.from_pretrained(run.model)
    assert type(model) is type(again) and not list(run.model.glob("*.py"))
    tokens = workspace.test.encoded
    evaluate_run(run.path)
    margins = HeldOutMargins.load(run.evaluation / "margins.parquet").reward_margin
    for row in range(len(tokens)):
        rows = [np.concatenate([tokens.prompt[row], side[row]])[None] for side in (tokens.chosen, tokens.rejected)]
        with torch.no_grad():
            chosen, rejected = (float(again(input_ids=torch.from_numpy(ids)).logits) for ids in rows)
        assert margins[row] == pytest.approx(chosen - rejected, abs=1e-4)
    assert np.abs(margins).max() > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("case", ["dpo", "averaged target"])
def test_a_resumed_run_ends_with_the_same_weights(
    tmp_path: Path, configure: Configure, weights: Any, metrics: Metrics, case: str
) -> None:
    whole, _ = train(configure(HEAD_ALONE, CASES[case], {"output": str(tmp_path / "whole")}))
    part = configure(HEAD_ALONE, CASES[case], {"output": str(tmp_path / "part"), "train": {"save_steps": 2}})
    run, _ = train(part)
    assert [file.name for file in run.checkpoints.glob("checkpoint-2/model*")] == ["model.safetensors"]
    assert (run.checkpoints / "checkpoint-2" / "model.safetensors").stat().st_size < 5_000
    (run.path / "run.json").unlink()
    again, _ = train(part, resume=True)
    assert metrics(again) == metrics(whole)
    ours, theirs = weights(again.model), weights(whole.model)
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())


@pytest.mark.slow
def test_two_processes_train_the_same_head(
    tmp_path: Path, base_run: dict[str, Any], configure: Configure, popmargin: Callable[..., Any], weights: Any
) -> None:
    """They share the work of the hidden states, and exchange the head's gradients."""
    change = merge(HEAD_ALONE, {"train": {"micro_batch_size": 2}, "reference": {"cache": str(tmp_path / "cache")}})
    values = merge(merge(base_run, change), {"output": str(tmp_path / "two")})
    (tmp_path / "run.yaml").write_text(dump_yaml(values), encoding="utf-8")
    done = popmargin("train", str(tmp_path / "run.yaml"), processes=2)
    assert done.returncode == 0, done.stderr
    one, _ = train(configure(change, {"output": str(tmp_path / "one")}))
    ours, theirs = weights(tmp_path / "two" / "model"), weights(one.model)
    torch.testing.assert_close(ours["score.weight"], theirs["score.weight"], rtol=1e-3, atol=1e-5)
    assert all(torch.equal(ours[name], value) for name, value in theirs.items() if name != "score.weight")


def test_a_head_with_a_hidden_layer(tmp_path: Path, configure: Configure) -> None:
    """It is saved with the model, read back by its rewards, refused by what does not know it, and trained on."""
    hidden = {"model": {"train": "head", "head_hidden": 4}, "train": {"learning_rate": 0.1}}
    config = configure({"task": "reward"}, hidden)
    workspace = Run.read(config).workspace()
    run, model = train(config, workspace=workspace, keep_model=True)
    head = model.get_submodule(HEAD)
    assert isinstance(head, HiddenHead) and (head.out_features, tuple(head.out.weight.shape)) == (4, (1, 4))
    with pytest.raises(RuntimeError, match=r"size mismatch|mismatched"):
        AutoModelForSequenceClassification.from_pretrained(run.model)
    evaluate_run(run.path)
    margins = HeldOutMargins.load(run.evaluation / "margins.parquet").reward_margin
    test, scored = list(workspace.test.preferences.dataset), load_reward(f"model:{run.model}")
    prompts = [row["prompt"] for row in test]
    sides = [scored.score(prompts, [row[side] for row in test]) for side in ("chosen", "rejected")]
    np.testing.assert_allclose(margins, np.subtract(*sides), atol=1e-4)
    on = {"model": {"train": "head", "path": str(run.model)}, "train": {"learning_rate": 0.0, "max_steps": 1}}
    later, kept = train(configure({"task": "reward"}, on, {"output": str(tmp_path / "on")}), keep_model=True)
    assert torch.equal(kept.get_submodule(HEAD).out.weight, head.out.weight) and later.finished
    full = configure(FULL, {"model": {"path": str(run.model)}}, {"output": str(tmp_path / "full")})
    assert isinstance(train(full, keep_model=True)[1].get_submodule(HEAD), HiddenHead)
    wider = configure({"task": "reward"}, on, {"model": {"head_hidden": 5}}, {"output": str(tmp_path / "wider")})
    with pytest.raises(ConfigError, match="a trained head with a hidden layer of 4, which would be lost"):
        train(wider)


def test_the_last_layers(tmp_path: Path, configure: Configure, weights: Any) -> None:
    last = {"task": "reward", "model": {"train": "last_n", "last_layers": 1}}
    config = configure(last)
    before = Run.read(config).workspace().task.start_model.state_dict()
    run, _ = train(config)
    after = weights(run.model)
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    layers = {name.split(".")[2] for name in after if ".layers." in name}
    top = str(max(map(int, layers)))
    assert changed == {name for name in after if name.startswith((f"model.layers.{top}.", "model.norm.", "score."))}
    with pytest.raises(ConfigError, match=rf"model.last_layers is 9, but the model has {len(layers)}\. Lower it"):
        train(configure(last, {"model": {"last_layers": 9}, "output": str(tmp_path / "nine")}))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": {"train": "lora"}}, r"needs the rank of the adapter. Set model.lora_rank"),
        ({"model": {"train": "head", "lora_rank": 4}}, "trains no adapter, but model.lora_rank is 4. Set model.train"),
        ({"model": {"train": "last_n"}}, "needs how many layers are trained. Set model.last_layers"),
        ({"model": {"last_layers": 2}}, "model.last_layers is 2, but model.train is full. Set model.train to last_n"),
        ({"model": {"head_hidden": 8}}, "model.head_hidden is 8, but model.train is full. Set model.train to head"),
        ({"model": {"train": "head", "dropout": True}}, "model.dropout has no effect with model.train: head"),
        ({"model": {"train": "top"}}, "model.train is 'top'"),
        (
            {"model": {"train": "head"}, "task": "policy"},
            "head is for reward models, and this is a policy",
        ),
        ({"model": {"train": "last_n", "last_layers": 1}, "task": "policy"}, "lora_last_layers adapts the last layers"),
        (
            {"model": {"train": "head"}, "train": {"compile": True}},
            "compile has no effect with model.train: head",
        ),
    ],
)
def test_settings_that_contradict_each_other(configure: Configure, change: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Run.read(configure({"task": "reward"}, change))


def test_a_head_is_not_divided(configure: Configure) -> None:
    run = Run.read(configure(HEAD_ALONE))
    task = run.workspace().task
    task.sharding = Sharding(FullyShardedDataParallelPlugin(fsdp_version=2), torch.device("cpu"))
    with pytest.raises(ConfigError, match=r"model\.train: head trains so few weights.*Remove fsdp"):
        task.make_model(run.model)


def test_a_head_is_not_divided_by_zero_3(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run.read(configure(HEAD_ALONE))
    task = run.workspace().task
    monkeypatch.setattr(deepspeed, "is_deepspeed_zero3_enabled", lambda: True)
    with pytest.raises(ConfigError, match=r"model\.train: head trains so few weights.*Remove fsdp and deepspeed"):
        task.make_model(run.model)


def test_a_rounded_trunk_is_refused(configure: Configure) -> None:
    """Its hidden states would not be those of the saved model."""
    with pytest.raises(ConfigError, match="save_dtype: bf16 would round the frozen weights"):
        train(configure(HEAD_ALONE, {"model": {"save_dtype": "bf16"}}))


def test_the_model_in_training_is_the_head(configure: Configure) -> None:
    config = configure(HEAD_ALONE)
    task = Run.read(config).workspace().task
    model = task.make_model(config.model)
    assert isinstance(model, TrainedHead) and [name for name, _ in model.named_parameters()] == ["score.weight"]
