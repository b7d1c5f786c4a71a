"""Data of the rounds: labelled preferences to begin with, prompts for every round, and held-out preferences."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from popmargin.account import Step
from popmargin.config import DataConfig, RunConfig, from_dict, merge, to_dict
from popmargin.config_names import EMBEDDED
from popmargin.data.exchange import flipped
from popmargin.data.load import load_preferences
from popmargin.data.locate import local_paths
from popmargin.data.schema import Preferences
from popmargin.data.split import leak_keys, normalised_key
from popmargin.errors import ConfigError, DataError, counted
from popmargin.rounds.plan import Output, Plan, Stage, Work
from popmargin.training.sides import read_split

FLIPPED = "known_flip"
"""Column of the parts: 1 where `data.flip` has flipped the label, else 0."""


def split_by_prompt(preferences: Preferences, sizes: Sequence[int | None], seed: int) -> list[Preferences]:
    """Parts without a common prompt (see `leak_keys`), each with all preferences of its prompts.

    Which prompts go where depends on their text and the seed alone, not on the order of the rows.

    Args:
        preferences: to split.
        sizes: distinct prompts of each part; None shares what is left evenly among the parts that say None.
        seed: of the choice.

    Raises:
        ConfigError: there are fewer prompts.

    Example:
        >>> from popmargin import load_preferences
        >>> rows = [{"prompt": f"{n} + {n}?", "chosen": str(2 * n), "rejected": "?"} for n in range(6)]
        >>> [len(part) for part in split_by_prompt(load_preferences(rows), [2, None, None], seed=0)]
        [2, 2, 2]
    """
    groups: defaultdict[str, list[int]] = defaultdict(list)
    names: dict[str, str] = {}
    for row, (key, name) in enumerate(
        zip(leak_keys(preferences), map(normalised_key, preferences.prompt_keys), strict=True)
    ):
        groups[key].append(row)
        names[key] = min(name, names.get(key, name))
    order = sorted(groups, key=lambda key: hashlib.sha256(f"{seed}\x1frounds\x1f{names[key]}".encode()).digest())
    open_parts = sum(size is None for size in sizes)
    left = len(order) - sum(size for size in sizes if size is not None)
    if left < open_parts:
        raise ConfigError(
            f"The recipe needs {sum(size or 1 for size in sizes)} distinct training prompts or more, and the data have "
            f"{len(order)}. Lower the numbers of prompts or rounds, or use more data."
        )
    parts: list[Preferences] = []
    for size in sizes:
        count = size if size is not None else left // open_parts
        chosen, order = order[:count], order[count:]
        parts.append(preferences.select(sorted(row for key in chosen for row in groups[key])))
    return parts


def known_flips(rows: Preferences, column: str) -> np.ndarray:
    """Which labels a column says are wrong (N,).

    Raises:
        DataError: there is no such column of numbers, or a row has no number in it.
    """
    values = rows.column(column)
    missing = np.flatnonzero(np.isnan(values))
    if len(missing):
        raise DataError(
            f"Column '{column}' has no number in {len(missing)} of {counted(len(rows), 'row')} (first: "
            f"'{rows.ids[missing[0]]}')."
            " Give 1 where a label is known to be wrong, and 0 elsewhere."
        )
    return values != 0


def add_split(
    plan: Plan,
    config: RunConfig,
    *,
    seed_prompts: int | None,
    rounds: int,
    prompts_per_round: int | None,
    seed: int,
    known: str | None = None,
) -> Stage:
    """Append the split; its outputs are `seed`, `round-1` …, and `test`.

    Args:
        plan: of the recipe.
        config: names the data.
        seed_prompts: distinct prompts with labels; None takes as many as a round.
        rounds: how many need prompts of their own.
        prompts_per_round: distinct prompts of a round; None shares what is left evenly.
        seed: of the choice.
        known: column that is not 0 where a label is known to be wrong; it is looked at before anything is trained.
    """
    data = to_dict(config.data)
    local: dict[str, Output | Path] = {}
    for side in ("train", "test"):
        paths = [] if data[side] in (None, *EMBEDDED) else local_paths(data[side])
        if len(paths) == 1 and Path(data[side]).expanduser() == paths[0]:
            data.pop(side)
            local[f"data.{side}"] = paths[0].absolute()
        else:  # several files, which stay in the settings by their names
            local |= {f"{side}/{place}": path.absolute() for place, path in enumerate(paths)}
    outputs = {name: f"{name}.parquet" for name in ("seed", *(f"round-{r}" for r in range(1, rounds + 1)), "test")}
    settings = {
        "data": data,
        "seed_prompts": seed_prompts,
        "rounds": rounds,
        "prompts_per_round": prompts_per_round,
        "seed": seed,
    }
    settings |= {} if known is None else {"known": known}
    return plan.add("data", split_stage, inputs=local, settings=settings, outputs=outputs)


def split_stage(work: Work) -> dict[str, Any]:
    """Read the data, split them, and write the parts."""
    own = {name.removeprefix("data."): str(path) for name, path in work.inputs.items() if name.startswith("data.")}
    config = from_dict(DataConfig, merge(work.settings["data"], own))
    split = read_split(config)
    rounds, per_round = work.settings["rounds"], work.settings["prompts_per_round"]
    sizes = [work.settings["seed_prompts"], *[per_round] * rounds]
    train = split.train
    if config.flip:
        train = train.with_columns(**{FLIPPED: flipped(len(train), config.flip, config.split_seed).astype(float)})
    if "known" in work.settings:
        known_flips(train, work.settings["known"])
    parts = split_by_prompt(train, sizes, work.settings["seed"])
    names = ["seed", *(f"round-{r}" for r in range(1, rounds + 1)), "test"]
    facts: dict[str, Any] = {}
    for name, part in zip(names, [*parts, split.test], strict=True):
        part.save(work.outputs[name])
        prompts = len({normalised_key(key) for key in part.prompt_keys})
        facts[name] = {"preferences": len(part), "prompts": prompts}
    left = len(split.train) - sum(len(part) for part in parts)
    shares = {name: len(part) for name, part in zip(names, parts, strict=False)}
    step = Step(name="parts", rows_in=len(split.train), kept=shares, left_out={"not used": left})
    facts["account"] = work.tell(*split.steps, step)
    facts["not_used"] = left
    for name, count in facts.items():
        if isinstance(count, dict):
            work.say(f"  {name}: {count['preferences']} preferences of {count['prompts']} prompts")
    return facts


def add_halves(plan: Plan, rows: Output, *, seed: int) -> Stage:
    """Append a split into two halves without a common prompt; its outputs are `a` and `b`."""
    return plan.add("halves", halves_stage, inputs={"rows": rows}, settings={"seed": seed},
                    outputs={"a": "a.parquet", "b": "b.parquet"})  # fmt: skip


def halves_stage(work: Work) -> dict[str, Any]:
    """Split by prompt."""
    rows = load_preferences(work.inputs["rows"])
    prompts = len(set(leak_keys(rows)))
    halves = split_by_prompt(rows, [prompts // 2, prompts - prompts // 2], work.settings["seed"])
    for name, half in zip(("a", "b"), halves, strict=True):
        half.save(work.outputs[name])
    return {name: len(half) for name, half in zip(("a", "b"), halves, strict=True)}
