"""One question of a benchmark: responses to a prompt, which of them are right, and what a model says of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from popmargin.data.conversation import prompt_key
from popmargin.rewards.base import Prompt

Pair = tuple[int, int]
"""Two responses of a question by their places, the better one first."""

Scores = list[Float[np.ndarray, " _"]]
"""Of each question, a model's scores of its responses."""


@dataclass(frozen=True)
class Compared:
    """What a judge that compares two responses says of a question.

    Attributes:
        wins: of each pair (better, worse): 1 if the better response wins, ½ for a tie, otherwise 0.
    """

    wins: Mapping[Pair, float]

    @staticmethod
    def by_score(pairs: Sequence[Pair], score: Float[np.ndarray, " n"]) -> "Compared":
        """The pairs as scores decide them."""
        return Compared({(i, j): ordered(score[i], score[j]) for i, j in pairs})

    def first_choice(self) -> float:
        """1 if a right response wins over all wrong ones, 1/(1 + k) with k ties, 0 with a loss; of the best right one.

        Example:
            >>> Compared({(0, 1): 1.0, (0, 2): 0.5}).first_choice(), Compared({(0, 1): 1.0, (0, 2): 0.0}).first_choice()
            (0.5, 0.0)
        """
        of_right: dict[int, list[float]] = {}
        for (right, _), win in self.wins.items():
            of_right.setdefault(right, []).append(win)
        return max((0.0 if 0.0 in wins else 1 / (1 + wins.count(0.5)) for wins in of_right.values()), default=0.0)


Answer = Float[np.ndarray, " _"] | Compared
"""What a model says of a question: scores of its responses, or which of two is better."""

Answers = Sequence[Answer]


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
    pairs: list[Pair] = field(default_factory=list[Pair])

    def __post_init__(self) -> None:
        if not self.cluster:
            prompt: object = self.answers[0][0] if self.answers else ""
            object.__setattr__(self, "cluster", prompt_key(prompt))  # type: ignore[arg-type]

    @property
    def compared(self) -> list[Pair]:
        """The pairs of responses (better, worse) that a model should tell apart."""
        if self.pairs:
            return self.pairs
        places = range(len(self.worth))
        return [(i, j) for i in places for j in places if self.worth[i] > self.worth[j]]


def picked(answer: Answer, worth: list[float]) -> float:
    """What the response with the highest score is worth; of tied ones each is equally likely.

    Example:
        >>> picked(np.array([2.0, 1.0, 2.0]), [1.0, 0.0, 0.0])
        0.5
    """
    if isinstance(answer, Compared):
        return answer.first_choice()
    return float(np.asarray(worth)[answer == answer.max()].mean())


def beats(answer: Answer, better: int, worse: int) -> float:
    """1 if the better response is ranked first, ½ for a tie, otherwise 0."""
    if isinstance(answer, Compared):
        return answer.wins[better, worse]
    return ordered(answer[better], answer[worse])


def ordered(first: float, second: float) -> float:
    """1 if the first score is higher, ½ if both are equal, otherwise 0."""
    return 1.0 if first > second else 0.5 if first == second else 0.0
