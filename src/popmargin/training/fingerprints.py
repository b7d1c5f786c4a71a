"""What a run was trained on, by content: stored in its directory, so that nothing else is evaluated or resumed.

fingerprints.json   of the start model, tokenizer, edges, scale, the user's own components, and the tokens
data.parquet        id, side, prompt and content of every training and held-out preference
code/               copies of the user's own components
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from popmargin.data.goals import body_keys
from popmargin.data.schema import COLUMNS, Preferences
from popmargin.data.split import normalised_key
from popmargin.errors import RunError
from popmargin.files import PARQUET, digest, whole_file
from popmargin.listed_files import refuse_changed
from popmargin.pop.scale import StrengthScale
from popmargin.safe_reading import read_object

SIDES = {"train": "training", "test": "held-out"}
_ALL_SIDES = (*SIDES, "aside")
DERIVED = ("tokens of", "made:")
"""Name prefixes of facts that follow from the rows."""
_SHOWN = 5
_REMEDY = "Restore it from a copy, or train again with --overwrite or another output."


def prompt_digests(preferences: Preferences) -> list[str]:
    """A digest of every prompt without its goal, equal for prompts that count as the same in a split."""
    return [digest(normalised_key(key).encode()) for key in body_keys(preferences)]


def _contents(preferences: Preferences) -> list[str]:
    names = [name for name in COLUMNS if name != "id"]
    return [
        digest(json.dumps(row, ensure_ascii=False, sort_keys=True).encode("utf-8", "surrogatepass"))
        for batch in preferences.batches(*names)
        for row in zip(*(batch[name] for name in names), strict=True)
    ]


@dataclass(frozen=True)
class Rows:
    """Ids, prompts and contents of some preferences, in order; prompts and contents as digests."""

    ids: list[str]
    prompts: list[str]
    contents: list[str]

    @staticmethod
    def of(preferences: Preferences) -> "Rows":
        """The rows of some preferences."""
        return Rows(preferences.ids, prompt_digests(preferences), _contents(preferences))

    def __len__(self) -> int:
        return len(self.ids)

    def by_id(self) -> dict[str, str]:
        """Id -> content."""
        return dict(zip(self.ids, self.contents, strict=True))


@dataclass(frozen=True)
class Change:
    """How some preferences differ from earlier ones."""

    gone: list[str]
    new: list[str]
    edited: list[str]
    moved: bool = False

    @staticmethod
    def between(before: Rows, now: Rows) -> "Change":
        """The changes from the first to the second."""
        old, new = before.by_id(), now.by_id()
        return Change(
            gone=[name for name in old if name not in new],
            new=[name for name in new if name not in old],
            edited=[name for name, content in old.items() if name in new and new[name] != content],
            moved=set(old) == set(new) and before.ids != now.ids,
        )

    def __bool__(self) -> bool:
        return bool(self.gone or self.new or self.edited or self.moved)

    def __str__(self) -> str:
        parts = [
            f"{len(names)} {what} ({', '.join(names[:_SHOWN])}{', …' if len(names) > _SHOWN else ''})"
            for what, names in (("gone", self.gone), ("new", self.new), ("edited", self.edited))
            if names
        ]
        return ", ".join([*parts, *(["they are in a different order"] if self.moved else [])])


@dataclass(frozen=True)
class Record:
    """What a run is trained on.

    Attributes:
        sides: "train" and "test" -> its preferences, as loaded, split, limited and flipped; "aside" -> the rest of the
            training file.
        facts: name of an input -> its fingerprint.
        code: path in the run directory -> content of the user's own code; it is written, but not read again.
    """

    sides: Mapping[str, Rows]
    facts: Mapping[str, str]
    code: Mapping[str, bytes] = field(default_factory=dict[str, bytes])

    def save(self, folder: Path) -> None:
        """Write everything into a run directory."""
        for place, content in self.code.items():
            with whole_file(folder / place) as partial:
                partial.write_bytes(content)
        columns: dict[str, list[str]] = {"side": [], "id": [], "prompt": [], "content": []}
        for side, rows in self.sides.items():
            columns["side"] += [side] * len(rows)
            columns["id"] += rows.ids
            columns["prompt"] += rows.prompts
            columns["content"] += rows.contents
        table = pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})
        with whole_file(folder / "data.parquet", PARQUET) as partial:
            pq.write_table(table, partial, compression="zstd")
        with whole_file(folder / "fingerprints.json") as partial:
            partial.write_text(json.dumps(dict(self.facts), indent=1, sort_keys=True) + "\n", encoding="utf-8")

    @staticmethod
    def load(folder: Path) -> "Record | None":
        """Read what `save` wrote; None in a run directory of an older version, which has neither.

        Raises:
            RunError: a file is missing or damaged.
        """
        data, facts = folder / "data.parquet", folder / "fingerprints.json"
        if not data.is_file() and not facts.is_file():
            return None
        refuse_changed(folder, [data.name, facts.name], remedy=_REMEDY)
        if not data.is_file():
            raise RunError(f"{data} is missing. {_REMEDY}")
        read = read_object(facts, _REMEDY)
        try:
            columns: dict[str, Any] = pq.read_table(data).to_pydict()
            sides = np.array(columns["side"])
            rows = {
                side: Rows(*([columns[name][i] for i in np.flatnonzero(sides == side)]
                             for name in ("id", "prompt", "content")))
                for side in _ALL_SIDES
            }  # fmt: skip
        except (OSError, pa.ArrowException, KeyError, ValueError, MemoryError) as error:
            raise RunError(f"{data} cannot be read ({error}). {_REMEDY}") from error
        return Record(rows, read)

    def changes(self, now: "Record") -> list[str]:
        """The differences, a sentence each; empty if there are none."""
        sentences = [
            f"of {len(self.sides[side])} {name} preferences: {change}."
            for side, name in SIDES.items()
            if (change := Change.between(self.sides[side], now.sides[side]))
        ]
        known = set(self.facts) | set(now.facts)
        other = [name for name in sorted(known) if self.facts.get(name) != now.facts.get(name)]
        if (
            sentences
        ):  # different rows have different tokens, and different edges and strengths if these are made from them
            other = [name for name in other if not name.startswith(DERIVED)]
        return sentences + [f"{name}: {_how(self.facts.get(name), now.facts.get(name))}." for name in other]


def _how(before: str | None, now: str | None) -> str:
    if before is None or now is None:
        return "was not used before" if before is None else "was used before and is not there now"
    return f"changed ({before[:12]} → {now[:12]})"


def column_facts(preferences: Preferences, names: Iterable[str]) -> dict[str, str]:
    """Fingerprints of the columns that a run reads besides `COLUMNS`, which are in its record of the rows.

    Args:
        names: columns of the data.
    """
    facts: dict[str, str] = {}
    for name in sorted({name for name in names if name in preferences.columns and name not in COLUMNS}):
        values = [value for batch in preferences.batches(name) for value in batch[name]]
        facts[f"the column '{name}'"] = digest(json.dumps(values, default=str).encode())
    return facts


def scale_fingerprint(scale: StrengthScale) -> str:
    """Fingerprint of the strengths of a scale, in order."""
    return digest(json.dumps(scale.ids).encode(), np.asarray(scale.strength, np.float64).tobytes())
