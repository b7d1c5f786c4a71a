"""A ranking on the page: a question for every place but the last, and the order that the answers make."""

from collections.abc import Mapping

from popmargin.data.questions import RATINGS, Order, numbers_of, order_of, orders_of
from popmargin.errors import DataError, counted
from popmargin.label.language.page_texts import ENGLISH, PageTexts, shipped
from popmargin.label.language.sentence import Sentence
from popmargin.label.store.records import Assignment, Criterion
from popmargin.label.web.wording import Button, Choice


def places_of(size: int, texts: PageTexts | None = None) -> list[Criterion]:
    """A question for each place that is asked for, in English without texts; the pair that is left has the last one.

    Example:
        >>> [one.question for one in places_of(3)]
        ['First: better by the most', 'Second']
    """
    texts = texts or shipped(ENGLISH)
    names = [f"place_{place}" for place in range(1, size)]
    return [Criterion(name=name, question=texts.said(name)) for name in names]


def pair_buttons(size: int) -> list[Button]:
    """The pairs as answers to these questions."""
    return [Button(choice=number, keys=number, hint=number) for number in RATINGS[:size]]


def order_said(assignment: Assignment, choices: Mapping[str, str]) -> Choice:
    """The order on the screen that a form says.

    Raises:
        DataError: a place without a pair, or a pair with two places.
    """
    pairs = RATINGS[: len(assignment.preferences)]
    said: list[str] = []
    for place, one in enumerate(places_of(len(pairs)), 1):
        number = choices.get(one.name, "")
        if number not in pairs:
            raise DataError(Sentence("refused_open_place", number=place))
        if number in said:
            raise DataError(Sentence("refused_two_places", number=number))
        said.append(number)
    left = [number for number in pairs if number not in said]
    return order_of([int(number) for number in (*said, *left)])


def places_said(choice: Choice | None) -> dict[str, Choice]:
    """The answers to the questions that make an order; empty without one."""
    if choice is None or choice == "unsure":
        return {}
    numbers = numbers_of(choice)
    return {one.name: RATINGS[number - 1] for one, number in zip(places_of(len(numbers)), numbers, strict=False)}


def on_screen(verdict: str, order: tuple[int, ...]) -> Order:
    """A stored order in the numbers of the screen.

    Args:
        verdict: numbers of the preferences in the order of the data.
        order: the preferences from left to right.

    Example:
        >>> on_screen("3>1>2", (2, 3, 1))
        '2>3>1'
    """
    return order_of([order.index(number) + 1 for number in numbers_of(verdict)])


def in_data(choice: str, order: tuple[int, ...]) -> Order:
    """The opposite of `on_screen`.

    Raises:
        DataError: it is no order of these pairs.
    """
    if choice not in orders_of(len(order)):
        raise DataError(
            f"'{choice}' is no order of {counted(len(order), 'pair')}, such as {'>'.join(RATINGS[: len(order)])}."
        )
    return order_of([order[number - 1] for number in numbers_of(choice)])
