"""The stored order makes the screen, and answers on the screen become verdicts about the data."""

import itertools
from dataclasses import replace
from datetime import UTC, datetime

import pytest

pytest.importorskip("markdown_it")

from popmargin.data.questions import PreferenceText
from popmargin.errors import DataError
from popmargin.label.store.records import Assignment, Label, Shown
from popmargin.label.web.screen import choice_of, said_grade, screen_of, verdict_of
from popmargin.label.web.wording import GRADED, Choice, buttons_of

ORDERS = [Shown(swap_pairs=a, swap_first=b, swap_second=c) for a, b, c in itertools.product([False, True], repeat=3)]
RATINGS: tuple[Choice, ...] = ("1", "5", "10", "unsure")
CHOICES: tuple[Choice, ...] = ("left", "right", "tie", "unsure", "wrong-left", "wrong-right", "wrong-both")


def assignment_of(kind: str, shown: Shown, verdict: tuple | None = None) -> Assignment:
    first = PreferenceText(id="p", prompt="p-prompt", chosen="p-chosen", rejected="p-rejected")
    second = PreferenceText(id="q", prompt="q-prompt", chosen="q-chosen", rejected="q-rejected")
    label = verdict and Label(
        id=1, assignment=1, revision=1, verdict=verdict[0], wrong=verdict[1], confidence=None, note="", seconds=None,
        request="request1", created_at=datetime.now(UTC),
    )  # fmt: skip
    return Assignment(
        id=1, item=1, kind=kind, annotator=1, first=first, second=second if kind == "pop" else None, shown=shown,
        expires_at=None, state="leased", label=label, number=1, response="rejected" if kind == "rating" else None,
    )  # fmt: skip


@pytest.mark.parametrize("shown", ORDERS)
def test_each_level_of_the_shuffle_moves_its_part(shown: Shown) -> None:
    screen = screen_of(assignment_of("pop", shown))
    assert [side.place for side in screen.sides] == ["left", "right"]
    order = "qp" if shown.swap_pairs else "pq"
    assert "".join(str(side.prompt)[0] for side in screen.sides) == order
    for name, side in zip(order, screen.sides, strict=True):
        swap = shown.swap_first if name == "p" else shown.swap_second
        texts = [f"{name}-chosen", f"{name}-rejected"]
        assert [response.text for response in side.responses] == (texts[::-1] if swap else texts)
        # The mark stays with the response, wherever it stands.
        assert {r.text: r.preferred for r in side.responses} == {f"{name}-chosen": True, f"{name}-rejected": False}


@pytest.mark.parametrize("shown", ORDERS)
def test_responses_of_one_prompt_are_blind(shown: Shown) -> None:
    screen = screen_of(assignment_of("preference", shown))
    texts = [side.responses[0].text for side in screen.sides]
    assert texts == (["p-rejected", "p-chosen"] if shown.swap_first else ["p-chosen", "p-rejected"])
    assert all(response.preferred is None for side in screen.sides for response in side.responses)


@pytest.mark.parametrize("shown", ORDERS)
@pytest.mark.parametrize("choice", CHOICES)
def test_answers_and_verdicts_are_a_round_trip(shown: Shown, choice: Choice) -> None:
    for kind in ("pop", "preference"):
        if kind == "preference" and choice.startswith("wrong"):
            continue
        stored = verdict_of(choice, assignment_of(kind, shown))
        assert choice_of(assignment_of(kind, shown, stored)) == choice


@pytest.mark.parametrize("shown", ORDERS)
@pytest.mark.parametrize("choice", GRADED)
def test_answers_with_a_grade_are_a_round_trip(shown: Shown, choice: Choice) -> None:
    verdict, wrong = verdict_of(choice, assignment_of("preference", shown))
    assert wrong is None and said_grade(choice) == int(choice[-1])
    answered = assignment_of("preference", shown, (verdict, wrong))
    answered = replace(answered, label=replace(answered.label, grade=said_grade(choice)))
    assert choice_of(answered) == choice
    with pytest.raises(DataError, match="has no grades"):
        verdict_of(choice, assignment_of("pop", shown))


@pytest.mark.parametrize(("kind", "grades"), [("pop", False), ("preference", False), ("preference", True)])
def test_answers_stand_in_the_order_of_their_keys(kind: str, grades: bool) -> None:
    buttons = buttons_of(kind, None, grades=grades)
    assert [button.hint for button in buttons] == [str(number + 1) for number in range(len(buttons))]


@pytest.mark.parametrize("shown", ORDERS)
@pytest.mark.parametrize("choice", RATINGS)
def test_a_rating_is_stored_as_it_was_given_and_shows_one_response_blind(shown: Shown, choice: Choice) -> None:
    stored = verdict_of(choice, assignment_of("rating", shown))
    assert stored == (choice, None) and choice_of(assignment_of("rating", shown, stored)) == choice
    screen = screen_of(assignment_of("rating", shown))
    (side,) = screen.sides
    assert screen.right is None and side.prompt == "p-prompt"
    assert [(response.text, response.preferred) for response in side.responses] == [("p-rejected", None)]
    for other in ("left", "tie", "wrong-both"):
        with pytest.raises(DataError, match="takes a number or unsure"):
            verdict_of(other, assignment_of("rating", shown))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("scale", [2, 5, 9, 10])
def test_every_number_of_a_scale_has_a_key_of_its_own(scale: int) -> None:
    buttons = buttons_of("rating", scale)
    assert [button.choice for button in buttons] == [*map(str, range(1, scale + 1)), "unsure"]
    assert len({button.hint for button in buttons}) == len(buttons)
    assert all(button.keys == button.hint and len(button.hint) == 1 for button in buttons)


def test_a_choice_names_what_stood_there() -> None:
    swapped = Shown(swap_pairs=True, swap_first=False, swap_second=False)
    assert verdict_of("left", assignment_of("pop", swapped)) == ("second", None)
    assert verdict_of("wrong-right", assignment_of("pop", swapped)) == ("wrong", "first")
    # Of two responses to a prompt only their own order counts.
    assert verdict_of("left", assignment_of("preference", swapped)) == ("first", None)
    other = Shown(swap_pairs=False, swap_first=True, swap_second=False)
    assert verdict_of("left", assignment_of("preference", other)) == ("second", None)


def test_wrong_is_no_answer_about_two_responses() -> None:
    with pytest.raises(DataError, match="about pairs"):
        verdict_of("wrong-left", assignment_of("preference", ORDERS[0]))
