"""The held-out prompts that are generated for."""

from dataclasses import dataclass
from typing import Any

from popmargin.data.goals import asked_prompts, bodies, distinct_rows
from popmargin.training.workspace import Workspace


@dataclass
class PromptSet:
    """Distinct held-out prompts to generate for, in data order.

    Attributes:
        prompts: as they are asked; of runs that were trained on goals, for the best goal or another.
        bodies: the same without goals, as rewards and other runs see them.
        clusters: what depends on each other.
    """

    prompts: list[Any]
    bodies: list[Any]
    clusters: list[str]

    @staticmethod
    def of(workspace: Workspace, count: int | None, goal: float | None = None) -> "PromptSet":
        """The first `count` distinct held-out prompts; None for all, and for the best goal."""
        preferences = workspace.test.preferences
        prompts, plain, clusters = asked_prompts(preferences, goal), list(bodies(preferences)), preferences.clusters
        rows = distinct_rows(preferences, count)
        return PromptSet([prompts[row] for row in rows], [plain[row] for row in rows], [clusters[row] for row in rows])
