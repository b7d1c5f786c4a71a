"""The distinct prompts of any data: preferences, responses, rows with a prompt, or lines of text."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from popmargin.account import Step
from popmargin.data.conversation import Message, Text, prompt_key
from popmargin.data.formats import Reader, resolve_names
from popmargin.data.formats.base import as_turns
from popmargin.data.load import load_preferences
from popmargin.data.messages import offer
from popmargin.data.read_responses import raw_rows
from popmargin.data.responses import Responses
from popmargin.data.tools import tools_text
from popmargin.data.validate import RowError
from popmargin.errors import DataError
from popmargin.files import no_such_file
from popmargin.safe_reading import MOST_WHOLE, read_text

_OF_RESPONSES = ("text", "responses", "finished", "tokens", "source", "round", "token_ids", "token_logps", "logp")
"""Names that responses give to what is theirs: a column of the prompts that is called so gets another name."""
_OF_SAMPLING = ("prompt_tokens",)
"""What an earlier sampling said of the prompts."""


@dataclass(frozen=True)
class Prompts:
    """Distinct prompts, in the order of the data.

    Attributes:
        prompts: texts or messages (P,).
        columns: what else the data say of each, by name (P,).
        rows: that were read; always P + those left out.
        left_out: reason -> rows that gave no prompt.
        notes: what else is known of them, in sentences.
        name: of the source, for messages.
    """

    prompts: list[Text]
    columns: dict[str, list[Any]] = field(default_factory=dict[str, list[Any]])
    rows: int = 0
    left_out: Mapping[str, int] = field(default_factory=dict[str, int])
    notes: tuple[str, ...] = ()
    name: str = "the prompts"

    @property
    def keys(self) -> list[str]:
        """Canonical texts (P,); see `prompt_key`."""
        return [prompt_key(prompt) for prompt in self.prompts]

    def first(self, count: int | None) -> "Prompts":
        """The first so many; all when None."""
        if count is None or count >= len(self):
            return self
        left_out = {**self.left_out, f"beyond the first {count}": len(self) - count}
        columns = {name: values[:count] for name, values in self.columns.items()}
        return replace(self, prompts=self.prompts[:count], columns=columns, left_out=left_out)

    def step(self) -> Step:
        """The account of reading them."""
        rows = self.rows or len(self) + sum(self.left_out.values())  # made of prompts that were never read
        return Step(name=self.name, rows_in=rows, kept={"prompts": len(self)}, left_out=self.left_out,
                    notes=self.notes, unit="rows")  # fmt: skip

    def as_chat(self) -> "Prompts":
        """Texts as the first message of a user; conversations as they are."""
        return replace(self, prompts=[as_turns(prompt, "user") for prompt in self.prompts])

    def __len__(self) -> int:
        return len(self.prompts)


def load_prompts(
    source: str | Path | list[dict[str, Any]], *, split: str | None = None, columns: Mapping[str, str] | None = None
) -> Prompts:
    """Read prompts; those with the same content are one, which `left_out` counts.

    Args:
        source: preferences in any layout, `Responses`, rows with a prompt (JSON, CSV, Parquet …), or a .txt file with a
            prompt in each line; a file, folder, hub id or list of dictionaries, as for `load_preferences`.
        split: the split of a data set that has several.
        columns: our field (prompt, system …) -> the source's column.

    Raises:
        DataError: unreadable, without prompts, or a row that has none.

    Example:
        >>> load_prompts([{"question": "2+2?", "topic": "sums"}, {"question": "2+2?", "topic": "sums"}])
        ... # doctest: +ELLIPSIS
        Prompts(prompts=['2+2?'], columns={'topic': ['sums']}, rows=2, left_out={'the same content ...': 1}, ...)
    """
    if isinstance(source, str | Path) and str(source).lower().endswith(".txt"):
        return _of_lines(Path(source))
    opened, rows, places, _ = raw_rows(source, split=split)
    found = list(dict.fromkeys(column for row in rows for column in row))
    candidates, _ = resolve_names(found, columns)
    if not rows:
        raise DataError(f"{opened.name}: there are no rows. Remedy: give at least one.")
    if {"chosen", "rejected"} <= candidates.keys() or {"response_a", "response_b"} <= candidates.keys():
        data = load_preferences(source, split=split, columns=columns, ties="keep", bad_rows="drop")
        prompts = [prompt for batch in data.batches("prompt") for prompt in batch["prompt"]]
        clusters = {"cluster": data.clusters} if "cluster" in candidates else {}
        return _distinct(prompts, clusters, {}, opened.name, left_out=data.report.step().reasons)
    if "prompt" not in candidates:
        raise DataError(
            f"{opened.name}: there is no prompt. Columns found: {', '.join(found) or 'none'}. Remedy: name it, e.g. "
            f"columns={{'prompt': '{found[0]}'}} (--column prompt={found[0]})."
        )
    if candidates.keys() & {"responses", "response"}:
        responses = Responses.load(source, split=split, columns=columns)
        known = {name: responses.column(name) for name in responses.column_names}
        return _distinct(responses.prompts, known, Counter(), opened.name)
    names = {name: candidates[name][0] for name in ("prompt", "prompt_input", "system", "tools") if name in candidates}
    reader = Reader(names)
    prompts = [_prompt(reader, row, place) for row, place in zip(rows, places, strict=True)]
    known = {name: [row.get(name) for row in rows] for name in found if name not in names.values()}
    return _distinct(prompts, known, reader.notes, opened.name)


def _prompt(reader: Reader, row: Mapping[str, Any], place: str) -> Text:
    """A row's prompt, with its system message and the tools that it offers."""
    try:
        prompt, system = reader.prompt(row), reader.value(row, "system")
        tools = tools_text(reader.value(row, "tools"), "tools")
        if isinstance(system, str) and system.strip():
            prompt = [cast(Message, {"role": "system", "content": system}), *as_turns(prompt, "user")]
        if tools:
            prompt = offer(as_turns(prompt, "user"), tools)
    except RowError as error:
        raise DataError(f"{place}, column '{error.column or 'prompt'}': {error} Remedy: {error.remedy}") from error
    if not prompt or (isinstance(prompt, str) and not prompt.strip()):
        raise DataError(f"{place}: the prompt is empty. Remedy: write one, or remove the row.")
    return prompt


def _of_lines(path: Path) -> Prompts:
    try:
        lines = read_text(path.expanduser(), DataError, most=MOST_WHOLE).splitlines()
    except FileNotFoundError as error:
        raise DataError(no_such_file(path)) from error
    prompts: list[Text] = [line.strip() for line in lines if line.strip()]
    if not prompts:
        raise DataError(f"{path}: there are no prompts. Remedy: write one in each line.")
    return _distinct(prompts, {}, {}, path.name, left_out={"an empty line": len(lines) - len(prompts)})


def _distinct(
    prompts: Sequence[Text],
    columns: Mapping[str, Sequence[Any]],
    notes: Mapping[str, int],
    name: str,
    *,
    left_out: Mapping[str, int] = {},
) -> Prompts:
    first: dict[str, int] = {}
    for number, prompt in enumerate(prompts):
        first.setdefault(prompt_key(prompt), number)
    places = list(first.values())
    kinds = {isinstance(prompt, str) for prompt in prompts}
    if len(kinds) > 1:
        raise DataError(f"{name}: some prompts are text, others are conversations. Remedy: use one kind.")
    counts = {
        **notes,
        "prompts that end with the assistant's turn, which responses continue": sum(
            not isinstance(prompts[place], str) and prompts[place][-1]["role"] == "assistant"  # pyright: ignore
            for place in places
        ),
    }
    kept = {
        f"prompt_{column}" if column in _OF_RESPONSES else column: [values[place] for place in places]
        for column, values in columns.items()
        if column not in _OF_SAMPLING
    }
    said = tuple(f"{what}: {count}" for what, count in counts.items() if count)
    out = {**left_out, "the same content as an earlier row": len(prompts) - len(places)}
    out = {reason: count for reason, count in out.items() if count}
    rows = len(prompts) + sum(left_out.values())
    return Prompts([prompts[place] for place in places], kept, rows, out, said, name)
