"""A prompt and several rated or ranked responses."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

from popmargin.data.conversation import Text, prompt_key
from popmargin.data.formats.base import Format, Reader, Row, as_number, finite, tied
from popmargin.data.formats.columns import ranks_by_name
from popmargin.data.formats.image_cells import is_stored
from popmargin.data.pairs import SEVERAL, logit, make_pairs
from popmargin.data.validate import Draft, RowError
from popmargin.errors import a_kind, counted

TEXT_FIELDS = ("text", "response", "content", "completion", "answer")
RATING_FIELDS = ("rating", "score", "overall_score", "winprob", "reward", "rank", "ranking")
RANK_NOTE = "ranks are read as 1 = best: a response's rating is minus its rank"


def _read(row: Row, reader: Reader) -> list[Draft | RowError]:
    prompt = reader.prompt(row)
    texts, ratings, items = _rated_responses(row, reader)
    if len(texts) < 2:
        message = f"the row has {counted(len(texts), 'rated response')}; a pair needs two."
        raise RowError("too_few", message, "add responses, or remove the row.", column="responses")
    drafts = paired(row, reader, prompt, texts, ratings)
    if reader.unfinished == "drop":
        drafts = [_unless_cut(draft, items) for draft in drafts]
    for draft in drafts:
        if reader.fields and not isinstance(draft, RowError):
            sides = zip(("chosen", "rejected"), draft["pair"], strict=True)
            draft["fields"] = {f"{side}_{name}": items[at].get(name) for side, at in sides for name in reader.fields}
    return drafts


def _unless_cut(draft: Draft | RowError, items: Sequence[Mapping[str, Any]]) -> Draft | RowError:
    """A pair, or the report of one with a response that the token limit has cut."""
    if isinstance(draft, RowError) or all(items[at].get("finished") is not False for at in draft["pair"]):
        return draft
    message, remedy = "a response was cut at the token limit.", "nothing, or sample with a higher limit."
    return RowError("unfinished", message, remedy, column="responses", fatal=False)


def paired(
    row: Row, reader: Reader, prompt: Text, texts: Sequence[Text], ratings: Sequence[float]
) -> list[Draft | RowError]:
    """Preferences from rated responses, and a report for each invalid pair."""
    pairs = make_pairs(ratings, pairs=reader.pairs, min_gap=reader.min_gap, seed=reader.seed, key=prompt_key(prompt))
    reader.rated[sorted(ratings) == list(range(1, len(ratings) + 1))] += 1
    out: list[Draft | RowError] = []
    for pair in pairs:
        if pair.skipped == "tie" and reader.ties == "drop":
            out.append(tied("responses"))
            continue
        if pair.skipped == "below_min_gap":
            message = f"the strength {pair.gap:g} is below min_gap={reader.min_gap:g}."
            out.append(RowError(pair.skipped, message, "lower min_gap to keep it.", column="responses", fatal=False))
            continue
        if pair.skipped == "tie":
            reader.notes["ties are kept, with the first response as chosen"] += 1
        known = {"chosen_rating": ratings[pair.chosen], "rejected_rating": ratings[pair.rejected]}
        if pair.skipped == "tie":
            known["soft_label"] = 0.5  # so that its order is not taken for a label
        draft = reader.draft(row, prompt, texts[pair.chosen], texts[pair.rejected], **known)
        draft["pair"] = (pair.chosen, pair.rejected)
        if reader.pairs in SEVERAL and draft["id"] is not None:
            draft["id"] = f"{draft['id']}/{pair.chosen}-{pair.rejected}"
        out.append(draft)
    return out


def _rated_responses(row: Row, reader: Reader) -> tuple[list[Text], list[float], list[Mapping[str, Any]]]:
    """Texts, ratings and fields, from a list of objects, an object of lists, or separate lists of texts and ratings.

    A response without a text or rating is dropped and counted.
    """
    items = items_of(reader.values(row, "responses"))
    column, beside = _beside(row, reader, items)
    texts: list[Text] = []
    ratings: list[float] = []
    kept: list[Mapping[str, Any]] = []
    for number, item in enumerate(items):
        fields = cast(Mapping[str, Any], item) if isinstance(item, Mapping) and not is_stored(item) else {"text": item}
        text = _text_of(fields, reader)
        if beside is not None:
            name, value = column, as_number(beside[number], f"{column} of response {number}")
        else:
            name = _nested_name("rating", RATING_FIELDS, fields, reader)
            value = as_number(fields[name], f"{name} of response {number}")
        if text is None or value is None or math.isnan(value):
            reader.notes[f"responses without a {'text' if text is None else 'rating'}, dropped from their row"] += 1
            continue
        kept.append(fields)
        texts.append(reader.response(text, fields, f"text of response {number}"))
        rating = finite(value, f"{name} of response {number}", "responses" if beside is None else column)
        ratings.append(_as_rating(rating, name, reader, first=not ratings))
    return texts, ratings, kept


def _text_of(fields: Mapping[str, Any], reader: Reader) -> Any:
    if "responses" in reader.image_fields and "image" in fields:
        return fields.get("text", fields["image"])
    return fields[_nested_name("text", TEXT_FIELDS, fields, reader)]


def items_of(responses: object) -> Sequence[object]:
    if isinstance(responses, Mapping):  # how `datasets` used to store a list of objects
        lists = {k: v for k, v in cast(Mapping[str, Any], responses).items() if isinstance(v, list)}
        count = min((len(items) for items in lists.values()), default=0)
        return [{name: items[i] for name, items in lists.items()} for i in range(count)]
    if isinstance(responses, Sequence) and not isinstance(responses, str | bytes):
        return cast(Sequence[object], responses)
    message = f"the responses are {a_kind(responses)}, not a list."
    raise RowError("type", message, 'write a list of {"text": …, "rating": …}.', column="responses")


def _beside(row: Row, reader: Reader, items: Sequence[object]) -> tuple[str, Sequence[Any] | None]:
    """The separate list of ratings or ranks, with its name; None if the responses carry their own."""
    name = "ratings" if "ratings" in reader.names else "ranks"
    beside = reader.values(row, name)
    if not isinstance(beside, list) and items and isinstance(items[0], Mapping):
        return name, None  # the responses carry their ratings; this column is something else
    if beside is None:
        if items and not isinstance(items[0], Mapping):
            message = "the responses are texts, but there is no column with their ratings."
            remedy = "name it: --column ratings=… (higher is better) or --column ranks=… (1 is best)."
            raise RowError("missing", message, remedy, column="responses")
        return name, None
    if not isinstance(beside, list) or len(cast(list[Any], beside)) != len(items):
        message = f"{counted(len(items), 'response')}, but the {name} are not a list of the same length."
        raise RowError("type", message, f"give one of the {name} per response.", column=name)
    return name, cast(list[Any], beside)


def _as_rating(value: float, name: str, reader: Reader, *, first: bool) -> float:
    if ranks_by_name(name):
        reader.notes[RANK_NOTE] += first
        return from_rank(value, name)
    if name == "winprob":
        reader.notes["win probabilities became ratings as clipped log-odds"] += first
        return logit(value)
    return value


def from_rank(rank: float, column: str) -> float:
    """The rating equivalent to a rank, higher is better.

    Raises:
        RowError: a negative rank.
    """
    if rank < 0:
        raise RowError("rank", f"the rank is {rank:g}.", "write ranks starting at 1, the best.", column=column)
    return 0.0 - rank


def _nested_name(wanted: str, known: tuple[str, ...], fields: Mapping[str, Any], reader: Reader) -> str:
    name = reader.nested.get(wanted) or next((name for name in known if name in fields), None)
    if name is None or name not in fields:
        message = f"a response has the fields {', '.join(map(str, fields))}; none is its {wanted}."
        remedy = f"name it {' or '.join(known)}, or say columns={{'{wanted}': …}} (--column {wanted}=…)."
        raise RowError("missing", message, remedy, column="responses")
    return name


ENTRY = Format(
    "responses",
    "a prompt and several rated (higher is better) or ranked (1 is best) responses",
    ("prompt", "responses"),
    _read,
    optional=("ratings", "ranks", "id", "annotator", "cluster", "weight", "system", "prompt_input", "tools"),
)
