"""Rankings of one recommender on disk: where targets stand, the best items, what they depend on and what they cost."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from popmargin.errors import RunError
from popmargin.files import whole_folder
from popmargin.recommend.ranks import Ranking
from popmargin.safe_reading import read_json

RANKING, MEASURED = "ranking.npz", "measured.json"


def save_rankings(folder: Path, rankings: Sequence[Ranking], told: Mapping[str, Any]) -> None:
    """Write rankings (draws, cases) and what is told about them as one folder."""
    arrays: dict[str, Any] = {
        "ranks": np.stack([ranking.ranks for ranking in rankings]),
        "best": np.stack([ranking.best for ranking in rankings]).astype(np.int32),
    }
    with whole_folder(folder, replace=True) as partial:
        with (partial / RANKING).open("wb") as file:
            np.savez_compressed(file, **arrays)
        (partial / MEASURED).write_text(json.dumps(told, indent=1, sort_keys=True), encoding="utf-8")


def read_measured(folder: Path) -> dict[str, Any] | None:
    """What is told about finished rankings; None if there are none.

    Raises:
        RunError: it cannot be read.
    """
    file = folder / MEASURED
    if not file.is_file():
        return None
    try:
        told = read_json(file)
        return {"record": dict(told["record"]), "costs": dict(told["costs"])}
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{file}: cannot be read ({error}). Delete {folder}, and run again.") from error


def read_rankings(folder: Path) -> list[Ranking]:
    """The rankings of a folder, one for each draw.

    Raises:
        RunError: they cannot be read.
    """
    try:
        with np.load(folder / RANKING, allow_pickle=False) as arrays:
            return [Ranking(*pair) for pair in zip(arrays["ranks"], arrays["best"].astype(np.int64), strict=True)]
    except (OSError, ValueError, KeyError) as error:
        raise RunError(f"{folder / RANKING}: cannot be read ({error}). Delete {folder}, and run again.") from error
