"""A training as a stage."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from popmargin.config import DataConfig, RunConfig, from_dict, merge, to_dict
from popmargin.data.load import load_preferences
from popmargin.rounds.plan import Output, Plan, Stage, Work
from popmargin.training.build import make_loss
from popmargin.training.run import train
from popmargin.training.run_directory import RunDirectory

_READ_ALREADY: dict[str, Any] = {
    name: getattr(DataConfig(), name) for name in ("split", "format", "columns", "flip", "limit", "validation_size")
}
"""How the user's data were read and changed: it must not happen again to what a stage has made of them. Flipping the
same rows twice would undo it."""


def add_training(
    plan: Plan,
    name: str,
    config: RunConfig,
    *,
    inputs: Mapping[str, Output | Path],
    changes: Mapping[str, Any],
    epochs_if_few: tuple[int, float] | None = None,
) -> Stage:
    """Append a training; its output `model` is the folder of the trained model.

    Args:
        plan: of the recipe.
        name: of the stage.
        config: settings that all trainings share.
        inputs: by the key of the configuration that they stand for: `data.train`, `model.path`, `reference.model`.
        changes: what differs from the shared settings.
        epochs_if_few: with fewer training preferences than the first number, train for the second number of epochs.

    Raises:
        ConfigError: an unknown objective or option.
    """
    changed = from_dict(RunConfig, merge(to_dict(config), changes))
    make_loss(changed)
    values = to_dict(changed)
    for key in ("output", "name", "evaluation"):  # they do not change the training
        values.pop(key)
    if "data.train" in inputs:
        values["data"] |= _READ_ALREADY
    for key in inputs:
        section, _, field = key.partition(".")
        values[section].pop(field)
    if epochs_if_few is not None:
        values["epochs_if_few"] = {"below": epochs_if_few[0], "epochs": epochs_if_few[1]}
    outputs = {"model": "run/model", "metrics": "run/metrics.jsonl"}
    return plan.add(name, train_stage, inputs=inputs, settings=values, outputs=outputs)


def run_of(work: Work) -> RunConfig:
    """The run that a training stage is."""
    placed: dict[str, Any] = {}
    for key, path in work.inputs.items():
        section, _, field = key.partition(".")
        placed = merge(placed, {section: {field: str(path.absolute())}})
    values = {key: value for key, value in work.settings.items() if key != "epochs_if_few"}
    values = merge(merge(values, placed), {"output": str(work.folder / "run"), "name": work.folder.name})
    few = work.settings.get("epochs_if_few")
    if few is not None and len(load_preferences(values["data"]["train"])) < few["below"]:
        values = merge(values, {"train": {"epochs": few["epochs"]}})
    return from_dict(RunConfig, values)


def train_stage(work: Work) -> dict[str, Any]:
    """Train, or go on from the last checkpoint."""
    config = run_of(work)
    directory = RunDirectory(Path(config.output))
    if directory.started and directory.stored().data.train != config.data.train:
        work.say("  The folder was moved while this was training, which now starts over.")
        shutil.rmtree(directory.path)
    train(config, resume=directory.started)
    facts = directory.facts()
    metrics = [line for line in directory.metrics() if "loss" in line]
    suspected = [line["suspected"] for line in metrics if line.get("suspected") is not None]
    return {
        "rows": facts["rows"],
        "steps": facts["steps"],
        "last": metrics[-1] if metrics else {},
        "suspected": sum(suspected) / len(suspected) if suspected else None,
        "account": facts["account"],
    }
