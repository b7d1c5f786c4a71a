"""One question of a benchmark: responses to a prompt, and which of them are right."""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from popmargin.data.conversation import prompt_key
from popmargin.rewards.base import Prompt

Scores = list[Float[np.ndarray, " _"]]
"""Of each question, a model's scores of its responses."""


@dataclass(frozen=True)
class Question:
    """Responses to one prompt, and what each is worth.

    Attributes:
        id: in the data.
        answers: prompt and text of each response (n,); the prompts differ only where a response has several turns.
        worth: of each response (n,): 1 if it is right and 0 if it is wrong, or a grade.
        subset: the part of the benchmark that it belongs to; empty if there are none.
        cluster: questions with the same one are not independent.
        place: file and row, for messages.
        pairs: the pairs of responses (better, worse) that are compared, if not all with different worth are.
    """

    id: str
    answers: list[tuple[Prompt, str]]
    worth: list[float]
    subset: str = ""
    cluster: str = ""
    place: str = ""
    pairs: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])

    def __post_init__(self) -> None:
        if not self.cluster:
            prompt: object = self.answers[0][0] if self.answers else ""
            object.__setattr__(self, "cluster", prompt_key(prompt))  # type: ignore[arg-type]

    @property
    def compared(self) -> list[tuple[int, int]]:
        """The pairs of responses (better, worse) that a model should tell apart."""
        if self.pairs:
            return self.pairs
        places = range(len(self.worth))
        return [(i, j) for i in places for j in places if self.worth[i] > self.worth[j]]


def picked(scores: Float[np.ndarray, " n"], worth: list[float]) -> float:
    """What the response with the highest score is worth; of tied ones each is equally likely.

    Example:
        >>> picked(np.array([2.0, 1.0, 2.0]), [1.0, 0.0, 0.0])
        0.5
    """
    return float(np.asarray(worth)[scores == scores.max()].mean())


def ordered(first: float, second: float) -> float:
    """1 if the first score is higher, ½ if both are equal, otherwise 0."""
    return 1.0 if first > second else 0.5 if first == second else 0.0
