"""A training that stops when a metric of the held-out side gets no better, and the weights where it was best."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from popmargin.config import TrainConfig
from popmargin.errors import DataError, RunError
from popmargin.tasks.base import Task

Measure = Callable[[nn.Module], Mapping[str, float]]
"""Metrics of the held-out side, larger is better."""


@dataclass
class Stopping:
    """The best value so far, its weights, and how long there has been no better one.

    Attributes:
        model: whose trained weights are kept, not wrapped for distributed training.
        metric: its name.
        patience: stop after so many evaluations without a better value.
        measure: metrics of the held-out side under the model's weights; nothing may be drawn from PyTorch's own random
            numbers.
        best: the best value, nan before the first.
        step: where it was reached.
        waited: evaluations since.
    """

    model: nn.Module
    metric: str
    patience: int
    measure: Measure
    best: float = float("nan")
    step: int = 0
    waited: int = 0
    _weights: dict[str, Tensor] = field(default_factory=dict[str, Tensor])

    @property
    def over(self) -> bool:
        """Whether training should stop."""
        return self.waited >= self.patience

    @torch.no_grad()
    def look(self, step: int) -> dict[str, float]:
        """Measure the model as it is now, and keep its weights if they are better than all before; equal is not.

        Args:
            step: optimizer steps so far.

        Raises:
            RunError: the metric is not finite.
        """
        training = self.model.training
        self.model.eval()
        values = dict(self.measure(self.model))
        self.model.train(training)
        value = values[self.metric]
        if value != value or abs(value) == float("inf"):
            raise RunError(f"{self.metric} is {value} at step {step}. Lower train.learning_rate.")
        if not value <= self.best:  # the first one too
            self.best, self.step, self.waited = value, step, 0
            self._weights = {name: weight.detach().clone() for name, weight in self._trained()}
        else:
            self.waited += 1
        return values

    @torch.no_grad()
    def take(self) -> None:
        """Give the model the best weights."""
        for name, weight in self._trained():
            if name in self._weights:
                weight.copy_(self._weights[name])

    def told(self, step: int) -> str:
        """A sentence about what was kept after the last step."""
        return f"best {self.metric}: {self.best:.4f} at step {self.step} of {step}, whose weights are kept"

    def facts(self) -> dict[str, Any]:
        """For run.json."""
        return {"metric": self.metric, "best": self.best, "step": self.step, "evaluations_since": self.waited}

    def state(self) -> dict[str, Tensor]:
        """Of a checkpoint."""
        told = torch.tensor([self.best, self.step, self.waited], dtype=torch.float64)
        return {"told": told, **{f"best.{name}": weight for name, weight in self._weights.items()}}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a checkpoint."""
        best, step, waited = state["told"].tolist()
        self.best, self.step, self.waited = best, int(step), int(waited)
        device = {name: weight.device for name, weight in self._trained()}
        kept = {name.removeprefix("best."): weight for name, weight in state.items() if name != "told"}
        self._weights = {name: weight.to(device[name]) for name, weight in kept.items()}

    def _trained(self) -> list[tuple[str, nn.Parameter]]:
        return [(name, weight) for name, weight in self.model.named_parameters() if weight.requires_grad]


def stopping_on(settings: TrainConfig, task: Task, model: Any, held_out: Any) -> Stopping | None:
    """What stops a training; None if nothing does.

    Args:
        settings: `stop_on` and `patience`.
        task: it measures.
        model: the one that is trained.
        held_out: encoded preferences.

    Raises:
        DataError: there are none.
    """
    if settings.stop_on is None:
        return None
    if not len(held_out):
        raise DataError(f"train.stop_on: {settings.stop_on} is measured on held-out preferences, but there are none.")
    return Stopping(model, settings.stop_on, settings.patience, lambda trained: task.held_out(trained, held_out))
