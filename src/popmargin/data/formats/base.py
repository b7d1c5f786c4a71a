"""Shared by all layouts: the entry that describes one, and the reader of its fields."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, cast

import numpy as np

from popmargin.data.conversation import Message, Text, holds_tools
from popmargin.data.formats.image_cells import ImageCells, beside
from popmargin.data.images import is_image_name
from popmargin.data.messages import Notes, as_text, as_values, harmonise, offer, split_implicit
from popmargin.data.schema import NUMBER_COLUMNS
from popmargin.data.tools import tools_text
from popmargin.data.validate import Draft, RowError, prefers_rejected
from popmargin.errors import a_kind

Row = Mapping[str, Any]
COMMON = (
    "id", "system", "prompt_input", "tools", "soft_label", "annotator", "cluster", "strength", "chosen_rating",
    "rejected_rating", "weight", "margin",
)  # fmt: skip


@dataclass(frozen=True)
class Reader:
    """Reads fields of raw rows by our names.

    Attributes:
        names: our field -> the source's column.
        nested: "text" and "rating" -> the field of each response, if the caller renamed it.
        text_cells: numbers come as text (CSV).
        decimal_comma: they may be written with a comma.
        ends: the numbers in the winner's column that mean the first and the second response, if it contains numbers.
        fields: of each response, kept as columns of its side.
        ties: "drop" reports them, "keep" makes them preferences of strength 0 and soft label ½.
        contradictions: "keep" takes a label as it is where the row's numbers prefer rejected; "error" does not.
        unlabelled: how responses without labels are paired (`UNRATED_PAIRINGS`); None: such data are not read.
        per_prompt: pairs of each prompt, if they are drawn at random.
        asked: numbers of responses without labels, of their prompts and pairs.
        unfinished: "drop" reports pairs with a response whose field `finished` is false, "keep" keeps them.
        images: reads the cells that hold images.
        image_fields: our fields that hold images.
        rated: number of rows of rated responses, by whether their ratings are 1 to n without ties, like ranks.
    """

    names: Mapping[str, str]
    nested: Mapping[str, str] = field(default_factory=dict[str, str])
    text_cells: bool = False
    decimal_comma: bool = False
    ends: tuple[float, float] | None = None
    pairs: str = "best_vs_worst"
    min_gap: float = 0.0
    seed: int = 0
    ties: str = "drop"
    contradictions: str = "error"
    unfinished: str = "keep"
    unlabelled: str | None = None
    per_prompt: int = 1
    fields: tuple[str, ...] = ()
    images: ImageCells = field(default_factory=ImageCells)
    image_fields: frozenset[str] = frozenset()
    notes: Notes = field(default_factory=Counter[str])
    rated: Counter[bool] = field(default_factory=Counter[bool])
    asked: Counter[str] = field(default_factory=Counter[str])

    def value(self, row: Row, name: str) -> Any:
        """The raw cell, None if the row or the source has none."""
        column = self.names.get(name)
        return None if column is None else row.get(column)

    def values(self, row: Row, name: str) -> Any:
        """The cell of a list: unchanged, or parsed from JSON or Python text."""
        return as_values(self.value(row, name))

    def text(self, row: Row, name: str) -> Text:
        """The cell as text or messages; an image as its name."""
        if name in self.image_fields:
            return self.image(row, name)
        return as_text(self.value(row, name), name, self.notes)

    def image(self, row: Row, name: str) -> str:
        """The name of the image in a cell, or of the one beside its name."""
        value = self.value(row, name)
        if not is_image_name(value):
            return self.images.read(value, name)
        return self.images.read(row.get(beside(self.names[name])), name, name=value)

    def response(self, value: object, fields: Row, what: str) -> Text:
        """One of several responses as text or messages, or as the name of its image.

        Args:
            value: its text.
            fields: all of it.
            what: how messages call it.
        """
        if "responses" not in self.image_fields:
            return as_text(value, what, self.notes)
        held = fields.get("image")
        name = value if isinstance(value, str) and is_image_name(value) else None
        return self.images.read(value if held is None else held, "responses", what=what, name=name)

    def prompt(self, row: Row) -> Text:
        """The prompt; an instruction and its input are joined by an empty line, as in Alpaca."""
        prompt, more = self.text(row, "prompt"), self.value(row, "prompt_input")
        if more is None or (isinstance(more, str) and not more.strip()):
            return prompt
        if not isinstance(prompt, str) or not isinstance(more, str):
            message = "the input next to the instruction is not text."
            raise RowError("type", message, "write both as text, or name one prompt column.", column="prompt_input")
        self.notes["the instruction and the input were joined by an empty line"] += 1
        return f"{prompt}\n\n{more}"

    def compared(self, row: Row) -> tuple[Text, Text, Text]:
        """Prompt and both responses; lists of a user's and the models' texts, turn by turn, become conversations.

        Without a column of prompts, it is what two conversations begin with.
        """
        if "prompt" not in self.names:
            first, second = self.text(row, "response_a"), self.text(row, "response_b")
            if isinstance(first, str) or isinstance(second, str):
                message = "there is no prompt column, and the responses are texts."
                raise RowError("no_prompt", message, "name it: --column prompt=…", column="response_a")
            return split_implicit(first, second, self.notes)
        lists = [self.values(row, name) for name in ("prompt", "response_a", "response_b")]
        if not all(isinstance(turns, list) and turns and not isinstance(turns[0], Mapping) for turns in lists):
            return self.prompt(row), self.text(row, "response_a"), self.text(row, "response_b")
        if len(set(map(len, lists))) > 1 or not all(isinstance(text, str) for turns in lists for text in turns):
            message = "prompt and responses are lists of different lengths."
            raise RowError("type", message, "give one text per turn, or messages.", column="prompt")
        self.notes["lists of texts were read as alternating turns of a user and a model"] += 1
        asked, *answers = lists
        sides = [
            [as_message(text, number) for number, text in enumerate(_interleaved(asked, side))] for side in answers
        ]
        return sides[0][:1], sides[0][1:], sides[1][1:]

    def number(self, row: Row, name: str) -> float | None:
        """The cell as a number, None if it is missing."""
        value = self.value(row, name)
        if self.decimal_comma and isinstance(value, str) and value.count(",") == 1:
            self.notes[f"decimal commas of the {name} were read as points"] += 1
            value = value.replace(",", ".")
        return as_number(value, name, text_cells=self.text_cells)

    def required_number(self, row: Row, name: str) -> float:
        """The cell as a finite number."""
        return finite(self.number(row, name), name, name)

    def label(self, row: Row, name: str) -> str | None:
        """The cell as an id; integers become text, a missing or empty one None."""
        value = self.value(row, name)
        if value is None or isinstance(value, str):
            return value or None
        if isinstance(value, int | np.integer) and not isinstance(value, bool):
            return str(int(cast(int, value)))
        raise RowError("type", f"the {name} is {a_kind(value)}.", "write text or an integer.", column=name)

    def draft(self, row: Row, prompt: Text, chosen: Text, rejected: Text, **known: float) -> Draft:
        """A preference with the row's common fields; `known` numbers take precedence over the row's."""
        prompt, chosen, rejected = harmonise(prompt, chosen, rejected, self.notes)
        if "system" in self.names:
            prompt, chosen, rejected = self._under_system(row, prompt, chosen, rejected)
        tools = tools_text(self.value(row, "tools"), "tools")
        if tools and isinstance(prompt, str):
            message = "the row has tools but its texts are not messages, so no chat template would include them."
            raise RowError("tools", message, 'write the prompt as [{"role": "user", …}].', column="tools")
        if tools:
            prompt = offer(cast(list[Message], prompt), tools)
        if holds_tools([prompt, chosen, rejected]):
            self.notes["tools and tool calls are kept; the chat template formats them"] += 1
        draft: Draft = {"id": self.label(row, "id"), "prompt": prompt, "chosen": chosen, "rejected": rejected}
        shared = self.names.get("strength") == self.names.get("margin")  # one column, or none
        for name in ("weight", "margin", *NUMBER_COLUMNS):
            if not (shared and name == "strength"):
                draft[name] = known[name] if name in known else self.number(row, name)
        if shared:
            draft["strength"] = known["strength"] if "strength" in known else self._strength_of_margin(draft)
        draft["annotator"], draft["cluster"] = self.label(row, "annotator"), self.label(row, "cluster")
        return draft

    def _strength_of_margin(self, draft: Draft) -> float | None:
        """A margin gives a preference's strength if nothing else does, unless it is negative and may not be."""
        margin: float | None = draft["margin"]
        # Of a soft label below ½ both are swapped, and it is not negative.
        if margin is None or margin >= 0 or self.contradictions == "keep" or prefers_rejected(draft):
            return margin
        self.notes["a negative margin does not give a strength, so it is unknown"] += margin < 0
        return None

    def _under_system(
        self, row: Row, prompt: Text, chosen: Text, rejected: Text
    ) -> tuple[list[Message], list[Message], list[Message]]:
        """The system column as the first message; every row becomes a conversation, with or without one."""
        turns = as_turns(prompt, "user"), as_turns(chosen, "assistant"), as_turns(rejected, "assistant")
        system = self.value(row, "system")
        if system is not None and not isinstance(system, str):
            message = f"the system prompt is {a_kind(system)}."
            raise RowError("type", message, "write a text, or nothing.", column="system")
        if not (system or "").strip():
            self.notes["the system column is empty: no system message"] += 1
            return turns
        if turns[0] and turns[0][0]["role"] == "system":
            if turns[0][0]["content"] == system:
                return turns
            message = "the system column and the prompt's own system message differ."
            raise RowError("system", message, "keep one of them.", column="system")
        self.notes["the system column became the first message"] += 1
        return [{"role": "system", "content": cast(str, system)}, *turns[0]], turns[1], turns[2]

    def tie(self, row: Row, prompt: Text, first: Text, second: Text, column: str, **known: float) -> Draft | RowError:
        """Two equally good responses: a report, or, if ties are kept, a preference of strength 0 and soft label ½."""
        if self.ties == "drop":
            return tied(column)
        self.notes["ties are kept, with the first response as chosen"] += 1
        return self.draft(row, prompt, first, second, **{"strength": 0.0, "soft_label": 0.5, **known})


def as_message(text: str, number: int) -> Message:
    """A turn of a conversation in which user and assistant take turns, the user first."""
    return {"role": "assistant" if number % 2 else "user", "content": text}


def _interleaved(asked: Sequence[str], answered: Sequence[str]) -> list[str]:
    return [text for pair in zip(asked, answered, strict=True) for text in pair]


def as_turns(text: Text, role: str) -> list[Message]:
    """A text as one message of that role; messages unchanged."""
    return [{"role": role, "content": text}] if isinstance(text, str) else text


@dataclass(frozen=True)
class Format:
    """A layout of rows.

    Attributes:
        required: fields that must have a column.
        optional: further fields that are read.
        absent: fields that must not have a column, for the format to be detected.
        read: drafts of one row, and an error for each invalid pair; raises RowError for the whole row.
        fits: looks at some rows, for detection; None if the columns decide.
        doubt: looks at some rows and the unread columns, once detected: the question to ask, with the
            remedy; None if there is none.
        single: for a layout with one response per row: its prompt, response and rating. All rows of a prompt then
            become one row for `read`, with the fields prompt, system, responses and ratings.
    """

    name: str
    summary: str
    required: tuple[str, ...]
    read: Callable[[Row, Reader], list[Draft | RowError]]
    optional: tuple[str, ...] = COMMON
    absent: tuple[str, ...] = ()
    fits: Callable[[Sequence[Row], Reader], bool] | None = None
    doubt: Callable[[Sequence[Row], Reader, Sequence[str]], str | None] | None = None
    single: Callable[[Row, Reader], tuple[Text, Text, float]] | None = None

    @property
    def expects(self) -> str:
        """The columns it needs, for messages."""
        return f"'{self.name}' ({self.summary}) needs {', '.join(self.required)}"


def as_number(value: object, name: str, *, text_cells: bool = False) -> float | None:
    """A cell as a number (it may be nan or infinite); None if it is missing.

    Raises:
        RowError: it is not a number.
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
    raise RowError("type", message, "write a number, or null if unknown.", column=name)


def finite(value: float | None, name: str, column: str) -> float:
    """The number itself.

    Raises:
        RowError: it is missing, nan or infinite.
    """
    if value is None or not math.isfinite(value):
        kind = "missing" if value is None else "nan"
        message = f"the {name} is {'missing' if value is None else value}."
        raise RowError(kind, message, "write a finite number, or remove the row.", column=column)
    return value


def tied(column: str) -> RowError:
    """The report of a tie."""
    return RowError("tie", "both are equally good.", "nothing: a tie is not a preference.", column=column, fatal=False)
