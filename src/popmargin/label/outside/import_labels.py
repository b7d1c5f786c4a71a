"""Labels from other tools into a project: read, matched, stored, and every one accounted for."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from popmargin.account import Step
from popmargin.data.locate import open_source
from popmargin.data.questions import Kind, Verdict
from popmargin.errors import ConfigError, DataError, counted, did_you_mean
from popmargin.label.outside import argilla, label_columns, label_studio, potato
from popmargin.label.outside.match import Matcher
from popmargin.label.outside.on_criteria import check_format, verdicts_on, with_verdict
from popmargin.label.outside.on_rankings import RankedItems, check_ranking_format, with_order
from popmargin.label.outside.outside_label import LeftOut, OutsideLabel, Parser, time_of
from popmargin.label.outside.verdicts import check_answers, verdict_of
from popmargin.label.projects.same_project import item_kinds
from popmargin.label.store.access import NAME_CHARACTERS
from popmargin.label.store.answers import Answer
from popmargin.label.store.criteria import check_verdicts
from popmargin.label.store.label_store import LabelStore
from popmargin.label.store.outside_answers import OutsideAnswer, request_of
from popmargin.label.store.records import Criterion, Project

PARSERS: dict[str, Parser] = {
    "argilla": argilla.read,
    "label-studio": label_studio.read,
    "potato": potato.read,
    "csv": label_columns.read,
    "jsonl": label_columns.read,
}
"""Whose exports are read; a file parses into labels and rows without one."""
FIELDS = ("prompt", "response_a", "response_b", "response", "order", *label_columns.NAMES)
"""What `columns` may name."""
_POTATO = (*(f"annotated_instances.{suffix}" for suffix in ("jsonl", "json", "csv", "tsv")), "user_state.json")
_OTHER: dict[Any, Any] = {"first": "second", "second": "first"}


@dataclass(frozen=True, kw_only=True)
class Imported:
    """What became of the labels of a file.

    Attributes:
        account: labels in = stored + left out, by reason.
        left_out: every one that was not stored, with its place.
        annotators: name -> number of labels stored.
        untimed: stored labels without a time, which have that of the import.
    """

    account: Step
    left_out: list[LeftOut]
    annotators: dict[str, int]
    untimed: int


def import_labels(
    store: LabelStore,
    project: Project,
    source: str | Path,
    *,
    format: str,
    kind: Kind | None = None,
    question: str | None = None,
    annotator: str | None = None,
    names: Mapping[str, str] | None = None,
    answers: Mapping[str, str] | None = None,
    named: Mapping[str, str] | None = None,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Imported:
    """Store labels that people gave elsewhere; they count in every report and export like those given on the page.

    People whom the project does not have become annotators who cannot sign in. A label takes one of its item's places,
    or one more. A second import of the same file stores nothing again.

    Args:
        store: the store.
        project: it has the items.
        source: a file, or a folder of Potato's.
        format: one of `PARSERS`.
        kind: what was asked, if the project asks for several.
        question: the question's name, if records answer several.
        annotator: who gave the labels of a file that does not say.
        names: the file's name of an annotator -> ours.
        answers: a word in the file -> our verdict.
        named: our field -> the file's column.
        clock: the time for labels without one.

    Raises:
        DataError: the file cannot be read or has no labels, or the project no items.
        ConfigError: an unknown format, field or verdict.
    """
    if format not in PARSERS:
        raise ConfigError(f"format is '{format}'. {did_you_mean(format, PARSERS)}")
    fields = (*FIELDS, *(one.name for one in project.criteria))
    for field in named or {}:
        if field not in fields:
            raise ConfigError(f"--column {field}=…: '{field}' is not a field. {did_you_mean(field, fields)}")
    check_format(project.criteria, format, question)
    asked = _asked(store, project, kind)
    if asked == "rank":
        check_ranking_format(format, project.name)
    check_answers(answers or {}, asked, project.scale)
    now, read = clock(), list(_read(Path(source), format, question, named or {}, annotator, project.criteria, asked))
    left_out = [found for found in read if isinstance(found, LeftOut)]
    given, untimed = dict[str, dict[int, tuple[OutsideLabel, OutsideAnswer]]](), set[int]()
    matcher = RankedItems(store, project) if asked == "rank" else Matcher(store, project, asked)
    models = {who.name for who in store.annotators(project.id) if who.kind != "person"}
    for outside in (found for found in read if isinstance(found, OutsideLabel)):
        made = _made(outside, asked, project, matcher, answers or {}, now, named or {})
        who = ((names or {}).get(outside.annotator or "", outside.annotator) or "").strip()
        made = _nobody(outside, who, models) or made
        if isinstance(made, LeftOut):
            left_out.append(made)
            continue
        mine = given.setdefault(who, {})
        if made.item in mine:
            first = mine[made.item][0].place
            left_out.append(
                LeftOut(
                    place=outside.place,
                    reason="duplicate",
                    message=f"'{who}' has another label of the same item, at {first}.",
                    remedy="keep one; the first was taken.",
                )
            )
            continue
        mine[made.item] = (outside, made)
        if outside.at is None or outside.at == "":
            untimed.add(id(made))
    stored = dict[str, int]()
    for who, mine in given.items():
        standing = store.record_outside(project.id, who, [made for _, made in mine.values()])
        for (outside, made), verdict in zip(mine.values(), standing, strict=True):
            if verdict is None:
                stored[who] = stored.get(who, 0) + 1
                continue
            untimed.discard(id(made))
            left_out.append(_standing(outside, who, verdict, made.answer.verdict))
    reasons = dict[str, int]()
    for one in left_out:
        reasons[one.reason] = reasons.get(one.reason, 0) + 1
    account = Step(
        name=f"labels of {Path(source).name}",
        rows_in=len(read),
        kept={"stored": sum(stored.values())},
        left_out=reasons,
        unit="labels",
    )
    return Imported(account=account, left_out=left_out, annotators=stored, untimed=len(untimed))


def _asked(store: LabelStore, project: Project, kind: Kind | None) -> Kind:
    """What the labels answer: the kind that was named, or the only one of the project."""
    kinds = item_kinds(store, project)
    if not kinds:
        raise DataError(f"Project '{project.name}' has no items. Import the data first: popmargin label import.")
    if kind is None and len(kinds) > 1:
        raise ConfigError(f"Project '{project.name}' asks for {' and '.join(kinds)}. Choose one with --kind.")
    if kind not in (None, *kinds):
        raise ConfigError(f"Project '{project.name}' asks for {' and '.join(kinds)}, not {kind}.")
    return kind or kinds[0]


def _nobody(outside: OutsideLabel, who: str, models: Collection[str]) -> LeftOut | None:
    """Why a label has no person who gave it."""
    if not who:
        return LeftOut(
            place=outside.place,
            reason="no annotator",
            message="it does not say who gave it.",
            remedy="name the column (--column annotator=…), or who gave all such labels (--annotator NAME).",
        )
    if who in models:
        message = f"'{who}' is a model in this project."
        remedy = f"give the person another name: --name '{who}=…'."
        return LeftOut(place=outside.place, reason="name of a model", message=message, remedy=remedy)
    if len(who) > NAME_CHARACTERS:
        message = f"the annotator's name has {counted(len(who), 'character')}."
        remedy = f"shorten it to {NAME_CHARACTERS}: --name THEIRS=OURS."
        return LeftOut(place=outside.place, reason="unusable value", message=message, remedy=remedy)
    return None


def _standing(outside: OutsideLabel, who: str, verdict: str, given: str) -> LeftOut:
    same = verdict == given
    message = f"'{who}' has already answered this item" + ("." if same else f": '{verdict}', not '{given}'.")
    remedy = "nothing." if same else "the answer in the store stands; discard that annotator, or change it on the page."
    reason = "already there" if same else "another answer stands"
    return LeftOut(place=outside.place, reason=reason, message=message, remedy=remedy)


def _made(
    outside: OutsideLabel,
    kind: Kind,
    project: Project,
    matcher: Matcher | RankedItems,
    answers: Mapping[str, str],
    now: datetime,
    named: Mapping[str, str],
) -> OutsideAnswer | LeftOut:
    if isinstance(matcher, RankedItems):
        return _ranked(outside, matcher, answers, now)
    found = matcher.find(outside)
    if isinstance(found, LeftOut):
        return found
    number, turned = found
    verdicts = (verdict_of(value, kind, project.scale, answers) for value in outside.values)
    verdict: Any = next((verdict for verdict in verdicts if verdict is not None), None)
    if verdict is None:
        shown = " or ".join(f"'{value}'" for value in dict.fromkeys(map(str, outside.values)))
        wanted = f"a number from 1 to {project.scale}" if kind == "rating" else "first, second, tie or unsure"
        return LeftOut(
            place=outside.place,
            reason="unknown answer",
            message=f"{shown[:80]} is no answer here.",
            remedy=f"say what it means: --answer 'WORD=…' with {wanted}.",
        )
    wrong: Any = outside.wrong
    criteria = verdicts_on(
        outside, project.criteria, named, lambda value: verdict_of(value, kind, project.scale, answers)
    )
    if isinstance(criteria, LeftOut):
        return criteria
    if turned:
        verdict, wrong = _OTHER.get(verdict, verdict), _OTHER.get(wrong, wrong)
        criteria = {name: _OTHER.get(said, said) for name, said in criteria.items()}
    order = outside.order
    if turned and order is not None:
        order = (not order[0], order[2], order[1]) if kind == "pop" else (order[0], not order[1], order[2])

    def check(answer: Answer) -> None:
        answer.check(kind, project.scale)
        check_verdicts(project.criteria, criteria, kind, project.scale, both_bad=project.both_bad)

    made = _answer(outside, verdict, now, check, wrong=wrong, criteria=criteria)
    return made if isinstance(made, LeftOut) else OutsideAnswer(item=number, answer=made[0], at=made[1], order=order)


def _answer(
    outside: OutsideLabel, verdict: Verdict, now: datetime, check: Callable[[Answer], None], **more: Any
) -> tuple[Answer, datetime] | LeftOut:
    """The answer with what stands beside it, and its time."""
    try:
        answer = Answer(
            verdict=verdict,
            request=request_of(outside.place),
            confidence=_number(outside.confidence, "confidence"),
            note=outside.note,
            seconds=_number(outside.seconds, "seconds"),
            **more,
        )
        check(answer)
        return answer, now if outside.at is None or outside.at == "" else time_of(outside.at)
    except (DataError, ValueError) as error:
        message = str(error) if isinstance(error, DataError) else f"'{str(outside.at)[:40]}' is not a time."
        return LeftOut(
            place=outside.place, reason="unusable value", message=message, remedy="correct it, or leave it empty."
        )


def _ranked(
    outside: OutsideLabel, items: RankedItems, answers: Mapping[str, str], now: datetime
) -> OutsideAnswer | LeftOut:
    found = items.read(outside, unsure=verdict_of(outside.values[0], "rank", None, answers) == "unsure")
    if isinstance(found, LeftOut):
        return found
    made = _answer(outside, found.verdict, now, lambda answer: answer.check("rank", others=found.others))
    if isinstance(made, LeftOut):
        return made
    answer, at = made
    return OutsideAnswer(
        item=found.item, answer=answer, at=at, order=outside.order, size=found.size, shown_order=found.shown
    )


def _number(value: Any, name: str) -> float | None:
    if value is None or value == "":
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        raise DataError(f"{name} is {str(value)[:40]!r}, not a number.") from None


def _read(
    source: Path,
    format: str,
    question: str | None,
    named: Mapping[str, str],
    annotator: str | None,
    criteria: Sequence[Criterion],
    kind: Kind,
) -> Iterator[OutsideLabel | LeftOut]:
    """The labels of a file; where it does not say who gave them, those of `annotator`, or in Potato's folders of the
    folder's name."""
    files = _files(source, format)
    for path in files:
        broken: list[LeftOut] = []
        rows = _rows(path, broken)
        if criteria:
            rows = with_verdict(rows, criteria, named)
        elif kind == "rank":
            rows = with_order(rows, {**named, **({} if question is None else {"label": question})})
        for found in PARSERS[format](rows, question, named):
            if isinstance(found, OutsideLabel) and found.annotator is None:
                who = annotator or (path.parent.name if format == "potato" and source.is_dir() else None)
                found = replace(found, annotator=who)
            yield found
        yield from broken


def _files(source: Path, format: str) -> list[Path]:
    if not source.is_dir():
        return [source]
    if format != "potato":
        raise DataError(f"{source} is a folder. Name the file with the labels; only Potato's are folders.")
    folders = sorted({path.parent for path in source.rglob("*") if path.name in _POTATO})
    found = [next(folder / name for name in _POTATO if (folder / name).is_file()) for folder in folders]
    if not found:
        raise DataError(f"{source}: no {_POTATO[0]} and no user_state.json in it. Give Potato's folder of annotations.")
    return found


def _rows(path: Path, broken: list[LeftOut]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for batch in (opened := open_source(str(path), split=None)).batches():
        source = batch.source or opened
        for position, error in batch.broken:
            place = f"{source.name}:{position}" if source.by_line else f"{source.name}, row {position} (from 0)"
            broken.append(LeftOut(place=place, reason="unreadable row", message=error.message, remedy=error.remedy))
        for position, row in zip(batch.positions, batch.read(), strict=True):
            yield f"{source.name}:{position}" if source.by_line else f"{source.name}, row {position} (from 0)", row


def told(imported: Imported, *, limit: int = 5) -> list[str]:
    """The account in lines, with the first labels that were left out by each reason."""
    lines = imported.account.lines()
    if imported.annotators:
        lines.append("  " + ", ".join(f"{name}: {count}" for name, count in sorted(imported.annotators.items())))
    if imported.untimed:
        lines.append(f"  {counted(imported.untimed, 'label')} without a time: stored with that of the import")
    for reason in dict.fromkeys(one.reason for one in imported.left_out):
        if reason == "already there":
            continue
        of_reason = [one for one in imported.left_out if one.reason == reason]
        lines += [f"  {one.place}: {one.message} Remedy: {one.remedy}" for one in of_reason[:limit]]
        if len(of_reason) > limit:
            lines.append(f"  … and {len(of_reason) - limit} more: {reason}")
    return lines
