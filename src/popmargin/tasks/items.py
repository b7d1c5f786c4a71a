"""Recommenders that denoise item vectors: the next item of a history is preferred to other items.

Axis suffixes: N preferences, P those of a batch, K negatives of a row, D dimensions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from popmargin.bounds import Size
from popmargin.config import ModelConfig
from popmargin.data.ragged import Ragged
from popmargin.data.schema import Preferences
from popmargin.engine.diffusion.draws import Drawing, draw, pair_key
from popmargin.engine.logps import autocast
from popmargin.engine.scores import PairScores
from popmargin.errors import ConfigError, DataError
from popmargin.files import digest, folder_digest
from popmargin.objectives.base import Logps, ScoreKind
from popmargin.recommend.denoising.item_denoiser import (
    Background,
    DenoisingErrors,
    DenoisingRecommender,
    ErrorDraws,
    ItemDenoiser,
    ItemDenoiserOptions,
    padded,
)
from popmargin.recommend.denoising.saved_denoiser import WEIGHTS, load_item_denoiser, read_start, write_trained
from popmargin.recommend.item_preferences import read_pair
from popmargin.recommend.item_sequences import Catalogue
from popmargin.recommend.ranking_metrics import CUTOFFS, ndcg, recall
from popmargin.recommend.ranks import rank_cases
from popmargin.recommend.splitting import Cases
from popmargin.tasks.base import Task, TaskSettings, task

_RANKED = {"recall": recall, "ndcg": ndcg}
FIXED = 0
"""Seed of draws that are the same in every run."""


@dataclass(frozen=True, kw_only=True)
class ItemsOptions(ItemDenoiserOptions):
    """Options of `task: items`: those of the model, and two more.

    Attributes:
        dimension: of vectors that are learned; only if the start model has no vectors.
        evaluation_draws: fixed draws of time and noise over which scores of held-out preferences are averaged.
    """

    dimension: Size = 64
    evaluation_draws: Size = 8


@dataclass(frozen=True)
class ItemReport:
    """How preferences between items were encoded: all of them, or an error says which cannot be.

    Attributes:
        rows_in, rows_kept: preferences.
        dropped: none.
        cut: histories of which only the last items count.
    """

    rows_in: int
    rows_kept: int
    dropped: tuple[tuple[str, str], ...] = ()
    cut: int = 0

    def notes(self) -> list[str]:
        """What was cut, as sentences."""
        return [f"histories of which only the last items count: {self.cut}"] if self.cut else []

    def to_dict(self) -> dict[str, Any]:
        """For run.json."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class ItemInputs:
    """Preferences between items as numbers (N,); they are their own batches.

    Attributes:
        ids, index: as in `Encoded`.
        report: how they were encoded.
        histories: item numbers.
        chosen: item numbers (N,).
        rejected: item numbers, 0 for those of the batch (N,).
        keys: of the draws (N,).
        length: the last items that count.
    """

    ids: list[str]
    index: list[int]
    report: ItemReport
    histories: Ragged
    chosen: np.ndarray
    rejected: np.ndarray
    keys: np.ndarray
    length: int

    def sizes(self) -> tuple[np.ndarray, np.ndarray]:
        """Items have no lengths."""
        return np.zeros(len(self)), np.zeros(len(self))

    def costs(self) -> np.ndarray:
        """One a preference (N,)."""
        return np.ones(len(self), dtype=np.int64)

    def work(self) -> np.ndarray:
        """Items of each history that count, which stand for tokens (N,)."""
        return np.minimum(self.histories.lengths, self.length)

    @cached_property
    def background(self) -> tuple[np.ndarray, np.ndarray]:
        """Distinct targets of all preferences, and how often each occurs."""
        return np.unique(self.chosen, return_counts=True)

    def collate(self, preferences: np.ndarray) -> dict[str, Any]:
        """Histories, items and keys of some preferences (P,)."""
        places_PL, real_PL = padded(self.histories.take(preferences), self.length)
        items, counts = self.background
        return {
            "places": places_PL,
            "real": real_PL,
            "chosen": torch.from_numpy(self.chosen[preferences]),
            "rejected": torch.from_numpy(self.rejected[preferences]),
            "keys": self.keys[preferences],
            "items": torch.from_numpy(items),
            "counts": torch.from_numpy(counts.astype(np.float32)),
        }

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class ItemScorer:
    """Scores of items: minus the error of their denoised vectors.

    In training, rows without a rejected item get negatives from the batch. In evaluation (`wide`), errors are averaged
    over fixed draws, and the negative is the centroid of the other targets of all rows, whatever the batch.

    Attributes:
        options: of the task.
        dimension: D.
        precision: fp32 or bf16.
        wide: see above.
    """

    options: ItemsOptions
    dimension: int
    precision: str
    wide: bool = False

    @property
    def alone(self) -> bool:
        return False

    def score(
        self, model: nn.Module, batch: Mapping[str, Any], generator: torch.Generator | None, *, log: bool = False
    ) -> PairScores:
        if self.wide:
            count = self.options.evaluation_draws
            found = [self._errors(model, batch, FIXED, None, (place, count)) for place in range(count)]
            positive_P, negative_P = (
                torch.stack([getattr(errors, side).double() for errors in found]).mean(0)
                for side in ("positive", "negative")
            )
            return _scores(positive_P, negative_P)
        seed = FIXED if generator is None else generator.initial_seed()
        errors = self._errors(model, batch, seed, torch.Generator(batch["chosen"].device).manual_seed(seed), None)
        scores = _scores(errors.positive, errors.negative)
        if not log:
            return scores
        return PairScores(scores.chosen, scores.rejected, scores.logps, _logged(errors))

    def _errors(
        self,
        model: nn.Module,
        batch: Mapping[str, Any],
        seed: int,
        generator: torch.Generator | None,
        part: tuple[int, int] | None,
    ) -> DenoisingErrors:
        options, device = self.options, batch["chosen"].device
        shape = (options.negatives_per_row, self.dimension)
        drawing = Drawing(times=options.steps, shape=shape, independent=True,
                          empty=0.0 if self.wide else options.null_share)  # fmt: skip
        drawn = draw(batch["keys"], seed, drawing, part=part)
        draws = ErrorDraws(
            *(each.to(device) for each in (drawn.times, drawn.empty, drawn.chosen[:, 0], drawn.rejected))
        )
        background = Background(batch["items"], batch["counts"]) if self.wide else None
        with autocast(device, self.precision):
            return model(batch["places"], batch["real"], batch["chosen"], draws, rejected_B=batch["rejected"],
                         background=background, generator=generator)  # fmt: skip


def _scores(positive_P: Tensor, negative_P: Tensor) -> PairScores:
    ones = torch.ones_like(positive_P)  # an item is one token
    logps = Logps(chosen=-positive_P, rejected=-negative_P, chosen_reference=None, rejected_reference=None,
                  chosen_tokens=ones, rejected_tokens=ones)  # fmt: skip
    return PairScores(-positive_P, -negative_P, logps)


def _logged(errors: DenoisingErrors) -> dict[str, Tensor]:
    return {
        "chosen_error": errors.positive.detach(),
        "rejected_error": errors.negative.detach(),
        "without_negative": (~errors.has_negative).double(),
    }


@task("items", options=ItemsOptions)
class ItemTask(Task):
    """A recommender that denoises the next item's vector, whose score of an item is minus its error; no reference."""

    provides: ClassVar[frozenset[str]] = frozenset({"log_ratio", "mean_log_ratio", "logp", "mean_logp"})
    noun: ClassVar[str] = "a recommender of items"
    beta: ClassVar[float | None] = 5.0
    no_tokens: ClassVar[str] = "items have no tokens. Remove it; task.length says how many items of a history count."
    stops_on: ClassVar[tuple[str, ...]] = tuple(f"{name}@{count}" for name in _RANKED for count in CUTOFFS)
    use: ClassVar[str] = " popmargin recommend eval measures it; popmargin.recommend.load('{model}') ranks items."

    def __init__(self, settings: TaskSettings) -> None:
        super().__init__(settings)
        self.options: ItemsOptions = settings.options

    @cached_property
    def start(self) -> tuple[Catalogue, np.ndarray | None]:
        """Items of the start model, and their vectors if they are given."""
        return read_start(self.settings.model.path)

    @property
    def dimension(self) -> int:
        """D."""
        vectors = self.start[1]
        return self.options.dimension if vectors is None else vectors.shape[1]

    def encode(self, preferences: Preferences) -> ItemInputs:
        catalogue = self.start[0]
        histories: list[list[int]] = []
        sides: tuple[list[int], list[int]] = ([], [])
        for batch in preferences.batches("id", "prompt", "chosen", "rejected"):
            for name, *texts in zip(*(batch[key] for key in ("id", "prompt", "chosen", "rejected")), strict=True):
                pair = read_pair(name, *texts)
                named = [pair.chosen] if pair.rejected is None else [pair.chosen, pair.rejected]
                unknown = [item for item in (*pair.history, *named) if item not in catalogue]
                if unknown:
                    raise DataError(
                        f"Preference '{name}': item '{unknown[0]}' is not among the {len(catalogue)} of model.path. "
                        "Write a start model with all items of the data."
                    )
                histories.append(catalogue.numbers(pair.history).tolist())
                numbers = catalogue.numbers(named).tolist()
                sides[0].append(numbers[0])
                sides[1].append(numbers[1] if pair.rejected is not None else 0)
        count, length = len(preferences), self.options.length
        ragged = Ragged.of(histories)
        return ItemInputs(
            preferences.ids, list(range(count)), ItemReport(count, count, cut=int((ragged.lengths > length).sum())),
            ragged, np.array(sides[0], dtype=np.int64), np.array(sides[1], dtype=np.int64),
            np.array([pair_key(name) for name in preferences.ids], dtype=np.int64), length,
        )  # fmt: skip

    def make_model(self, settings: ModelConfig) -> ItemDenoiser:
        if settings.lora_rank:
            raise ConfigError("model.lora_rank: an item denoiser is trained as a whole. Remove it.")
        catalogue, vectors = self.start
        dimension = self.options.dimension if vectors is None else None
        if (Path(settings.path) / WEIGHTS).is_file():
            raise ConfigError(
                f"model.path '{settings.path}' is a trained model; training goes on only from items and vectors. "
                "Write a start model with write_start."
            )
        return ItemDenoiser(len(catalogue), dimension=dimension, vectors=vectors, options=self.options)

    def sketch(self, settings: ModelConfig) -> ItemDenoiser:
        return self.make_model(settings)  # its vectors are read with the items

    def scorer(
        self,
        model: Any,
        kind: ScoreKind,
        *,
        precision: str,
        wide: bool = False,
        tokens: Any = None,
        statistics: bool = False,
    ) -> ItemScorer:
        return ItemScorer(self.options, self.dimension, precision, wide)

    def held_out(self, model: Any, encoded: ItemInputs) -> dict[str, float]:
        """Recall and NDCG of the targets in the whole catalogue, histories included; the noise is fixed by row."""
        cases = Cases(tuple(encoded.ids), encoded.histories, encoded.chosen)
        ranks_N = rank_cases(DenoisingRecommender(model), cases, items=len(self.start[0]), count=1).ranks
        return {
            f"{name}@{count}": float(measured(ranks_N, count).mean())
            for name, measured in _RANKED.items()
            for count in CUTOFFS
        }

    def inputs(
        self, encoded: ItemInputs, scorer: ItemScorer, *, reference: Any = None, scoring: Any = None
    ) -> ItemInputs:
        return encoded

    def fingerprints(self, sides: Mapping[str, ItemInputs], scoring: str | None = None) -> dict[str, str]:
        start = folder_digest(Path(self.settings.model.path), (".json", ".safetensors"))
        rows = {
            f"made: items of {name}": digest(
                *(
                    each.tobytes()
                    for each in (side.histories.values, side.histories.offsets, side.chosen, side.rejected)
                )
            )
            for name, side in sides.items()
        }
        return {"start model": start, **rows}

    def finish(
        self, model: Any, folder: Path, saved: Mapping[str, Any], settings: ModelConfig, sides: Sequence[ItemInputs]
    ) -> None:
        write_trained(folder, self.start[0], self.make_model(settings) if model is None else model)

    def load(self, folder: Path) -> ItemDenoiser:
        return load_item_denoiser(folder)[0]
