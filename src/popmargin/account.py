"""One step in the account of rows: what came in, what was kept, and what was dropped and why."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

_REASONS = {
    "identical": "chosen and rejected are the same",
    "identical_tokens": "the same tokens after the template",
    "identical_after_truncation": "the same tokens after truncation",
    "empty": "an empty text",
    "empty_completion": "no completion tokens after the template",
    "too_long": "longer than data.max_length",
    "below_min_gap": "below data.min_gap",
    "duplicate_id": "a duplicate id",
    "tie": "a tie",
    "nan": "a number that is not finite",
    "number": "not a finite number",
    "swapped": "rated the other way round",
    "called_wrong": "marked wrong by most",
    "unrated": "a response without a rating",
    "too_few": "fewer than two rated responses",
    "unfinished": "cut at the token limit",
    "alone": "a single response to its prompt",
    "missing": "a missing value",
    "too_large": "a number beyond what fp32 holds",
    "bad_json": "invalid JSON",
    "bad_utf8": "invalid UTF-8",
}


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step in the account of rows; always rows_in == all kept + all left out.

    Attributes:
        name: the subject, e.g. a file name or "training preferences".
        rows_in: preferences, edges or prompts that came in, as `unit` says.
        kept: destination of kept rows -> number.
        left_out: reason -> number.
        notes: anything else that was done or should be known, in sentences.
        unit: what is counted.
    """

    name: str
    rows_in: int
    kept: Mapping[str, int]
    left_out: Mapping[str, int] = field(default_factory=dict[str, int])
    notes: tuple[str, ...] = ()
    unit: str = "preferences"

    def __post_init__(self) -> None:
        for name in ("kept", "left_out"):
            object.__setattr__(self, name, dict(getattr(self, name)))
        out = sum(self.left_out.values())
        if self.rows_in != sum(self.kept.values()) + out or min([0, *self.kept.values(), *self.left_out.values()]) < 0:
            raise AssertionError(f"rows lost: {self}")

    @property
    def reasons(self) -> dict[str, int]:
        """Reasons for left-out rows, in words -> number."""
        named = {kind: kind if " " in kind else kind.replace("_", " ") for kind in self.left_out}
        return {_REASONS.get(kind, named[kind]): count for kind, count in self.left_out.items() if count}

    @property
    def arithmetic(self) -> str:
        """The step as a sum, e.g. `8 in = 6 kept + 2 left out (a tie: 2)`."""
        parts = [f"{count} {where}" for where, count in self.kept.items()]
        if self.reasons:
            reasons = ", ".join(f"{reason}: {count}" for reason, count in self.reasons.items())
            parts.append(f"{sum(self.left_out.values())} left out ({reasons})")
        return f"{self.rows_in} in = {' + '.join(parts)}"

    def lines(self) -> list[str]:
        """The step for display: what came in and where it went, then one line per note."""
        return [f"{self.name}: {self.arithmetic}", *(f"  {note}" for note in self.notes)]

    def to_dict(self) -> dict[str, Any]:
        """The step as JSON values."""
        return asdict(self) | {"notes": list(self.notes)}

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> "Step":
        """The inverse of `to_dict`."""
        notes: tuple[str, ...] = tuple(values["notes"])
        return Step(**{name: value for name, value in values.items() if name != "notes"}, notes=notes)
