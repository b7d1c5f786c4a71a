"""Training runs on the tiny model: what they lower, what they repeat, and what they leave behind."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from few_fast import few_fast
from popmargin.config import RunConfig
from popmargin.errors import DataError
from popmargin.objectives.base import OBJECTIVES
from popmargin.training.run import train
from popmargin.training.run_directory import RunDirectory
from popmargin.training.sides import load_split
from rounding import rounding

Configure = Callable[..., RunConfig]
Metrics = Callable[[RunDirectory], list[dict[str, Any]]]
PUBLISHED = sorted(OBJECTIVES.names())


def to(output: Path, **train_settings: Any) -> dict[str, Any]:
    return {"output": str(output), "train": train_settings}


def test_training_lowers_the_loss(configure: Configure, metrics: Metrics) -> None:
    run, policy = train(configure({"train": {"max_steps": 12, "batch_size": 32}}), keep_model=True)
    lines = metrics(run)
    assert [line["step"] for line in lines] == list(range(1, 13))
    assert lines[-1]["loss"] < 0.9 * lines[0]["loss"] and lines[-1]["accuracy"] > lines[0]["accuracy"]
    assert lines[-1]["reward_margin"] > 0 and lines[-1]["chosen_logratio"] > lines[-1]["rejected_logratio"]
    assert policy is not None


def test_implicit_rewards_start_at_0(configure: Configure, metrics: Metrics) -> None:
    run, _ = train(configure({"train": {"max_steps": 1}}))
    (first,) = metrics(run)
    for name in ("chosen_logratio", "rejected_logratio", "reward_margin"):
        assert abs(first[name]) < 1e-5, name
    assert first["loss"] == pytest.approx(0.6931472, abs=1e-6)


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path, configure: Configure) -> None:
    """Row 3 of the reliability targets: metrics and weights, byte by byte, dropout and an EMA target included."""
    changes = {"objective": {"name": "pop"}, "model": {"lora_rank": 2, "lora_dropout": 0.2}}
    runs = [train(configure(changes, to(tmp_path / name, max_steps=4)))[0] for name in ("a", "b")]
    for file in ("metrics.jsonl", "model/adapter_model.safetensors", "edges.parquet"):
        assert (runs[0].path / file).read_bytes() == (runs[1].path / file).read_bytes(), file
    other = train(configure(changes, to(tmp_path / "c", max_steps=4), {"seed": 1}))[0]
    assert (other.path / "metrics.jsonl").read_bytes() != (runs[0].path / "metrics.jsonl").read_bytes()


def test_measuring_during_training_does_not_change_it(tmp_path: Path, configure: Configure) -> None:
    def probe(policy: Any, step: int) -> dict[str, Any]:
        policy.eval()
        with torch.no_grad():
            policy(input_ids=torch.tensor([[4, 5]]))
        policy.train()
        return {"value": step}

    curves = {"evaluation": {"curve_points": 2}}
    plain, _ = train(configure(to(tmp_path / "plain", max_steps=4)))
    watched, _ = train(configure(curves, to(tmp_path / "watched", max_steps=4)), probe=probe)
    assert (plain.path / "metrics.jsonl").read_bytes() == (watched.path / "metrics.jsonl").read_bytes()
    lines = [json.loads(line) for line in (watched.path / "curves.jsonl").read_text().splitlines()]
    assert lines == [{"step": 2, "value": 2}]  # the last point is the evaluation after training


@pytest.mark.parametrize(
    ("objective", "kind"),
    few_fast(
        [
            ("dpo", "ema"),
            ("pop_rank", "ema"),
            ("pop_lagrangian", "ema"),
            ("pop", "ema"),
            ("pop", "policy"),
            ("pop", "bank"),
        ],
        (1, 5),
    ),
)
def test_micro_batches_are_one_batch(
    tmp_path: Path, configure: Configure, metrics: Metrics, objective: str, kind: str
) -> None:
    changes = {"objective": {"name": objective}, "target": {"kind": kind, "tau": 0.5}, "train": {"learning_rate": 3e-4}}
    whole, _ = train(configure(changes, to(tmp_path / "whole", max_steps=3)))
    parts, _ = train(configure(changes, to(tmp_path / "parts", max_steps=3, micro_batch_size=1)))
    for one, many in zip(metrics(whole), metrics(parts), strict=True):
        assert one["loss"] == pytest.approx(many["loss"], abs=1e-5)
        assert one["accuracy"] == pytest.approx(many["accuracy"], abs=1e-9)
        assert one["reward_margin"] == pytest.approx(many["reward_margin"], abs=1e-4)
        if "target_margin_mean" in one:
            assert one["target_margin_mean"] == pytest.approx(many["target_margin_mean"], abs=1e-4)
            assert one["target_margin_std"] == pytest.approx(many["target_margin_std"], abs=1e-3)


@pytest.mark.parametrize("objective", PUBLISHED)
def test_every_objective_trains_with_every_target(
    tmp_path: Path, configure: Configure, metrics: Metrics, soft_path: str, objective: str
) -> None:
    needs = OBJECTIVES.get(objective).needs
    kinds = ("ema", "policy", "bank") if needs.weaker == "target" else ("ema",)
    for kind in kinds:
        changes = {"objective": {"name": objective}, "target": {"kind": kind}}
        changes |= {"data": {"train": soft_path}} if needs.soft_label else {}
        run, _ = train(configure(changes, to(tmp_path / kind, max_steps=2)))
        lines = metrics(run)
        assert len(lines) == 2 and all(line["loss"] == line["loss"] and line["grad_norm"] > 0 for line in lines)
        assert ("target_distance" in lines[1]) == (len(kinds) == 3)
        assert run.facts()["objective"] == objective


@pytest.mark.parametrize("lora", [0, 2])
def test_the_ema_target_moves_and_lags(configure: Configure, metrics: Metrics, lora: int) -> None:
    changes = {"objective": {"name": "pop"}, "target": {"tau": 0.5}, "model": {"lora_rank": lora}}
    run, _ = train(configure(changes, {"train": {"max_steps": 6, "batch_size": 32}}))
    lines = metrics(run)
    assert lines[0]["target_margin_mean"] == pytest.approx(0, abs=1e-5)
    assert lines[-1]["target_margin_mean"] > 0.05 and lines[-1]["target_margin_std"] > 0
    assert all(line["target_distance"] > 0 for line in lines)


def test_a_frozen_target_is_the_control(tmp_path: Path, configure: Configure, metrics: Metrics) -> None:
    """Trap 1 of the notes in reverse: a target that never moves makes pop the control, and its margin shows it."""
    edges = {"pop": {"k": 1, "sampling": "random"}}
    pop, _ = train(configure(edges, {"objective": {"name": "pop"}, "target": {"tau": 0.999999}}, to(tmp_path / "pop")))
    control, _ = train(configure(edges, {"objective": {"name": "dpo_stronger"}}, to(tmp_path / "control")))
    for one, other in zip(metrics(pop), metrics(control), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], abs=1e-4)
        assert one["target_margin_mean"] == pytest.approx(0, abs=1e-4)


def test_sft_adds_the_chosen_nll(tmp_path: Path, configure: Configure, metrics: Metrics) -> None:
    entry = {"name": "sft", "weight": 0.5, "length_normalized": False}
    plain, _ = train(configure(to(tmp_path / "plain", max_steps=1)))
    added, _ = train(configure({"regularizers": [entry]}, to(tmp_path / "sft", max_steps=1)))
    (before,), (after,) = metrics(plain), metrics(added)
    assert after["loss"] - before["loss"] == pytest.approx(-0.5 * before["chosen_logps"], rel=1e-4)


def test_clustered_edges(tmp_path: Path, configure: Configure, metrics: Metrics) -> None:
    settings = {"objective": {"name": "pop_rank"}, "pop": {"k": 2}}
    tokens: dict[str, int] = {}
    for order in ("random", "clustered"):
        epoch = {"epochs": 2.0, "max_steps": None, "edge_batching": order, "micro_batch_size": 4}
        run, _ = train(configure(settings, to(tmp_path / order, **epoch)))
        tokens[order] = run.facts()["tokens"]
        assert len(metrics(run)) == run.facts()["steps"] == 2 * -(-run.facts()["rows"] // 8)
    assert tokens["clustered"] < tokens["random"]


def test_lora_on_the_last_layers_only(configure: Configure, weights: Any) -> None:
    run, _ = train(configure({"model": {"lora_rank": 2, "lora_last_layers": 1}, "train": {"max_steps": 1}}))
    names = weights(run.model)
    assert names and all(".layers.1." in name for name in names)


@pytest.mark.slow
def test_bf16_keeps_trained_weights_in_fp32(configure: Configure, weights: Any, metrics: Metrics) -> None:
    run, _ = train(configure({"model": {"precision": "bf16"}, "train": {"max_steps": 2}}))
    assert {tensor.dtype for tensor in weights(run.model).values()} == {torch.float32}
    first = metrics(run)[0]
    tokens = -first["chosen_logps"] / np.log(300)  # about: the start model is random
    allowed = 0.05 * rounding(torch.bfloat16, np.log(300) * tokens**0.5, 20)  # β/2 of the log-ratio's
    assert first["loss"] == pytest.approx(np.log(2), abs=allowed)


def test_gradient_checkpointing_is_the_same_training(tmp_path: Path, configure: Configure, metrics: Metrics) -> None:
    plain, _ = train(configure(to(tmp_path / "plain", max_steps=2)))
    saving, _ = train(configure(to(tmp_path / "saving", max_steps=2, gradient_checkpointing=True)))
    for one, other in zip(metrics(plain), metrics(saving), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], abs=1e-6)
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-3)


def test_ratings_are_needed_for_rating_margins(configure: Configure, unrated_path: str) -> None:
    with pytest.raises(ValueError, match=r"needs chosen_rating and rejected_rating, which 32 of 32 .*'p0"):
        train(configure({"data": {"train": unrated_path}, "objective": {"name": "dpo_rating_margin"}}))
    with pytest.raises(ValueError, match="strength"):
        train(configure({"data": {"train": unrated_path}, "objective": {"name": "pop"}}))


def test_another_reference_model(
    tmp_path: Path, configure: Configure, metrics: Metrics, make_model: Callable[..., Any], tiny_tokenizer: Any
) -> None:
    folder = tmp_path / "reference-model"
    make_model(seed=5).save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    run, _ = train(configure({"reference": {"model": str(folder)}, "train": {"max_steps": 1}}))
    assert abs(metrics(run)[0]["chosen_logratio"]) > 0.1
    with pytest.raises(ValueError, match=r"remove reference\.model"):
        bank = {"target": {"kind": "bank"}, "objective": {"name": "simpo_pop"}, "reference": {"model": str(folder)}}
        train(configure(bank, to(tmp_path / "bank")))


def test_the_bank_of_simpo_pop_starts_with_the_start_models_gaps(configure: Configure, metrics: Metrics) -> None:
    run, _ = train(configure({"target": {"kind": "bank"}, "objective": {"name": "simpo_pop"}}))
    assert metrics(run)[0]["target_margin_mean"] > 0


def test_reference_log_probs_are_shared_by_other_runs(tmp_path: Path, configure: Configure) -> None:
    cache = {"reference": {"cache": str(tmp_path / "cache")}}
    train(configure(cache, to(tmp_path / "a", max_steps=1)))
    shards = {path: path.read_bytes() for path in (tmp_path / "cache").rglob("*.safetensors")}
    other = {"objective": {"name": "pop_rank", "beta": 0.3}, "seed": 4, "name": "other", "model": {"lora_rank": 2}}
    train(configure(cache, other, to(tmp_path / "b", max_steps=1, learning_rate=1e-5, batch_size=4)))
    assert shards and {path: path.read_bytes() for path in (tmp_path / "cache").rglob("*.safetensors")} == shards
    train(configure(cache, {"model": {"precision": "bf16"}}, to(tmp_path / "c", max_steps=1)))
    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) > len(shards)


def test_soft_labels_from_ratings(configure: Configure, unrated_path: str) -> None:
    """σ(gap / temperature) of the training side alone; a flip leaves it, as it leaves the ratings."""
    plain, held_out = load_split(configure().data)
    train_side, test_side = load_split(configure({"data": {"soft_label_temperature": 2.0, "flip": 0.3}}).data)
    assert train_side.soft_label.tolist() == pytest.approx((1 / (1 + np.exp(-plain.rating_gap / 2))).tolist())
    assert test_side.fingerprint() == held_out.fingerprint()
    run, _ = train(configure({"objective": {"name": "geometric_dpo"}, "data": {"soft_label_temperature": 2.0},
                              "train": {"max_steps": 1}}))  # fmt: skip
    assert run.facts()["objective"] == "geometric_dpo"
    unrated = configure({"data": {"soft_label_temperature": 1.0, "train": unrated_path}})
    with pytest.raises(DataError, match=r"preferences lack \(first: .*popmargin data rate"):
        load_split(unrated.data)
    with pytest.raises(DataError, match=r"set data\.soft_label_temperature to make it from ratings"):
        train(configure({"objective": {"name": "cdpo"}, "output": f"{run.path}-none"}))


def test_soft_labels_below_one_half_are_exchanged_before_the_noise(configure: Configure, soft_path: str) -> None:
    """Every objective trains towards the side that they prefer, on both sides of the split; flips come after."""
    for flip in (0.0, 0.3):
        rated = load_split(configure({"data": {"flip": flip}}).data)
        soft = load_split(configure({"data": {"train": soft_path, "flip": flip}}).data)
        for plain, found in zip(rated, soft, strict=True):
            assert found.soft_label.min() >= 0.5 and found.ids == plain.ids
            assert found.dataset["chosen"][:] == plain.dataset["chosen"][:]
            assert found.rating_gap.tolist() == plain.rating_gap.tolist()


def test_noise_and_limits(configure: Configure) -> None:
    run, _ = train(configure({"data": {"flip": 0.3, "limit": 16}, "train": {"max_steps": 1}}))
    facts = run.facts()
    assert (facts["train_preferences"], facts["test_preferences"]) == (16, 8)
    clean, _ = train(configure({"data": {"limit": 16}, "output": f"{run.path}-clean", "train": {"max_steps": 1}}))
    assert clean.facts()["train_fingerprint"] != facts["train_fingerprint"]
    assert clean.facts()["test_fingerprint"] == facts["test_fingerprint"]
