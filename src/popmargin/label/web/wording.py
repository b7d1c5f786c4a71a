"""The question and the answers of a task in words: those of the kind, for texts or images, and the project's own."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import permutations
from typing import Annotated, Literal

from pydantic import StringConstraints

from popmargin.data.questions import RANKED, RATINGS, Kind, Order, Rating, order_of

Place = Literal["left", "right", "tie", "both_bad", "unsure", "wrong-left", "wrong-right", "wrong-both"]
Graded = Literal["left-3", "left-2", "left-1", "right-1", "right-2", "right-3"]
"""Which response is better, and by how much."""
Choice = Place | Graded | Rating | Annotated[Order, StringConstraints(pattern=r"^[1-6](>[1-6]){2,5}$")]
"""An answer as shown on the screen; an order has the numbers of the pairs on it, the largest difference first."""

BETTER = "better"
GRADES: Mapping[int, str] = {1: "slightly", 2: "clearly", 3: "much"}
GRADED: tuple[Graded, ...] = ("left-3", "left-2", "left-1", "right-1", "right-2", "right-3")

_WORDS: dict[Kind, dict[Choice, str]] = {
    "pop": {
        "left": "Pair 1",
        "right": "Pair 2",
        "tie": "About equal",
        "unsure": "Can't tell",
        "wrong-left": "Pair 1 is wrong",
        "wrong-right": "Pair 2 is wrong",
        "wrong-both": "Both are wrong",
    },
    "preference": {
        "left": "Response 1",
        "right": "Response 2",
        "tie": "About equal",
        "both_bad": "Both bad",
        "unsure": "Can't tell",
    },
    "rank": {
        "unsure": "Can't tell",
        **{number: f"Pair {number}" for number in RATINGS[: RANKED[-1]]},
        **{
            order_of(numbers): " > ".join(f"Pair {number}" for number in numbers)
            for size in RANKED
            for numbers in permutations(range(1, size + 1))
        },
    },
    "rating": {"left": "Response", "unsure": "Can't tell", **{number: number for number in RATINGS}},
}


def words_of(kind: Kind, *, images: bool, wording: str = BETTER) -> dict[Choice, str]:
    """The answers as worded on a page.

    Example:
        >>> words_of("preference", images=True)["left"]
        'Image 1'
        >>> words_of("preference", images=False, wording="more helpful")["right-2"]
        'Response 2 is clearly more helpful'
    """
    words = dict(_WORDS[kind])
    if kind == "preference":
        words |= {choice: f"{words[side_of(choice)]} is {GRADES[grade_of(choice)]} {wording}" for choice in GRADED}
    return {choice: _of_images(said) if images else said for choice, said in words.items()}


def side_of(choice: Graded) -> Literal["left", "right"]:
    """The better side of an answer with a grade."""
    return "left" if choice.startswith("left") else "right"


def grade_of(choice: Graded) -> int:
    """The grade of an answer: 1, slightly, to 3, much."""
    return int(choice[-1])


def question_of(kind: Kind, *, images: bool, wording: str = BETTER, criteria: int = 0) -> str:
    """The question of a page.

    Example:
        >>> question_of("preference", images=True)
        'Which image is better?'
        >>> question_of("pop", images=False, wording="more convincing")
        'In which pair is the preferred response more convincing by the larger margin?'
    """
    if criteria:
        about = "the two responses" if kind == "preference" else "the response"
        said = f"{criteria} questions about {about}"
    elif kind == "rank":
        said = f"Order the pairs by how much {wording} the preferred response is."
    elif kind == "pop":
        more = f"{wording} by more" if wording == BETTER else f"{wording} by the larger margin"
        said = f"In which pair is the preferred response {more}?"
    else:
        said = f"Which response is {wording}?" if kind == "preference" else "How good is this response?"
    return _of_images(said) if images else said


def signed_rule(kind: Kind = "pop", *, images: bool, wording: str = BETTER) -> str:
    """What to do about a preferred response that is not the better one; nothing where preferences are not compared.

    Example:
        >>> signed_rule(images=False, wording="more convincing")
        'If a preferred response is the less convincing one, choose the other pair.'
    """
    if kind not in ("pop", "rank"):
        return ""
    end = "choose the other pair" if kind == "pop" else "its pair comes last"
    said = f"If a preferred response is the {_opposite(wording)} one, {end}."
    return _of_images(said) if images else said


def _opposite(wording: str) -> str:
    if wording == BETTER:
        return "worse"
    return f"less {wording[5:]}" if wording.startswith("more ") else f"not {wording}"


def _of_images(words: str) -> str:
    return words.replace("Response", "Image").replace("response", "image")


@dataclass(frozen=True, kw_only=True)
class Button:
    """An answer on the page, the keys that choose it, and the key shown on it."""

    choice: Choice
    keys: str
    hint: str


def buttons_of(kind: Kind, scale: int | None, *, grades: bool = False, both_bad: bool = False) -> list[Button]:
    """The answers of a task in page order, which is the order of their keys, except those about wrong preferences."""
    if kind == "rating":
        # A key has one digit, and 0 comes after 9.
        numbers = [Button(choice=number, keys=number[-1], hint=number[-1]) for number in RATINGS[:scale]]
        return [*numbers, Button(choice="unsure", keys="x", hint="x")]
    bad: list[Choice] = ["both_bad"] if both_bad and kind == "preference" else []
    graded = kind == "preference" and grades
    choices: list[Choice] = [*GRADED[:3], "tie", *GRADED[3:]] if graded else ["left", "right", "tie"]
    asked: list[Choice] = [*choices, *bad, "unsure"]
    more = {"tie": " =", "unsure": " 0", "both_bad": " b"} | (
        {} if graded else {"left": " ArrowLeft", "right": " ArrowRight"}
    )
    return [
        Button(choice=one, keys=f"{number}{more.get(one, '')}", hint=str(number)) for number, one in enumerate(asked, 1)
    ]
