"""Shared by several runs on the same data and start model: the task, preferences, edges and scales."""

import sys
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from popmargin.account import Step
from popmargin.config import DataConfig, EvaluationConfig, PopConfig
from popmargin.data.goal_tokens import refuse_cut_prompts
from popmargin.data.goals import asked_prompts, check_goals, distinct_rows, goal_facts
from popmargin.data.schema import Preferences
from popmargin.errors import DataError
from popmargin.pop.edge_sources import read_edges
from popmargin.pop.edges import PopEdges
from popmargin.pop.fit import fit_strengths
from popmargin.pop.rankings import edges_without
from popmargin.pop.sampling import sample_edges
from popmargin.pop.scale import StrengthScale
from popmargin.pop.strengths import trained_strengths
from popmargin.pop.zero import right_share
from popmargin.tasks.base import Task, TaskSettings
from popmargin.training.account import encoding_step
from popmargin.training.fingerprints import Record, Rows, column_facts, scale_fingerprint
from popmargin.training.loss import Loss
from popmargin.training.own_code import OwnCode, code_facts, kept_files
from popmargin.training.prepared import PreparedData
from popmargin.training.sides import Split, read_split
from popmargin.training.signals import Signal

_SIDES = ("training preferences", "held-out preferences")


class Workspace:
    """Shared state of several runs on the same data and model; made once, used by all.

    Args:
        task: on its start model.
        data: where the preferences are, and how they are read and split.
        test: held-out preferences that were chosen already; None takes those that `data` names.
        split: both sides, read already; None reads what `data` names.
    """

    def __init__(
        self, task: Task, data: DataConfig, *, test: Preferences | None = None, split: Split | None = None
    ) -> None:
        self.task: Any = task
        self._data, self._given_test, self._given_split = data, test, split
        self._told: set[str] = set()
        self._edges: dict[tuple[PopConfig, Signal | None], PopEdges] = {}
        self._scales: dict[tuple[PopConfig, Signal | None], tuple[StrengthScale, PopEdges | None]] = {}

    def fits(self, settings: TaskSettings) -> bool:
        """Whether a run whose task has these settings can use this workspace."""
        return self.task.fits(settings)

    def samples_like(self, other: "Workspace") -> bool:
        """Whether the references of both sample the same for their held-out prompts."""
        same = self.test.preferences.fingerprint() == other.test.preferences.fingerprint()
        return same and self.task.samples_like(other.task)

    @cached_property
    def _split(self) -> Split:
        return read_split(self._data) if self._given_split is None else self._given_split

    @property
    def train_rows(self) -> Preferences:
        """Training preferences before they are encoded."""
        return self._split.train

    @cached_property
    def train(self) -> PreparedData:
        """Training preferences."""
        return self._prepare(self._split.train, self._split.flipped)

    @cached_property
    def test(self) -> PreparedData:
        """Held-out preferences."""
        return self._prepare(self._split.test if self._given_test is None else self._given_test)

    def _prepare(self, preferences: Preferences, flipped: frozenset[str] = frozenset()) -> PreparedData:
        return PreparedData(preferences, self.task.encode(preferences), self.task, flipped)

    @property
    def account(self) -> list[Step]:
        """The account of the data, from the files to the rows that the task takes, on both sides."""
        encoded = zip((self.train.encoded, self.test.encoded), _SIDES, strict=True)
        return [*self._split.steps, *(encoding_step(side.report, name) for side, name in encoded)]

    def tell(self, steps: Sequence[Step]) -> None:
        """Print an account on stderr; steps shared by several runs are printed once."""
        for step in steps:
            text = "\n".join(step.lines())
            if text not in self._told:
                self._told.add(text)
                print(text, file=sys.stderr, flush=True)

    def check_rows(self, evaluation: EvaluationConfig) -> None:
        """Check before training that the models can score all rows and later samples.

        Args:
            evaluation: what is measured later.

        Raises:
            ConfigError, DataError, RunError: they cannot; the message names rows or fields.
        """
        self.task.check((self.train.encoded, self.test.encoded), evaluation)
        test = self.test.preferences
        check_goals(evaluation.goals, test)
        samples = {"generation", "tokens"} <= self.task.provides  # images are asked for by whole prompts
        if goal_facts(test) is not None and evaluation.reward is not None and samples:
            some = test.select(distinct_rows(test, evaluation.prompts))
            for goal in (None, *(evaluation.goals or ())):
                lengths = self.task.prompt_lengths(asked_prompts(some, goal))
                refuse_cut_prompts(lengths, self.task.room_for_prompts(evaluation))

    def edges(self, config: PopConfig, order: Signal | None = None) -> PopEdges:
        """PoP edges between training preferences: from a file or a label store, or sampled from their strengths.

        Args:
            config: where they come from.
            order: strengths for sampled edges; None for the data's own.

        Raises:
            DataError: the file names other preferences, the store has no labels of these, or strengths are missing.
        """
        if (config, order) not in self._edges:
            self._edges[config, order] = self._make_edges(config, order)
        return self._edges[config, order]

    def _make_edges(self, config: PopConfig, order: Signal | None) -> PopEdges:
        if config.edges is not None:
            how: dict[str, Any] = {"without": config.left_out, "weights": config.weight_of, "pool": config.pool}
            return self._without_left_out(read_edges(config.edges, self.train.ids, **how))
        return sample_edges(
            self.train.ids,
            self.train.order(order, compared=config.strength),
            sampling=config.sampling,
            k=config.k,
            seed=config.seed,
            flip=config.flip,
            temperature=config.temperature,
            budget=config.budget,
            unmatched=config.unmatched,
        )

    def _without_left_out(self, edges: PopEdges) -> PopEdges:
        """The edges, excluding those that name a dropped preference; their number is in `left_out`."""
        reasons = {
            "name a preference beyond data.limit": self._split.passed_over,
            "name a preference dropped by tokenization": set(self.train.preferences.ids) - set(self.train.ids),
        }
        kept, left_out = edges, dict[str, int]()
        for reason, names in reasons.items():
            sides = (kept.table[name].to_pylist() for name in ("stronger", "weaker"))
            inside = [not any(side in names for side in pair) for pair in zip(*sides, strict=True)]
            before, kept = len(kept), edges_without(kept, inside, names)
            left_out |= {reason: before - len(kept)} if len(kept) < before else {}
        if not left_out:
            return edges
        if not len(kept):
            raise DataError(
                f"All {len(edges)} PoP edges name preferences that are not trained on "
                f"({', '.join(f'{reason}: {count}' for reason, count in left_out.items())}). Sample them from the "
                "training data."
            )
        return PopEdges(kept.table, {**kept.parameters, "left_out": left_out})

    def scale(self, config: PopConfig, order: Signal | None = None) -> tuple[StrengthScale, PopEdges | None]:
        """Strengths of the training preferences, from a file or fitted to edges; then the edges too.

        Args:
            config: where they come from.
            order: as in `edges`.

        Raises:
            DataError: the file does not have all of them, or the edges name others or contain no comparison.
        """
        if (config, order) not in self._scales:
            self._scales[config, order] = self._make_scale(config, order)
        return self._scales[config, order]

    def _make_scale(self, config: PopConfig, order: Signal | None) -> tuple[StrengthScale, PopEdges | None]:
        if config.scale is not None:
            return StrengthScale.load(config.scale).select(self.train.ids), None
        edges = self.edges(config, order)
        return fit_strengths(edges, self.train.ids, ridge=config.ridge), edges

    def strengths(self, config: PopConfig, scale: StrengthScale) -> np.ndarray:
        """What training reads of a scale (N,), with the zero that `pop.zero` places; see `trained_strengths`.

        Raises:
            DataError: the column of wrong answers is missing, or has other numbers.
        """
        zero, wrong = config.zero, None
        if zero.wrong is not None:
            wrong = self.train.preferences.column(zero.wrong)[self.train.encoded.index]
        right = right_share(scale.strength, right=zero.right, agreement=zero.agreement, wrong=wrong)
        return trained_strengths(scale.strength, right)

    def record(self, pop: PopConfig, loss: Loss, code: Sequence[OwnCode]) -> Record:
        """The record of what a run is trained on, by content.

        Args:
            pop: its edges.
            loss: its parts, which declare what they need.
            code: the user's own components.
        """
        sides = dict(zip(_SIDES, (self.train.encoded, self.test.encoded), strict=True))
        facts = self.task.fingerprints(sides, loss.scoring)
        needs, order = loss.needs, loss.signals.get("order")
        signals = loss.columns(self.train.preferences).values()
        facts |= column_facts(self.train.preferences, [name for signal in signals for name in signal.sources])
        if needs.edges:
            facts["PoP edges" if pop.edges else "made: PoP edges"] = self.edges(pop, order).fingerprint()
        if needs.scale:
            name = "strength scale" if pop.scale or pop.edges else "made: strength scale"
            facts[name] = scale_fingerprint(self.scale(pop, order)[0])
            facts |= column_facts(self.train.preferences, [pop.zero.wrong] if pop.zero.wrong else [])
        return Record(self._rows, facts | code_facts(code), kept_files(code))

    @cached_property
    def _rows(self) -> dict[str, Rows]:
        sides = {"train": self.train.preferences, "test": self.test.preferences, "aside": self._split.aside}
        return {side: Rows.of(preferences) for side, preferences in sides.items()}

    def test_edges(self, k: int, seed: int) -> PopEdges | None:
        """Exact held-out edges for the PoP accuracy; None where strengths are unknown."""
        strength = self.test.strength
        if len(strength) < 3 or not np.isfinite(strength).all() or not k:
            return None
        most = (len(strength) - 1) // 2
        return sample_edges(self.test.ids, strength, sampling="random", k=min(k, most), seed=seed)
