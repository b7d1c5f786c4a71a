"""Several responses to each prompt, with named scores: made by samplers and raters, and turned into preferences.

Axis suffixes: P prompts, n responses (all those of one prompt together).
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import pyarrow as pa
from jaxtyping import Float64, Int64

from popmargin.data.conversation import Text, prompt_key
from popmargin.data.pairs import Pairing, check_pairing
from popmargin.data.read_responses import read_responses
from popmargin.data.response_pairs import pairs_of
from popmargin.data.response_parts import (
    Flat,
    ResponseParts,
    changed,
    column_values,
    field_values,
    identical,
    joined,
    refuse_same_names,
    score_values,
    summed_up,
)
from popmargin.data.responses_table import table_of
from popmargin.data.row_numbers import place_of, row_numbers
from popmargin.data.saving import SAVE_SUFFIXES, save_table
from popmargin.data.schema import BATCH_ROWS, Preferences
from popmargin.errors import DataError, counted, did_you_mean
from popmargin.files import check_suffix


class Responses:
    """Prompts with any number of responses each; immutable.

    Args:
        prompts: texts or messages (P,).
        responses: for each prompt its responses (P lists), texts or messages.
        scores: name -> a number per response, in lists like the responses or flat (n,), nan or None if missing; higher
            is better.
        finished: whether a response ended by itself, in the same form as scores; None if unknown.
        tokens: its length in tokens; None if unknown.
        source: its origin, such as a model's name: one for all, or one per response.
        round: of the iteration that made it, in the same form.
        fields: name -> further facts about each response, in the same form.
        columns: name -> one value per prompt (P,), such as an id or a topic; passed on to preferences.

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
            raise DataError(
                f"{counted(len(prompts), 'prompt')}, but responses to {len(responses)}. Give a list for each prompt."
            )
        self._prompts = list(prompts)
        self._counts = np.array([len(of_prompt) for of_prompt in responses], dtype=np.int64)
        self._ends = np.concatenate([[0], np.cumsum(self._counts)])
        self._texts = [text for of_prompt in responses for text in of_prompt]
        self._scores = score_values(scores or {}, self._counts, self._texts)
        given = {"finished": finished, "tokens": tokens, "source": source, "round": round, **(fields or {})}
        self._facts = field_values(given, self._counts)
        self._columns = column_values(columns or {}, len(self._prompts))
        refuse_same_names([*self._scores, *self._facts, *self._columns, "prompt", "responses", "text"])

    @property
    def prompts(self) -> list[Text]:
        """The prompts (P,)."""
        return list(self._prompts)

    @property
    def prompt_keys(self) -> list[str]:
        """Canonical text of each prompt (P,), as in `Preferences.prompt_keys`."""
        return [prompt_key(prompt) for prompt in self._prompts]

    @property
    def clusters(self) -> list[str]:
        """Groups of dependent prompts (P,), for all intervals: the column `cluster`, or else the prompt."""
        named = self._columns.get("cluster", [None] * len(self))
        return [name or key for name, key in zip(named, self.prompt_keys, strict=True)]

    @property
    def texts(self) -> list[Text]:
        """All responses (n,), those of a prompt together."""
        return list(self._texts)

    @property
    def counts(self) -> Int64[np.ndarray, " P"]:
        """Number of responses to each prompt (P,)."""
        return self._counts.copy()

    @property
    def unfinished(self) -> Int64[np.ndarray, " P"]:
        """Number of truncated responses to each prompt; unknown ones do not count.

        Raises:
            DataError: it is not known of any (`finished`).
        """
        cut = [ended is not None and not ended for ended in self.field("finished")]
        return np.diff(np.cumsum([0, *cut])[self._ends])

    @property
    def score_names(self) -> tuple[str, ...]:
        """Names of the scores."""
        return tuple(self._scores)

    def score(self, name: str) -> Float64[np.ndarray, " n"]:
        """A score of all responses, nan where missing.

        Raises:
            DataError: there is no score of that name.
        """
        if name not in self._scores:
            known = did_you_mean(name, self._scores) if self._scores else "They have none yet: data rate adds one."
            raise DataError(f"The responses have no score '{name}'. {known}")
        return self._scores[name].copy()

    @property
    def field_names(self) -> tuple[str, ...]:
        """Facts about each response besides its scores: finished, tokens, source, round and other fields."""
        return tuple(self._facts)

    def field(self, name: str) -> list[Any]:
        """A field of all responses (n,), such as `tokens`.

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
            DataError: there is no column of that name.
        """
        if name not in self._columns:
            raise DataError(f"The prompts have no column '{name}'. {did_you_mean(name, self._columns)}")
        return list(self._columns[name])

    def select(self, indices: Sequence[int] | np.ndarray) -> "Responses":
        """The prompts with these numbers and all their responses, in this order.

        Raises:
            DataError: a number is out of range.
        """
        rows = row_numbers(indices)
        outside = [row for row in rows if not 0 <= row < len(self)]
        if outside:
            raise DataError(f"Prompt {outside[0]} does not exist: there are {len(self)}, counted from 0.")
        return self._take(rows, [list(self._places(row)) for row in rows])

    def best(self, by: str) -> "Responses":
        """The highest-scored response to each prompt, the earliest if equal; unscored ones are ignored.

        Args:
            by: name of the score.

        Raises:
            DataError: no such score, or a prompt without any scored response.

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
        """The responses with scores added or replaced; None removes one.

        Raises:
            DataError: as for the class.

        Example:
            >>> responses = Responses(["2+2?"], [["5", "4"]])
            >>> responses.with_scores(reward=[-2.0, 1.0]).score_names
            ('reward',)
        """
        return self._with(scores=changed(self._scores, scores, named))

    def with_fields(self, fields: Mapping[str, Any] | None = None, /, **named: Any) -> "Responses":
        """The same for other fields of each response: finished, tokens, source, round or a custom field.

        Example:
            >>> responses = Responses(["2+2?"], [["5", "4"]])
            >>> responses.with_fields(source="my-model", finished=[True, False]).unfinished.tolist()
            [1]
        """
        return self._with(fields=changed(self._facts, fields, named))

    def with_columns(self, columns: Mapping[str, Any] | None = None, /, **named: Any) -> "Responses":
        """The same for columns of the prompts (P,)."""
        return self._with(columns=changed(self._columns, columns, named))

    @staticmethod
    def concat(parts: Iterable["Responses"], *, merge: bool = True) -> "Responses":
        """All responses of several tables, such as those of several rounds or models.

        The responses to a prompt are merged, in the order of the parts; prompts are in order of first appearance; with
        `merge=False` every prompt of every part is a row of its own. Fields that only some parts have are None in the
        others, scores nan. A column must have the same value for a prompt in all parts that have it.

        Raises:
            DataError: there are no parts, or a column differs.

        Example:
            >>> first = Responses(["2+2?", "3+3?"], [["4"], ["6"]], round=1)
            >>> both = Responses.concat([first, Responses(["2+2?"], [["5"]], round=2)])
            >>> both[0]["responses"]
            [{'text': '4', 'round': 1}, {'text': '5', 'round': 2}]
        """
        found = [part._parts() for part in parts]
        if not found:
            raise DataError("There are no responses to put together. Give at least one table.")
        return Responses._of(joined(found, merge=merge))

    def distinct(self) -> "Responses":
        """Each response to a prompt once, with its number of occurrences in the field `count`.

        Of identical ones the first is kept, with its fields; scores are averaged. Existing counts add up, so distinct
        responses can be concatenated and made distinct again.

        Example:
            >>> drawn = Responses(["2+2?"], [["4", "5", "4"]], {"reward": [1.0, 0.0, 1.0]})
            >>> drawn.distinct().texts, drawn.distinct().field("count")
            (['4', '5'], [2, 1])
        """
        groups = identical(self._texts, self._ends)
        kept = self._take(range(len(self)), [[places[0] for places in of_prompt] for of_prompt in groups])
        scores, count = summed_up(groups, self._scores, self._facts.get("count", [1] * len(self._texts)))
        return kept.with_scores(scores).with_fields(count=count)

    def pairs(
        self,
        pairs: Pairing,
        *,
        by: str,
        min_gap: float = 0.0,
        seed: int = 0,
        unfinished: Literal["keep", "drop"] = "keep",
    ) -> Preferences:
        """Preferences between responses to a prompt, as `load_preferences` makes them from rated responses.

        The score becomes the rating; every other score and field of a response becomes a column of its side
        (chosen_tokens, rejected_source), and every column of the prompt one of the preference. Anything else is
        dropped and counted in the preferences' report: ties, gaps below `min_gap`, identical or empty responses,
        prompts with fewer than two scored responses.

        Args:
            pairs: which pairs; see `popmargin.data.pairs.make_pairs`.
            by: name of the score that says which response is better.
            min_gap: minimum difference in score.
            seed: of "best_vs_random".
            unfinished: "drop" leaves out and counts pairs with a response that was cut at the token limit.

        Raises:
            DataError: no such score, no preference is left, or nothing says which responses are finished.
            ConfigError: an unknown way of pairing, or a minimum gap that is negative or not a number.

        Example:
            >>> responses = Responses(["2+2?", "3+3?"], [["4", "5"], ["6", "6"]], {"reward": [1.0, 0.0, 2.0, 1.0]})
            >>> data = responses.pairs("best_vs_worst", by="reward")
            >>> len(data), data.report.problem_counts
            (1, {'identical': 1})
        """
        check_pairing(pairs, min_gap)
        self.score(by)
        if unfinished == "drop":
            self.field("finished")
        others = [name for name in (*self._scores, *self._facts) if name != by]
        how: Any = {"min_gap": min_gap, "seed": seed, "unfinished": unfinished}
        return pairs_of(self, others, list(self._columns), pairs, by=by, **how)

    def save(self, path: str | Path) -> None:
        """Write one row per prompt, as `.parquet`, `.jsonl` or `.jsonl.gz`: prompt, columns, list of responses.

        `load_preferences(path, columns={"rating": NAME})` reads the file too.

        Raises:
            ConfigError: the path has another suffix.
            DataError: prompts or responses that are partly texts and partly messages.
            RunError: the path is a folder, or cannot be written.
        """
        check_suffix(path, SAVE_SUFFIXES)
        table = self.to_arrow()
        parts = (pa.Table.from_batches([rows]) for rows in table.to_batches(max_chunksize=BATCH_ROWS))
        save_table(path, table.schema, parts, once=table.column_names)

    def to_arrow(self) -> Any:
        """The `pyarrow.Table` that `save` writes; errors as there.

        Example:
            >>> Responses(["2+2?"], [["4"]], {"reward": [1.0]}).to_arrow().to_pylist()
            [{'prompt': '2+2?', 'responses': [{'text': '4', 'reward': 1.0}]}]
        """
        return table_of(list(self), self._parts())

    @staticmethod
    def load(
        source: str | Path | list[dict[str, Any]], *, split: str | None = None, columns: Mapping[str, str] | None = None
    ) -> "Responses":
        """Read responses: one row per prompt, as in `save` and a run's generations.parquet, or one row per response.

        With one row per response, the rows of a prompt must be adjacent; values that are equal in all rows of every
        prompt become columns of the prompts. Numbers are scores; ranks become the score `rating` with a minus sign.

        Args:
            source: a file, folder, hub id or list of dictionaries, as for `load_preferences`.
            split: the split of a data set that has several.
            columns: our field (prompt, responses, response, text) -> the source's column.

        Raises:
            DataError: unreadable, without prompts and responses, or with an invalid row.

        Example:
            >>> Responses.load([{"prompt": "2+2?", "responses": [{"text": "4", "reward": 1.0}, {"text": "5"}]}])
            Responses(1 prompt, 2 responses, scores: reward)
        """
        return Responses._of(read_responses(source, split=split, columns=columns))

    @staticmethod
    def _of(parts: ResponseParts) -> "Responses":
        return Responses(parts.prompts, parts.responses, parts.scores, fields=parts.fields, columns=parts.columns)

    def _parts(self) -> ResponseParts:
        texts = [[self._texts[place] for place in self._places(row)] for row in range(len(self))]
        return ResponseParts(self._prompts, texts, self._scores, self._facts, self._columns)

    def _with(self, **parts: Any) -> "Responses":
        return Responses._of(self._parts()._replace(**parts))

    def _places(self, row: int) -> range:
        return range(int(self._ends[row]), int(self._ends[row + 1]))

    def __len__(self) -> int:
        return len(self._prompts)

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> "Responses": ...
    def __getitem__(self, index: int | slice) -> "dict[str, Any] | Responses":
        """One prompt with its columns and responses, as `save` writes it, a missing score as None; or a slice."""
        number = place_of(index, len(self), "Prompt")
        if isinstance(number, range):
            return self.select(number)
        row: dict[str, Any] = {"prompt": self._prompts[number]}
        row |= {name: values[number] for name, values in self._columns.items()}
        row["responses"] = [
            {
                "text": self._texts[place],
                **{name: None if math.isnan(of[place]) else float(of[place]) for name, of in self._scores.items()},
                **{name: values[place] for name, values in self._facts.items()},
            }
            for place in self._places(number)
        ]
        return row

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[row] for row in range(len(self)))

    def __repr__(self) -> str:
        scores = ", ".join(self._scores) or "none"
        size = f"{counted(len(self), 'prompt')}, {counted(len(self._texts), 'response')}"
        return f"Responses({size}, scores: {scores})"

    def _take(self, rows: Sequence[int], places: Sequence[Sequence[int]]) -> "Responses":
        flat = [place for of_prompt in places for place in of_prompt]
        return Responses(
            [self._prompts[row] for row in rows],
            [[self._texts[place] for place in of_prompt] for of_prompt in places],
            {name: values[flat] for name, values in self._scores.items()},
            fields={name: Flat(values[place] for place in flat) for name, values in self._facts.items()},
            columns={name: [values[row] for row in rows] for name, values in self._columns.items()},
        )
