"""Meaningless combinations are refused with the reason; meaningful ones train."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from few_fast import few_fast
from popmargin.config import RunConfig
from popmargin.errors import ConfigError
from popmargin.files import read_jsonl
from popmargin.objectives.base import OBJECTIVES, Needs
from popmargin.tasks.base import TASKS
from popmargin.training.build import Run, make_loss, make_parts
from popmargin.training.combinations import refuse_meaningless, without_effect
from popmargin.training.run import train

Configure = Callable[..., RunConfig]
REFUSED: list[tuple[dict[str, Any], str]] = [
    (
        {"objective": {"name": "orpo"}, "tokens": {"name": "selective"}},
        "'orpo' compares probabilities of whole responses, but the token selector 'selective' drops",
    ),
    (
        {"objective": {"name": "amapo"}, "train": {"tokens_per_batch": 64}},
        "'amapo' uses statistics over the rows forwarded together.*objective.running",
    ),
    (
        {"objective": {"name": "orpo"}, "regularizers": [{"name": "budget"}, {"name": "sft"}]},
        "'orpo' already includes the negative log-likelihood of the chosen response, which the regularizer 'sft'",
    ),
    ({"objective": {"name": "cpo"}, "regularizers": [{"name": "sft"}]}, "'cpo' already includes"),
    (
        {"objective": {"name": "dpo"}, "model": {"lora_rank": 4}, "train": {"frozen_cache_gb": 1.0}},
        "but there are none: set model.lora_rank and model.lora_last_layers",
    ),
    (
        {"objective": {"name": "dpo"}, "model": {"lora_last_layers": 1}, "train": {"frozen_cache_gb": 1.0}},
        "but there are none: set model.lora_rank and model.lora_last_layers",
    ),
    (
        {"task": "reward", "model": {"lora_rank": 4, "lora_last_layers": 1}, "train": {"frozen_cache_gb": 1.0}},
        "train.frozen_cache_gb caches the outputs of layers below a policy's adapter",
    ),
    ({"objective": {"name": "dpo"}, "regularizers": [{"name": "sft"}] * 2}, "'sft' is listed twice"),
    (
        {"objective": {"name": "dpo"}, "regularizers": [{"name": "sft", "weight": -1.0}]},
        "weight of regularizer 'sft' must be 0 or more, not -1.0",
    ),
    ({"objective": {"name": "dpo"}, "regularizers": [{"weight": 1.0}]}, r"\[0\].name is missing \(it has weight\)"),
    ({"objective": {"name": "dpo"}, "tokens": {"share": 0.3}}, r"is missing \(it has share\), e.g. {name: selective}"),
    ({"objective": {"name": "pop_lagrangian", "lambda_lr": -5.0}}, "lambda_lr must be 0 or more"),
    (
        {"objective": {"name": "dpo"}, "evaluation": {"guidance_scale": 2.0}},
        "evaluation.guidance_scale has no meaning for a policy: it samples no images",
    ),
    (
        {"task": "images", "objective": {"name": "dpo"}, "evaluation": {"max_new_tokens": 5}},
        "evaluation.max_new_tokens has no meaning for a text-to-image model: it samples images, which have no tokens",
    ),
]
REFUSED_IDS = ["orpo-tokens", "amapo-parts", "orpo-sft", "cpo-sft", "frozen-all", "frozen-no-adapter", "frozen-rewards",
               "twice", "negative", "unnamed", "unnamed-tokens", "descent", "guided-texts", "cut-images"]  # fmt: skip


@pytest.mark.parametrize(("values", "reason"), REFUSED, ids=REFUSED_IDS)
def test_refused_with_the_reason(configure: Configure, values: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        make_loss(configure(values))


@pytest.mark.parametrize(
    ("task", "required", "reason"),
    [
        (
            "policy",
            "denoising_error",
            r"'odd' requires 'denoising_error', which a policy does not have \(task: policy\)",
        ),
        ("reward", "denoising_error", "'odd' requires 'denoising_error', which a reward model does not have"),
        ("policy", "reward", "'odd' is a term of rewards, which a policy does not have"),
        ("reward", "tokens", "'odd' weighs log-probs of tokens, which a reward model does not have"),
        ("reward", "generation", "'odd' requires 'generation', which a reward model does not have.*: use aps, cdpo"),
    ],
)
def test_what_a_part_requires_and_the_task_does_not_provide_is_refused_by_one_rule(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, task: str, required: str, reason: str
) -> None:
    kind = replace(OBJECTIVES.get("dpo"), name="odd", needs=Needs(provided=(required,)))
    monkeypatch.setitem(OBJECTIVES._entries, "odd", kind)  # pyright: ignore[reportPrivateUsage]
    with pytest.raises(ConfigError, match=reason):
        make_loss(configure({"task": task, "objective": {"name": "odd"}}))
    provided = TASKS.get(task).provides | {required}
    loss = make_loss(configure({"task": task, "objective": {"name": "dpo"}}))
    refuse_meaningless(
        replace(loss, objective=kind, provides=provided), "third", "a third task", **sections(configure())
    )


def sections(config: RunConfig) -> dict[str, Any]:
    """What else is looked at."""
    return {name: getattr(config, name) for name in ("data", "model", "reference", "train", "evaluation")}


def test_a_third_task_is_asked_what_it_provides(configure: Configure) -> None:
    """Nothing here knows the tasks by name: one that only has gaps trains with objectives of gaps, and no others."""
    fine, refused = set[str](), set[str]()
    for name in (
        name for name in OBJECTIVES.names() if OBJECTIVES.get(name).function.__module__.startswith("popmargin.")
    ):
        loss = make_loss(configure({"objective": {"name": name}}))
        try:
            refuse_meaningless(
                replace(loss, provides=frozenset({"log_ratio"})), "toy", "a toy", **sections(configure())
            )
            fine.add(name)
        except ConfigError as error:
            assert "which a toy does not have" in str(error)
            refused.add(name)
    assert (
        refused == {"amapo", "cpo", "dpop", "orpo", "preferdiff", "simpo", "simpo_pop", "spa"}
        and {"dpo", "pop", "aps"} <= fine
    )


def test_a_budget_is_in_the_reward_units_of_its_objective(configure: Configure) -> None:
    def beta(**budget: float) -> float:
        loss = make_loss(
            configure({"objective": {"name": "dpo", "beta": 0.3}, "regularizers": [{"name": "budget", **budget}]})
        )
        return loss.regularizers[0][2].beta

    assert beta() == 0.3 and beta(beta=0.2) == 0.2


def test_a_beta_that_soft_labels_shrink_is_warned_of(configure: Configure, caplog: pytest.LogCaptureFixture) -> None:
    make_loss(configure({"objective": {"name": "geometric_dpo"}}))
    assert not caplog.records
    make_loss(configure({"objective": {"name": "geometric_dpo", "beta": 0.1}}))
    assert "β 0.1 is not above DPO's 0.1" in caplog.text


def test_batch_statistics_of_one_row_are_refused_in_training(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes with a row each have statistics of two; evaluation in one process forwards no such batches."""
    config = configure({"objective": {"name": "amapo"}, "train": {"micro_batch_size": 1}})
    make_loss(config)
    with pytest.raises(ConfigError, match=r"a single row is its own mean.*objective\.running"):
        train(config)
    monkeypatch.setenv("WORLD_SIZE", "2")
    make_parts(Run.read(config), Run.read(config).workspace())


@pytest.mark.parametrize(
    "values",
    few_fast(
        [
            {"objective": {"name": "amapo", "running": 0.9}, "train": {"tokens_per_batch": 64}},
            {"objective": {"name": "amapo"}, "regularizers": [{"name": "budget", "per_token": True}, {"name": "sft"}]},
            {"objective": {"name": "aps"}, "tokens": {"name": "selective", "rescale": True}},
            {"objective": {"name": "ropo"}, "tokens": {"name": "selective"}, "regularizers": [{"name": "budget"}]},
            {"objective": {"name": "orpo"}, "regularizers": [{"name": "budget"}]},
            {"objective": {"name": "cpo", "sft_weight": 0}, "regularizers": [{"name": "sft"}]},
            {"objective": {"name": "amapo", "running": 0.9}, "train": {"micro_batch_size": 1}},
        ],
        (0, 3),
    ),
    ids=["amapo-running", "amapo-budget-sft", "aps-tokens", "ropo-tokens-budget", "orpo-budget", "cpo-sft", "amapo-1"],
)
def test_composed_by_configuration(configure: Configure, values: dict[str, Any]) -> None:
    run, _ = train(configure(values, {"train": {"max_steps": 3, "batch_size": 16}}))
    lines = read_jsonl(run.path / "metrics.jsonl")
    assert len(lines) == 3 and all(math.isfinite(line["loss"]) and line["grad_norm"] > 0 for line in lines)
    assert ("tokens_kept" in lines[2]) == ("tokens" in values)
    assert ("margin_share" in lines[2]) == (values["objective"]["name"] == "amapo")
    assert ("tau_std" in lines[2]) == (values["objective"]["name"] == "aps")


def test_running_statistics_start_with_the_second_step(configure: Configure) -> None:
    """No margin is known in the first step; the state then follows the logged gaps."""
    run, _ = train(configure({"objective": {"name": "amapo", "running": 0.5}, "train": {"micro_batch_size": 2}}))
    first, second, third = read_jsonl(run.path / "metrics.jsonl")
    assert first["margin_share"] == 0 and 0 < second["margin_share"] < 1
    assert second["mu"] == pytest.approx(first["gap_mean"]) and second["s"] == pytest.approx(first["gap_std"])
    assert third["mu"] == pytest.approx((first["gap_mean"] + 2 * second["gap_mean"]) / 3)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"pop": {"edges": "labels.db", "k": 3}}, ["pop.edges, pop.k. The objective 'dpo' does not use PoP edges"]),
        ({"target": {"kind": "bank"}}, ["target.kind. The objective 'dpo' does not use a target"]),
        (
            {"data": {"soft_label_temperature": 1.0}},
            ["data.soft_label_temperature. The objective 'dpo' does not use soft"],
        ),
        (
            {"objective": {"name": "pop"}, "pop": {"edges": "labels.db", "scale": "scale.parquet"}},
            ["pop.scale. The objective 'pop' does not use the strength scale"],
        ),
        ({"objective": {"name": "pop_rank"}, "target": {"tau": 0.5}, "pop": {"k": 2}}, ["target.tau"]),
        ({"objective": {"name": "pop_scale"}, "pop": {"edges": "labels.db", "ridge": 1.0}}, []),
        (
            {"objective": {"name": "pop"}, "pop": {"zero": {"right": 0.8}}},
            ["pop.zero. The objective 'pop' does not use"],
        ),
        (
            {"objective": {"name": "pop"}, "pop": {"edges": "labels.db", "strength": "unsigned", "k": 2}},
            ["pop.strength, pop.k. The edges are read from pop.edges, not sampled"],
        ),
        (
            {"objective": {"name": "pop_scale"}, "pop": {"scale": "s.parquet", "ridge": 1.0, "zero": {"right": 0.8}}},
            ["pop.ridge. The strengths are read from pop.scale"],
        ),
        ({"margin": {"source": "pop"}, "pop": {"k": 2}, "target": {"kind": "bank"}}, []),
        ({"objective": {"name": "cdpo"}, "data": {"soft_label_temperature": 1.0}}, []),
        ({}, []),
    ],
)
def test_settings_that_nothing_reads_are_said(configure: Configure, values: dict[str, Any], said: list[str]) -> None:
    config = configure({"objective": {"name": "dpo"}}, values)
    found = without_effect(make_loss(config), pop=config.pop, target=config.target, data=config.data)
    assert len(found) == len(said)
    for sentence, expected in zip(found, said, strict=True):
        assert sentence.startswith(f"No effect: {expected}")
