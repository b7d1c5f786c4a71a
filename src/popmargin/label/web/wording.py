"""The question and the answers of a task in words: those of the kind, for texts or images, and the project's own."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import StringConstraints

from popmargin.data.questions import RANKED, RATINGS, Kind, Order, Rating, is_order, numbers_of
from popmargin.label.language.page_texts import ENGLISH, PageTexts, shipped

Place = Literal["left", "right", "tie", "both_bad", "unsure", "wrong-left", "wrong-right", "wrong-both"]
Graded = Literal["left-3", "left-2", "left-1", "right-1", "right-2", "right-3"]
"""Which response is better, and by how much."""
Choice = Place | Graded | Rating | Annotated[Order, StringConstraints(pattern=r"^[1-6](>[1-6]){2,5}$")]
"""An answer as shown on the screen; an order has the numbers of the pairs on it, the largest difference first."""

BETTER = "better"
"""The wording of a project that has none of its own; a page says it in its language."""
GRADED: tuple[Graded, ...] = ("left-3", "left-2", "left-1", "right-1", "right-2", "right-3")


class Words(dict[Choice, str]):
    """Answers in words; those that are orders are put together from the words of their pairs."""

    def __missing__(self, choice: Choice) -> str:
        if not is_order(choice):
            raise KeyError(choice)
        return " > ".join(self[RATINGS[number - 1]] for number in numbers_of(choice))


def words_of(kind: Kind, *, images: bool, wording: str = BETTER, texts: PageTexts | None = None) -> Words:
    """The answers as worded on a page; in English without texts.

    Example:
        >>> words_of("preference", images=True)["left"]
        'Image 1'
        >>> words_of("preference", images=False, wording="more helpful")["right-2"]
        'Response 2 is clearly more helpful'
        >>> words_of("rank", images=False)["2>1>3"]
        'Pair 2 > Pair 1 > Pair 3'
    """
    texts = texts or shipped(ENGLISH)
    response = "image" if images else "response"
    words = Words({"unsure": texts.said("unsure")})
    if kind == "rating":
        words["left"] = texts.said(response)
        words.update({number: number for number in RATINGS})
        return words
    if kind == "rank":
        words.update({number: texts.said("pair", number=number) for number in RATINGS[: RANKED[-1]]})
        return words
    words["tie"] = texts.said("tie")
    if kind == "pop":
        wrong: dict[Choice, str] = {"wrong-left": "wrong_1", "wrong-right": "wrong_2", "wrong-both": "wrong_both"}
        words |= {"left": texts.said("pair", number=1), "right": texts.said("pair", number=2)}
        words.update({choice: texts.said(key) for choice, key in wrong.items()})
        return words
    words |= {"left": texts.said(f"{response}_1"), "right": texts.said(f"{response}_2")}
    words["both_bad"] = texts.said("both_bad")
    graded: dict[Choice, str] = {
        choice: texts.said(
            "answer_graded",
            side=words[side_of(choice)],
            grade=texts.said(f"grade_{grade_of(choice)}"),
            wording=wording_in(texts, wording),
        )
        for choice in GRADED
    }
    words.update(graded)
    return words


def wording_in(texts: PageTexts, wording: str) -> str:
    """What a project asks for; the usual wording is in every language."""
    return texts.said("wording") if wording == BETTER else wording


def side_of(choice: Graded) -> Literal["left", "right"]:
    """The better side of an answer with a grade."""
    return "left" if choice.startswith("left") else "right"


def grade_of(choice: Graded) -> int:
    """The grade of an answer: 1, slightly, to 3, much."""
    return int(choice[-1])


def question_of(
    kind: Kind, *, images: bool, wording: str = BETTER, criteria: int = 0, texts: PageTexts | None = None
) -> str:
    """The question of a page; in English without texts.

    Example:
        >>> question_of("preference", images=True)
        'Which image is better?'
        >>> question_of("pop", images=False, wording="more convincing")
        'In which pair is the preferred response more convincing by the larger margin?'
    """
    texts = texts or shipped(ENGLISH)
    about = "_images" if images else ""
    if criteria:
        return texts.said(f"questions_{kind}{about}")
    if kind in ("preference", "rank"):
        return texts.said(f"question_{kind}{about}", wording=wording_in(texts, wording))
    if kind == "pop" and wording != BETTER:
        return texts.said(f"question_pop_wording{about}", wording=wording)
    return texts.said(f"question_{kind}{about}")


def signed_rule(kind: Kind = "pop", *, images: bool, wording: str = BETTER, texts: PageTexts | None = None) -> str:
    """What to do about a preferred response that is not the better one; nothing where preferences are not compared.

    It is in English without texts.

    Example:
        >>> signed_rule(images=False, wording="more convincing")
        'If a preferred response is not the more convincing one, choose the other pair.'
    """
    if kind not in ("pop", "rank"):
        return ""
    texts = texts or shipped(ENGLISH)
    about, rule = "_images" if images else "", "rule" if kind == "pop" else "rule_rank"
    if wording == BETTER:
        return texts.said(f"{rule}{about}")
    return texts.said(f"{rule}_wording{about}", wording=wording)


@dataclass(frozen=True, kw_only=True)
class Button:
    """An answer on the page, the keys that choose it, and the key shown on it."""

    choice: Choice
    keys: str
    hint: str


def arrows_of(*, rtl: bool) -> tuple[str, str]:
    """The arrow keys of the first and of the second side, which stand in the order of reading."""
    return ("ArrowRight", "ArrowLeft") if rtl else ("ArrowLeft", "ArrowRight")


def buttons_of(
    kind: Kind, scale: int | None, *, grades: bool = False, both_bad: bool = False, rtl: bool = False
) -> list[Button]:
    """The answers of a task in page order, which is the order of their keys, except those about wrong preferences."""
    if kind == "rating":
        # A key has one digit, and 0 comes after 9.
        numbers = [Button(choice=number, keys=number[-1], hint=number[-1]) for number in RATINGS[:scale]]
        return [*numbers, Button(choice="unsure", keys="x", hint="x")]
    bad: list[Choice] = ["both_bad"] if both_bad and kind == "preference" else []
    graded = kind == "preference" and grades
    choices: list[Choice] = [*GRADED[:3], "tie", *GRADED[3:]] if graded else ["left", "right", "tie"]
    asked: list[Choice] = [*choices, *bad, "unsure"]
    first, second = arrows_of(rtl=rtl)
    more = {"tie": " =", "unsure": " 0", "both_bad": " b"}
    more |= {} if graded else {"left": f" {first}", "right": f" {second}"}
    return [
        Button(choice=one, keys=f"{number}{more.get(one, '')}", hint=str(number)) for number, one in enumerate(asked, 1)
    ]
