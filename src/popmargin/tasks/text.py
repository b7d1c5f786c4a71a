"""Shared by policies and reward models: a start model with a tokenizer, and preferences as tokens."""

import gc
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from popmargin.config import EvaluationConfig, ModelConfig
from popmargin.data.encode import Writing
from popmargin.data.goal_tokens import refuse_lost_goals
from popmargin.data.schema import Preferences
from popmargin.data.tokenize import TokenizedPreferences, refuse_images, tokenize_preferences
from popmargin.data.tokenizer_rules import tokenizer_fingerprint
from popmargin.engine.found_for_models import FoundForModels
from popmargin.engine.processes import is_divided
from popmargin.engine.reference import model_fingerprint
from popmargin.engine.trial import unwrapped
from popmargin.errors import RunError
from popmargin.files import digest, user_cache
from popmargin.models.loading import stored_dtype
from popmargin.models.policies import BASE_FILE, base_dtype, load_tokenizer, merged
from popmargin.models.saved import choose_dtype, refuse_other_base, round_weights, write_model
from popmargin.models.sharding import MAIN_MEMORY
from popmargin.models.shared_weights import outline
from popmargin.tasks.base import Task, TaskSettings
from popmargin.tasks.checks import check_padding, check_rows


def cache_folder(configured: str | None, name: str = "reference") -> Path:
    """The folder of caches: the configured one, or one of this name in the user's cache folder."""
    return Path(configured) if configured else user_cache() / name


class TextTask(Task):
    """A task whose preferences are texts, tokenized by the start model's tokenizer."""

    def __init__(self, settings: TaskSettings) -> None:
        super().__init__(settings)
        self._plans = FoundForModels[Any]()
        self._start: nn.Module | None = None
        self._outline: nn.Module | None = None
        self._lent = False  # whether adapters are around the weights of `_start`

    def fits(self, settings: TaskSettings) -> bool:
        mine = self.settings
        same_dtype = base_dtype(settings.model) == base_dtype(mine.model)
        return same_dtype and replace(settings, model=settings.model.start) == replace(mine, model=mine.model.start)

    @cached_property
    def tokenizer(self) -> Any:
        """The start model's tokenizer."""
        return load_tokenizer(self.settings.model.path)

    @property
    def start_model(self) -> nn.Module:
        """The start model, frozen; loaded again if it has been given away to be trained.

        Raises:
            RunError: it cannot be loaded, or its files have changed since the first time.
        """
        if self._start is None:
            self._start = self._load_start()
            self._lent = False
        return self._start

    def _load_start(self, place: torch.device | None = None) -> nn.Module:
        """The start model, on the default accelerator or elsewhere."""
        if place is None:
            model = self.frozen(self._read_start, seen=self._keep_outline)
        else:
            model = self._read_start(place).eval().requires_grad_(False)
        known = vars(self).get("start_fingerprint")
        if known is not None and model_fingerprint(model) != known:
            raise RunError(
                f"The start model '{self.settings.model.path}' has changed since it was first loaded. Restore its "
                "files, and start again."
            )
        return model

    def _read_start(self, place: torch.device | None) -> nn.Module:
        settings = self.settings.model
        return self._load(settings.path, base_dtype(settings), dropout=settings.dropout, place=place)

    def frozen(
        self, load: Callable[[torch.device | None], nn.Module], *, seen: Callable[[nn.Module], None] | None = None
    ) -> nn.Module:
        """A model that is not trained, whole or divided among processes.

        Args:
            load: returns it, given where its weights are kept; None for the default accelerator.
            seen: is given a model that is divided, before that, without its values.
        """
        if self.sharding is None:
            return load(None).eval().requires_grad_(False)
        return self.sharding.divide(lambda: load(MAIN_MEMORY).eval().requires_grad_(False), seen=seen)

    def _keep_outline(self, model: nn.Module) -> None:
        self._outline = outline(model)

    @property
    def start_outline(self) -> Any:
        """The start model where only its settings and shapes matter; without its weights if it was given away."""
        return self._start or self._outline or self.start_model

    def _give_start(self) -> nn.Module:
        """The start model itself, to be trained: there is no second copy, until it is loaded again."""
        if self._lent:  # adapters that still exist are not changed with it
            self._start = None
        model, _ = self.start_model, self.start_fingerprint  # while its weights are those that were loaded
        self._start, self._outline = None, outline(model)
        self._plans.forget(model)
        return model

    def _lend_start(self) -> nn.Module:
        """The start model, for an adapter around its weights."""
        model, _ = self.start_model, self.start_fingerprint  # to see later that these have not changed
        self._lent = True
        return model

    def _start_to_compare(self) -> nn.Module:
        """The start model, whole, beside a trained one; in main memory if it has to be loaded for that."""
        if self._start is None or is_divided(self._start):
            return self._load_start(MAIN_MEMORY)
        return self._start

    @cached_property
    def start_dtype(self) -> torch.dtype:
        """The dtype in which the start model is stored."""
        return stored_dtype(self.settings.model.path)

    @abstractmethod
    def _load(
        self, path: str, dtype: torch.dtype, *, dropout: bool = False, place: torch.device | None = None
    ) -> nn.Module:
        """A model of this task from a folder or hub id, on the default accelerator or elsewhere."""

    @abstractmethod
    def _to_train(self, settings: ModelConfig, own: Any = None) -> Any:
        """A model to train, from the start model; or from `own`, another one with its weights, in place."""

    def _whole_to_train(self, settings: ModelConfig) -> Any:
        """A model to train, in main memory."""
        with torch.random.fork_rng([]):  # what is drawn for the new weights is what one process draws
            model = self._read_start(MAIN_MEMORY)
        return self._to_train(settings, model)

    def make_model(self, settings: ModelConfig) -> Any:
        if self.sharding is None:
            return self._to_train(settings)
        self._start = None  # it has been scored, and would be a second part of every weight
        gc.collect()  # a divided model refers to itself
        return self.sharding.divide(lambda: self._whole_to_train(settings), checkpointed=True)

    @cached_property
    def start_fingerprint(self) -> str:
        """Hash of the start model's weights and architecture."""
        return model_fingerprint(self.start_model)

    @abstractmethod
    def _find_plan(self, model: Any) -> Any:
        """The fastest way for a model to score."""

    def plan(self, model: Any) -> Any:
        """The fastest way for a model to score; found once per model."""
        inner = unwrapped(model)
        if self._plans.of(inner) is None:
            self._plans.keep(inner, self._find_plan(inner))
        return self._plans.of(inner)

    def encode(self, preferences: Preferences) -> TokenizedPreferences:
        refuse_images(preferences)  # before the tokenizer, which a text-to-image model may lack
        data = self.settings.data
        encoded = tokenize_preferences(
            preferences,
            self.tokenizer,
            max_length=data.max_length,
            truncation=data.truncation,
            writing=Writing(data.prompt, data.reasoning),
            workers=data.workers,
            keep=Path(data.cache) if data.cache else user_cache() / "tokens",
        )
        refuse_lost_goals(preferences, encoded, self.tokenizer)
        return encoded

    def check(self, sides: Sequence[TokenizedPreferences], evaluation: EvaluationConfig) -> None:
        for name, model in self._scoring_models().items():
            check_padding(self.tokenizer, model, name)
            for tokenized in sides:
                check_rows(tokenized, model, name)

    def check_scoring(self, encoded: TokenizedPreferences, model: Any) -> None:
        check_rows(encoded, model, self.settings.model.path)

    def _scoring_models(self) -> dict[str, nn.Module]:
        return {self.settings.model.path: self.start_model}

    def fingerprints(self, sides: Mapping[str, TokenizedPreferences], scoring: str | None = None) -> dict[str, str]:
        facts = {"start model": self.start_fingerprint, "tokenizer": tokenizer_fingerprint(self.tokenizer)}
        return facts | {f"tokens of {name}": tokens_fingerprint(tokenized) for name, tokenized in sides.items()}

    # -- saving ----------------------------------------------------------------------------------------------------

    def checkpoint(self, model: Any, folder: Path, state: Mapping[str, Tensor] | None) -> None:
        write_model(model, folder, state, own_names=True)

    def save(
        self, model: Any, folder: Path, state: Mapping[str, Tensor] | None, settings: ModelConfig
    ) -> dict[str, Any]:
        merges = self.merges(settings)
        if merges and state is not None:  # of a divided model
            model = self._whole_to_train(settings)
            left = model.load_state_dict(state, strict=False)  # DeepSpeed gathers what is trained alone
            trained = {name for name, value in model.named_parameters() if value.requires_grad}
            assert not left.unexpected_keys and not trained & set(left.missing_keys), left
            state = None
        model = merged(model) if merges else model
        adapter = bool(settings.lora_rank) and not merges
        weights = state or model.state_dict()
        dtype, kept = (None, 1.0)
        if not adapter:
            dtype, kept = choose_dtype(weights, self._start_to_compare, self.start_dtype, settings.save_dtype)
        write_model(model, folder, state, dtype=dtype)
        return {"dtype": str(dtype or torch.float32).removeprefix("torch."), "kept": kept}

    def finish(
        self,
        model: Any,
        folder: Path,
        saved: Mapping[str, Any],
        settings: ModelConfig,
        sides: Sequence[TokenizedPreferences],
    ) -> None:
        """Save the tokenizer next to the weights; round weights in memory as they were for saving, for evaluation."""
        if settings.lora_rank and not self.merges(settings):
            if model is not None:
                refuse_other_base(model, self.start_model, folder, settings.path)
                self._refuse_changed_base()
            (folder / BASE_FILE).write_text(self.start_fingerprint + "\n", encoding="utf-8")
        elif saved["dtype"] != "float32" and not settings.lora_rank and model is not None:
            round_weights(model, getattr(torch, saved["dtype"]))
        self.tokenizer.save_pretrained(folder)

    def _refuse_changed_base(self) -> None:
        """Check that training has left the weights under its adapter as they were."""
        if model_fingerprint(self.start_model) != self.start_fingerprint:
            raise RunError(
                f"The frozen weights of '{self.settings.model.path}' have changed in training, and an adapter does not "
                "save them. Train all weights (model.lora_rank: 0)."
            )


def tokens_fingerprint(tokenized: TokenizedPreferences) -> str:
    """Fingerprint of the token ids of preferences, in order: it shows whether texts still give the same tokens."""
    sides = (tokenized.prompt, tokenized.chosen, tokenized.rejected)
    return digest(*(array for side in sides for array in (side.offsets, side.values)))
