"""What changes when chosen and rejected are swapped: defined here only, for rows and for tables.

Columns of a single response name its side: chosen_rating and rejected_rating, score_chosen and score_rejected.
"""

import re
from collections.abc import Collection
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
from jaxtyping import Bool

from popmargin.errors import DataError

pc: Any = pyarrow.compute
NEGATED = ("strength", "margin")
"""Numbers that say by how much chosen is better."""
COMPLEMENTED = "soft_label"
"""The probability that chosen is better."""
CLAIMS = ("chosen_rating", "rejected_rating", *NEGATED, COMPLEMENTED)
"""What the data says about the two responses, regardless of which is called chosen."""
_SIDE = re.compile(r"(?<![A-Za-z])(chosen|rejected|Chosen|Rejected|CHOSEN|REJECTED)(?![A-Za-z])")
_WORDS = (("chosen", "rejected"), ("Chosen", "Rejected"), ("CHOSEN", "REJECTED"))
_OTHER = dict(_WORDS) | {other: one for one, other in _WORDS}


def partner(name: str) -> str:
    """The other response's counterpart of a column; the column itself if it does not belong to a single response.

    Example:
        >>> partner("chosen_rating"), partner("model-rejected"), partner("topic"), partner("chosen_over_rejected")
        ('rejected_rating', 'model-chosen', 'topic', 'chosen_over_rejected')
    """
    sides = {side.lower() for side in _SIDE.findall(name)}
    return _SIDE.sub(lambda found: _OTHER[found[0]], name) if len(sides) == 1 else name


def exchange(row: dict[str, Any]) -> None:
    """Swap chosen and rejected in a row, along with everything that belongs to them.

    A soft label p becomes 1 − p, and strength and margin change sign.

    Example:
        >>> row = {"chosen": "5", "rejected": "4", "chosen_rating": 1.0, "rejected_rating": 3.0, "soft_label": 0.25}
        >>> exchange(row)
        >>> row["chosen"], row["chosen_rating"], row["soft_label"]
        ('4', 3.0, 0.75)
    """
    before = dict(row)
    for name in before:
        row[partner(name)] = before[name]
    for name in before:
        if partner(name) not in before:
            row[name] = None
    for name in NEGATED:
        if row.get(name) is not None:
            row[name] = 0.0 - row[name]  # not -0.0
    if row.get(COMPLEMENTED) is not None:
        row[COMPLEMENTED] = 1 - row[COMPLEMENTED]


def exchange_rows(table: Any, mask: np.ndarray, *, keep: Collection[str] = ()) -> Any:
    """The same for the rows of an Arrow table where `mask` (N,) is true.

    Args:
        keep: columns left unchanged.

    Raises:
        DataError: two columns that belong together are of different types.
    """
    names = list(dict.fromkeys(name for column in table.column_names for name in (column, partner(column))))
    chosen = pa.array(mask)
    columns: dict[str, Any] = {}
    for name in names:
        own, other = _column(table, name), _column(table, partner(name))
        if name in keep or (partner(name) == name and name not in (*NEGATED, COMPLEMENTED)):
            columns[name] = own
            continue
        if name in NEGATED or name == COMPLEMENTED:
            other = pc.subtract(pa.scalar(0.0 if name in NEGATED else 1.0), other)
        columns[name] = _choose(chosen, other, own, name)
    return pa.table(columns)


def _column(table: Any, name: str) -> Any:
    """The column, or nulls if only its partner exists."""
    if name in table.column_names:
        return table[name]
    return pa.chunked_array([pa.nulls(table.num_rows, table[partner(name)].type)])


def _choose(mask: Any, yes: Any, no: Any, name: str) -> Any:
    if yes.type != no.type:
        both = [pa.table({name: column}) for column in (no, yes)]
        try:
            joined: Any = pa.concat_tables(both, promote_options="permissive")[name]
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
            raise DataError(
                f"The columns '{name}' ({no.type}) and '{partner(name)}' ({yes.type}) belong to the two responses and "
                "have incompatible types, so they cannot be swapped. Remedy: write both alike, or rename one."
            ) from error
        no, yes = joined.slice(0, len(no)), joined.slice(len(no))
    try:
        return pc.if_else(mask, yes, no)
    except pa.ArrowNotImplementedError:  # types of extensions, such as arrays of `datasets`
        rows = np.arange(len(no))
        places = rows + len(no) * np.asarray(mask.to_numpy(zero_copy_only=False))
        return pa.chunked_array([*no.chunks, *yes.chunks]).take(pa.array(places))


def flipped(count: int, share: float, seed: int) -> Bool[np.ndarray, " N"]:
    """Which of `count` rows `Preferences.flip` flips.

    Raises:
        DataError: a share below 0, or not below 1.
    """
    if not 0 <= share < 1:
        raise DataError(f"The share of flipped labels is {share}; it must be at least 0 and below 1.")
    return np.random.default_rng([seed, 7]).random(count) < share
