"""`spa` in training: de-coupled gaps, the noise detector's state, and what changes neither."""

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file

from popmargin.config import RunConfig
from popmargin.errors import ConfigError, RunError
from popmargin.training.build import Parts, Run, make_loss, make_parts
from popmargin.training.run import train
from popmargin.training.step_metrics import RowValues
from popmargin.training.trainer import STATE_FILE
from popmargin.training.workspace import Workspace

Configure = Callable[..., RunConfig]
Metrics = Callable[..., list[dict[str, Any]]]
CONFLICTS = {"data": {"flip": 0.5}}
"""Half the labels contradict the others, or all gaps would rise together, above every threshold."""
SPA = {"name": "spa", "window": 12, "quantile": 0.3, "alpha": 0.5, "warm_share": 0.0}


def made(config: RunConfig) -> tuple[Parts, Workspace]:
    """The parts of a run whose policy has moved."""
    workspace = Run.read(config).workspace()
    parts = make_parts(Run.read(config), workspace)
    torch.manual_seed(3)
    for parameter in parts.policy.parameters():
        if parameter.requires_grad:
            parameter.data += 0.05 * torch.randn_like(parameter)
    return parts, workspace


def log_softmax(model: Any, ids: torch.Tensor) -> torch.Tensor:
    return model(input_ids=ids[None]).logits[0].double().log_softmax(-1)[:-1]


@torch.no_grad()
def gap(policy: Any, reference: Any, encoded: Any, place: int, weight: float) -> float:
    """Δ̃ of a preference, one response at a time."""
    sums: list[float] = []
    for side in (encoded.chosen, encoded.rejected):
        prompt, completion = encoded.prompt[place], side[place]
        ids = torch.from_numpy(np.concatenate([prompt, completion]).astype(np.int64))
        own, other = (log_softmax(model, ids) for model in (policy, reference))
        moved = ((1 + weight) * own - weight * other).log_softmax(-1)
        ratio = (moved - other).gather(1, ids[1:, None]).squeeze(1)
        sums.append(float(ratio[len(prompt) - 1 :].sum()))
    return sums[0] - sums[1]


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"model": {"lora_rank": 2}},
        {"model": {"lora_rank": 2, "lora_last_layers": 1}, "train": {"frozen_cache_gb": 0.1}},
    ],
    ids=["full", "lora", "frozen"],
)
def test_the_scorer_gives_the_plain_de_coupled_gap(configure: Configure, change: dict[str, Any]) -> None:
    parts, workspace = made(configure({"objective": SPA}, change))
    places = np.array([0, 5, 9, 11])
    batch = parts.collator.inputs.collate(places)
    scores = parts.scorer.score(parts.policy.eval(), batch, None)
    assert scores.decoupled is not None and not scores.decoupled.requires_grad
    reference = workspace.task.reference_model
    for weight, found in ((0.5, scores.decoupled), (0.0, scores.gap)):
        expected = [gap(parts.policy, reference, workspace.train.encoded, place, weight) for place in places.tolist()]
        assert found.tolist() == pytest.approx(expected, abs=2e-4)
    assert (scores.decoupled - scores.gap).abs().max() > 0.1


def test_a_named_reference_is_the_one_that_is_contrasted(
    tmp_path: Path, configure: Configure, make_model: Callable[..., Any], tiny_tokenizer: Any
) -> None:
    """Not the start model, nor the policy with its adapter off."""
    other = make_model(seed=1)
    other.save_pretrained(tmp_path / "other")
    tiny_tokenizer.save_pretrained(tmp_path / "other")
    change = {"reference": {"model": str(tmp_path / "other")}, "model": {"lora_rank": 2}}
    parts, workspace = made(configure({"objective": {**SPA, "decoupling": 0.25}}, change))
    scores = parts.scorer.score(parts.policy.eval(), parts.collator.inputs.collate(np.arange(3)), None)
    expected = [gap(parts.policy, other, workspace.train.encoded, place, 0.25) for place in range(3)]
    assert scores.decoupled is not None and scores.decoupled.tolist() == pytest.approx(expected, abs=5e-4)


@pytest.fixture
def adapted_start(tmp_path: Path, make_model: Callable[..., Any], tiny_tokenizer: Any) -> tuple[str, Any]:
    """A start model that is an adapter, and what it is when merged by peft alone."""
    base = make_model()
    base.save_pretrained(tmp_path / "base")
    policy = get_peft_model(base, LoraConfig(r=4, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM"))
    policy.peft_config["default"].base_model_name_or_path = str(tmp_path / "base")
    torch.manual_seed(5)
    for parameter in policy.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn_like(parameter)
    policy.save_pretrained(tmp_path / "sft", save_embedding_layers=False)
    tiny_tokenizer.save_pretrained(tmp_path / "sft")
    return str(tmp_path / "sft"), policy.merge_and_unload().eval()


@pytest.mark.parametrize("kept", ["merge", "stack"])
def test_an_adapter_as_the_start_is_what_is_contrasted(
    configure: Configure, adapted_start: tuple[str, Any], kept: str
) -> None:
    """Switching off the trained adapter leaves the start adapter on, whether it was merged or stays below."""
    path, start = adapted_start
    change = {"model": {"path": path, "lora_rank": 2, "start_adapter": kept}}
    parts, workspace = made(configure({"objective": {**SPA, "decoupling": 0.5}}, change))
    scores = parts.scorer.score(parts.policy.eval(), parts.collator.inputs.collate(np.arange(3)), None)
    expected = [gap(parts.policy, start, workspace.train.encoded, place, 0.5) for place in range(3)]
    assert scores.decoupled is not None and scores.decoupled.tolist() == pytest.approx(expected, abs=5e-4)
    assert (scores.decoupled - scores.gap).abs().max() > 0.1


@pytest.mark.slow
def test_stacked_and_merged_starts_train_alike(
    configure: Configure, metrics: Metrics, adapted_start: tuple[str, Any], tmp_path: Path
) -> None:
    """The same start model in two forms: the same numbers, also of a run that was stopped and went on."""
    found: list[list[dict[str, Any]]] = []
    for kept in ("merge", "stack"):
        model = {"path": adapted_start[0], "lora_rank": 2, "start_adapter": kept}
        base = {
            "objective": SPA,
            "model": model,
            "output": str(tmp_path / kept),
            "train": {"save_steps": 2},
            **CONFLICTS,
        }
        run, policy = train(configure(base, {"train": {"max_steps": 4}}), keep_model=True)
        found.append(metrics(run))
        (run.path / "run.json").unlink()
        shutil.rmtree(run.checkpoints / "checkpoint-4")
        _, again = train(configure(base, {"train": {"max_steps": 4}}), resume=True, keep_model=True)
        assert metrics(run) == found[-1]
        ids = torch.arange(5, 15)[None]
        with torch.no_grad():
            assert torch.equal(again.eval()(input_ids=ids).logits, policy.eval()(input_ids=ids).logits)
    for merged, stacked in zip(*found, strict=True):
        for name in ("loss", "reward_margin", "decoupled_margin"):
            assert stacked[name] == pytest.approx(merged[name], abs=1e-4), name


def test_dropped_tokens_are_dropped_there_too(configure: Configure) -> None:
    """A selector that keeps all tokens changes nothing; one that drops most changes every gap."""
    parts, _ = made(configure({"objective": SPA, "tokens": {"name": "selective", "share": 1.0}}))
    whole, _ = made(configure({"objective": SPA}))
    batch = parts.collator.inputs.collate(np.arange(4))
    all_kept, expected = (p.scorer.score(p.policy.eval(), batch, None).decoupled for p in (parts, whole))
    assert all_kept is not None and expected is not None
    torch.testing.assert_close(all_kept, expected)
    fewer, _ = made(configure({"objective": SPA, "tokens": {"name": "selective", "share": 0.3}}))
    some = fewer.scorer.score(fewer.policy.eval(), batch, None).decoupled
    assert some is not None and (some - expected).abs().min() > 1e-4


@pytest.mark.slow
def test_batches_and_layouts_do_not_matter(
    tmp_path: Path, configure: Configure, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Micro-batches, parts of a token budget and padded rows: the same losses, gaps, threshold and state."""
    base = {"objective": {**SPA, "window": 8}, "train": {"max_steps": 2, "save_steps": 2}, **CONFLICTS}
    workspace = Run.read(configure(base)).workspace()
    whole, _ = train(configure(base, {"output": str(tmp_path / "whole")}), workspace=workspace)
    runs = [
        train(configure(base, change, {"output": str(tmp_path / name)}), workspace=workspace)[0]
        for name, change in {
            "micro": {"train": {"micro_batch_size": 2}},
            "budget": {"train": {"tokens_per_batch": 64}},
        }.items()
    ]

    def refused(*_: Any) -> tuple[str, bool]:
        return "a test", False

    monkeypatch.setattr("popmargin.engine.logps.packing_refused", refused)
    runs.append(train(configure(base, {"output": str(tmp_path / "padded")}))[0])
    expected, state = metrics(whole), load_file(whole.checkpoints / "checkpoint-2" / STATE_FILE)
    assert "suspect_threshold" not in expected[0] and 0 < expected[1]["suspected"] < 1
    for run in runs:
        for mine, other in zip(metrics(run), expected, strict=True):
            for name in ("loss", "decoupled_margin", "suspected", "suspect_threshold"):
                assert mine.get(name) == pytest.approx(other.get(name), abs=2e-4), (run.path.name, name)
        own = load_file(run.checkpoints / "checkpoint-2" / STATE_FILE)
        for name, tensor in state.items():
            torch.testing.assert_close(own[name], tensor, rtol=0, atol=1e-4)


def test_without_decoupling_the_cache_is_enough(configure: Configure, metrics: Metrics) -> None:
    """λ = 0: h̃ is h, and the reference is not forwarded beside the policy."""
    config = configure({"objective": {**SPA, "decoupling": 0.0}}, CONFLICTS)
    parts, _ = made(config)
    assert parts.scorer.other is None  # pyright: ignore[reportAttributeAccessIssue]
    run, _ = train(config)
    lines = metrics(run)
    for line in lines:
        assert line["decoupled_margin"] == pytest.approx(line["reward_margin"], abs=1e-7)
        assert line["signs_agree"] == 1.0
    assert lines[0]["decoupled_margin"] == pytest.approx(0, abs=1e-6) and lines[2]["suspected"] > 0


def test_the_first_steps_are_not_smoothed(configure: Configure, metrics: Metrics, tmp_path: Path) -> None:
    """Half of four steps as the warm share: the losses of the first two are dpo's, though rows are suspected there."""
    steps = {"train": {"max_steps": 4, "batch_size": 16, "learning_rate": 2e-4}, **CONFLICTS}
    warm = {**SPA, "quantile": 0.9, "warm_share": 0.5}
    runs = [
        train(configure({"objective": objective}, steps, {"output": str(tmp_path / str(objective["name"]))}))[0]
        for objective in (warm, {"name": "dpo"})
    ]
    lines, others = (metrics(run) for run in runs)
    same = [mine["loss"] == other["loss"] for mine, other in zip(lines, others, strict=True)]
    assert same[:3] == [True, True, False] and 0 < lines[1]["suspected"] < 1


def test_a_reward_model_has_no_decoupled_gap(configure: Configure, metrics: Metrics) -> None:
    """One rule refuses it; with λ = 0 the objective asks for nothing that a reward model lacks."""
    with pytest.raises(ConfigError, match="'spa' contrasts the logits of policy and reference, which a reward model"):
        make_loss(configure({"task": "reward", "objective": {"name": "spa"}}))
    run, _ = train(configure({"task": "reward", "objective": {**SPA, "decoupling": 0.0}}))
    assert all(math.isfinite(line["loss"]) for line in metrics(run))


def test_a_reference_of_another_vocabulary_is_refused(
    tmp_path: Path, configure: Configure, make_model: Callable[..., Any], tiny_tokenizer: Any
) -> None:
    other = make_model()
    other.resize_token_embeddings(other.config.vocab_size + 8, mean_resizing=False)
    other.save_pretrained(tmp_path / "other")
    tiny_tokenizer.save_pretrained(tmp_path / "other")
    config = configure({"objective": SPA, "reference": {"model": str(tmp_path / "other")}})
    with pytest.raises(ConfigError, match=r"whole vocabulary, but reference\.model .*/other' has [0-9]+ of them"):
        make_parts(Run.read(config), Run.read(config).workspace())


def test_a_gap_that_is_not_finite_stops_the_run(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is in no loss before something is suspected, but would spoil the threshold."""

    def broken(*_: Any, **__: Any) -> torch.Tensor:
        return torch.full((_[2].shape[0],), torch.nan)

    monkeypatch.setattr("popmargin.engine.contrast.Contrast.label_logps", broken)
    with pytest.raises(RunError, match="not finite at step 1 for the preferences"):
        train(configure({"objective": SPA}))


def test_rows_of_a_step_are_read_once_and_without_nan() -> None:
    rows = RowValues(("b",))
    rows.add({"a": torch.zeros(2), "b": torch.tensor([1.0, math.nan])})
    rows.add({"a": torch.zeros(1), "b": torch.tensor([3.0])})
    assert rows.read()["b"].tolist() == [1.0, 3.0]
    rows.add({"b": torch.tensor([5.0])})
    assert {name: values.tolist() for name, values in rows.read().items()} == {"b": [5.0]}
    with pytest.raises(RunError, match=r"declares every_row='b', but its diagnostics have no 'b' \(they have a\)"):
        rows.add({"a": torch.zeros(2)})
