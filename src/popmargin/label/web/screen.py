"""What an annotator sees of an assignment, and what positions on the screen mean: one mapping, both ways.

The three-level shuffle is stored with the assignment (`Shown`), so the screen of any label can be rebuilt later.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast, get_args

from markupsafe import Markup

from popmargin.data.conversation import Text
from popmargin.data.questions import RATINGS, Kind, PreferenceText, Rating, Verdict, is_order
from popmargin.errors import DataError
from popmargin.label.store.records import Assignment, Shown, ShownImage, Wrong
from popmargin.label.web.marked_text import common_share, render, render_pair
from popmargin.label.web.ranked_answers import in_data, on_screen
from popmargin.label.web.wording import GRADED, Choice, Graded, Place, grade_of, side_of

Shape = Literal["square", "wide", "tall"]


@dataclass(frozen=True, kw_only=True)
class Response:
    """A response on the screen; `preferred` says whether the data calls it the better one (None = not shown).

    Attributes:
        html: the text; empty for an image.
        image: None for a text.
    """

    text: Text
    preferred: bool | None
    html: Markup
    image: ShownImage | None = None


@dataclass(frozen=True, kw_only=True)
class Side:
    """One side of a task: a pair of responses to a prompt, or a single response; columns are shown with the prompt.

    Its place is a number in a ranking, whose sides are more than two.
    """

    place: Literal["left", "right"] | Rating
    prompt: Text
    responses: tuple[Response, ...]
    columns: tuple[tuple[str, str], ...] = ()

    @property
    def prompt_html(self) -> Markup:
        """The prompt as HTML."""
        return render(self.prompt)


@dataclass(frozen=True, kw_only=True)
class Screen:
    """The two sides of a task on the screen; a rating task has only the left one, a ranking `more` than two."""

    kind: Kind
    left: Side
    right: Side | None
    more: tuple[Side, ...] = ()

    @property
    def pairs(self) -> bool:
        """Whether the sides are preferences, of which it is shown which response the data prefer."""
        return self.kind in ("pop", "rank")

    @property
    def sides(self) -> tuple[Side, ...]:
        """All, from left to right (on a phone: from top to bottom)."""
        return (self.left,) if self.right is None else (self.left, self.right, *self.more)

    @property
    def one_prompt(self) -> bool:
        """Whether all sides are about the same prompt, which then stands once, above them."""
        return all(side.prompt == self.left.prompt for side in self.sides)

    @property
    def alike(self) -> bool:
        """Whether the responses that are compared have most words in common, so that marks on the others help."""
        both = [response.html for side in self.sides for response in side.responses]
        pairs = zip(both[0::2], both[1::2], strict=False)
        return all(common_share(str(one), str(other)) > 0.5 for one, other in pairs)

    @property
    def shape(self) -> Shape | None:
        """The shape of all boxes for images, whatever is in them; None if the responses are texts."""
        images = [response.image for side in self.sides for response in side.responses if response.image is not None]
        return box_shape([(image.width, image.height) for image in images]) if images else None


def box_shape(sizes: Sequence[tuple[int, int]]) -> Shape:
    """The shape of a box that suits all of these widths and heights.

    Example:
        >>> box_shape([(640, 480), (1024, 512)]), box_shape([(640, 480), (480, 640)])
        ('wide', 'square')
    """
    if all(4 * width > 5 * height for width, height in sizes):
        return "wide"
    return "tall" if all(4 * height > 5 * width for width, height in sizes) else "square"


def screen_of(assignment: Assignment) -> Screen:
    """An assignment's screen, in its stored order."""
    shown, first, second, images = assignment.shown, assignment.first, assignment.second, assignment.images
    if assignment.response is not None:
        text = first.chosen if assignment.response == "chosen" else first.rejected
        only = _image(text, None, images) if images is not None else _text(text, None, render(text))
        side = Side(place="left", prompt=first.prompt, responses=(only,), columns=first.columns)
        return Screen(kind="rating", left=side, right=None)
    if assignment.others:
        return _ranked(assignment)
    if second is None:
        left, right = _responses(first, images, swap=swapped(assignment.kind, shown), marked=False)
        return Screen(
            kind="preference",
            left=Side(place="left", prompt=first.prompt, responses=(left,), columns=first.columns),
            right=Side(place="right", prompt=first.prompt, responses=(right,), columns=first.columns),
        )
    pairs = [(first, shown.swap_first), (second, shown.swap_second)]
    if swapped(assignment.kind, shown):
        pairs.reverse()
    responses = [_responses(preference, images, swap=swap, marked=True) for preference, swap in pairs]
    left, right = (
        Side(place=place, prompt=pair.prompt, responses=both, columns=pair.columns)
        for place, (pair, _), both in zip(("left", "right"), pairs, responses, strict=True)
    )
    return Screen(kind="pop", left=left, right=right)


def _ranked(assignment: Assignment) -> Screen:
    """Pairs in their order, of which all have the preferred response in the same place."""
    shown = assignment.shown
    sides = [
        Side(
            place=RATINGS[number],
            prompt=pair.prompt,
            responses=_responses(pair, assignment.images, swap=shown.swap_first, marked=True),
            columns=pair.columns,
        )
        for number, pair in enumerate(in_order(assignment))
    ]
    return Screen(kind="rank", left=sides[0], right=sides[1], more=tuple(sides[2:]))


def in_order(assignment: Assignment) -> tuple[PreferenceText, ...]:
    """The preferences of an assignment as they stand on the screen: pair 1 before pair 2."""
    if assignment.others:
        return tuple(assignment.preferences[number - 1] for number in assignment.shown.order)
    if assignment.second is None:
        return (assignment.first,)
    both = (assignment.first, assignment.second)
    return both[::-1] if swapped(assignment.kind, assignment.shown) else both


def swapped(kind: Kind, shown: Shown) -> bool:
    """Whether `second` is on the left: the other pair, or the data's rejected response."""
    return shown.swap_pairs if kind == "pop" else shown.swap_first


def _responses(
    preference: PreferenceText, images: Mapping[str, ShownImage] | None, *, swap: bool, marked: bool
) -> tuple[Response, ...]:
    """Both responses in the order on the screen; `marked`: it is shown which one the data prefer."""
    both = ((preference.chosen, True if marked else None), (preference.rejected, False if marked else None))
    both = both[::-1] if swap else both
    if images is not None:
        return tuple(_image(text, preferred, images) for text, preferred in both)
    html = render_pair(both[0][0], both[1][0])
    return tuple(_text(text, preferred, html[place]) for place, (text, preferred) in enumerate(both))


def _text(text: Text, preferred: bool | None, html: Markup) -> Response:
    return Response(text=text, preferred=preferred, html=html)


def _image(name: Text, preferred: bool | None, images: Mapping[str, ShownImage]) -> Response:
    # One that the store lacks is asked for all the same: the page then says that it did not load.
    image = images.get(str(name)) or ShownImage(name=str(name), width=1, height=1, reduced=False)
    return Response(text=name, preferred=preferred, html=Markup(), image=image)


def verdict_of(choice: Choice, assignment: Assignment) -> tuple[Verdict, Wrong | None]:
    """The stored verdict for an answer on this assignment's screen.

    Raises:
        DataError: the answer is not one of the kind's.
    """
    if assignment.kind == "rank":
        return "unsure" if choice == "unsure" else in_data(choice, assignment.shown.order), None
    swap = swapped(assignment.kind, assignment.shown)
    if is_order(choice):
        raise DataError(f"'{choice}' is an order of several pairs; this task asks for none.")
    if choice == "unsure" or (choice in RATINGS) or (choice == "tie" and assignment.kind != "rating"):
        return choice, None
    if assignment.kind == "rating":
        raise DataError(f"'{choice}' is not a rating; a task with one response takes a number or unsure.")
    if choice == "both_bad":
        if assignment.kind != "preference":
            raise DataError("'both_bad' is an answer about two responses; a task with two pairs does not take it.")
        return choice, None
    if choice in GRADED:
        if assignment.kind != "preference":
            raise DataError(f"'{choice}' says how much better a response is; a task with two pairs has no grades.")
        choice = side_of(cast(Graded, choice))
    if choice == "left" or choice == "right":
        return ("first" if (choice == "left") != swap else "second"), None
    if assignment.kind == "preference":
        raise DataError(
            f"'{choice}' is an answer about pairs; a task with two responses takes left, right, tie or unsure."
        )
    if choice == "wrong-both":
        return "wrong", "both"
    return "wrong", ("first" if (choice == "wrong-left") != swap else "second")


def choice_of(assignment: Assignment) -> Choice | None:
    """The current answer of an assignment in terms of its screen; None if there is none.

    With `verdict_of` it is a round trip for every answer.
    """
    label = assignment.label
    if label is None or label.verdict is None:
        return None
    if label.grade is not None and label.verdict in ("first", "second"):
        stored = ((label.verdict, label.wrong), label.grade)
        return next(one for one in GRADED if (verdict_of(one, assignment), grade_of(one)) == stored)
    return choice_for(assignment, label.verdict, label.wrong)


def known_choice(assignment: Assignment) -> Choice | None:
    """The known answer of an answered training item in terms of its screen; None for other assignments."""
    gold = assignment.gold
    return None if gold is None else choice_for(assignment, gold, "both" if gold == "wrong" else None)


def known_choices(assignment: Assignment) -> dict[str, Choice]:
    """The known answers to an answered training item on the criteria after the first, in terms of its screen."""
    verdicts = assignment.gold_criteria.items()
    found: dict[str, Choice | None] = {name: choice_for(assignment, verdict, None) for name, verdict in verdicts}
    return {name: choice for name, choice in found.items() if choice is not None}


def choice_for(assignment: Assignment, verdict: Verdict, wrong: Wrong | None) -> Choice | None:
    """Somebody's answer in terms of an assignment's screen."""
    if assignment.kind == "rating":
        return cast(Choice, verdict)
    if assignment.kind == "rank":
        return on_screen(verdict, assignment.shown.order) if is_order(verdict) else "unsure"
    if verdict == "both_bad":
        return verdict
    choices: tuple[Place, ...] = get_args(Place)
    allowed: tuple[Place, ...] = choices if assignment.kind == "pop" else choices[:5]
    for choice in allowed:
        if choice != "both_bad" and verdict_of(choice, assignment) == (verdict, wrong):
            return choice
    return None


def said_grade(choice: Choice) -> int | None:
    """The grade of an answer; None if it has none."""
    return grade_of(cast(Graded, choice)) if choice in GRADED else None


def sure_of(assignment: Assignment) -> float | None:
    """The confidence of the current or withdrawn answer, as the nearest level of `SURE`."""
    said = None if assignment.label is None else assignment.label.confidence
    return None if said is None else min(SURE, key=lambda level: abs(level - said))


SURE: dict[float, str] = {0.5: "guessing", 0.75: "fairly_sure", 1.0: "very_sure"}
"""Levels of confidence for people, with their texts: the probability that the answer is right, as for models."""
