"""Several responses to each prompt, with scores by name: what samplers and raters make, and preferences are made of.

Axis suffixes: P prompts, n responses (all those of one prompt together).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float64, Int64

from popmargin.data.collect import Collector
from popmargin.data.conversation import Text, holds_tools
from popmargin.data.formats import Reader
from popmargin.data.pairs import Pairing, check_pairing
from popmargin.data.read_responses import read_responses
from popmargin.data.saving import save_table
from popmargin.data.schema import BATCH_ROWS, Preferences, arrow_schema, row_numbers
from popmargin.data.sources import RawBatch, Source
from popmargin.data.validate import describe_problems
from popmargin.errors import DataError, did_you_mean

_KINDS: dict[str, Any] = {"finished": pa.bool_(), "tokens": pa.int64(), "source": pa.string(), "round": pa.int64()}


class Responses:
    """Prompts with any number of responses each; immutable.

    Args:
        prompts: texts or messages (P,).
        responses: for each prompt its responses (P lists), texts or messages.
        scores: name -> a number for each response, in lists as the responses are or flat (n,), nan or None where
            there is none; higher is better.
        finished: whether a response ended by itself, as the scores are given; None if unknown.
        tokens: its length in tokens; None if unknown.
        source: where it is from, such as a model's name: one for all, or one for each.
        round: of an iteration that made it, likewise.
        fields: name -> what else is known of each response, likewise.
        columns: name -> one value for each prompt (P,), such as an id or a topic; these go on to the preferences.

    Raises:
        DataError: the parts differ in number, a score is infinite, or a name is used twice.

    Example:
        >>> responses = Responses(["2+2?"], [["4", "5", "four"]], {"reward": [[1.0, -2.0, 0.5]]}, source="mine")
        >>> responses
        Responses(1 prompt, 3 responses, scores: reward)
        >>> responses.pairs("best_vs_worst", by="reward").strength.tolist()
        [3.0]
    """

    def __init__(
        self,
        prompts: Sequence[Text],
        responses: Sequence[Sequence[Text]],
        scores: Mapping[str, Any] | None = None,
        *,
        finished: Any = None,
        tokens: Any = None,
        source: Any = None,
        round: Any = None,
        fields: Mapping[str, Any] | None = None,
        columns: Mapping[str, Sequence[Any]] | None = None,
    ) -> None:
        alone = [of_prompt for of_prompt in responses if isinstance(of_prompt, str)]
        if isinstance(prompts, str) or alone:
            raise DataError(f"'{prompts if isinstance(prompts, str) else alone[0]}' is one text, not a list of texts.")
        if len(prompts) != len(responses):
            raise DataError(f"{len(prompts)} prompts, but responses to {len(responses)}. Give a list for each prompt.")
        self._prompts = list(prompts)
        self._counts = np.array([len(of_prompt) for of_prompt in responses], dtype=np.int64)
        self._ends = np.concatenate([[0], np.cumsum(self._counts)])
        self._texts = [text for of_prompt in responses for text in of_prompt]
        self._scores = {name: self._numbers(name, values) for name, values in (scores or {}).items()}
        given = {"finished": finished, "tokens": tokens, "source": source, "round": round, **(fields or {})}
        self._facts = {name: self._flat(name, values) for name, values in given.items() if values is not None}
        self._columns = {name: list(values) for name, values in (columns or {}).items()}
        for name, values in self._columns.items():
            if len(values) != len(self._prompts):
                raise DataError(f"{len(values)} values of '{name}' for {len(self._prompts)} prompts.")
        names = [*self._scores, *self._facts, *self._columns, "prompt", "responses", "text"]
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise DataError(f"The name '{twice[0]}' is used twice in responses. Give the score or column another one.")

    def _flat(self, name: str, values: Any) -> list[Any]:
        """One value for each response, out of one for all, a list for each prompt, or a flat list."""
        count = len(self._texts)
        if isinstance(values, str | bool | int | float):
            return [values] * count
        listed: list[Any] = values.tolist() if isinstance(values, np.ndarray) else list(values)
        if len(listed) == len(self._counts) and all(isinstance(item, list | tuple | np.ndarray) for item in listed):
            for number, (item, expected) in enumerate(zip(listed, self._counts, strict=True)):
                if len(item) != expected:
                    raise DataError(
                        f"{len(item)} values of '{name}' for prompt {number}, which has {expected} responses."
                    )
            return [value for item in listed for value in item]
        if len(listed) != count:
            raise DataError(f"{len(listed)} values of '{name}' for {count} responses.")
        return listed

    def _numbers(self, name: str, values: Any) -> Float64[np.ndarray, " n"]:
        flat = np.array([math.nan if value is None else value for value in self._flat(name, values)], dtype=np.float64)
        wrong = np.flatnonzero(np.isinf(flat))
        if len(wrong):
            raise DataError(
                f"The score '{name}' of response {wrong[0]} is infinite ({self._texts[wrong[0]]!r:.80}). Look at what "
                "scored it, or give nan for responses without a score."
            )
        return flat

    @property
    def prompts(self) -> list[Text]:
        """The prompts (P,)."""
        return list(self._prompts)

    @property
    def texts(self) -> list[Text]:
        """All responses (n,), those of a prompt together."""
        return list(self._texts)

    @property
    def counts(self) -> Int64[np.ndarray, " P"]:
        """How many responses each prompt has."""
        return self._counts.copy()

    @property
    def score_names(self) -> tuple[str, ...]:
        """Names of the scores."""
        return tuple(self._scores)

    def score(self, name: str) -> Float64[np.ndarray, " n"]:
        """A score of all responses, nan where there is none.

        Raises:
            DataError: there is no score of that name.
        """
        if name not in self._scores:
            raise DataError(f"The responses have no score '{name}'. {did_you_mean(name, self._scores)}")
        return self._scores[name].copy()

    @property
    def field_names(self) -> tuple[str, ...]:
        """What is known of each response beside its scores: finished, tokens, source, round and other fields."""
        return tuple(self._facts)

    def field(self, name: str) -> list[Any]:
        """What is known of all responses (n,), such as `tokens`.

        Raises:
            DataError: it is not known.
        """
        if name not in self._facts:
            raise DataError(f"The responses have no '{name}'. {did_you_mean(name, self._facts)}")
        return list(self._facts[name])

    @property
    def column_names(self) -> tuple[str, ...]:
        """Columns of the prompts."""
        return tuple(self._columns)

    def column(self, name: str) -> list[Any]:
        """A column of the prompts (P,).

        Raises:
            DataError: there is none of that name.
        """
        if name not in self._columns:
            raise DataError(f"The prompts have no column '{name}'. {did_you_mean(name, self._columns)}")
        return list(self._columns[name])

    def select(self, indices: Sequence[int] | np.ndarray) -> "Responses":
        """The prompts with these numbers and all their responses, in this order.

        Raises:
            DataError: a number out of range.
        """
        rows = row_numbers(indices)
        outside = [row for row in rows if not 0 <= row < len(self)]
        if outside:
            raise DataError(f"Prompt {outside[0]} does not exist: there are {len(self)}, counted from 0.")
        return self._take(rows, [list(self._places(row)) for row in rows])

    def best(self, by: str) -> "Responses":
        """The highest scored response to each prompt, the earlier one of equals; unscored ones are passed over.

        Args:
            by: name of the score.

        Raises:
            DataError: no such score, or a prompt whose responses all have none.

        Example:
            >>> Responses(["2+2?"], [["5", "4"]], {"reward": [-2.0, 1.0]}).best("reward").texts
            ['4']
        """
        score = self.score(by)
        places: list[list[int]] = []
        for row in range(len(self)):
            scored = [place for place in self._places(row) if not math.isnan(score[place])]
            if not scored:
                raise DataError(f"No response to prompt {row} has a score '{by}'. Leave it out with select.")
            places.append([max(scored, key=lambda place: (score[place], -place))])
        return self._take(range(len(self)), places)

    def with_scores(self, scores: Mapping[str, Any] | None = None, /, **named: Any) -> "Responses":
        """The responses with further scores, or others in place of those they have; None takes one away.

        Raises:
            DataError: as for the class.

        Example:
            >>> responses = Responses(["2+2?"], [["5", "4"]])
            >>> responses.with_scores(reward=[-2.0, 1.0]).score_names
            ('reward',)
        """
        changed = {**self._scores, **(scores or {}), **named}
        return Responses(
            self._prompts,
            [[self._texts[place] for place in self._places(row)] for row in range(len(self))],
            {name: values for name, values in changed.items() if values is not None},
            fields=self._facts,
            columns=self._columns,
        )

    def pairs(self, pairs: Pairing, *, by: str, min_gap: float = 0.0, seed: int = 0) -> Preferences:
        """Preferences between responses to a prompt, as `load_preferences` makes them of rated responses.

        Ratings are the score; every other score and field of a response becomes a column of its side (chosen_tokens,
        rejected_source), and every column of the prompt one of the preference. What is no preference is left out, and
        the report of the preferences counts it: ties, gaps below `min_gap`, identical or empty responses, prompts with
        fewer than two scored responses.

        Args:
            pairs: which: see `popmargin.data.pairs.make_pairs`.
            by: name of the score that says which response is better.
            min_gap: least difference of the score.
            seed: of "best_vs_random".

        Raises:
            DataError: no such score, or no preference is left.
            ConfigError: an unknown way of pairing, or a minimum gap that is negative or no number.

        Example:
            >>> responses = Responses(["2+2?", "3+3?"], [["4", "5"], ["6", "6"]], {"reward": [1.0, 0.0, 2.0, 1.0]})
            >>> data = responses.pairs("best_vs_worst", by="reward")
            >>> len(data), data.report.problem_counts
            (1, {'identical': 1})
        """
        check_pairing(pairs, min_gap)
        self.score(by)
        others = tuple(name for name in (*self._scores, *self._facts) if name != by)
        names = {"prompt": "prompt", "responses": "responses"}
        own = {name: name for name in ("id", "cluster", "weight", "annotator") if name in self._columns}
        reader = Reader(
            names | own, nested={"text": "text", "rating": by}, pairs=pairs, min_gap=min_gap, seed=seed, fields=others
        )
        source = Source(f"the responses, by '{by}'", "memory", False, False, lambda: iter(()))
        collector = Collector(source, "responses", reader, {"rating": by, "text": "text"} | names | own)
        for start in range(0, len(self), BATCH_ROWS):
            numbers = list(range(start, min(start + BATCH_ROWS, len(self))))
            collector.add(RawBatch([self[number] for number in numbers], numbers))
        preferences, report = collector.finish()
        if preferences is None:
            raise DataError(
                f"No preference is left of {report.rows_in} pairs.\n{describe_problems(report.problems)}\n"
                "Remedy: score the responses, or sample more different ones."
            )
        return preferences

    def save(self, path: str | Path) -> None:
        """Write one row a prompt, as `.parquet`, `.jsonl` or `.jsonl.gz`: prompt, columns, and its responses as a list.

        `load_preferences(path, columns={"rating": NAME})` reads the file too.

        Raises:
            ConfigError: the path ends otherwise.
            RunError: the path is a folder, or cannot be written.
        """
        talks = [not isinstance(text, str) for text in (*self._prompts, *self._texts)]
        tools = holds_tools([*self._prompts, *self._texts])
        of_prompt, of_response = (
            arrow_schema(conversational=any(kind), tools=tools).field("prompt").type
            for kind in (talks[: len(self)], talks[len(self) :])
        )
        fields = [("text", of_response)] + [(name, pa.float64()) for name in self._scores]
        fields += [(name, _KINDS[name] if name in _KINDS else pa.array(self._facts[name]).type) for name in self._facts]
        columns = [(name, pa.array(values).type) for name, values in self._columns.items()]
        schema = pa.schema([("prompt", of_prompt), *columns, ("responses", pa.list_(pa.struct(fields)))])
        try:
            table = pa.Table.from_pylist(list(self), schema=schema)
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise DataError(
                f"{path}: the responses cannot be a table ({error}). Give all prompts as texts or all as messages, and "
                "all responses likewise."
            ) from error
        save_table(path, schema, (pa.Table.from_batches([rows]) for rows in table.to_batches(max_chunksize=BATCH_ROWS)))

    @staticmethod
    def load(
        source: str | Path | list[dict[str, Any]], *, split: str | None = None, columns: Mapping[str, str] | None = None
    ) -> "Responses":
        """Read responses: one row a prompt, as `save` writes it, or one row a response, as a run's generations.parquet.

        Of one row a response, the rows of a prompt must follow each other; what is the same in all rows of every prompt
        is a column of the prompts. Numbers are scores, ranks become the score `rating` with a minus.

        Args:
            source: a file, folder, hub id or list of dictionaries, as for `load_preferences`.
            split: the split of a data set that has several.
            columns: our field (prompt, responses, response, text) -> the source's column.

        Raises:
            DataError: unreadable, without prompts and responses, or a row that is none.

        Example:
            >>> Responses.load([{"prompt": "2+2?", "responses": [{"text": "4", "reward": 1.0}, {"text": "5"}]}])
            Responses(1 prompt, 2 responses, scores: reward)
        """
        read = read_responses(source, split=split, columns=columns)
        return Responses(read.prompts, read.responses, read.scores, fields=read.fields, columns=read.columns)

    def _places(self, row: int) -> range:
        return range(int(self._ends[row]), int(self._ends[row + 1]))

    def __len__(self) -> int:
        return len(self._prompts)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One prompt with its columns and responses, as `save` writes it; a score that is missing is None."""
        row: dict[str, Any] = {"prompt": self._prompts[index]}
        row |= {name: values[index] for name, values in self._columns.items()}
        row["responses"] = [
            {
                "text": self._texts[place],
                **{name: None if math.isnan(of[place]) else float(of[place]) for name, of in self._scores.items()},
                **{name: values[place] for name, values in self._facts.items()},
            }
            for place in self._places(index % len(self))
        ]
        return row

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[row] for row in range(len(self)))

    def __repr__(self) -> str:
        scores = ", ".join(self._scores) or "none"
        prompts = "1 prompt" if len(self) == 1 else f"{len(self)} prompts"
        return f"Responses({prompts}, {len(self._texts)} responses, scores: {scores})"

    def _take(self, rows: Sequence[int], places: Sequence[Sequence[int]]) -> "Responses":
        flat = [place for of_prompt in places for place in of_prompt]
        return Responses(
            [self._prompts[row] for row in rows],
            [[self._texts[place] for place in of_prompt] for of_prompt in places],
            {name: values[flat] for name, values in self._scores.items()},
            fields={name: [values[place] for place in flat] for name, values in self._facts.items()},
            columns={name: [values[row] for row in rows] for name, values in self._columns.items()},
        )
