"""From a configuration to what training and evaluation share: preferences, tokens, start model, reference log-probs."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import nn

from popmargin.account import Step
from popmargin.config import PopConfig, RunConfig
from popmargin.data.encode import Writing
from popmargin.data.schema import NUMBER_COLUMNS, Preferences
from popmargin.data.tokenize import TokenizedPreferences, tokenize_preferences
from popmargin.engine.frozen import FrozenOutputs
from popmargin.engine.reference import ReferenceCache, ReferenceLogps, model_fingerprint
from popmargin.errors import ConfigError, DataError, RunError
from popmargin.generate.ends import end_tokens
from popmargin.label.export.store_edges import read_edges
from popmargin.models.policies import base_dtype, load_model, load_policy, load_tokenizer
from popmargin.models.reward_models import FORMAT_FILE, load_reward_model, padding_apart
from popmargin.pop.edges import PopEdges
from popmargin.pop.fit import fit_strengths
from popmargin.pop.sampling import sample_edges
from popmargin.pop.scale import StrengthScale
from popmargin.training.account import tokenizing_step
from popmargin.training.checks import check_padding, check_rows, check_sampling
from popmargin.training.fingerprints import (
    Record,
    Rows,
    scale_fingerprint,
    source_fingerprints,
    tokenizer_fingerprint,
    tokens_fingerprint,
)
from popmargin.training.sides import Split, read_split
from popmargin.training.trainer import Loss


def cache_folder(configured: str | None) -> Path:
    """The folder of reference caches: the configured one, or the user's cache folder."""
    home = Path(os.environ.get("POPMARGIN_CACHE", Path.home() / ".cache" / "popmargin"))
    return Path(configured) if configured else home / "reference"


@dataclass(frozen=True)
class PreparedData:
    """Preferences with their tokens.

    Attributes:
        preferences: as loaded, split and flipped.
        tokenized: the rows that could be tokenized.
    """

    preferences: Preferences
    tokenized: TokenizedPreferences

    def __len__(self) -> int:
        return len(self.tokenized)

    @property
    def ids(self) -> list[str]:
        """Ids of the tokenized rows."""
        return self.tokenized.ids

    @property
    def clusters(self) -> list[str]:
        """Cluster of every tokenized row: what the data name, else its prompt."""
        keys = self.preferences.clusters
        return [keys[i] for i in self.tokenized.index]

    @property
    def strength(self) -> np.ndarray:
        """Strength of every tokenized row, nan where unknown."""
        return self.preferences.strength[self.tokenized.index]

    @property
    def known_numbers(self) -> list[str]:
        """The columns of numbers that hold a value in some tokenized row."""
        table: Any = self.preferences.dataset.select_columns(list(NUMBER_COLUMNS)).with_format("arrow")[:]
        rows = table.take(pa.array(self.tokenized.index))
        return [name for name in NUMBER_COLUMNS if rows[name].null_count < len(rows)]

    def column(self, name: str) -> np.ndarray:
        """Margins (`margin`) or soft labels (`soft_label`) of every tokenized row, as float32.

        Margins are the gaps of the ratings, in rating points; where they are not complete and strengths are, the
        strengths in their own unit.

        Raises:
            DataError: some rows have none.
        """
        values = self.preferences.margin if name == "margin" else self.preferences.soft_label
        values = values[self.tokenized.index]
        missing = np.flatnonzero(~np.isfinite(values))
        if len(missing):
            needed, remedy = {
                "margin": ("chosen_rating and rejected_rating", "Give the data these columns, or a strength"),
                "soft_label": ("soft_label", "Give it, set data.soft_label_temperature to make it from ratings"),
            }[name]
            raise DataError(
                f"The objective or its margin needs {needed}, which {len(missing)} of {len(values)} preferences lack "
                f"(first: '{self.ids[missing[0]]}'). {remedy}, or choose others that do without."
            )
        return values.astype(np.float32)


class Workspace:
    """What several runs on the same data and model share; made once, used by all.

    Args:
        config: the first run's configuration; only `task`, `data`, `model`, `reference` and batch sizes matter.
        test: held-out preferences that were chosen already; None takes those that the configuration names.
    """

    def __init__(self, config: RunConfig, *, test: Preferences | None = None) -> None:
        self.config = config
        self._given_test = test
        self._told: set[str] = set()
        self._edges: dict[PopConfig, PopEdges] = {}
        self._scales: dict[PopConfig, tuple[StrengthScale, PopEdges | None]] = {}
        self._scoring: dict[str, ReferenceLogps] = {}
        self._scorers: dict[str, str] = {}
        self._frozen: FrozenOutputs | None = None

    def fits(self, config: RunConfig) -> bool:
        """Whether another run can use this workspace."""
        mine = self.config
        model = replace(config.model, lora_rank=0, lora_alpha=None, lora_dropout=0.0, lora_last_layers=None)
        own = replace(mine.model, lora_rank=0, lora_alpha=None, lora_dropout=0.0, lora_last_layers=None)
        return (
            config.task == mine.task
            and config.data == mine.data
            and model == own
            and base_dtype(config.model) == base_dtype(mine.model)
            and config.reference == mine.reference
        )

    @cached_property
    def tokenizer(self) -> Any:
        """The start model's tokenizer; for a reward model, with a padding token that ends no response."""
        tokenizer = load_tokenizer(self.config.model.path)
        return padding_apart(tokenizer) if self.config.task == "reward" else tokenizer

    @cached_property
    def ends(self) -> list[int]:
        """Ids of the tokens that end a completion, of the policy and of the reference alike."""
        return end_tokens(self.tokenizer, self.start_model.generation_config, self.test.tokenized.report.ends)

    @cached_property
    def start_model(self) -> nn.Module:
        """The start model, frozen; for a reward model, with a head."""
        settings = self.config.model
        path, dtype, dropout = settings.path, base_dtype(settings), settings.dropout
        if settings.start_adapter == "merge":
            return self._load(path, dtype, dropout=dropout).eval().requires_grad_(False)
        if self.config.task == "reward" or not settings.lora_rank:
            raise ConfigError("model.start_adapter: stack is for policies with model.lora_rank above 0. Leave it out.")
        return load_model(path, dtype, dropout=dropout, stack=True).eval().requires_grad_(False)

    @cached_property
    def start_fingerprint(self) -> str:
        """Hash of the start model's weights and architecture."""
        return model_fingerprint(self.start_model)

    def _load(self, path: str, dtype: torch.dtype, *, dropout: bool = False) -> nn.Module:
        if self.config.task == "reward":
            return load_reward_model(path, dtype, self.tokenizer.pad_token_id, dropout=dropout)
        return load_model(path, dtype, dropout=dropout)

    def trained(self, folder: Path) -> nn.Module:
        """What a run has trained from this start model.

        Raises:
            RunError: the folder holds no trained model.
        """
        if self.config.task == "policy":
            return load_policy(folder, self.start_model, fingerprint=lambda: self.start_fingerprint)
        if not (folder / FORMAT_FILE).is_file():
            raise RunError(f"{folder} holds no trained reward model. Finish the run with popmargin train --resume.")
        return self._load(str(folder), torch.float32)

    def share_frozen_layers(self, policy: Any, gigabytes: float) -> None:
        """Let a policy take the outputs of its frozen layers from those of other runs, and add to them.

        Args:
            policy: not wrapped for distributed training.
            gigabytes: most memory; the first run's holds for all.
        """
        self._frozen = self._frozen or FrozenOutputs(gigabytes)
        self._frozen.share(policy)

    @cached_property
    def reference_model(self) -> nn.Module:
        """The reference model, frozen."""
        named = self.config.reference.model
        if named is None:
            return self.start_model
        return load_model(named, base_dtype(self.config.model)).eval().requires_grad_(False)

    @cached_property
    def _split(self) -> Split:
        return read_split(self.config.data)

    @cached_property
    def train(self) -> PreparedData:
        """Training preferences."""
        return self._prepare(self._split.train)

    @cached_property
    def test(self) -> PreparedData:
        """Held-out preferences."""
        return self._prepare(self._split.test if self._given_test is None else self._given_test)

    @property
    def account(self) -> list[Step]:
        """What became of the data, from the files to the tokens of both sides."""
        sides = ((self.train, "training preferences"), (self.test, "held-out preferences"))
        return [*self._split.steps, *(tokenizing_step(data.tokenized.report, name) for data, name in sides)]

    def tell(self, steps: Sequence[Step]) -> None:
        """Print an account on stderr; a step that several runs share is told once."""
        for step in steps:
            text = "\n".join(step.lines())
            if text not in self._told:
                self._told.add(text)
                print(text, file=sys.stderr, flush=True)

    def check_rows(self) -> None:
        """Look, before anything is trained, whether the models can score all rows and what is sampled later.

        Raises:
            ConfigError, DataError, RunError: they cannot; the message names rows or fields.
        """
        settings, path = self.config.evaluation, self.config.model.path
        models = {path: self.start_model}
        if self.config.reference.model is not None:
            models[self.config.reference.model] = self.reference_model
        for name, model in models.items():
            check_padding(self.tokenizer, model, name)
            for data in (self.train, self.test):
                check_rows(data.tokenized, model, name)
        if settings.reward is not None and len(self.test):
            prompt = int(self.test.tokenized.prompt.lengths.max())
            check_sampling(self.start_model, path, prompt, settings.max_new_tokens, self.config.data.max_length)

    def _prepare(self, preferences: Preferences) -> PreparedData:
        data = self.config.data
        tokenized = tokenize_preferences(
            preferences,
            self.tokenizer,
            max_length=data.max_length,
            truncation=data.truncation,
            writing=Writing(data.prompt, data.reasoning),
        )
        return PreparedData(preferences, tokenized)

    @cached_property
    def reference_cache(self) -> ReferenceCache:
        """The reference's log-probs on disk."""
        return self._cache(self.reference_model)

    def _cache(self, model: nn.Module) -> ReferenceCache:
        return ReferenceCache(
            cache_folder(self.config.reference.cache),
            self.start_fingerprint if model is self.start_model else model_fingerprint(model),
            self.config.model.precision,
            next(model.parameters()).dtype,
        )

    def _reference(self, data: PreparedData) -> ReferenceLogps:
        return self._look_up(self.reference_cache, data, self.reference_model)

    def _look_up(self, cache: ReferenceCache, data: PreparedData, model: nn.Module) -> ReferenceLogps:
        return cache.preferences(
            data.tokenized,
            lambda: model,
            tokens_per_batch=self.config.reference.tokens_per_batch,
            pad_id=self.tokenizer.pad_token_id,
        )

    @cached_property
    def train_reference(self) -> ReferenceLogps:
        """Reference log-probs of the training preferences."""
        return self._reference(self.train)

    @cached_property
    def test_reference(self) -> ReferenceLogps:
        """Reference log-probs of the held-out preferences."""
        return self._reference(self.test)

    def train_scoring(self, path: str) -> ReferenceLogps:
        """Log-probs of the training preferences under a token selector's own reference; cached like the others.

        Raises:
            ConfigError: it has another tokenizer than the start model.
        """
        if path not in self._scoring:
            theirs, ours = load_tokenizer(path).get_vocab(), self.tokenizer.get_vocab()
            if theirs != ours:
                raise ConfigError(
                    f"tokens.reference '{path}' has another tokenizer ({len(theirs)} tokens) than model.path "
                    f"'{self.config.model.path}' ({len(ours)} tokens), so its log-probs are of other tokens: name a "
                    "model with the same one."
                )
            model = load_model(path, base_dtype(self.config.model)).eval().requires_grad_(False)
            self._scoring[path] = self._look_up(self._cache(model), self.train, model)
        return self._scoring[path]

    def edges(self, config: PopConfig) -> PopEdges:
        """PoP edges between training preferences: from a file or a label store, or sampled from their strengths.

        Raises:
            DataError: the file names other preferences, the store holds no label of these, or strengths are missing.
        """
        if config not in self._edges:
            self._edges[config] = self._make_edges(config)
        return self._edges[config]

    def _make_edges(self, config: PopConfig) -> PopEdges:
        if config.edges is not None:
            return self._without_left_out(read_edges(config.edges, self.train.ids))
        return sample_edges(
            self.train.ids,
            self.train.strength,
            sampling=config.sampling,
            k=config.k,
            seed=config.seed,
            flip=config.flip,
            temperature=config.temperature,
            budget=config.budget,
            unmatched=config.unmatched,
        )

    def _without_left_out(self, edges: PopEdges) -> PopEdges:
        """The edges without those that name a preference which did not come this far; how many stands in `left_out`."""
        reasons = {
            "name a preference beyond data.limit": self._split.passed_over,
            "name a preference that tokenization left out": set(self.train.preferences.ids) - set(self.train.ids),
        }
        sides = [edges.table[name].to_pylist() for name in ("stronger", "weaker")]
        keep, left_out = np.ones(len(edges), dtype=bool), dict[str, int]()
        for reason, names in reasons.items():
            named = keep & np.array([any(side in names for side in pair) for pair in zip(*sides, strict=True)], bool)
            keep &= ~named
            left_out |= {reason: int(named.sum())} if named.any() else {}
        if not left_out:
            return edges
        if not keep.any():
            raise DataError(
                f"All {len(edges)} PoP edges name preferences that are not trained on "
                f"({', '.join(f'{reason}: {count}' for reason, count in left_out.items())}). Sample them from the data "
                "that is trained on."
            )
        return PopEdges(edges.table.filter(pa.array(keep)), {**edges.parameters, "left_out": left_out})

    def scale(self, config: PopConfig) -> tuple[StrengthScale, PopEdges | None]:
        """Strengths of the training preferences, from a file or fitted to edges; then the edges too.

        Raises:
            DataError: the file holds not all of them, the edges name others, or hold no comparison.
        """
        if config not in self._scales:
            self._scales[config] = self._make_scale(config)
        return self._scales[config]

    def _make_scale(self, config: PopConfig) -> tuple[StrengthScale, PopEdges | None]:
        if config.scale is not None:
            return StrengthScale.load(config.scale).select(self.train.ids), None
        edges = self.edges(config)
        return fit_strengths(edges, self.train.ids, ridge=config.ridge), edges

    def record(self, config: RunConfig, loss: Loss) -> Record:
        """What a run is trained on, by content.

        Args:
            config: the run.
            loss: its parts, which say what they need.
        """
        facts = {
            "start model": self.start_fingerprint,
            "tokenizer": tokenizer_fingerprint(self.tokenizer),
            "tokens of training preferences": tokens_fingerprint(self.train.tokenized),
            "tokens of held-out preferences": tokens_fingerprint(self.test.tokenized),
        }
        if config.reference.model is not None:
            facts["reference model"] = self.reference_fingerprint
        scorer = (config.tokens or {}).get("reference")
        if scorer is not None:
            facts["token selector's reference"] = self._scorer_fingerprint(str(scorer))
        if loss.needs.edges:
            facts["PoP edges" if config.pop.edges else "made: PoP edges"] = self.edges(config.pop).fingerprint()
        if loss.needs.scale:
            given = config.pop.scale or config.pop.edges
            facts["strength scale" if given else "made: strength scale"] = scale_fingerprint(self.scale(config.pop)[0])
        return Record(self._rows, facts | source_fingerprints(loss.components))

    @cached_property
    def _rows(self) -> dict[str, Rows]:
        sides = {"train": self.train.preferences, "test": self.test.preferences, "aside": self._split.aside}
        return {side: Rows.of(preferences) for side, preferences in sides.items()}

    def _scorer_fingerprint(self, path: str) -> str:
        if path not in self._scorers:
            self._scorers[path] = model_fingerprint(load_model(path, base_dtype(self.config.model)))
        return self._scorers[path]

    @cached_property
    def reference_fingerprint(self) -> str:
        """`model_fingerprint` of the reference model."""
        return model_fingerprint(self.reference_model)

    def test_edges(self, k: int, seed: int) -> PopEdges | None:
        """Exact held-out edges for the PoP accuracy; None where strengths are unknown."""
        strength = self.test.strength
        if len(strength) < 3 or not np.isfinite(strength).all() or not k:
            return None
        most = (len(strength) - 1) // 2
        return sample_edges(self.test.ids, strength, sampling="random", k=min(k, most), seed=seed)
