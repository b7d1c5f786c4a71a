"""The label report: how good a project's labels are, as one self-contained HTML file."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from markupsafe import Markup

from popmargin.errors import counted
from popmargin.files import HTML
from popmargin.label.quality.calibration_words import SOURCES, calibration_sentences, reliability_pictures
from popmargin.label.quality.drift_words import drift_sentences
from popmargin.label.quality.flags import flags_of
from popmargin.label.quality.good_enough import order_sentences
from popmargin.label.quality.label_quality import THIRDS, KindAgreement, Quality
from popmargin.report.metrics import has_bounds, is_known, number
from popmargin.report.plots import NARROW, WIDE, Dot, Style, draw_dots, ends
from popmargin.report.render import render_page
from popmargin.report.results import write_text
from popmargin.report.svg import Plot, Scale, shorten, span, text_width
from popmargin.report.tables import Cell, duration, visible_text
from popmargin.statistics.intervals import Interval

KIND_NAMES = {
    "pop": "which of two preferences is stronger",
    "preference": "which of two responses is better",
    "rating": "how good one response is",
    "rank": "the order of several preferences by strength",
}
SHORT_KINDS = {"pop": "PoP", "preference": "Preference", "rating": "Rating", "rank": "Ranking"}


def render_label_report(quality: Quality, title: str) -> str:
    """The report as a complete HTML document; the same labels give the same bytes.

    Args:
        quality: of `label_quality`.
        title: name of the project.
    """
    return render_page(
        Path(__file__).parent / "templates" / "labels.html.j2",
        title=title,
        q=quality,
        reading=reading(quality),
        agreement=[(found, _agreement_dots(found)) for found in quality.agreement],
        left=_left_dots(quality),
        thirds=_third_dots(quality),
        share=share_cell,
        plain=plain_cell,
        percent=_percent,
        number=number,
        drift=drift_sentences(quality.drift),
        order=[] if quality.order is None else order_sentences(quality.order),
        duration=duration,
        times=[
            (SHORT_KINDS[kind], KIND_NAMES[kind], quality.pace.kinds[kind])
            for kind in KIND_NAMES
            if kind in quality.pace.kinds
        ],
        kind_names=KIND_NAMES,
        short_kinds=SHORT_KINDS,
        text=visible_text,
        version_name=version_name,
        reliability=reliability_pictures(quality.calibration),
        sources=SOURCES,
    )


def write_label_report(quality: Quality, path: str | Path, title: str) -> Path:
    """Write the report to a file, creating its folder if missing."""
    write_text(path, render_label_report(quality, title), HTML)
    return Path(path)


def quality_json(quality: Quality) -> dict[str, Any]:
    """The same numbers as JSON values; null for unknown numbers, and no p-values, since nothing is tested."""
    return plain_json(asdict(quality))


def plain_json(value: Any) -> Any:
    """Numbers of the report as JSON values."""
    if isinstance(value, dict):
        shown = value.keys() - ({"p"} if value.keys() >= {"estimate", "low", "high"} else set())
        return {name: plain_json(one) for name, one in value.items() if name in shown}
    if isinstance(value, list | tuple):
        return [plain_json(one) for one in value]
    if isinstance(value, datetime):
        return value.isoformat()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def share_cell(value: Interval) -> Cell:
    """A percentage with its interval; a dash if unknown."""
    return _cell(value, 1, share=True)


def plain_cell(value: Interval) -> Cell:
    """A number with two decimals and its interval."""
    return _cell(value, 2, share=False)


def _cell(value: Interval, places: int, *, share: bool) -> Cell:
    ends = [number(100 * end if share else end, places) for end in (value.low, value.high)]
    bounds = f"[{ends[0]}, {ends[1]}]" if has_bounds(value) else ""
    return Cell(number(value.estimate, places, share=share), bounds)


def _percent(share: float) -> str:
    return number(share, 1, share=True)


def reading(quality: Quality) -> list[str]:
    """What the numbers say, in sentences for readers who skip the rest."""
    if not quality.labels:
        return ["Nobody has labelled anything yet."]
    rankers = quality.rankings.rankers if quality.rankings else []
    rows = [*quality.annotators, *(quality.raters.raters if quality.raters else []), *rankers]
    people, models = ({row.name for row in rows if (row.kind == "person") == person} for person in (True, False))
    sentences = [
        (
            f"{counted(quality.labels, 'label')} by {counted(len(people), 'person', 'people')} and "
            f"{counted(len(models), 'model')} on "
            f"{counted(sum(quality.items.values()), 'item')}."
        )
    ]
    for found in quality.agreement:
        sentences += _read_agreement(found)
    sentences += calibration_sentences(quality.calibration)
    sentences += _read_ratings(quality)
    sentences += _read_rankings(quality)
    sentences += _read_without(quality)
    sentences += _read_versions(quality)
    sentences += _read_adjudications(quality)
    flagged = flags_of(rows, quality.habits)
    sentences += [f"Look at {name}: {'; '.join(reasons)}." for name, reasons in flagged.items()]
    sentences += drift_sentences(quality.drift)
    sentences += [] if quality.order is None else order_sentences(quality.order)
    sentences += _read_places(quality)
    if quality.cycles is not None and quality.cycles.triads:
        cycles = quality.cycles
        sentences.append(
            f"Of {cycles.triads} fully compared triples of preferences, {_shown(cycles.cyclic)} are intransitive; "
            "random labels would give 25%."
        )
    if quality.ratings and is_known(quality.ratings[0].agreement):
        match = quality.ratings[0]
        whose = "people's ratings" if quality.rated_by_people else "the data's ratings"
        who = "People's" if match.name == "People" else f"{match.name}'s"
        sentences.append(
            f"{who} PoP labels pick the preference with the larger gap in {whose} in {_shown(match.agreement)} of "
            f"{counted(match.labels, 'label')}."
        )
    return sentences + _read_times(quality)


def _read_ratings(quality: Quality) -> list[str]:
    found = quality.raters
    if found is None:
        return []
    if not is_known(found.interval):
        return ["Agreement on ratings is unknown: no response has ratings by two people yet, or none differ."]
    return [
        (
            f"Two people's ratings of the same response are {number(found.apart.estimate, 2)} apart on average "
            f"(interval Krippendorff's α {number(found.interval.estimate, 2)})."
        )
    ]


def _read_rankings(quality: Quality) -> list[str]:
    found = quality.rankings
    if found is None:
        return []
    if not is_known(found.tau):
        return ["Agreement on rankings is unknown: none has orders by two people yet."]
    same = number((1 + found.tau.estimate) / 2, 0, share=True)
    tau = number(found.tau.estimate, 2)
    return [f"Two people's rankings have {same} of their pairs in the same order (Kendall's τ {tau})."]


def _read_without(quality: Quality) -> list[str]:
    """The agreement of the labels that count beside that of all."""
    if quality.without is None:
        return []
    names, others = ", ".join(quality.left_out), quality.labels - quality.without.labels
    sentences = [f"Where nothing else is said, {counted(others, 'label')} of {names} are included."]
    counting = {found.kind: found.alpha for found in quality.without.agreement}
    for found in quality.agreement:
        alpha = counting.get(found.kind)
        if alpha is not None and is_known(alpha) and is_known(found.alpha):
            sentences.append(
                f"On {KIND_NAMES[found.kind]}, Krippendorff's α is {number(alpha.estimate, 2)} without {names} and "
                f"{number(found.alpha.estimate, 2)} with all."
            )
    raters = quality.without.raters
    if raters is not None and quality.raters is not None and is_known(raters.interval):
        sentences.append(
            f"On ratings, interval Krippendorff's α is {number(raters.interval.estimate, 2)} without {names} and "
            f"{number(quality.raters.interval.estimate, 2)} with all."
        )
    return sentences


def _read_versions(quality: Quality) -> list[str]:
    """Agreement under the newest version of the guidelines beside that under the one before."""
    if not quality.versions:
        return []
    before, newest = quality.versions[-2:]
    known = {found.kind: found.alpha for found in before.agreement}
    pairs = [(KIND_NAMES[found.kind], found.alpha, known.get(found.kind)) for found in newest.agreement]
    if newest.ratings is not None:
        pairs.append(("ratings", newest.ratings, before.ratings))
    return [
        f"Under version {newest.version} of the guidelines, Krippendorff's α on {name} is {number(now.estimate, 2)}; "
        f"{version_name(before.version)} it was {number(earlier.estimate, 2)}."
        for name, now, earlier in pairs
        if earlier is not None and is_known(now) and is_known(earlier)
    ]


def _read_adjudications(quality: Quality) -> list[str]:
    found = quality.adjudications
    if found is None:
        return []
    as_most = f", {_shown(found.majority)} of those with a majority as most people say" * is_known(found.majority)
    items = counted(found.items, "disputed item")
    return [f"Adjudicators have decided {items}{as_most}; these decisions are in no other figure."]


def version_name(version: int | None) -> str:
    """Under which guidelines labels were given.

    Example:
        >>> version_name(2), version_name(None)
        ('under version 2', 'before any was acknowledged')
    """
    return "before any was acknowledged" if version is None else f"under version {version}"


def _read_times(quality: Quality) -> list[str]:
    names = {"pop": "a PoP label", "preference": "a label on one preference", "rating": "a rating of one response",
             "rank": "a ranking"}  # fmt: skip
    kinds = quality.pace.kinds
    said = [f"{name} {duration(kinds[kind].median.estimate)}" for kind, name in names.items() if kind in kinds]
    sentences = [f"Median times: {', '.join(said)}."] if len(said) > 1 else []
    if is_known(quality.pace.ratio):
        sentences.append(f"A PoP label takes {_times(quality.pace.ratio)} as long as a rating.")
    if is_known(quality.pace.strength_ratio):
        sentences.append(
            "A preference's strength takes two ratings, while a PoP label compares two strengths: it takes "
            f"{_times(quality.pace.strength_ratio)} as long as rating both responses of a preference."
        )
    return sentences


def _times(value: Interval) -> str:
    bounds = f" ({number(value.low, 2)} to {number(value.high, 2)})" if has_bounds(value) else ""
    return f"{number(value.estimate, 2)} times{bounds}"


def _read_agreement(found: KindAgreement) -> list[str]:
    name = KIND_NAMES[found.kind]
    if not is_known(found.people):
        return [f"On {name}, agreement is unknown: no item has verdicts from two people yet. Set an overlap of 2."]
    sentences = [
        (
            f"On {name}, a person agrees with most of the others in {_shown(found.people)} of cases "
            f"(Krippendorff's α {number(found.alpha.estimate, 2)})."
        )
    ]
    judge = next((judge for judge in found.judges if is_known(judge.judge)), None)
    if judge is not None:
        sentences.append(
            f"The best model, {judge.name}, reaches {_shown(judge.judge)}; people reach {_shown(judge.people)} on "
            "the same items and against the same panels."
        )
    return sentences


def _read_places(quality: Quality) -> list[str]:
    leaning = [
        row.name for row in quality.annotators if has_bounds(row.left) and not row.left.low <= 0.5 <= row.left.high
    ]
    sentences: list[str] = []
    if leaning:
        sentences.append(f"Position bias: the labels of {', '.join(leaning)} favour one side of the screen.")
    sentences += [
        f"{row.name} changes its verdict in {_shown(row.flips)} of questions when the order is reversed."
        for row in quality.annotators
        if is_known(row.flips)
    ]
    if quality.stayed is not None:
        sentences.append(
            "Order effect: in tasks that keep a preference of the task before, that one is chosen in "
            f"{_shown(quality.stayed.stayed)} of {counted(quality.stayed.tasks, 'decided answer')}; 50% if staying on "
            "the screen makes no difference."
        )
    return sentences


def _shown(value: Interval) -> str:
    text = number(value.estimate, 1, share=True)
    if not has_bounds(value):
        return text
    return f"{text} ({number(100 * value.low, 1)} to {number(value.high, 1, share=True)})"


# --- charts ---------------------------------------------------------------------------------------------------------


def _agreement_dots(found: KindAgreement) -> list[Markup]:
    rows: list[Dot] = []
    for judge in found.judges:
        if is_known(judge.judge):
            rows.append(_dot(judge.name, judge.judge, "s1"))
            rows.append(_dot("people, same items", judge.people, "s0"))
    if is_known(found.people):
        rows.append(_dot("people, all items", found.people, "s0"))
    return _both(rows, "Agreement with most of the other people")


def _left_dots(quality: Quality) -> list[Markup]:
    rows = [_dot(row.name, row.left, "s0" if row.kind == "person" else "s1")
            for row in quality.annotators if is_known(row.left)]  # fmt: skip
    return _both(rows, "Share of decided labels that pick the left side")


def _third_dots(quality: Quality) -> list[Markup]:
    rows = [
        _dot(f"{match.name}, {third} gap", value, "s0" if match.name == "People" else "s1")
        for match in quality.ratings
        for third, value in zip(THIRDS, match.thirds, strict=True)
        if is_known(value)
    ]
    return _both(rows, "Share of PoP labels that agree with the ratings")


def _dot(name: str, value: Interval, colour: str) -> Dot:
    label, shape = visible_text(name), "square" if colour == "s1" else "circle"
    return Style(name, label, colour, shape, hollow=False, dash=None), value, f"{label}: {_shown(value)}"


def _both(rows: Sequence[Dot], title: str) -> list[Markup]:
    return [_dots(rows, title, width) for width in (WIDE, NARROW)] if rows else []


def _dots(rows: Sequence[Dot], title: str, width: float) -> Markup:
    """One row per value with its interval, on a scale of shares with a line at ½."""
    row, top = 26.0, 30.0
    bottom = top + row * len(rows)
    room = min(max(text_width(style.label, 12) for style, _, _ in rows) + 12, width * 0.42)
    x = span([0.5, *(end for _, value, _ in rows if value for end in ends(value))], pad=0.06, floor=0, cap=1)
    plot = Plot(x.on(room, width - 14), Scale(0, 1, bottom, top - 4))
    plot.x_axis(share=True, count=6 if width > 500 else 4)
    plot.text(title, 0, 13, "panel-title")
    plot.upright(0.5, "level")
    draw_dots(plot, rows, top, row, [shorten(style.label, room - 12, 12) for style, _, _ in rows])
    return plot.picture(width, bottom + 24, f"{title}. {'; '.join(hint for _, _, hint in rows)}.")
