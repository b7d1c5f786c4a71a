"""The schema of preference data: its columns, and the immutable class that holds them, with its methods."""

import functools
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, overload

import lazy_loader
import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float64

from popmargin.data.conversation import TOOL_FIELDS, prompt_key
from popmargin.data.exchange import CLAIMS, exchange_rows, flipped
from popmargin.data.extra import as_dataset, as_numbers, put_columns
from popmargin.data.image_arrow import images_by_path
from popmargin.data.images import COLUMNS as IMAGE_COLUMNS
from popmargin.data.images import is_image_name
from popmargin.data.load_report import LoadReport
from popmargin.data.row_numbers import place_of, row_numbers
from popmargin.data.saving import known_fields, save_table
from popmargin.errors import DataError, counted, did_you_mean

if TYPE_CHECKING:
    import datasets
else:  # it takes a second, and many commands need none of it
    datasets = lazy_loader.load("datasets")

COLUMNS = (
    "id", "prompt", "chosen", "rejected", "chosen_rating", "rejected_rating", "strength", "soft_label", "annotator",
    "cluster",
)  # fmt: skip
"""Columns that all preferences have."""
OPTIONAL_COLUMNS = ("weight", "margin")
"""Columns of numbers that preferences have if the data does."""
TEXT_COLUMNS = ("prompt", "chosen", "rejected")
NUMBER_COLUMNS = ("chosen_rating", "rejected_rating", "strength", "soft_label")
BATCH_ROWS = 10_000
_MOST_CHUNKS = 8


def arrow_schema(*, conversational: bool, tools: bool = False, more: Sequence[str] = ()) -> Any:
    """The Arrow schema of `COLUMNS`, texts as strings or as lists of messages, which may hold tools and their calls.

    Args:
        more: which of `OPTIONAL_COLUMNS` are present.
    """
    fields = ("role", "content", *(TOOL_FIELDS if tools else ()))
    text = pa.list_(pa.struct([(name, pa.string()) for name in fields])) if conversational else pa.string()
    types = dict.fromkeys(TEXT_COLUMNS, text) | {name: pa.float64() for name in (*NUMBER_COLUMNS, *OPTIONAL_COLUMNS)}
    return pa.schema([(name, types.get(name, pa.string())) for name in (*COLUMNS, *more)])


class Preferences:
    """Preferences (prompt, chosen, rejected) of varying strength; immutable.

    Args:
        dataset: all `COLUMNS`; prompt, chosen and rejected all strings or all lists of messages. `OPTIONAL_COLUMNS` and
            any others, of any type, may be added.
        report: how they were loaded; methods pass it on unchanged.

    Raises:
        DataError: missing columns, other types, or ids that are not unique. For anything that is not in the schema
            already, use `popmargin.data.load_preferences`.

    Example:
        >>> from popmargin import load_preferences
        >>> preferences = load_preferences([{"prompt": "2+2?", "chosen": "four", "rejected": "5", "id": "sum"}])
        >>> len(preferences), preferences.ids, preferences[0]["chosen"]
        (1, ['sum'], 'four')
    """

    def __init__(self, dataset: "datasets.Dataset", report: LoadReport, *, _scalars: Any = None) -> None:
        found = dataset.column_names
        if not set(COLUMNS) <= set(found):
            raise DataError(
                f"Preferences need the columns {', '.join(COLUMNS)}; found {', '.join(found)}. "
                "Remedy: read the data with popmargin.data.load_preferences."
            )
        known = [*COLUMNS, *(name for name in OPTIONAL_COLUMNS if name in found)]
        ordered = dataset.select_columns([*known, *(name for name in found if name not in known)])
        schema = ordered.features.arrow_schema
        plain = pa.schema([schema.field(name) for name in known])
        kinds = ((False, False), (True, False), (True, True))
        types = [arrow_schema(conversational=of, tools=tools, more=known[len(COLUMNS) :]) for of, tools in kinds]
        if plain not in types:
            raise DataError(
                f"Preferences with column types that differ from the schema: {ordered.features}. "
                "Remedy: read the data with popmargin.data.load_preferences."
            )
        self._dataset = ordered
        self._kind = kinds[types.index(plain)]
        if _scalars is not None:
            self.__dict__["_scalars"] = _scalars
        self._report = report
        if len(set(self.ids)) != len(ordered):
            raise DataError("Preferences with duplicate ids. Remedy: give each row a unique id, or none.")

    @property
    def dataset(self) -> "datasets.Dataset":
        """The rows, as a Hugging Face data set: `COLUMNS`, then existing `OPTIONAL_COLUMNS`, then the others."""
        return self._dataset

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns, `COLUMNS` first."""
        return tuple(self._dataset.column_names)

    @property
    def extra_columns(self) -> tuple[str, ...]:
        """Columns outside the schema, by their names in the data."""
        return tuple(name for name in self.columns if name not in (*COLUMNS, *OPTIONAL_COLUMNS))

    @property
    def report(self) -> LoadReport:
        """How the rows were loaded."""
        return self._report

    @property
    def conversational(self) -> bool:
        """Whether prompts and completions are lists of messages."""
        return self._kind[0]

    @property
    def tools(self) -> bool:
        """Whether messages may have tools and tool calls."""
        return self._kind[1]

    @functools.cached_property
    def _scalars(self) -> Any:
        names = [name for name in (*COLUMNS, *OPTIONAL_COLUMNS) if name in self.columns and name not in TEXT_COLUMNS]
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
        """The rating gaps; if some are unknown, the explicit strengths or the column `margin`, if complete."""
        place = self.margin_column
        return self.rating_gap if place is None else self._numbers(place)

    @property
    def margin_column(self) -> str | None:
        """The column that `margin` reads: "strength" or "margin"; None if it is the rating gap."""
        if np.isnan(self.rating_gap).any():
            for name in ("strength", "margin"):
                if name in self.columns and not np.isnan(self._numbers(name)).any():
                    return name
        return None

    @property
    def soft_label(self) -> Float64[np.ndarray, " N"]:
        """Probability that chosen is better, nan where unknown; loaded values are in [½, 1]."""
        return self._numbers("soft_label")

    def column(self, name: str) -> Float64[np.ndarray, "N ..."]:
        """The numbers of a column (N,), nan where one is missing; of a column of vectors (N, K), of matrices (N, L, K).

        Raises:
            DataError: there is no such column, or it holds something other than numbers.

        Example:
            >>> from popmargin import load_preferences
            >>> row = {"prompt": "2+2?", "chosen": "4", "rejected": "5"}
            >>> load_preferences([row | {"topic": "sums", "level": 2}]).column("level")
            array([2.])
        """
        if name not in self.columns:
            raise DataError(f"The data have no column '{name}'. {did_you_mean(name, self.columns)}")
        if name in self._scalars.column_names:
            return as_numbers(name, self._scalars[name], self._ids)
        column: Any = self._dataset.select_columns([name]).with_format("arrow")[:]
        return as_numbers(name, column[name], self._ids)

    @functools.cached_property
    def _prompt_keys(self) -> list[str]:
        return [prompt_key(prompt) for rows in self.batches("prompt") for prompt in rows["prompt"]]

    @property
    def prompt_keys(self) -> list[str]:
        """Canonical text of each row's prompt; rows of one prompt share it."""
        return list(self._prompt_keys)

    @property
    def clusters(self) -> list[str]:
        """Groups of dependent rows, for all intervals: rows of a cluster, if the data names any, otherwise of a prompt.

        Raises:
            DataError: rows of one prompt are in several clusters, which then would not be independent.
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

    def batches(self, *columns: str, size: int = BATCH_ROWS, start: int = 0) -> Iterator[dict[str, list[Any]]]:
        """The rows from `start` on as Python values, `size` at a time; all columns if none are named."""
        table = self._dataset.select_columns(list(columns or self.columns)).with_format("arrow")
        for first in range(start, len(table), size):
            rows = cast(Any, table[first : first + size]).to_pydict()
            if self.tools:
                rows |= {name: list(map(known_fields, rows[name])) for name in TEXT_COLUMNS if name in rows}
            yield rows

    @functools.cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.sha256()
        for batch in self.batches(*COLUMNS):
            for row in zip(*(batch[name] for name in COLUMNS), strict=True):
                row = row if row[-1] is not None else row[:-1]  # as it was before there were clusters
                digest.update(json.dumps(row, ensure_ascii=False, sort_keys=True).encode() + b"\n")
        return digest.hexdigest()

    def fingerprint(self) -> str:
        """SHA-256 of `COLUMNS`, in hex: the same for the same rows, regardless of file and Arrow chunks.

        Other columns do not count; a run stores `popmargin.training.fingerprints.column_facts` of those that it uses.
        """
        return self._fingerprint

    def select(self, indices: Sequence[int] | np.ndarray) -> "Preferences":
        """The rows with these numbers, in this order.

        Raises:
            DataError: a number is out of range, or given twice.
        """
        chosen = row_numbers(indices)
        outside = [index for index in chosen if not 0 <= index < len(self)]
        if outside:
            raise DataError(f"Row {outside[0]} does not exist: there are {counted(len(self), 'row')}, counted from 0.")
        # Fingerprint and small columns are passed on: `datasets` would pickle the indices and gather row by row.
        digest = hashlib.blake2b("\n".join([self._report.source, *(self._ids[i] for i in chosen)]).encode())
        subset = self._dataset.select(chosen, new_fingerprint=digest.hexdigest()[:32])
        child = Preferences(subset, self._report, _scalars=self._scalars.take(pa.array(chosen, pa.int64())))
        if "_prompt_keys" in self.__dict__:
            child.__dict__["_prompt_keys"] = [self._prompt_keys[index] for index in chosen]
        return child

    def with_columns(self, columns: Mapping[str, Any] | None = None, /, **named: Any) -> "Preferences":
        """The preferences with columns added or replaced.

        Args:
            columns: name -> N values (for vectors an array (N, K)), or one text or number for all rows; None removes
                the column, or empties one of `COLUMNS`.
            named: the same, for names that are Python identifiers.

        Raises:
            DataError: another number of values, of another type than the schema's, or not in the column's range; empty
                ids or texts, or two equal responses.

        Example:
            >>> from popmargin import load_preferences
            >>> data = load_preferences([{"prompt": "2+2?", "chosen": "4", "rejected": "5"}])
            >>> data.with_columns(weight=[0.5], topic="sums")[0]["topic"]
            'sums'
        """
        given = {**(columns or {}), **named}
        schema = arrow_schema(conversational=self.conversational, tools=self.tools, more=OPTIONAL_COLUMNS)
        emptied = {name: [None] * len(self) for name, values in given.items() if values is None and name in COLUMNS}
        table = put_columns(pa.concat_tables(self._tables()), given | emptied, schema, self._ids)
        features = {name: feature for name, feature in self._dataset.features.items() if name not in given}
        return self._made_of(table, features, keys="prompt" not in given)

    def swap(self, mask: Bool[np.ndarray, " N"] | Sequence[bool]) -> "Preferences":
        """The preferences with chosen and rejected swapped where the mask is true, and all that belongs to them.

        Texts and ratings trade places, and so do any two columns named for chosen and rejected (chosen_model and
        rejected_model); a soft label p becomes 1 − p, and strength and margin change sign. Ids and all other columns
        stay.

        Args:
            mask: (N,).

        Raises:
            DataError: not one boolean per row.

        Example:
            >>> from popmargin import load_preferences
            >>> data = load_preferences([{"prompt": "2+2?", "chosen": "4", "rejected": "5", "margin": 2.0}])
            >>> swapped = data.swap([True])
            >>> swapped[0]["chosen"], swapped.column("margin").tolist()
            ('5', [-2.0])
        """
        return self._exchanged(mask, keep=())

    def flip(self, share: float, seed: int) -> "Preferences":
        """The preferences with a random share of the labels flipped, as if an annotator had confused the responses.

        Only which response is called chosen changes: the texts trade places, along with columns that describe a
        response (chosen_model). The data's judgement (ratings, strength, margin, soft label) stays where it is and now
        applies to the other text. `swap` exchanges that too, so its rows mean the same as before.

        Args:
            share: probability for each row, at least 0 and below 1.
            seed: of the draw; see `flipped`.

        Raises:
            DataError: the share is out of range.

        Example:
            >>> from popmargin import load_preferences
            >>> data = load_preferences([{"prompt": "2+2?", "chosen": "4", "rejected": "5", "chosen_rating": 3.0}])
            >>> flipped = data.flip(0.999, seed=0)
            >>> flipped[0]["chosen"], flipped[0]["chosen_rating"]
            ('5', 3.0)
        """
        return self._exchanged(flipped(len(self), share, seed), keep=CLAIMS) if share else self

    def _exchanged(self, mask: Any, keep: Sequence[str]) -> "Preferences":
        rows = np.asarray(mask)
        if rows.shape != (len(self),) or (rows.dtype != np.bool_ and len(self)):
            raise DataError(f"The mask has shape {rows.shape} of {rows.dtype}; give one truth value for each row.")
        if not rows.any():
            return self
        tables = [
            exchange_rows(table, rows[start : start + BATCH_ROWS], keep=keep)
            for start, table in zip(range(0, len(self), BATCH_ROWS), self._tables(), strict=True)
        ]
        return self._made_of(pa.concat_tables(tables), dict(self._dataset.features), keys=True)

    @functools.cached_property
    def _rows(self) -> Any:
        return self._dataset.with_format("arrow")

    def _tables(self) -> Iterator[Any]:
        """The rows as Arrow tables, `BATCH_ROWS` at a time; otherwise each selected row would be its own chunk."""
        for start in range(0, max(len(self), 1), BATCH_ROWS):
            table: Any = self._rows[start : start + BATCH_ROWS]
            yield table.combine_chunks() if table["id"].num_chunks > _MOST_CHUNKS else table

    def _made_of(self, table: Any, features: dict[str, Any], *, keys: bool) -> "Preferences":
        """Preferences from a changed table; `keys` says whether the prompts are unchanged."""
        made = Preferences(as_dataset(table, features), self._report)
        if keys and "_prompt_keys" in self.__dict__:
            made.__dict__["_prompt_keys"] = self._prompt_keys
        return made

    def save(self, path: str | Path) -> None:
        """Write the rows as `.parquet`, `.jsonl` or `.jsonl.gz`; the file appears only when it is complete.

        Images are written as they are held: by their bytes, or by their absolute paths.

        Raises:
            ConfigError: the path has another suffix.
            DataError: a column has bytes, which JSON cannot hold.
            RunError: the path is a folder, or cannot be written.
        """
        schema = self._dataset.features.arrow_schema
        schema = schema if self.extra_columns else schema.remove_metadata()
        # With other columns, all `COLUMNS` are written, or one of the others could be read in their place.
        always = COLUMNS if len(self.columns) > len(COLUMNS) else ()
        tables = self._tables()
        if not str(path).lower().endswith(".parquet"):
            schema, tables = images_by_path(schema, list(tables))
        save_table(path, schema, tables, always=always, once=self.extra_columns, texts=TEXT_COLUMNS)

    def __len__(self) -> int:
        return len(self._dataset)

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> "Preferences": ...
    def __getitem__(self, index: int | slice) -> "dict[str, Any] | Preferences":
        """One row as a dictionary of all columns, images and the like as they are stored; or the rows of a slice."""
        place = place_of(index, len(self))
        if isinstance(place, range):
            return self.select(place)
        row: dict[str, Any] = self._rows[[place]].to_pylist()[0]
        return {name: known_fields(value) if name in TEXT_COLUMNS else value for name, value in row.items()}

    def __repr__(self) -> str:
        kind = "images" if holds_images(self) else "conversational" if self.conversational else "text"
        return f"Preferences({counted(len(self), 'row')}, {kind}, from {self._report.source})"


def holds_images(preferences: Preferences) -> bool:
    """Whether the responses are names of images, which stand beside them."""
    if not len(preferences) or not set(IMAGE_COLUMNS) <= set(preferences.columns):
        return False
    row = preferences[0]
    return is_image_name(row["chosen"]) and is_image_name(row["rejected"])
