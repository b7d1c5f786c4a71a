"""What is not finite in an optimizer step: which rows, which of their numbers, and what likely made them so.

Axis suffix R: rows of one forward pass.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from popmargin.engine.processes import own_part
from popmargin.errors import first_few
from popmargin.objectives.base import Rows

_LARGE = 1e10
"""Numbers of the data beyond this are named: sums of their squares, and exponents, overflow in fp32."""


def bad_weights(model: nn.Module) -> list[str]:
    """The names of the weights that are not finite, in this process's part of them."""
    return [name for name, value in model.named_parameters() if not bool(torch.isfinite(own_part(value)).all())]


@dataclass(frozen=True)
class Checked:
    """The numbers of the rows of a forward pass that must be finite; nothing here waits for the device.

    Attributes:
        values: by what they are, as a message calls them, each (R,).
        preferences: the stronger preference of each row (R,).
        columns: the data's numbers that the loss has read, each (R, …).
        of_reference: the reference's log-probs, each (R,).
    """

    values: Mapping[str, Tensor]
    preferences: Int[Tensor, " R"]
    columns: Mapping[str, Tensor]
    of_reference: Sequence[Tensor]

    @staticmethod
    def of(loss_R: Float[Tensor, " R"], rows: Rows, seen: Rows, preferences: Int[Tensor, " R"]) -> "Checked":
        """Of a forward pass.

        Args:
            loss_R: the loss of every row.
            rows: the rows.
            seen: the same less the margin.
            preferences: the stronger preference of each row.
        """
        values: dict[str, Tensor | None] = {
            "score (a log-prob or reward)": rows.gap,
            "de-coupled log-prob": rows.decoupled,
            "target's gap": None if rows.target is None else rows.target.values,
            "margin": None if seen is rows else seen.gap,
            "loss": loss_R,
        }
        logps = rows.logps
        reference = () if logps is None else (logps.chosen_reference, logps.rejected_reference)
        return Checked(
            {name: value.detach() for name, value in values.items() if value is not None},
            preferences,
            rows.columns,
            [value for value in reference if value is not None],
        )

    @property
    def finite(self) -> Tensor:
        """Whether all numbers of each row are finite (R,)."""
        return torch.stack([torch.isfinite(values) for values in self.values.values()]).all(0)


def what_is_not(parts: Sequence[Checked], ids: Sequence[str], model: nn.Module, *, fp16: bool) -> tuple[str, str, str]:
    """What to say of a step in which something is not finite.

    Args:
        parts: its forward passes.
        ids: of all preferences.
        model: the policy.
        fp16: whether it is trained in fp16.

    Returns:
        What is not finite, the ids of the rows, and the likely cause with its remedy, in sentences.
    """
    bad = [~part.finite for part in parts]
    rows_bad = any(bool(rows.any()) for rows in bad)
    named = torch.cat([part.preferences[rows] if rows_bad else part.preferences
                       for part, rows in zip(parts, bad, strict=True)])  # fmt: skip
    names = first_few([ids[int(place)] for place in named])
    weights = bad_weights(model)
    if weights:
        cause = f"Weights are not finite already ({first_few(weights, 3)}): the step before was too large."
        return ("loss or a log-prob" if rows_bad else "gradient"), names, f"{cause} Lower train.learning_rate."
    numbers = _large_numbers(parts, bad if rows_bad else [torch.ones_like(rows) for rows in bad], ids)
    half = "fp16 holds no number beyond 65504: train in bf16 or fp32. " if fp16 else ""
    if not rows_bad:
        return "gradient", names, half + (numbers or "Lower train.learning_rate.")
    wrong = next(name for name in parts[0].values if any(bool((~torch.isfinite(part.values[name])).any())
                                                        for part in parts))  # fmt: skip
    if wrong.startswith("score"):
        if any(not bool(torch.isfinite(values).all()) for part in parts for values in part.of_reference):
            return wrong, names, "It is the reference's: delete the cache (reference.cache) to compute it again."
        return wrong, names, half + "It is the model's own. Lower train.learning_rate."
    remedies = {
        "target's gap": "The target overflows, not the policy. Lower train.learning_rate, or set another target.kind.",
        "margin": numbers or "It comes from the run's margin source, not from a score.",
        "loss": numbers or "The scores are finite, and the objective overflows on them. Lower train.learning_rate.",
    }
    return wrong, names, half + remedies.get(wrong, "Lower train.learning_rate.")


def _large_numbers(parts: Sequence[Checked], bad: Sequence[Tensor], ids: Sequence[str]) -> str:
    """A sentence about the largest number that the data give one of these rows; empty where none is large."""
    found: list[tuple[float, str, str]] = []
    for part, rows in zip(parts, bad, strict=True):
        for name, values in part.columns.items():
            size = values.detach().abs().flatten(1).amax(1) if values.ndim > 1 else values.detach().abs()
            size = torch.where(rows, size.double(), torch.zeros_like(size, dtype=torch.float64))
            if len(size) and not float(size.max()) <= _LARGE:
                place = int(size.nan_to_num(torch.inf).argmax())
                found.append((float(size[place]), name, ids[int(part.preferences[place])]))
    if not found:
        return ""
    value, name, row = max(found)
    return f"The data's {name} of '{row}' is {value:.3g}: correct it, or scale it with signals.{name}.scale."
