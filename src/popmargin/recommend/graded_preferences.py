"""Graded feedback as preferences: an item that a user graded higher over one that the same user graded lower."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from popmargin.account import Step
from popmargin.errors import ConfigError, DataError, counted
from popmargin.pop.edges import PopEdges
from popmargin.recommend.item_preferences import item_name, prompt_of
from popmargin.recommend.item_sequences import Sequences
from popmargin.recommend.splitting import Parts


def graded_rows(
    data: Sequences, parts: Parts, *, pairs: Literal["nearest", "all"] = "nearest"
) -> tuple[list[dict[str, Any]], Step]:
    """Rows of preferences between graded items of the training part (ours), and where its users went.

    Both items are events of one user in training, of different items and grades; the history is what came before the
    earlier of them, so that it holds nothing later than either. The grades are `chosen_rating` and `rejected_rating`:
    their difference is the strength, so rating margins, soft labels and PoP edges work. `cluster` is the user.

    Args:
        data: with feedback; see `load_sequences` for grades that are written as text.
        parts: a split of the same data.
        pairs: each event over the `nearest` of lower grade (the earlier one of two as near), or over `all` of them.

    Raises:
        ConfigError: another value of pairs.
        DataError: the data have no feedback, no user has two grades, or the split is not of these data.

    Example:
        >>> from popmargin.recommend.read_sequences import load_sequences
        >>> from popmargin.recommend.splitting import leave_one_out
        >>> events = [("tea", "click"), ("cup", "click"), ("jam", "buy"), ("nut", "click"), ("fig", "buy")]
        >>> seen = [{"user": "ann", "item": item, "time": t, "feedback": f} for t, (item, f) in enumerate(events)]
        >>> data = load_sequences(seen, grades={"click": 1, "buy": 3})
        >>> rows, step = graded_rows(data, leave_one_out(data))
        >>> [(row["prompt"], row["chosen"], row["rejected"], row["chosen_rating"]) for row in rows]
        [('{"user": "ann", "history": ["tea"]}', 'item jam', 'item cup', 3.0)]
        >>> step.arithmetic
        '1 in = 1 users with preferences'
    """
    if pairs not in ("nearest", "all"):
        raise ConfigError(f"pairs is {pairs!r}. Write 'nearest' or 'all'.")
    if data.feedback is None:
        raise DataError("The data have no feedback. Remedy: name its column, such as columns={'feedback': 'stars'}.")
    if len(parts.train_users) != len(parts.train):
        raise DataError("The split does not say whose its training sequences are. Remedy: split the data again.")
    place_of = {user: place for place, user in enumerate(data.users)}
    rows: list[dict[str, Any]] = []
    alike = early = 0
    for number, user in enumerate(parts.train_users):
        items = parts.train[number]
        start = data.items.offsets[place_of[user]] if user in place_of else -1
        if start < 0 or not np.array_equal(data.items.values[start : start + len(items)], items):
            raise DataError(f"The split is not of these data: user '{user}' has other items. Remedy: split them again.")
        grades = data.feedback[start : start + len(items)]
        found = list(_graded_pairs(items, grades, nearest=pairs == "nearest"))
        late = [pair for pair in found if min(pair) > 0]
        alike, early = alike + (not found), early + (bool(found) and not late)
        names = [data.catalogue.names[item - 1] for item in items.tolist()]
        rows += [_row(user, names, grades, *pair) for pair in late]
    if not rows:
        raise DataError(
            "No preference between graded items was found: no training user graded two items differently after a first "
            "one. Remedy: check the feedback column and its grades."
        )
    kept = {"users with preferences": len(parts.train) - alike - early}
    left_out = {"no two items of different grades": alike, "no item before any such pair": early}
    note = counted(len(rows), "preference")
    return rows, Step(
        name="graded feedback", rows_in=len(parts.train), kept=kept, left_out=left_out, notes=(note,), unit="users"
    )


def _graded_pairs(items: np.ndarray, grades: Float[np.ndarray, " T"], *, nearest: bool) -> Iterator[tuple[int, int]]:
    """Places (higher, lower) of two events of different items and grades, unknown grades left out."""
    for higher in range(len(items)):
        lower = np.flatnonzero((grades < grades[higher]) & (items != items[higher]))
        if nearest and len(lower):
            usable = lower[lower > 0] if lower[-1] > 0 else lower  # nothing comes before the first event
            lower = usable[[np.abs(usable - higher).argmin()]]
        yield from ((higher, int(place)) for place in lower)


def _row(user: str, names: Sequence[str], grades: np.ndarray, higher: int, lower: int) -> dict[str, Any]:
    return {
        "id": f"{user}/{higher}>{lower}",
        "prompt": prompt_of(user, names[: min(higher, lower)]),
        "chosen": item_name(names[higher]),
        "rejected": item_name(names[lower]),
        "chosen_rating": float(grades[higher]),
        "rejected_rating": float(grades[lower]),
        "cluster": user,
    }


def edges_within_users(rows: Sequence[dict[str, Any]], *, seed: int = 0) -> PopEdges:
    """PoP edges between preferences of one user: each over a weaker one, drawn among those of a smaller difference.

    A preference without a weaker one has no weaker side (margin 0), as in `sample_edges`.

    Args:
        rows: of `graded_rows`.
        seed: of the draws.

    Example:
        >>> rows = [{"id": name, "cluster": user, "chosen_rating": high, "rejected_rating": 1.0}
        ...         for name, user, high in (("a", "ann", 2.0), ("b", "ann", 5.0), ("c", "bo", 9.0))]
        >>> edges = edges_within_users(rows).table
        >>> edges["stronger"].to_pylist(), edges["weaker"].to_pylist()
        (['a', 'b', 'c'], [None, 'a', None])
    """
    drawn = np.random.default_rng(seed)
    of_user: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        of_user.setdefault(str(row["cluster"]), []).append(place)
    strengths = np.array([row["chosen_rating"] - row["rejected_rating"] for row in rows])
    weaker: list[str | None] = []
    for row, strength in zip(rows, strengths, strict=True):
        own = np.array(of_user[str(row["cluster"])])
        below = own[strengths[own] < strength]
        weaker.append(str(rows[int(drawn.choice(below))]["id"]) if len(below) else None)
    parameters = {"sampling": "within users", "seed": seed}
    return PopEdges.from_columns([str(row["id"]) for row in rows], weaker, parameters=parameters)
