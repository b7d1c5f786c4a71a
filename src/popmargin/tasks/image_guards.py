"""Warnings from the log of a training of a text-to-image model."""

import logging
import sys
from typing import Any

from transformers import TrainerCallback

_LOG = logging.getLogger(__name__)
STEPS = 10
LARGEST = 5.0
"""The spread of (β/2)·d beyond which log σ is a straight line or flat for many pairs."""


class SaturationWatch(TrainerCallback):
    """Prints the spread of (β/2)·d over pairs at the start, and warns once if it becomes too large.

    At the start it is about 0: policy and reference are the same. Beyond 5 or so, σ is nearly 0 or 1 for many pairs: a
    pair that is lost pulls with the largest possible gradient, one that is won no longer trains.

    Args:
        beta: β of the objective.
    """

    def __init__(self, beta: float) -> None:
        self._beta, self._said = beta, set[str]()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if not logs or "d_std" not in logs:
            return
        spread = self._beta / 2 * logs["d_std"]
        logs["inside_std"] = spread
        step = state.global_step
        if state.is_world_process_zero and not self._said:
            self._said.add("start")
            print(f"spread of (β/2)·d over pairs at step {step}: {spread:.3g} (β {self._beta:g})", file=sys.stderr)
        if state.is_world_process_zero and step >= STEPS and spread > LARGEST and "saturated" not in self._said:
            self._said.add("saturated")
            _LOG.warning(
                "β is too large for this model: at step %d the spread of (β/2)·d over pairs is %.1f, above %g, so σ is "
                "nearly 0 or 1 for many pairs, and only their sign trains. Lower objective.beta (now %g) or "
                "train.learning_rate. The log has it as inside_std.",
                step,
                spread,
                LARGEST,
                self._beta,
            )
