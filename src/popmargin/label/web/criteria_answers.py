"""Answers to several questions about one task, such as the places of a ranking: from the form to verdicts, and back."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from fastapi import Request

from popmargin.data.questions import Verdict
from popmargin.errors import DataError
from popmargin.label.language.sentence import Sentence
from popmargin.label.store.records import Assignment, Project, Wrong
from popmargin.label.web.ranked_answers import order_said, places_said
from popmargin.label.web.screen import choice_for, choice_of, known_choice, known_choices, verdict_of
from popmargin.label.web.wording import Choice, buttons_of

FIELD = "criterion_"
"""What the names of form fields begin with; the name of the criterion follows."""


async def criteria_form(request: Request) -> dict[str, str]:
    """Criterion -> the answer in a form; empty for a project with one question."""
    form = await request.form()
    return {name.removeprefix(FIELD): str(value) for name, value in form.items() if name.startswith(FIELD)}


def verdicts_on(
    project: Project, assignment: Assignment, choices: Mapping[str, str]
) -> tuple[Verdict, dict[str, Verdict]]:
    """The verdict on the first criterion, and those on the others.

    Raises:
        DataError: a question without an answer, or an answer that is none.
    """
    allowed = {one.choice for one in buttons_of(assignment.kind, project.scale, both_bad=project.both_bad)}
    found: dict[str, Verdict] = {}
    for one in project.criteria:
        if one.name not in choices:
            raise DataError(Sentence("refused_open_question", question=one.question))
        if choices[one.name] not in allowed:
            raise DataError(f"'{choices[one.name]}' is no answer to “{one.question}”. Nothing was saved.")
        found[one.name] = verdict_of(cast(Choice, choices[one.name]), assignment)[0]
    unknown = choices.keys() - found.keys()
    if unknown:
        raise DataError(f"The project has no criterion '{min(unknown)}'. Nothing was saved.")
    return found.pop(project.criteria[0].name), found


def said_on(
    project: Project, assignment: Assignment, choice: Choice | None, choices: Mapping[str, str]
) -> tuple[Verdict, Wrong | None, dict[str, Verdict]]:
    """Verdict, what is wrong, and verdicts on further criteria, of a form or a request.

    Raises:
        DataError: a question without an answer, or an answer that is none.
    """
    if assignment.kind == "rank" and choice is None:
        return verdict_of(order_said(assignment, choices), assignment)[0], None, {}
    if assignment.kind == "rank":
        choices = {}  # what was filled in beside "can't tell"
    if project.criteria:
        verdict, others = verdicts_on(project, assignment, choices)
        return verdict, None, others
    if choices:
        raise DataError("The project asks one question: send `choice`, not `choices`. Nothing was saved.")
    if choice is None:
        raise DataError(Sentence("refused_no_answer"))
    return *verdict_of(choice, assignment), {}


@dataclass(frozen=True, kw_only=True)
class Told:
    """One known answer to a training item and what was answered, in terms of its screen."""

    question: str
    known: Choice
    given: Choice

    @property
    def right(self) -> bool:
        """Whether the known answer was given."""
        return self.known == self.given


def told_on(project: Project, assignment: Assignment) -> list[Told]:
    """What is known about an answered training item: one, or one for each criterion on which it is; else empty."""
    main = known_choice(assignment)
    if not project.criteria:
        given = choice_of(assignment)
        label = assignment.label
        if main is None or given is None or label is None:
            return []
        same = label.verdict == assignment.gold  # whatever its grade
        return [Told(question="", known=given if same else main, given=given)]
    known = known_choices(assignment)
    if main is not None:
        known[project.criteria[0].name] = main
    said = choices_on(project, assignment)
    return [
        Told(question=one.question, known=known[one.name], given=said[one.name])
        for one in project.criteria
        if one.name in known and one.name in said
    ]


def choices_on(project: Project, assignment: Assignment) -> dict[str, Choice]:
    """Criterion -> the current answer in terms of the screen; empty without an answer."""
    main, label = choice_of(assignment), assignment.label
    if assignment.kind == "rank":
        return places_said(main)
    if main is None or label is None or not project.criteria:
        return {}
    found: dict[str, Choice] = {project.criteria[0].name: main}
    for name, verdict in label.criteria.items():
        choice = choice_for(assignment, verdict, None)
        found |= {} if choice is None else {name: choice}
    return found
