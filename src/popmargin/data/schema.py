"""The one schema of preference data: its columns, its immutable holder and the report of how it was loaded."""

import functools
import gzip
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NotRequired, TypeAlias, TypedDict, cast

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float64

from popmargin.errors import DataError
from popmargin.files import whole_file

COLUMNS = (
    "id",
    "prompt",
    "chosen",
    "rejected",
    "chosen_rating",
    "rejected_rating",
    "strength",
    "soft_label",
    "annotator",
    "cluster",
)
TEXT_COLUMNS = ("prompt", "chosen", "rejected")
NUMBER_COLUMNS = ("chosen_rating", "rejected_rating", "strength", "soft_label")
SAVE_SUFFIXES = (".parquet", ".jsonl", ".jsonl.gz")
BATCH_ROWS = 10_000
TOOL_FIELDS = ("tool_calls", "name", "tool_call_id", "tools")


class Message(TypedDict):
    """One turn of a conversation, as chat templates take it.

    Calls of tools, and the tools that a prompt's first message offers, are JSON texts.
    """

    role: str
    content: str
    tool_calls: NotRequired[str]
    name: NotRequired[str]
    tool_call_id: NotRequired[str]
    tools: NotRequired[str]


Text: TypeAlias = str | list[Message]
"""A prompt or a completion: plain text, or messages."""


@dataclass(frozen=True, slots=True)
class RowProblem:
    """Why one row was left out.

    Attributes:
        source: file or data set the row came from.
        position: line number counted from 1 (`by_line`), else row number counted from 0.
        candidate: running number of the preference that was left out; a row with several rated responses holds
            several, and one preference can have several problems.
        column: the source's column, where one is to blame.
        kind: short name of the problem, e.g. "empty", "identical", "duplicate_id", "tie".
        fatal: False for what is no mistake in the data: ties, and pairs below `min_gap`.
    """

    source: str
    position: int
    by_line: bool
    candidate: int
    column: str | None
    kind: str
    message: str
    remedy: str
    fatal: bool = True

    @property
    def place(self) -> str:
        """Where the row is, e.g. `prefs.jsonl:12`."""
        return f"{self.source}:{self.position}" if self.by_line else f"{self.source}, row {self.position} (from 0)"

    def __str__(self) -> str:
        column = f", column '{self.column}'" if self.column else ""
        return f"{self.place}{column}: {self.message} Remedy: {self.remedy}"

    def to_dict(self) -> dict[str, Any]:
        """The problem as JSON values."""
        names = ("source", "position", "by_line", "candidate", "column", "kind", "message", "remedy", "fatal")
        return {"place": self.place, **{name: getattr(self, name) for name in names}}


@dataclass(frozen=True)
class LoadReport:
    """How preferences were loaded: rows_in == rows_kept + rows_reported, always.

    Attributes:
        source_rows: rows (or lines) read from the source.
        rows_in: candidate preferences: a row with several rated responses, and all rows of a prompt where each holds
            one, count once for each pair asked for; every other row once.
        rows_kept: preferences that came out.
        problems: what was left out and why.
        columns_used: our column -> the source's column.
        columns_unused: columns of the source that nothing reads.
        notes: what was done to the rows that were kept, in sentences.
    """

    source: str
    container: str
    format: str
    source_rows: int
    rows_in: int
    rows_kept: int
    problems: tuple[RowProblem, ...] = ()
    columns_used: Mapping[str, str] = cast(Mapping[str, str], None)
    columns_unused: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns_used", dict(self.columns_used or {}))

    @property
    def rows_reported(self) -> int:
        """Candidate preferences that were left out, each with at least one problem."""
        return len({problem.candidate for problem in self.problems})

    @property
    def fatal(self) -> tuple[RowProblem, ...]:
        """The problems that are mistakes in the data."""
        return tuple(problem for problem in self.problems if problem.fatal)

    @property
    def problem_counts(self) -> dict[str, int]:
        """Number of problems of each kind, most frequent first."""
        return dict(Counter(problem.kind for problem in self.problems).most_common())

    def to_dict(self, *, limit: int | None = None) -> dict[str, Any]:
        """The report as JSON values, with at most `limit` of its problems."""
        return {
            "source": self.source,
            "container": self.container,
            "format": self.format,
            "source_rows": self.source_rows,
            "rows_in": self.rows_in,
            "rows_kept": self.rows_kept,
            "rows_reported": self.rows_reported,
            "problem_counts": self.problem_counts,
            "problems": [problem.to_dict() for problem in self.problems[:limit]],
            "columns_used": dict(self.columns_used),
            "columns_unused": list(self.columns_unused),
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        account = f"{self.rows_in} in = {self.rows_kept} kept + {self.rows_reported} left out"
        lines = [f"{self.source} ({self.container}, format '{self.format}'): {account}"]
        lines += [f"  left out, {kind}: {count}" for kind, count in self.problem_counts.items()]
        lines += [f"  note: {note}" for note in self.notes]
        return "\n".join(lines)


def arrow_schema(*, conversational: bool, tools: bool = False) -> Any:
    """The Arrow schema of `COLUMNS`, texts as strings or as lists of messages, which may hold tools and their calls."""
    fields = ("role", "content", *(TOOL_FIELDS if tools else ()))
    text = pa.list_(pa.struct([(name, pa.string()) for name in fields])) if conversational else pa.string()
    types = dict.fromkeys(TEXT_COLUMNS, text) | {name: pa.float64() for name in NUMBER_COLUMNS}
    return pa.schema([(name, types.get(name, pa.string())) for name in COLUMNS])


def prompt_key(prompt: Text) -> str:
    """Canonical text of a prompt: two prompts are equal exactly when their keys are.

    Example:
        >>> prompt_key([{"role": "user", "content": "Hi"}])
        '[["user", "Hi"]]'
    """
    if isinstance(prompt, str):
        return prompt
    return json.dumps([_turn_key(turn) for turn in prompt], ensure_ascii=False)


def _turn_key(turn: Message) -> list[Any]:
    tools = {name: value for name, value in turn.items() if name in TOOL_FIELDS}
    return [turn["role"], turn["content"], *([tools] if tools else [])]


def known_fields(text: Any) -> Any:
    """A text, or messages without the fields that are null, as Arrow hands them back."""
    if not isinstance(text, list):
        return text
    turns = cast(list[dict[str, Any]], text)
    return [{name: value for name, value in turn.items() if value is not None} for turn in turns]


def holds_tools(texts: Sequence[Any]) -> bool:
    """Whether a message of some conversations holds tools or calls of them."""
    return any(name in turn for text in texts if isinstance(text, list) for turn in text for name in TOOL_FIELDS)


class Preferences:
    """Preferences (prompt, chosen, rejected) of varying strength; immutable.

    Args:
        dataset: columns exactly `COLUMNS`; prompt, chosen and rejected all strings or all lists of messages.
        report: how they were loaded; `select` passes it on unchanged.

    Raises:
        DataError: missing or further columns, other types, or ids that are not unique. For anything that is not in
            the schema already, use `popmargin.data.load_preferences`.
    """

    def __init__(self, dataset: datasets.Dataset, report: LoadReport, *, _scalars: Any = None) -> None:
        found = dataset.column_names
        if set(found) != set(COLUMNS):
            raise DataError(
                f"Preferences need the columns {', '.join(COLUMNS)}; found {', '.join(found)}. "
                "Remedy: read the data with popmargin.data.load_preferences."
            )
        kinds = ((False, False), (True, False), (True, True))
        types = [arrow_schema(conversational=conversational, tools=tools) for conversational, tools in kinds]
        ordered = dataset.select_columns(list(COLUMNS))
        if ordered.features.arrow_schema.remove_metadata() not in types:
            raise DataError(
                f"Preferences with column types that differ from the schema: {ordered.features}. "
                "Remedy: read the data with popmargin.data.load_preferences."
            )
        self._dataset = ordered
        if _scalars is not None:
            self.__dict__["_scalars"] = _scalars
        self._report = report
        if len(set(self.ids)) != len(ordered):
            raise DataError("Preferences with duplicate ids. Remedy: give each row a unique id, or none.")

    @property
    def dataset(self) -> datasets.Dataset:
        """The rows, as a Hugging Face data set with exactly the columns `COLUMNS`."""
        return self._dataset

    @property
    def report(self) -> LoadReport:
        """How the rows were loaded."""
        return self._report

    @functools.cached_property
    def conversational(self) -> bool:
        """Whether prompts and completions are lists of messages."""
        return self._dataset.features.arrow_schema.field("prompt").type != pa.string()

    @functools.cached_property
    def tools(self) -> bool:
        """Whether messages may hold tools and calls of them."""
        return self._dataset.features.arrow_schema.remove_metadata() == arrow_schema(conversational=True, tools=True)

    @functools.cached_property
    def _scalars(self) -> Any:
        names = ["id", *NUMBER_COLUMNS, "annotator", "cluster"]
        return self._dataset.select_columns(names).with_format("arrow")[:]

    @functools.cached_property
    def _ids(self) -> list[str]:
        return self._scalars["id"].to_pylist()

    @property
    def ids(self) -> list[str]:
        """Unique id of each row."""
        return list(self._ids)

    def _numbers(self, name: str) -> np.ndarray:
        return np.array(self._scalars[name].to_numpy(), dtype=np.float64)

    @property
    def strength(self) -> Float64[np.ndarray, " N"]:
        """How much better chosen is than rejected: the explicit strength, else the rating gap; nan where unknown."""
        explicit = self._numbers("strength")
        return np.where(np.isnan(explicit), self.rating_gap, explicit)

    @property
    def rating_gap(self) -> Float64[np.ndarray, " N"]:
        """chosen_rating − rejected_rating in the ratings' own unit; nan where one is unknown."""
        return self._numbers("chosen_rating") - self._numbers("rejected_rating")

    @property
    def margin(self) -> Float64[np.ndarray, " N"]:
        """The rating gaps; where some are unknown and all explicit strengths are known, these, in their own unit."""
        gap, strength = self.rating_gap, self._numbers("strength")
        return strength if np.isnan(gap).any() and not np.isnan(strength).any() else gap

    @property
    def soft_label(self) -> Float64[np.ndarray, " N"]:
        """Probability that chosen is the better one, nan where unknown; what was loaded is in [½, 1]."""
        return self._numbers("soft_label")

    @functools.cached_property
    def _prompt_keys(self) -> list[str]:
        return [prompt_key(prompt) for rows in self.batches("prompt") for prompt in rows["prompt"]]

    @property
    def prompt_keys(self) -> list[str]:
        """Canonical text of each row's prompt; rows of one prompt share it."""
        return list(self._prompt_keys)

    @property
    def clusters(self) -> list[str]:
        """What depends on each other, in every interval: rows of one cluster, if the data name any, else of one prompt.

        Raises:
            DataError: rows of one prompt are in several clusters, which would then not be independent.
        """
        named = self._scalars["cluster"].to_pylist()
        if not any(named):
            return self.prompt_keys
        of_prompt: dict[str, str | None] = {}
        for row, (key, name) in enumerate(zip(self._prompt_keys, named, strict=True)):
            if of_prompt.setdefault(key, name) != name:
                raise DataError(
                    f"Row {row} (id '{self._ids[row]}') is in cluster {name!r}, but another row with its prompt is "
                    f"in {of_prompt[key]!r}: a prompt must be in a single cluster. Remedy: give all rows of a "
                    "prompt the same cluster, or none."
                )
        return [name or key for key, name in zip(self._prompt_keys, named, strict=True)]

    def batches(self, *columns: str, size: int = BATCH_ROWS) -> Iterator[dict[str, list[Any]]]:
        """The rows as Python values, `size` at a time; all columns if none is named."""
        table = self._dataset.select_columns(list(columns or COLUMNS)).with_format("arrow")
        for start in range(0, len(table), size):
            rows = cast(Any, table[start : start + size]).to_pydict()
            if self.tools:
                rows |= {name: list(map(known_fields, rows[name])) for name in TEXT_COLUMNS if name in rows}
            yield rows

    @functools.cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.sha256()
        for batch in self.batches():
            for row in zip(*(batch[name] for name in COLUMNS), strict=True):
                row = row if row[-1] is not None else row[:-1]  # as it was before there were clusters
                digest.update(json.dumps(row, ensure_ascii=False, sort_keys=True).encode() + b"\n")
        return digest.hexdigest()

    def fingerprint(self) -> str:
        """SHA-256 of the content, in hex: the same for the same rows, whatever file or Arrow chunks hold them."""
        return self._fingerprint

    def select(self, indices: Sequence[int] | np.ndarray) -> "Preferences":
        """The rows with these numbers, in this order.

        Raises:
            DataError: a number out of range, or one given twice.
        """
        chosen = [int(index) for index in indices]
        outside = [index for index in chosen if not 0 <= index < len(self)]
        if outside:
            raise DataError(f"Row {outside[0]} does not exist: there are {len(self)} rows, counted from 0.")
        # Fingerprint and small columns are handed on: `datasets` would pickle the indices and gather row by row.
        digest = hashlib.blake2b("\n".join([self._report.source, *(self._ids[i] for i in chosen)]).encode())
        subset = self._dataset.select(chosen, new_fingerprint=digest.hexdigest()[:32])
        child = Preferences(subset, self._report, _scalars=self._scalars.take(pa.array(chosen, pa.int64())))
        if "_prompt_keys" in self.__dict__:
            child.__dict__["_prompt_keys"] = [self._prompt_keys[index] for index in chosen]
        return child

    def save(self, path: str | Path) -> None:
        """Write the rows as `.parquet`, `.jsonl` or `.jsonl.gz`; the file appears only when it is complete.

        Raises:
            ConfigError: the path ends otherwise.
            RunError: the path is a folder, or cannot be written.
        """
        target = Path(path)
        with whole_file(target, SAVE_SUFFIXES) as partial:
            if target.name.lower().endswith(".parquet"):
                self._write_parquet(partial)
            else:
                with partial.open("wb") as raw:
                    self._write_jsonl(raw, compress=target.name.lower().endswith(".gz"))

    def _write_parquet(self, path: Path) -> None:
        schema = arrow_schema(conversational=self.conversational, tools=self.tools)
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            for batch in self.batches():
                writer.write_table(pa.Table.from_pydict(batch, schema=schema))

    def _write_jsonl(self, raw: IO[bytes], *, compress: bool) -> None:
        # No time stamp and no file name in the gzip header: the same rows give the same bytes.
        out = gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) if compress else raw
        for batch in self.batches():
            for values in zip(*(batch[name] for name in COLUMNS), strict=True):
                row = {name: value for name, value in zip(COLUMNS, values, strict=True) if value is not None}
                out.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
        if compress:
            out.close()

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One row as a dictionary of `COLUMNS`."""
        return {name: known_fields(value) for name, value in self._dataset[index].items()}

    def __repr__(self) -> str:
        kind = "conversational" if self.conversational else "text"
        return f"Preferences({len(self)} rows, {kind}, from {self._report.source})"
