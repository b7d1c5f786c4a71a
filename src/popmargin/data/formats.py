"""Row layouts: how prompt, chosen and rejected stand in a row. One entry of `FORMATS` each."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, cast

import numpy as np

from popmargin.data.messages import Notes, as_text, harmonise, parse_transcript, split_implicit, split_messages
from popmargin.data.pairs import logit, make_pairs
from popmargin.data.schema import NUMBER_COLUMNS, Text, prompt_key
from popmargin.data.validate import Draft, RowError
from popmargin.errors import DataError, did_you_mean

ALIASES: dict[str, tuple[str, ...]] = {
    "id": ("id", "pair_id", "uid"),
    "prompt": ("prompt", "instruction", "question", "query", "context", "input"),
    "chosen": ("chosen", "chosen_response", "response_chosen"),
    "rejected": ("rejected", "rejected_response", "response_rejected"),
    "chosen_rating": ("chosen_rating", "rating_chosen", "chosen_score", "score_chosen"),
    "rejected_rating": ("rejected_rating", "rating_rejected", "rejected_score", "score_rejected"),
    "strength": ("strength", "margin"),
    "soft_label": ("soft_label",),
    "annotator": ("annotator", "annotator_id"),
    "cluster": ("cluster",),
    "responses": ("responses", "completions", "generations"),
    "ratings": ("ratings", "scores", "rating", "score"),
    "response_a": ("response_a", "response_1", "response1"),
    "response_b": ("response_b", "response_2", "response2"),
    "preference": ("preference_strength", "overall_preference", "signed_strength", "preference"),
    "votes_a": ("votes_a",),
    "votes_b": ("votes_b",),
    "votes_equal": ("votes_equal", "votes_tie"),
}
"""Our field -> the column names it is known by; our own name, or the first found, is taken."""

RESPONSE_TEXT = ("text", "response", "content", "completion")
RESPONSE_RATING = ("rating", "score", "overall_score", "winprob")
COMMON = ("id", "soft_label", "annotator", "cluster", "strength", "chosen_rating", "rejected_rating")


@dataclass(frozen=True)
class Reader:
    """Reads fields of raw rows by our names.

    Attributes:
        names: our field -> the source's column.
        nested: "text" and "rating" -> the field of each response, where the caller renamed it.
        text_cells: numbers come as text (CSV).
    """

    names: Mapping[str, str]
    nested: Mapping[str, str] = field(default_factory=dict[str, str])
    text_cells: bool = False
    pairs: str = "best_vs_worst"
    min_gap: float = 0.0
    seed: int = 0
    notes: Notes = field(default_factory=Counter[str])

    def value(self, row: Mapping[str, Any], name: str) -> Any:
        """The raw cell, None where the row or the source has none."""
        column = self.names.get(name)
        return None if column is None else row.get(column)

    def text(self, row: Mapping[str, Any], name: str) -> Text:
        """The cell as text or messages."""
        return as_text(self.value(row, name), name, self.notes)

    def number(self, row: Mapping[str, Any], name: str) -> float | None:
        """The cell as a number, None where it is missing."""
        return as_number(self.value(row, name), name, text_cells=self.text_cells)

    def required_number(self, row: Mapping[str, Any], name: str) -> float:
        """The cell as a finite number."""
        return _finite(self.number(row, name), name, name)

    def label(self, row: Mapping[str, Any], name: str) -> str | None:
        """The cell as an id; integers become text, a missing or empty one None."""
        value = self.value(row, name)
        if value is None or isinstance(value, str):
            return value or None
        if isinstance(value, int | np.integer) and not isinstance(value, bool):
            return str(int(cast(int, value)))
        raise RowError("type", f"the {name} is a {type(value).__name__}.", "write a text or an integer.", column=name)

    def draft(self, row: Mapping[str, Any], prompt: Text, chosen: Text, rejected: Text, **known: float) -> Draft:
        """A preference with the row's common fields; `known` numbers come before the row's."""
        prompt, chosen, rejected = harmonise(prompt, chosen, rejected, self.notes)
        draft: Draft = {"id": self.label(row, "id"), "prompt": prompt, "chosen": chosen, "rejected": rejected}
        for name in NUMBER_COLUMNS:
            draft[name] = known[name] if name in known else self.number(row, name)
        draft["annotator"], draft["cluster"] = self.label(row, "annotator"), self.label(row, "cluster")
        return draft


@dataclass(frozen=True)
class Format:
    """A layout of rows.

    Attributes:
        required: fields that must have a column.
        optional: further fields that are read.
        absent: fields that must have none, for the format to be detected.
        read: drafts of one row, and an error for each of its pairs that is none; raises RowError for the whole row.
        fits: looks at some rows, for detection; None if the columns decide.
    """

    name: str
    summary: str
    required: tuple[str, ...]
    read: Callable[[Mapping[str, Any], Reader], list[Draft | RowError]]
    optional: tuple[str, ...] = COMMON
    absent: tuple[str, ...] = ()
    fits: Callable[[Sequence[Mapping[str, Any]], Reader], bool] | None = None

    @property
    def expects(self) -> str:
        """The columns it needs, for messages."""
        return f"'{self.name}' ({self.summary}) needs {', '.join(self.required)}"


def as_number(value: object, name: str, *, text_cells: bool = False) -> float | None:
    """A cell as a number (it may be nan or infinite); None where it is missing.

    Raises:
        RowError: no number.
    """
    if value is None:
        return None
    if text_cells and isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            pass
    elif isinstance(value, int | float | np.number | Decimal) and not isinstance(value, bool):
        try:
            return float(cast(float, value))
        except OverflowError:
            return math.inf
    message = f"the {name} is {str(value)[:40]!r} ({type(value).__name__}), not a number."
    raise RowError("type", message, "write a number, or nothing (null) where it is unknown.", column=name)


def _finite(value: float | None, name: str, column: str) -> float:
    if value is None or not math.isfinite(value):
        kind = "missing" if value is None else "nan"
        message = f"the {name} is {'missing' if value is None else value}."
        raise RowError(kind, message, "write a finite number, or remove the row.", column=column)
    return value


def _read_preference(row: Mapping[str, Any], reader: Reader) -> list[Draft | RowError]:
    return [reader.draft(row, reader.text(row, "prompt"), reader.text(row, "chosen"), reader.text(row, "rejected"))]


def _read_implicit(row: Mapping[str, Any], reader: Reader) -> list[Draft | RowError]:
    chosen, rejected = reader.text(row, "chosen"), reader.text(row, "rejected")
    return [reader.draft(row, *split_implicit(chosen, rejected, reader.notes))]


def _read_transcript(row: Mapping[str, Any], reader: Reader) -> list[Draft | RowError]:
    sides: list[str] = []
    for name in ("chosen", "rejected"):
        text = reader.text(row, name)
        if not isinstance(text, str):
            raise RowError("type", f"the {name} is no transcript.", "name another format.", column=name)
        if "prompt" in reader.names:  # the prompt stands apart and ends in "Assistant:"
            prompt = reader.text(row, "prompt")
            if isinstance(prompt, str) and not text.startswith(prompt):
                text = prompt + text
        sides.append(text)
    turns = [parse_transcript(side) for side in sides]
    prompt, chosen, rejected = split_messages(*turns)
    if not prompt:
        message = "the two transcripts share no first turn."
        raise RowError("no_prompt", message, "remove the row.", column="chosen")
    return [reader.draft(row, prompt, chosen, rejected)]


def _read_responses(row: Mapping[str, Any], reader: Reader) -> list[Draft | RowError]:
    prompt = reader.text(row, "prompt")
    texts, ratings = _rated_responses(row, reader)
    if len(texts) < 2:
        message = f"the row holds {len(texts)} rated responses; a pair needs two."
        raise RowError("too_few", message, "add responses, or remove the row.", column="responses")
    pairs = make_pairs(ratings, pairs=reader.pairs, min_gap=reader.min_gap, seed=reader.seed, key=prompt_key(prompt))
    out: list[Draft | RowError] = []
    for pair in pairs:
        if pair.skipped is not None:
            out.append(_skipped(pair.skipped, pair.gap, reader.min_gap, "responses"))
            continue
        better, worse = ratings[pair.chosen], ratings[pair.rejected]
        draft = reader.draft(
            row, prompt, texts[pair.chosen], texts[pair.rejected], chosen_rating=better, rejected_rating=worse
        )
        if reader.pairs == "all" and draft["id"] is not None:
            draft["id"] = f"{draft['id']}/{pair.chosen}-{pair.rejected}"
        out.append(draft)
    return out


def _rated_responses(row: Mapping[str, Any], reader: Reader) -> tuple[list[Text], list[float]]:
    """Texts and ratings, from a list of objects, an object of lists, or a list of texts beside a list of ratings."""
    responses = reader.value(row, "responses")
    if isinstance(responses, Mapping):  # an older way of `datasets` to store a list of objects
        lists = {k: v for k, v in cast(Mapping[str, Any], responses).items() if isinstance(v, list)}
        count = min((len(items) for items in lists.values()), default=0)
        responses = [{name: items[i] for name, items in lists.items()} for i in range(count)]
    if not isinstance(responses, Sequence) or isinstance(responses, str | bytes):
        message = f"the responses are a {type(responses).__name__}, not a list."
        raise RowError("type", message, 'write a list of {"text": …, "rating": …}.', column="responses")
    items = cast(Sequence[object], responses)
    beside = reader.value(row, "ratings")
    if not isinstance(beside, list) and items and isinstance(items[0], Mapping):
        beside = None  # the responses carry their ratings; this column is something else
    if beside is not None and (not isinstance(beside, Sequence) or len(cast(Sequence[Any], beside)) != len(items)):
        message = f"{len(items)} responses, but the ratings are not a list of as many."
        raise RowError("type", message, "give each response one rating.", column="ratings")
    texts: list[Text] = []
    ratings: list[float] = []
    for number, item in enumerate(items):
        fields = cast(Mapping[str, Any], item) if isinstance(item, Mapping) else {"text": item}
        text_name = _nested_name("text", RESPONSE_TEXT, fields, reader)
        texts.append(as_text(fields[text_name], f"text of response {number}", reader.notes))
        if beside is None:
            name = _nested_name("rating", RESPONSE_RATING, fields, reader)
            value = as_number(fields[name], f"{name} of response {number}")
        else:
            name, value = "rating", as_number(cast(Sequence[Any], beside)[number], f"rating of response {number}")
        rating = _finite(value, f"{name} of response {number}", "responses" if beside is None else "ratings")
        ratings.append(logit(rating) if name == "winprob" else rating)
        if name == "winprob":
            reader.notes["win probabilities became ratings as clipped log-odds"] += number == 0
    return texts, ratings


def _nested_name(wanted: str, known: tuple[str, ...], fields: Mapping[str, Any], reader: Reader) -> str:
    name = reader.nested.get(wanted) or next((name for name in known if name in fields), None)
    if name is None or name not in fields:
        message = f"a response has the fields {', '.join(map(str, fields))}; none is its {wanted}."
        remedy = f"name it {' or '.join(known)}, or say columns={{'{wanted}': …}}."
        raise RowError("missing", message, remedy, column="responses")
    return name


def _skipped(kind: str, gap: float, min_gap: float, column: str) -> RowError:
    if kind == "tie":
        return RowError("tie", "both are equally good.", "nothing: a tie is no preference.", column=column, fatal=False)
    message = f"the strength {gap:g} is below min_gap={min_gap:g}."
    return RowError(kind, message, "lower min_gap to keep it.", column=column, fatal=False)


def _read_signed(row: Mapping[str, Any], reader: Reader) -> list[Draft | RowError]:
    signed = reader.required_number(row, "preference")
    if signed == 0:
        return [_skipped("tie", 0.0, 0.0, "preference")]
    first, second = reader.text(row, "response_a"), reader.text(row, "response_b")
    chosen, rejected = (first, second) if signed < 0 else (second, first)
    return [reader.draft(row, reader.text(row, "prompt"), chosen, rejected, strength=abs(signed))]


def _read_votes(row: Mapping[str, Any], reader: Reader) -> list[Draft | RowError]:
    counts = [reader.required_number(row, name) for name in ("votes_a", "votes_b")]
    counts.append(reader.number(row, "votes_equal") or 0.0)
    if min(counts) < 0 or not all(math.isfinite(count) for count in counts):
        raise RowError("votes", f"the votes are {counts}.", "write counts ≥ 0.", column="votes_a")
    if counts[0] == counts[1]:
        return [_skipped("tie", 0.0, 0.0, "votes_a")]
    first, second = reader.text(row, "response_a"), reader.text(row, "response_b")
    chosen, rejected = (first, second) if counts[0] > counts[1] else (second, first)
    strength = abs(counts[0] - counts[1]) / sum(counts)
    prompt = reader.text(row, "prompt")
    return [reader.draft(row, prompt, chosen, rejected, strength=strength, soft_label=(1 + strength) / 2)]


def _is_transcript(rows: Sequence[Mapping[str, Any]], reader: Reader) -> bool:
    """Whether the first text of the rows begins with a transcript's turn."""
    name = "prompt" if "prompt" in reader.names else "chosen"
    first = next((value for value in (reader.value(row, name) for row in rows) if value is not None), None)
    return isinstance(first, str) and first.lstrip("\n").startswith(("Human:", "Assistant:"))


_ENTRIES = (
    Format(
        "preference",
        "a prompt and two completions, text or messages",
        ("prompt", "chosen", "rejected"),
        _read_preference,
        fits=lambda rows, reader: not _is_transcript(rows, reader),
    ),
    Format(
        "implicit_prompt",
        "two conversations or texts that begin with the prompt",
        ("chosen", "rejected"),
        _read_implicit,
        absent=("prompt",),
        fits=lambda rows, reader: not _is_transcript(rows, reader),
    ),
    Format(
        "hh_rlhf",
        "two transcripts with 'Human:' and 'Assistant:' turns",
        ("chosen", "rejected"),
        _read_transcript,
        optional=("prompt", *COMMON),
        fits=_is_transcript,
    ),
    Format(
        "responses",
        "a prompt and several rated responses",
        ("prompt", "responses"),
        _read_responses,
        optional=("ratings", "id", "annotator", "cluster"),
    ),
    Format(
        "signed_strength",
        "two responses and a number: negative where the first is better, 0 for a tie",
        ("prompt", "response_a", "response_b", "preference"),
        _read_signed,
        optional=("id", "annotator", "cluster", "soft_label"),
    ),
    Format(
        "votes",
        "two responses and the number of votes for each",
        ("prompt", "response_a", "response_b", "votes_a", "votes_b"),
        _read_votes,
        optional=("votes_equal", "id", "annotator", "cluster"),
    ),
)
FORMATS: dict[str, Format] = {entry.name: entry for entry in _ENTRIES}


def resolve_names(
    found: Sequence[str], columns: Mapping[str, str] | None
) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Which of the columns each of our fields may be, and which fields of nested responses were renamed.

    Raises:
        DataError: `columns` names an unknown field or a column that is not there.
    """
    candidates: dict[str, list[str]] = {}
    for name, aliases in ALIASES.items():
        hits = [alias for alias in aliases if alias in found]
        candidates[name] = [name] if name in hits else hits
    nested: dict[str, str] = {}
    taken: set[str] = set()
    for name, column in (columns or {}).items():
        if name in ("text", "rating"):
            nested[name] = column
            continue
        if name not in ALIASES:
            raise DataError(f"columns: '{name}' is no field. {did_you_mean(name, [*ALIASES, 'text', 'rating'])}")
        if column not in found:
            raise DataError(f"columns: there is no column '{column}' for {name}. {did_you_mean(column, found)}")
        candidates[name] = [column]
        taken.add(column)
    for name, hits in candidates.items():  # a column that was given to one field is no other's
        if name not in (columns or {}):
            candidates[name] = [hit for hit in hits if hit not in taken]
    return {name: hits for name, hits in candidates.items() if hits}, nested


def names_for(entry: Format, found: Sequence[str], candidates: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """One column for each field that the format reads.

    Raises:
        DataError: a required column is missing, or two columns could be the same field.
    """
    missing = [name for name in entry.required if name not in candidates]
    if missing:
        raise DataError(
            f"format {entry.expects}; missing: {', '.join(missing)}. Columns found: {', '.join(found) or 'none'}. "
            f"Remedy: name the column, e.g. columns={{'{missing[0]}': …}} (--column {missing[0]}=…)."
        )
    wanted = [name for name in (*entry.required, *entry.optional) if name in candidates]
    for name in wanted:
        if len(candidates[name]) > 1:
            raise DataError(
                f"the columns {' and '.join(candidates[name])} could each be the {name}. "
                f"Remedy: name one, e.g. columns={{'{name}': '{candidates[name][0]}'}} "
                f"(--column {name}={candidates[name][0]})."
            )
    return {name: candidates[name][0] for name in wanted}


def detect_format(
    rows: Sequence[Mapping[str, Any]], found: Sequence[str], candidates: Mapping[str, list[str]]
) -> Format:
    """The one format that the columns and the first rows fit.

    Raises:
        DataError: none or several fit; names the columns found and what each format expects.
    """
    reader = Reader({name: columns[0] for name, columns in candidates.items()})
    fitting = [
        entry
        for entry in FORMATS.values()
        if all(name in candidates for name in entry.required)
        and not any(name in candidates for name in entry.absent)
        and (entry.fits is None or entry.fits(rows, reader))
    ]
    if len(fitting) == 1:
        return fitting[0]
    columns = f"Columns found: {', '.join(found) or 'none'}."
    if fitting:
        names = " and ".join(f"'{entry.name}'" for entry in fitting)
        raise DataError(f"The columns fit the formats {names}. {columns} Remedy: name one with format= (--format).")
    expectations = "\n".join(f"  {entry.expects}" for entry in FORMATS.values())
    raise DataError(
        f"No known format fits. {columns} Expected one of:\n{expectations}\n"
        "Remedy: rename columns, e.g. columns={'prompt': 'question'} (--column prompt=question)."
    )


def unused_columns(found: Sequence[str], names: Mapping[str, str]) -> tuple[str, ...]:
    """Columns of the source that the format does not read."""
    return tuple(column for column in found if column not in names.values())
