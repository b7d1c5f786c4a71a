"""Rows with weights: the loss of an optimizer step is Σ w·loss / Σ w over all its rows, however they are forwarded."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from few_fast import few_fast
from popmargin.config import RunConfig
from popmargin.training.arguments import training_arguments
from popmargin.training.batches import TrainingRows
from popmargin.training.build import Run, make_parts, make_trainer

Configure = Callable[..., RunConfig]
WEIGHTS = np.array([0.0, 1.0, 2.0, 5.0] * 8, dtype=np.float32)  # of 32 training preferences


def run(config: RunConfig, weights: np.ndarray | None, repeat: np.ndarray | None = None) -> tuple[list[Any], Any]:
    """Log lines and policy of a run whose rows have weights, or stand there as often as `repeat` says."""
    parts = make_parts(Run.read(config), Run.read(config).workspace())
    collator = parts.collator
    if weights is not None:
        collator = replace(collator, columns={**collator.columns, "weight": weights})
    if repeat is not None:
        rows = collator.rows
        places = np.repeat(np.arange(len(rows)), repeat[rows.stronger].astype(int))
        collator = replace(
            collator,
            rows=TrainingRows(*(values if values is None else values[places] for values in vars(rows).values())),
        )
    parts = replace(parts, collator=collator)
    trainer = make_trainer(training_arguments(config.train, config.seed, Path(config.output) / "checkpoints"), parts)
    trainer.train()
    return [line for line in trainer.state.log_history if "loss" in line], parts.policy


def assert_same(one: tuple[list[Any], Any], other: tuple[list[Any], Any]) -> None:
    for mine, theirs in zip(one[0], other[0], strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
        assert mine["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-4)
    for mine, theirs in zip(one[1].parameters(), other[1].parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=5e-5)  # Adam steps are 1e-3


@pytest.mark.parametrize(
    "change",
    few_fast(
        [
            {"objective": {"name": "dpo"}, "regularizers": [{"name": "sft", "weight": 0.5}]},
            {"objective": {"name": "pop"}, "target": {"kind": "policy"}},
            {"objective": {"name": "pop_lagrangian", "lambda_lr": 0.5}},
            {"task": "reward", "objective": {"name": "dpo"}},
        ],
        (1,),
    ),
    ids=["dpo-sft", "pop", "lagrangian", "reward"],
)
def test_a_weight_is_a_row_that_stands_there_as_often(configure: Configure, change: dict[str, Any]) -> None:
    """All rows in one optimizer step: passes with unequal sums of weights, or one pass of repeated rows."""
    config = configure(change)
    rows = make_parts(Run.read(config), Run.read(config).workspace()).collator.rows
    total = int(WEIGHTS[rows.stronger].sum())
    passes = 4 if len(rows) % 4 == 0 else 1
    steps: dict[str, Any] = {"max_steps": 2, "batch_size": len(rows), "micro_batch_size": len(rows) // passes}
    config, often = (
        configure(change, {"train": steps}),
        configure(change, {"train": {**steps, "batch_size": total, "micro_batch_size": total}}),
    )
    assert_same(run(config, WEIGHTS), run(often, None, WEIGHTS))
    lines, _ = run(config, WEIGHTS)
    assert lines[0]["weight_mean"] == pytest.approx(total / len(rows))


@pytest.mark.slow
def test_micro_batches_do_not_change_the_weighted_mean(configure: Configure) -> None:
    """A mean of the passes' means would count a pass of small weights as much as one of large ones."""
    runs = [
        run(configure({"train": {"max_steps": 2, "batch_size": 16, **train}}), WEIGHTS**2)
        for train in ({}, {"micro_batch_size": 4}, {"micro_batch_size": 1}, {"tokens_per_batch": 64})
    ]
    for other in runs[1:]:
        assert_same(runs[0], other)


def test_equal_weights_change_nothing_but_the_log(configure: Configure) -> None:
    config = configure({"train": {"max_steps": 2, "micro_batch_size": 4}})
    (weighted, policy), (plain, other) = run(config, np.full(32, 0.25, dtype=np.float32)), run(config, None)
    assert_same((weighted, policy), (plain, other))
    assert weighted[0]["weight_mean"] == 0.25 and weighted[0]["weight_effective_share"] == pytest.approx(1.0)
    assert not {name for name in plain[0] if name.startswith("weight")}


def test_a_step_without_weight_is_no_step(configure: Configure) -> None:
    """A step whose rows all weigh nothing has no mean: its loss and gradient are 0."""
    lines, _ = run(configure({"train": {"max_steps": 1, "batch_size": 4}}), np.zeros(32, dtype=np.float32))
    assert lines[0]["loss"] == 0 and lines[0]["grad_norm"] == 0
