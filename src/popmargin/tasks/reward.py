"""Reward models: a head on the start model, whose reward for a whole response is the score."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from popmargin.config import ModelConfig, TrainConfig
from popmargin.data.tokenize import TokenizedPreferences
from popmargin.engine.batch import TokenInputs
from popmargin.engine.compiled import compile_layers
from popmargin.engine.features import FeatureCache, FeatureInputs, PreferenceFeatures
from popmargin.engine.processes import is_divided, zero3_will_cut
from popmargin.engine.rewards import HEAD, RewardPlan, pair_rewards, response_rewards, reward_plan
from popmargin.engine.scores import PairScores
from popmargin.engine.sequences import Layout
from popmargin.engine.trial import refuse_noise, trial_sequences, unwrapped
from popmargin.errors import ConfigError, RunError
from popmargin.models.policies import base_dtype, lora_config
from popmargin.models.reward_heads import (
    HiddenHead,
    TrainedHead,
    has_trunk_of,
    head_width,
    is_on_trunk,
    make_trained_head,
    set_head,
    with_head,
)
from popmargin.models.reward_models import (
    FORMAT_FILE,
    RewardFormat,
    load_reward_model,
    make_reward_model,
    padding_apart,
    train_last,
)
from popmargin.models.saved import write_state
from popmargin.models.sketch import sketch_adapter, sketch_pretrained
from popmargin.objectives.base import ScoreKind
from popmargin.tasks.base import TaskSettings, task
from popmargin.tasks.text import TextTask, cache_folder


@dataclass(frozen=True)
class RewardScorer:
    """Rewards of responses, in reward units.

    Attributes:
        plan: of the model.
        precision: fp32 or bf16.
        wide: return them in double precision.
    """

    plan: RewardPlan
    precision: str
    wide: bool = False

    @property
    def alone(self) -> bool:
        return self.plan.layout == "alone"

    def score(
        self, model: nn.Module, batch: Mapping[str, Any], generator: torch.Generator | None, *, log: bool = False
    ) -> PairScores:
        rewards_S = response_rewards(model, batch["sequences"], precision=self.precision, plan=self.plan)
        return pair_rewards(rewards_S.double() if self.wide else rewards_S)


@dataclass(frozen=True)
class HeadScorer:
    """Rewards of responses from the hidden states of a frozen trunk, in reward units; only the head is run.

    Attributes:
        layout: in which the trunk takes responses.
        wide: return them in double precision.
    """

    layout: Layout
    wide: bool = False

    @property
    def alone(self) -> bool:
        return False

    def score(
        self, model: nn.Module, batch: Mapping[str, Any], generator: torch.Generator | None, *, log: bool = False
    ) -> PairScores:
        inner = unwrapped(model)
        head = model if isinstance(inner, TrainedHead) else TrainedHead(inner.get_submodule(HEAD))
        rewards_S: torch.Tensor = head(batch["features"])
        return pair_rewards(rewards_S.double() if self.wide else rewards_S)


AnyScorer = RewardScorer | HeadScorer


@task("reward")
class RewardTask(TextTask):
    """A reward model: a head on the start model whose reward replaces the log-ratio."""

    provides: ClassVar[frozenset[str]] = frozenset({"log_ratio", "reward"})
    noun: ClassVar[str] = "a reward model"
    use: ClassVar[str] = " Use it as model:{model}, for instance with --evaluation.reward."
    beta: ClassVar[float | None] = 1.0  # rewards are already in reward units

    def __init__(self, settings: TaskSettings) -> None:
        super().__init__(settings)
        self._features: dict[tuple[str, tuple[int, ...] | None], FeatureCache] = {}

    @cached_property
    def tokenizer(self) -> Any:
        """The start model's tokenizer, with a padding token that does not end responses."""
        return padding_apart(super().tokenizer)

    def _read_start(self, place: torch.device | None) -> nn.Module:
        if self.settings.model.start_adapter == "stack":
            raise ConfigError(
                "model.start_adapter: stack is only for policies with model.lora_rank above 0. Remove it."
            )
        return super()._read_start(place)

    def _load(
        self, path: str, dtype: torch.dtype, *, dropout: bool = False, place: torch.device | None = None
    ) -> nn.Module:
        return load_reward_model(path, dtype, self.tokenizer.pad_token_id, dropout=dropout, place=place)

    def _find_plan(self, model: Any) -> RewardPlan:
        return reward_plan(model)

    def make_model(self, settings: ModelConfig) -> Any:
        """With `train: head`, the head alone."""
        if settings.trained != "head":
            return super().make_model(settings)
        if self.sharding is not None or zero3_will_cut():
            raise ConfigError(
                "model.train: head trains so few weights that there is nothing to divide among processes. Remove fsdp "
                "and deepspeed from train.trainer_arguments, or set model.train to full."
            )
        if settings.save_dtype == "bf16" and self.start_dtype != torch.bfloat16:
            raise ConfigError(
                f"model.save_dtype: bf16 would round the frozen weights of '{settings.path}', whose hidden states are "
                "those of its own weights. Remove it, or set model.train to last_n or full."
            )
        return make_trained_head(self._lend_start(), settings)

    def _to_train(self, settings: ModelConfig, own: Any = None) -> Any:
        if own is not None:
            return make_reward_model(own, settings, own=own)
        if settings.lora_rank:
            return make_reward_model(self._lend_start(), settings)
        start = self._give_start()
        return make_reward_model(start, settings, own=start)

    def features(
        self,
        encoded: TokenizedPreferences,
        *,
        pool: str = "last",
        layers: Sequence[int] | None = None,
        progress: bool = True,
    ) -> PreferenceFeatures:
        """Features of preferences under the frozen start model, from the cache or computed and stored.

        Args:
            encoded: the preferences.
            pool: the tokens over which hidden states are pooled.
            layers: as in `FeatureCache`; None for what the head reads.
            progress: show a progress bar.

        Raises:
            ConfigError: an unknown pool or layer.
            RunError: the model gives a value that is not finite, or the cache cannot be written.
        """
        settings, start = self.settings, self.start_model
        way = (pool, None if layers is None else tuple(layers))
        if way not in self._features:
            self._features[way] = FeatureCache(
                cache_folder(settings.reference.cache, "features"),
                self.start_fingerprint,
                settings.model.precision,
                next(start.parameters()).dtype,
                pool=pool,
                layers=layers,
                together=is_divided(start),
            )
        return self._features[way].preferences(
            encoded,
            lambda: self.start_model,
            tokens_per_batch=settings.reference.tokens_per_batch,
            pad_id=self.tokenizer.pad_token_id,
            plan=self.plan,
            progress=progress,
        )

    def sketch(self, settings: ModelConfig) -> Any:
        from transformers import AutoModelForSequenceClassification

        model = sketch_pretrained(
            AutoModelForSequenceClassification, settings.path, dtype=base_dtype(settings), num_labels=1
        )
        head = model.get_submodule(HEAD)
        if settings.trained == "head":
            model.requires_grad_(False)
            set_head(model, HiddenHead(head.in_features, settings.head_hidden) if settings.head_hidden else head)
            model.get_submodule(HEAD).requires_grad_(True)
            return model
        if not settings.lora_rank:
            return model if settings.last_layers is None else train_last(model, settings.last_layers)
        lora = lora_config(model, settings, head=head, task_type="SEQ_CLS")
        sketch_adapter(model, lora.target_modules, settings.lora_rank, lora.layers_to_transform)
        head.requires_grad_(True)
        return model

    def prepare(self, model: Any, scorer: AnyScorer, training: TrainConfig) -> AnyScorer:
        if isinstance(scorer, HeadScorer):
            return scorer
        if not self.settings.model.dropout:
            pad_id = int(model.config.get_text_config().pad_token_id)
            sequences = trial_sequences(model, scorer.plan.layout, whole_to=pad_id)
            refuse_noise(model, lambda: response_rewards(model, sequences, plan=scorer.plan))
        if training.compile:
            compile_layers(model)
        return scorer

    def scorer(
        self,
        model: Any,
        kind: ScoreKind,
        *,
        precision: str,
        wide: bool = False,
        tokens: Any = None,
        statistics: bool = False,
    ) -> AnyScorer:
        """Where the trunk is the start model's, its hidden states are not computed again."""
        inner = unwrapped(model)
        if isinstance(inner, TrainedHead) or (self._start is not None and is_on_trunk(inner, self._start)):
            return HeadScorer(self.plan(self.start_model).layout, wide)
        return RewardScorer(self.plan(model), precision, wide)

    def inputs(
        self,
        encoded: TokenizedPreferences,
        scorer: AnyScorer,
        *,
        reference: Any = None,
        scoring: Any = None,
    ) -> TokenInputs | FeatureInputs:
        if isinstance(scorer, RewardScorer):
            return TokenInputs(encoded, self.tokenizer.pad_token_id, scorer.plan.layout, whole=True)
        tokens = TokenInputs(encoded, self.tokenizer.pad_token_id, scorer.layout, whole=True)
        return FeatureInputs(self.features(encoded), tokens)

    def check_scoring(self, encoded: TokenizedPreferences, model: Any) -> None:
        super().check_scoring(encoded, self.start_model if isinstance(model, TrainedHead) else model)

    def merges(self, settings: ModelConfig) -> bool:
        return bool(settings.lora_rank)  # transformers loads full weights as a classifier

    def checkpoint(self, model: Any, folder: Path, state: Mapping[str, torch.Tensor] | None) -> None:
        if isinstance(model, TrainedHead):
            write_state(model, folder, state)
        else:
            super().checkpoint(model, folder, state)

    def save(
        self, model: Any, folder: Path, state: Mapping[str, torch.Tensor] | None, settings: ModelConfig
    ) -> dict[str, Any]:
        return super().save(self.whole(model), folder, None if isinstance(model, TrainedHead) else state, settings)

    def whole(self, model: Any) -> Any:
        """A trained head on the start model's trunk; other models as they are."""
        return with_head(self.start_model, model.score) if isinstance(model, TrainedHead) else model

    def finish(
        self,
        model: Any,
        folder: Path,
        saved: Mapping[str, Any],
        settings: ModelConfig,
        sides: Sequence[TokenizedPreferences],
    ) -> None:
        super().finish(model, folder, saved, settings, sides)
        data = self.settings.data
        RewardFormat(
            max_length=data.max_length,
            truncation=data.truncation,
            prompt=data.prompt,
            reasoning=data.reasoning,
            head_hidden=settings.head_hidden or head_width(self.start_outline),
        ).save(folder)

    def load(self, folder: Path) -> nn.Module:
        if not (folder / FORMAT_FILE).is_file():
            raise RunError(f"{folder} has no trained reward model. Finish the run with popmargin train --resume.")
        model, start = self._load(str(folder), torch.float32), self._start
        if start is None or is_divided(start) or not has_trunk_of(model, start):
            return model
        return with_head(start, model.get_submodule(HEAD))
