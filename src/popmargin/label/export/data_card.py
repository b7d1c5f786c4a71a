"""The data card of exported preferences: what they are, how they were labelled, and how far annotators agree."""

import json
import re
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from popmargin.data.schema import Preferences
from popmargin.errors import ConfigError, counted
from popmargin.label.quality.adjudications import not_adjudicated
from popmargin.label.quality.annotators import AnnotatorQuality, KindAgreement, annotator_quality
from popmargin.label.quality.criteria_quality import with_known
from popmargin.label.store.label_store import LabelStore
from popmargin.label.store.records import Project
from popmargin.report.metrics import has_bounds, number
from popmargin.statistics.intervals import Interval

UNKNOWN = "unknown"
_LICENCE = re.compile(r"[a-z0-9][a-z0-9.-]{0,60}")
_ASKED = {
    "preference": "which of two responses is better",
    "pop": "in which of two preferences the preferred response is better by more",
    "rating": "how good a response is",
    "rank": "in what order several preferences are by how much better the preferred response is",
}
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def check_licence(licence: str) -> None:
    """Raise a ConfigError unless it can stand in a data card."""
    if not _LICENCE.fullmatch(licence):
        raise ConfigError(
            f"--licence {licence}: give an identifier in small letters, such as cc-by-4.0, apache-2.0, or other."
        )


def data_card(
    store: LabelStore,
    project: Project,
    preferences: Preferences,
    *,
    licence: str = UNKNOWN,
    without: Collection[str] = (),
    options: Mapping[str, object] | None = None,
) -> str:
    """A README.md with the fields that the Hugging Face hub reads; people appear in it as numbers, without names.

    Args:
        store: the store.
        project: whose preferences.
        preferences: as exported from it.
        licence: an identifier such as `cc-by-4.0`; `check_licence` has passed it.
        without: names of annotators whose labels were left out.
        options: of the export, by name.
    """
    labels = not_adjudicated(store.labels(project.id, without=without))
    annotators, agreement = annotator_quality(labels)
    annotators = with_known(annotators, labels, [one.name for one in project.criteria])
    what = (
        f"{counted(len(preferences), 'preference')}: a prompt with two responses each, of which one is preferred. "
        "Exported from the label store of [popmargin](https://pypi.org/project/popmargin/)."
    )
    sections = [
        _fields(project, preferences, licence),
        f"# {_line(project.name)}",
        what,
        "## Counts\n\n" + _counts(store, project, preferences, labels, annotators),
        "## Agreement\n\n" + _agreement(agreement),
        "## Annotators\n\n" + _annotators(annotators),
        "## How it was made\n\n" + _how(store, project, without, options or {}),
        "## Columns\n\n" + _columns(preferences),
        f"## Guidelines\n\n{_guidelines(project)}",
        "## Licence\n\n" + (f"`{licence}`" if licence != UNKNOWN else "Not stated by whoever exported the data."),
    ]
    return "\n\n".join(sections) + "\n"


def _fields(project: Project, preferences: Preferences, licence: str) -> str:
    size = next((name for most, name in _SIZES if len(preferences) < most), "n>1M")
    return "\n".join(
        [
            "---",
            f"license: {licence}",
            f"pretty_name: {json.dumps(_line(project.name), ensure_ascii=False)}",
            "tags: [preference, popmargin]",
            f"size_categories: [{size}]",
            "---",
        ]
    )


def _counts(
    store: LabelStore, project: Project, preferences: Preferences, labels: Any, annotators: list[AnnotatorQuality]
) -> str:
    progress = store.progress(project.id)
    people = sum(one.kind == "person" for one in annotators)
    kinds: dict[str, int] = {}
    for kind in labels["kind"].to_pylist():
        kinds[kind] = kinds.get(kind, 0) + 1
    lines = [
        f"- rows: {preferences.report.step().arithmetic}",
        f"- items: {project.items:,}, of which {project.gold_items:,} have a known answer",
        *(f"- labels of {_ASKED[kind]}: {count:,}" for kind, count in sorted(kinds.items())),
        f"- labels asked of people: {progress.labels_done:,} of {progress.labels_wanted:,} are there",
        f"- annotators: {counted(people, 'person', 'people')}, {counted(len(annotators) - people, 'model')}",
    ]
    return "\n".join(lines)


def _agreement(kinds: list[KindAgreement]) -> str:
    if not any(one.shared for one in kinds):
        return "No item has verdicts of two people, so there is no agreement to report."
    rows = [
        "| question | items | of two or more people | Krippendorff's α | pairs of people who agree |",
        "|" + "---|" * 5,
    ]
    for one in kinds:
        rows.append(
            f"| {_ASKED[one.kind]} | {one.items:,} | {one.shared:,} | {_shown(one.alpha)} | "
            f"{_shown(one.pairs, share=True)} |"
        )
    return "\n".join(rows) + "\n\nWith 95% intervals over items."


def _annotators(annotators: list[AnnotatorQuality]) -> str:
    if not annotators:
        return "Nobody has labelled anything yet."
    rows = ["| annotator | labels | median seconds | agrees with most others | known answers right |", "|" + "---|" * 5]
    people = 0
    for one in sorted(annotators, key=lambda one: (one.kind != "person", -one.labels, one.name)):
        people += one.kind == "person"
        name = f"person {people}" if one.kind == "person" else f"{one.kind} `{_cell(one.name)}`"
        rows.append(
            f"| {name} | {one.labels:,} | {number(one.seconds, 1)} | {_shown(one.others, share=True)} | "
            f"{_shown(one.gold, share=True)} |"
        )
    return "\n".join(rows)


def _how(store: LabelStore, project: Project, without: Collection[str], options: Mapping[str, object]) -> str:
    known = store.annotators(project.id)
    discarded, lighter = sum(who.discarded for who in known), sum(who.weight != 1 for who in known)
    made, today = f"{project.created_at:%Y-%m-%d}", f"{datetime.now(UTC):%Y-%m-%d}"
    left = f"those of {counted(discarded, 'discarded annotator')} and {counted(len(set(without)), 'other')}"
    lines = [
        f"- question: {_ASKED[store.first_kind(project.id) or 'preference']}; wording: {_line(project.wording)}",
        f"- people for each item: {project.overlap}; repeated to the same person: {project.repeat_share:.0%}",
        f"- labels left out: {left}; labels that count less: those of {counted(lighter, 'annotator')}",
        f"- project made {made}, exported {today} with popmargin {version('popmargin')}",
        *(f"- `{name}`: {value}" for name, value in options.items()),
    ]
    return "\n".join(lines)


def _columns(preferences: Preferences) -> str:
    rows = ["| column | type | filled |", "|---|---|---|"]
    table: Any = preferences.dataset.with_format("arrow")[:]
    for name in table.column_names:
        filled = len(table) - table[name].null_count
        rows.append(f"| `{_cell(name)}` | {_cell(str(table.schema.field(name).type))} | {filled:,} |")
    return "\n".join(rows)


def _guidelines(project: Project) -> str:
    """The guidelines as written, in a fence that they do not contain."""
    if not project.guidelines:
        return "None."
    longest = max((len(run) for run in re.findall(r"~+", project.guidelines)), default=0)
    fence = "~" * max(3, longest + 1)
    said = f"Version {project.guidelines_version}, as annotators read it:"
    return f"{said}\n\n{fence}markdown\n{project.guidelines}\n{fence}"


def _shown(value: Interval, *, share: bool = False) -> str:
    if not has_bounds(value):
        return number(value.estimate, 1 if share else 2, share=share)
    places = 1 if share else 2
    shown, low, high = (number(end, places, share=share) for end in (value.estimate, value.low, value.high))
    return f"{shown} [{low}, {high}]"


def _line(text: str) -> str:
    return " ".join(text.split())


def _cell(text: str) -> str:
    return _line(text).replace("|", "\\|").replace("`", "'")
