"""Requirements on preferences, checked row by row, and how problems are described."""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from popmargin.data.conversation import is_blank
from popmargin.data.load_report import RowProblem
from popmargin.data.schema import COLUMNS, NUMBER_COLUMNS, OPTIONAL_COLUMNS, TEXT_COLUMNS
from popmargin.errors import DataError, counted

_LARGEST = 3.4028234663852886e38
Draft = dict[str, Any]
"""One preference on its way in: every name of `COLUMNS` and `OPTIONAL_COLUMNS`, None where unknown.

`pair` has the numbers of its responses if a row has several; `turned` says that chosen and rejected were swapped, and
`alone` that there is no rejected one."""

DROP_HINT = (
    "Fix these rows, or drop and report them: bad_rows='drop' (--bad-rows drop; with train "
    "--data.bad_rows drop, with compare --base.data.bad_rows drop)."
)


class RowError(Exception):
    """One row, or one pair of it, cannot become a preference.

    Args:
        kind: short name, e.g. "empty".
        message: what is wrong, a sentence.
        remedy: what to do, a sentence.
        column: our name for the column to blame.
        fatal: False for ties and pairs below the minimum gap, which are not errors in the data.
    """

    def __init__(self, kind: str, message: str, remedy: str, *, column: str | None = None, fatal: bool = True) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.remedy = remedy
        self.column = column
        self.fatal = fatal


def check_draft(draft: Draft, *, contradictions: str = "error") -> list[RowError]:
    """Everything wrong with one preference by itself (excluding duplicate ids).

    Ratings and strengths must not contradict the preference, nor a soft label below ½, unless contradictions are kept.

    An empty prompt is an error too, in text and in conversations: it is nearly always a lost column, and all such rows
    would count as one prompt. For unconditional text, write the tokenizer's BOS token as the prompt.
    """
    errors = _text_errors(draft)
    for name in (*NUMBER_COLUMNS, *OPTIONAL_COLUMNS):
        value = draft[name]
        if value is not None and not math.isfinite(value):
            remedy = "write a finite number, or null if unknown."
            errors.append(RowError("nan", f"the number is {value}.", remedy, column=name))
        elif value is not None and abs(value) > _LARGEST:
            message = f"the number is {value:g}; models compute in fp32, which ends at {_LARGEST:.2g}."
            errors.append(RowError("too_large", message, "correct it, or write null if unknown.", column=name))
    soft_label = draft["soft_label"]
    if soft_label is not None and not math.isnan(soft_label) and not 0 <= soft_label <= 1:
        remedy = "write the probability that chosen is better, 0 to 1."
        errors.append(RowError("soft_label", f"the soft label is {soft_label:g}.", remedy, column="soft_label"))
    if draft["weight"] is not None and draft["weight"] < 0:
        remedy = "give the row a weight of 0 or more; if the column is something else, rename it."
        errors.append(RowError("weight", f"the weight is {draft['weight']:g}.", remedy, column="weight"))
    if contradictions == "keep":
        return errors
    return errors + (against_soft_label(draft) if prefers_rejected(draft) else _against_chosen(draft))


def speaks_for_rejected(draft: Draft) -> bool:
    """Whether a rating, strength or soft label says that rejected is the better response."""
    return prefers_rejected(draft) or bool(_against_chosen(draft))


def _against_chosen(draft: Draft) -> list[RowError]:
    """What says that rejected is better."""
    errors: list[RowError] = []
    strength = draft["strength"]
    if strength is not None and strength < 0:
        remedy = "swap chosen and rejected, or keep the label against it: contradictions='keep' (data.contradictions)."
        errors.append(RowError("negative_strength", f"the strength is {strength:g}.", remedy, column="strength"))
    better, worse = draft["chosen_rating"], draft["rejected_rating"]
    if better is not None and worse is not None and better < worse:
        message = f"chosen is rated {better:g}, below rejected at {worse:g}: are the columns swapped?"
        remedy = (
            "swap the texts, or the ratings, of this row; for all rows: columns={'chosen': …, 'rejected': …}; or keep "
            "the label against them: contradictions='keep' (data.contradictions)."
        )
        errors.append(RowError("swapped", message, remedy, column="chosen_rating"))
    return errors


def against_soft_label(draft: Draft) -> list[RowError]:
    """What says that chosen is better although the soft label says that rejected is (`prefers_rejected`)."""
    better, worse, strength = draft["chosen_rating"], draft["rejected_rating"], draft["strength"]
    found: list[tuple[str, str]] = []
    if better is not None and worse is not None and better > worse:
        found.append(("chosen_rating", f"chosen is rated {better:g}, above rejected at {worse:g}"))
    if strength is not None and strength > 0:
        found.append(("strength", f"the strength is {strength:g}, so chosen is better"))
    remedy = "fix one of the two, or leave it empty; soft_label is the probability that chosen is better."
    return [
        RowError("against_soft_label", f"{what}, but the soft label is {draft['soft_label']:g}.", remedy, column=name)
        for name, what in found
    ]


def prefers_rejected(draft: Draft) -> bool:
    """Whether the soft label, a probability, is below ½: then rejected is the better response."""
    return draft["soft_label"] is not None and 0 <= draft["soft_label"] < 0.5


def _text_errors(draft: Draft) -> list[RowError]:
    errors: list[RowError] = []
    for name in TEXT_COLUMNS[:2] if draft.get("alone") else TEXT_COLUMNS:
        if is_blank(draft[name]):
            message = "the prompt is empty." if name == "prompt" else f"the {name} completion is empty."
            hint = " (for unconditional text: the BOS token)" if name == "prompt" else ""
            errors.append(RowError("empty", message, f"add a text{hint}, or remove the row.", column=name))
    if not is_blank(draft["chosen"]) and draft["chosen"] == draft["rejected"]:
        remedy = "remove the row: it is not a preference."
        errors.append(RowError("identical", "chosen and rejected are the same.", remedy, column="rejected"))
    return errors


def content_digest(draft: Draft) -> str:
    """Stable hash of what is compared: prompt, chosen, rejected and annotator.

    It excludes ratings, so re-rating a comparison does not change its id and edges still find it.

    Raises:
        RowError: a text has half of a surrogate pair, so it is not UTF-8.
    """
    content = [draft[name] for name in (*TEXT_COLUMNS, "annotator")]
    try:
        # The id is encoded too: it must be storable.
        encoded = json.dumps(content, ensure_ascii=False).encode()
        (draft["id"] or "").encode()
    except UnicodeEncodeError as error:
        remedy = "save the file as UTF-8; \\ud800–\\udfff escapes come in pairs."
        message = f"a text is not UTF-8 at its character {error.start}."
        raise RowError("bad_utf8", message, remedy, column=_undecodable(draft)) from error
    return hashlib.blake2b(encoded, digest_size=10).hexdigest()


def _undecodable(draft: Draft) -> str | None:
    for name in COLUMNS:
        try:
            json.dumps(draft[name], ensure_ascii=False).encode()
        except UnicodeEncodeError:
            return name
    return None


class IdGiver:
    """Keeps ids unique: names rows without one after their content, and refuses an id used before."""

    def __init__(self) -> None:
        self._given: set[str] = set()
        self._seen: Counter[str] = Counter()
        self.repeated_content = 0
        self.both_directions = 0
        self._directions: dict[bytes, int] = {}
        self.rolling = hashlib.blake2b(digest_size=16)  # of everything that was given an id, in order

    def give(self, draft: Draft) -> str:
        """The row's own id, else `p-<content hash>`, with `-2`, `-3`, … for exact repetitions.

        Raises:
            RowError: the id belongs to an earlier row, or a text is not UTF-8.
        """
        digest = content_digest(draft)
        self._seen[digest] += 1
        count = self._seen[digest]
        self.repeated_content += count > 1
        self._compare_directions(draft)
        name = draft["id"] or (f"p-{digest}" if count == 1 else f"p-{digest}-{count}")
        if name in self._given:
            remedy = "give each row a unique id, or none."
            raise RowError("duplicate_id", f"the id '{name}' belongs to an earlier row.", remedy, column="id")
        self._given.add(name)
        others = [draft[column] for column in (*NUMBER_COLUMNS, *OPTIONAL_COLUMNS, "cluster")]
        self.rolling.update(repr((digest, name, others)).encode())
        return name

    def _compare_directions(self, draft: Draft) -> None:
        """Count pairs of responses to a prompt that occur in both orders."""
        sides = [json.dumps(draft[name], ensure_ascii=False) for name in ("chosen", "rejected")]
        content = [json.dumps(draft["prompt"], ensure_ascii=False), *sorted(sides)]
        key = hashlib.blake2b("\x1f".join(content).encode(), digest_size=10).digest()
        way = 1 if sides[0] < sides[1] else 2
        seen = self._directions.get(key, 0)
        self._directions[key] = seen | way
        self.both_directions += seen != 0 and seen | way == 3 and seen != 3


def describe_problems(problems: Sequence[RowProblem], *, limit: int = 5) -> str:
    """The first problems, one per line, and the number of further ones."""
    lines = [f"  {problem}" for problem in problems[:limit]]
    if len(problems) > limit:
        kinds = Counter(problem.kind for problem in problems)
        lines.append(f"  … and {len(problems) - limit} more; {', '.join(f'{k}: {n}' for k, n in kinds.most_common())}.")
    return "\n".join(lines)


def raise_problems(problems: Sequence[RowProblem], rows_in: int) -> None:
    """Raise for the fatal problems, if there are any.

    Raises:
        DataError: names the first rows with column and remedy, and the total.
    """
    fatal = [problem for problem in problems if problem.fatal]
    if fatal:
        count = len({problem.candidate for problem in fatal})
        raise DataError(
            f"{fatal[0].source}: {count} of {counted(rows_in, 'row')} cannot be "
            f"used.\n{describe_problems(fatal)}\n{DROP_HINT}"
        )
