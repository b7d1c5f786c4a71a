"""A ranking of responses: the best and the worst to each prompt, and every comparison that led there."""

import functools
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from popmargin.account import Step
from popmargin.data.conversation import Text, prompt_key
from popmargin.data.questions import Verdict
from popmargin.data.responses import Responses
from popmargin.data.saving import save_table
from popmargin.data.schema import Preferences
from popmargin.errors import DataError
from popmargin.label.ranking.contests import Contest, Plan
from popmargin.label.ranking.schemes import Outcome, Pair, Standing, turned, won
from popmargin.pop.fit import fit_arrays

KEPT = "kept"
SAME = "best and worst are the same response"
LOST = "the worst beat the best in their direct comparison"
UNREAD = "the direct comparison has no readable answer"
EVEN = "best and worst won the same share"
NAMES = ("won", "bt", "comparisons", "calls", "ties", "no_outcome", "order_of_play", "scheme", "seed", "bt_gap")
"""Columns that a ranking adds; responses that come with one of them are refused."""


@dataclass(frozen=True)
class PromptRanking:
    """The ranking of one prompt's responses.

    Attributes:
        contest: who played, in which order.
        standing: who is best and worst, and all that was played.
        games: pair -> outcome of every pair that was compared, each once.
        answers: (shown first, shown second) -> the answer to this ordered question.
        fate: "kept", or why no preference comes of it.
    """

    contest: Contest
    standing: Standing
    games: Mapping[Pair, Outcome]
    answers: Mapping[Pair, Verdict]
    fate: str

    @property
    def calls(self) -> int:
        """Ordered questions of this prompt, each once."""
        return len(self.answers)

    def count(self, outcome: Outcome) -> int:
        """Compared pairs with this outcome."""
        return sum(found == outcome for found in self.games.values())


def fate_of(standing: Standing, games: Mapping[Pair, Outcome]) -> str:
    """Whether best and worst make a preference: "kept", or why not.

    They must differ, the direct comparison must not be lost, and best must have won a larger share of its comparisons
    than worst: where everything is a tie, neither has won more (ours).
    """
    best, worst = standing.best, standing.worst
    if best is None or worst is None or best == worst:
        return SAME
    if standing.direct in ("second", "unknown", None):
        return LOST if standing.direct == "second" else UNREAD
    shares = won(games, max(map(max, games)) + 1)
    return KEPT if (shares[best] or 0.0) > (shares[worst] or 0.0) else EVEN


@dataclass(frozen=True)
class Ranking:
    """What `rank_responses` gives.

    Attributes:
        responses: what was ranked.
        scheme, seed, orders: how.
        plan: which prompts played.
        prompts: the ranking of each of them.
        calls: ordered questions that were asked, each once.
        repeated: unreadable answers that were asked for once more.
    """

    responses: Responses
    scheme: str
    seed: int
    orders: str
    plan: Plan
    prompts: tuple[PromptRanking, ...]
    calls: int
    repeated: int = 0

    @functools.cached_property
    def _starts(self) -> list[int]:
        return [0, *self.responses.counts.cumsum().tolist()]

    @functools.cached_property
    def _texts(self) -> list[Text]:
        return self.responses.texts

    def text(self, row: int, number: int) -> Text:
        """A response by the number of its prompt and its number among that prompt's responses."""
        return self._texts[self._starts[row] + number]

    @functools.cached_property
    def _strengths(self) -> dict[tuple[int, int], float]:
        """(prompt, response) -> Bradley–Terry strength within its prompt, in log-odds."""
        names = [(of.contest.row, number) for of in self.prompts for number in of.contest.order]
        players = {name: place for place, name in enumerate(names)}
        better, worse, weight = list[int](), list[int](), list[float]()
        for of in self.prompts:
            for pair, outcome in of.games.items():
                first, second = (players[of.contest.row, number] for number in pair)
                for sides, name in (((first, second), "first"), ((second, first), "second")):
                    if outcome in ("tie", name):
                        better.append(sides[0])
                        worse.append(sides[1])
                        weight.append(0.5 if outcome == "tie" else 1.0)
        if not better:
            return dict.fromkeys(players, 0.0)
        strengths, _ = fit_arrays(better, worse, len(players), weight=weight, estimate="mode", errors="none")
        return dict(zip(players, (strengths.round(6) + 0.0).tolist(), strict=True))

    def scored(self) -> Responses:
        """The responses with what they won, as two more scores.

        `won` is the share of its comparisons that a response won, a tie as half; `bt` its Bradley–Terry strength in
        log-odds. A merged response has the scores of the one that it repeats; one that did not play has none.

        Raises:
            DataError: the responses have a score or column of that name already.
        """
        self._refuse_names()
        shares, strengths = (np.full(self._starts[-1], np.nan) for _ in range(2))
        for of in self.prompts:
            row = of.contest.row
            share = won(of.games, max(of.contest.order) + 1)
            played = {prompt_key(self.text(row, number)): number for number in of.contest.order}
            for place in range(self._starts[row], self._starts[row + 1]):
                number = played.get(prompt_key(self._texts[place]))
                if number is not None:
                    shares[place] = np.nan if share[number] is None else share[number]
                    strengths[place] = self._strengths[row, number]
        return self.responses.with_scores(won=shares, bt=strengths)

    def preferences(self) -> Preferences:
        """Best against worst for each prompt that is kept.

        Ratings are the shares won, so `strength` is their gap. Further columns: bt_gap (log-odds), comparisons, calls,
        ties, no_outcome (comparisons without a readable answer), order_of_play (numbers of the responses), scheme and
        seed; scores and fields of the responses as `chosen_…` and `rejected_…`, and the prompts' columns.

        Raises:
            DataError: no prompt is kept, or the responses have one of these columns already.
        """
        kept = [of for of in self.prompts if of.fate == KEPT]
        if not kept:
            raise DataError(f"No preference comes of the ranking.\n{self.step().arithmetic}")
        pairs = self._best_and_worst(kept).pairs("best_vs_worst", by="won")
        return Preferences(pairs.dataset, replace(pairs.report, notes=(*pairs.report.notes, self.step().arithmetic)))

    def _best_and_worst(self, kept: list[PromptRanking]) -> Responses:
        scored = self.scored()
        rows = [of.contest.row for of in kept]
        places = [
            self._starts[of.contest.row] + number
            for of in kept
            for number in (of.standing.best, of.standing.worst)
            if number is not None
        ]
        gaps = scored.score("bt")[places].reshape(-1, 2)
        columns: dict[str, list[Any]] = {
            "bt_gap": (gaps[:, 0] - gaps[:, 1]).round(6).tolist(),
            "comparisons": [len(of.standing.played) for of in kept],
            "calls": [of.calls for of in kept],
            "ties": [of.count("tie") for of in kept],
            "no_outcome": [of.count("unknown") for of in kept],
            "order_of_play": [list(of.contest.order) for of in kept],
            "scheme": [self.scheme] * len(kept),
            "seed": [self.seed] * len(kept),
        }
        texts = scored.texts
        return Responses(
            [scored.prompts[row] for row in rows],
            [[texts[place] for place in places[at : at + 2]] for at in range(0, len(places), 2)],
            {name: scored.score(name)[places] for name in scored.score_names},
            fields={name: [scored.field(name)[place] for place in places] for name in scored.field_names},
            columns={name: [scored.column(name)[row] for row in rows] for name in scored.column_names} | columns,
        )

    def _refuse_names(self) -> None:
        taken = {*self.responses.score_names, *self.responses.field_names, *self.responses.column_names}
        clash = sorted(taken & set(NAMES))
        if clash:
            raise DataError(
                f"The responses already have a column '{clash[0]}', which the ranking would write. Rename or remove it."
            )

    def step(self) -> Step:
        """What became of the prompts: all = kept + left out, with the reasons."""
        reasons = Counter(self.plan.left_out.values())
        reasons.update(of.fate for of in self.prompts if of.fate != KEPT)
        kept = sum(of.fate == KEPT for of in self.prompts)
        return Step(
            name="ranking", rows_in=len(self.responses), kept={"kept": kept}, left_out=reasons, unit="prompts"
        )  # fmt: skip

    def rows(self) -> Iterator[dict[str, Any]]:
        """Every comparison in the order of play, as a row; a pair that a scheme needs twice stands there twice.

        Columns: prompt_row, place (in play, from 0), prompt, first, second (texts), first_response, second_response
        (their numbers), answer and answer_turned (which place won, with `first` and with `second` in the first place),
        outcome (first, second, tie, unknown), direct (asked beyond the scheme, for best against worst), asked (False
        for a repeated pair) and fate.
        """
        prompts = self.responses.prompts
        for of in self.prompts:
            row, seen = of.contest.row, set[frozenset[int]]()
            played = list(of.standing.played)
            best_worst = (of.standing.best, of.standing.worst)
            pairs = {frozenset(pair) for pair, _ in played}
            if of.standing.direct is not None and frozenset(best_worst) not in pairs:
                played.append((best_worst, of.standing.direct))  # pyright: ignore[reportArgumentType]
            for place, (pair, outcome) in enumerate(played):
                yield {
                    "prompt_row": row,
                    "place": place,
                    "prompt": prompts[row],
                    "first": self.text(row, pair[0]),
                    "second": self.text(row, pair[1]),
                    "first_response": pair[0],
                    "second_response": pair[1],
                    "answer": of.answers.get(pair),
                    "answer_turned": of.answers.get(turned(pair)),
                    "outcome": outcome,
                    "direct": place >= len(of.standing.played),
                    "asked": frozenset(pair) not in seen,
                    "fate": of.fate,
                }
                seen.add(frozenset(pair))

    def comparisons(self) -> Any:
        """`rows` as an Arrow table; messages are JSON texts."""
        rows = [
            {name: _plain(value) if name in ("prompt", "first", "second") else value for name, value in row.items()}
            for row in self.rows()
        ]
        return pa.Table.from_pylist(rows, schema=_COMPARISONS)

    def save_comparisons(self, path: str | Path) -> None:
        """Write the comparisons as `.parquet`, `.jsonl` or `.jsonl.gz`.

        Raises:
            ConfigError: the path ends otherwise.
            RunError: the path is a folder, or cannot be written.
        """
        save_table(path, _COMPARISONS, [self.comparisons()])


_COMPARISONS = pa.schema(
    [
        ("prompt_row", pa.int64()),
        ("place", pa.int64()),
        ("prompt", pa.string()),
        ("first", pa.string()),
        ("second", pa.string()),
        ("first_response", pa.int64()),
        ("second_response", pa.int64()),
        ("answer", pa.string()),
        ("answer_turned", pa.string()),
        ("outcome", pa.string()),
        ("direct", pa.bool_()),
        ("asked", pa.bool_()),
        ("fate", pa.string()),
    ]
)


def _plain(text: Text) -> str:
    return text if isinstance(text, str) else json.dumps(text, ensure_ascii=False)
