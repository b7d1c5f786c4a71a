"""Policies: causal language models, scored by the log-probs of their responses against a reference."""

import copy
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from popmargin.config import EvaluationConfig, ModelConfig, TrainConfig
from popmargin.data.tokenize import TokenizedPreferences, tokenize_prompts
from popmargin.engine.batch import TokenInputs
from popmargin.engine.compiled import compile_layers
from popmargin.engine.decoupled import LiveReference, taken_by_both
from popmargin.engine.dropout import switch_off_dropout
from popmargin.engine.frozen import FrozenOutputs
from popmargin.engine.limits import token_count
from popmargin.engine.logps import ForwardPlan, forward_plan, token_logps
from popmargin.engine.processes import is_divided
from popmargin.engine.reference import ReferenceCache, ReferenceLogps, model_fingerprint
from popmargin.engine.scores import pair_scores
from popmargin.engine.trial import refuse_noise, trial_sequences
from popmargin.errors import ConfigError, RunError
from popmargin.generate.ends import end_tokens, save_ends
from popmargin.generate.sample import Sampling, completion_logps, sample
from popmargin.generate.samples import Samples
from popmargin.models.adapter_files import ADAPTER_CONFIG
from popmargin.models.lora import keeps_base
from popmargin.models.policies import (
    base_dtype,
    device,
    load_model,
    load_policy,
    load_tokenizer,
    lora_config,
    make_policy,
    process_count,
    stands_alone,
)
from popmargin.models.refusals import refuse_pickles
from popmargin.models.shared_weights import shared_copy
from popmargin.models.sketch import sketch_adapter, sketch_pretrained
from popmargin.objectives.base import ScoreKind
from popmargin.tasks.base import TaskSettings, task
from popmargin.tasks.checks import check_sampling
from popmargin.tasks.log_probs import LanguageScorer
from popmargin.tasks.text import TextTask, cache_folder
from popmargin.tokens.base import TokenSelector

_LOG = logging.getLogger(__name__)


@task("policy")
class LanguageTask(TextTask):
    """A policy: a causal language model whose score of a response is its log-prob, or its log-ratio to a reference."""

    provides: ClassVar[frozenset[str]] = frozenset(
        {"log_ratio", "mean_log_ratio", "logp", "mean_logp", "reference", "tokens", "decoupled", "generation"}
    )
    noun: ClassVar[str] = "a policy"

    def __init__(self, settings: TaskSettings) -> None:
        super().__init__(settings)
        self._scoring: dict[str, nn.Module] = {}
        self._frozen: FrozenOutputs | None = None
        self._own: Any = None
        self._reference: nn.Module | None = None
        self._reference_is_given = False
        self.adapter: Any = None

    def take(self, model: Any, tokenizer: Any) -> None:
        """Start from a model in memory, not `model.path`; it is trained in place, on the default accelerator, and a
        frozen copy of it is the reference. Under an adapter both have the same weights in memory.
        """
        if not self.settings.model.dropout:
            switch_off_dropout(model)
        model.name_or_path = model.config.name_or_path = self.settings.model.path  # an adapter names this as its base
        self._own = model.to(device())
        self.tokenizer, self.start_dtype = tokenizer, next(model.parameters()).dtype
        start = shared_copy(model) if keeps_base(self.adapter) else copy.deepcopy(model)
        self._start = start.eval().requires_grad_(False)

    def take_reference(self, model: Any) -> None:
        """Score with a reference in memory instead of `reference.model`."""
        switch_off_dropout(model)
        self._reference = model.to(device()).eval().requires_grad_(False)
        self._reference_is_given = True

    def _read_start(self, place: torch.device | None) -> nn.Module:
        """With its own adapter on it if that is stacked."""
        settings = self.settings.model
        stack = settings.start_adapter == "stack"
        if stack and not settings.lora_rank:
            raise ConfigError(
                "model.start_adapter: stack is only for policies with model.lora_rank above 0. Remove it."
            )
        return load_model(
            settings.path,
            base_dtype(settings),
            dropout=settings.dropout,
            stack=stack,
            place=place,
            quantization=settings.quantization,
        )

    def _load(
        self, path: str, dtype: torch.dtype, *, dropout: bool = False, place: torch.device | None = None
    ) -> nn.Module:
        return load_model(path, dtype, dropout=dropout, place=place)

    def _find_plan(self, model: Any) -> ForwardPlan:
        return forward_plan(model)

    def ends(self, encoded: TokenizedPreferences) -> list[int]:
        """Ids of the tokens that end a completion, for both policy and reference.

        Args:
            encoded: preferences whose completions also end with some.
        """
        return end_tokens(self.tokenizer, self.start_outline.generation_config, encoded.report.ends)

    # -- reference -------------------------------------------------------------------------------------------------

    @property
    def reference_model(self) -> nn.Module:
        """The reference model, frozen; loaded again if it was released."""
        named = self.settings.reference.model
        if self._reference is None:
            if named is None:
                return self.start_model
            dtype = base_dtype(self.settings.model)
            self._reference = self.frozen(lambda place: load_model(named, dtype, place=place))
        return self._reference

    def release(self) -> None:
        if not self._reference_is_given:
            self._reference = None
        self._scoring.clear()

    @cached_property
    def reference_fingerprint(self) -> str:
        """Hash of the reference model's weights and architecture."""
        named = self.settings.reference.model
        return self.start_fingerprint if named is None else model_fingerprint(self.reference_model)

    @cached_property
    def reference_cache(self) -> ReferenceCache:
        """The reference's log-probs on disk."""
        return self._cache(self.reference_model, self.reference_fingerprint)

    def _cache(self, model: nn.Module, fingerprint: str) -> ReferenceCache:
        return ReferenceCache(
            cache_folder(self.settings.reference.cache),
            fingerprint,
            self.settings.model.precision,
            next(model.parameters()).dtype,
            together=is_divided(model),
        )

    def reference(self, encoded: TokenizedPreferences, model: str | None = None) -> ReferenceLogps:
        if model is None:
            return self._look_up(self.reference_cache, encoded, lambda: self.reference_model)
        other = self._scoring_model(model)
        return self._look_up(self._cache(other, model_fingerprint(other)), encoded, lambda: other)

    def _scoring_model(self, path: str) -> nn.Module:
        """A token selector's own reference.

        Raises:
            ConfigError: its tokenizer differs from the start model's.
        """
        if path not in self._scoring:
            theirs, ours = load_tokenizer(path).get_vocab(), self.tokenizer.get_vocab()
            if theirs != ours:
                raise ConfigError(
                    f"tokens.reference '{path}' has a different tokenizer (of size {len(theirs)}) than model.path "
                    f"'{self.settings.model.path}' (of size {len(ours)}), so its log-probs are for different tokens. "
                    "Use a model with the same tokenizer."
                )
            dtype = base_dtype(self.settings.model)
            self._scoring[path] = self.frozen(lambda place: load_model(path, dtype, place=place))
        return self._scoring[path]

    def _look_up(
        self, cache: ReferenceCache, encoded: TokenizedPreferences, model: Callable[[], nn.Module]
    ) -> ReferenceLogps:
        return cache.preferences(
            encoded,
            model,
            tokens_per_batch=self.settings.reference.tokens_per_batch,
            pad_id=self.tokenizer.pad_token_id,
            plan=self.plan,
        )

    def start_gaps(
        self, encoded: TokenizedPreferences, kind: ScoreKind, reference: Callable[[], ReferenceLogps]
    ) -> Tensor:
        """Log-ratios of the start model to itself are 0; its log-probs are the reference's."""
        if kind in ("log_ratio", "mean_log_ratio"):
            return torch.zeros(len(encoded))
        if self.settings.reference.model is not None:
            raise ConfigError(
                "target.kind `bank` with an objective on log-probs starts from those of the start model, which are "
                "cached only if it is also the reference: remove reference.model, or choose another target."
            )
        lengths = torch.from_numpy(np.concatenate([encoded.chosen.lengths, encoded.rejected.lengths]))
        return pair_scores(kind, reference().tokens(np.arange(len(encoded))), None, lengths).gap

    # -- training --------------------------------------------------------------------------------------------------

    def check(self, sides: Sequence[TokenizedPreferences], evaluation: EvaluationConfig) -> None:
        super().check(sides, evaluation)
        _, test = sides
        if evaluation.reward is not None and len(test):
            prompt, path = int(test.prompt.lengths.max()), self.settings.model.path
            check_sampling(self.start_model, path, prompt, evaluation.max_new_tokens, self.settings.data.max_length)

    def _scoring_models(self) -> dict[str, nn.Module]:
        named = self.settings.reference.model
        return super()._scoring_models() | ({} if named is None else {named: self.reference_model})

    def make_model(self, settings: ModelConfig) -> Any:
        return super().make_model(settings) if self._own is None else self._to_train(settings)

    def _to_train(self, settings: ModelConfig, own: Any = None) -> Any:
        if own is not None:
            return make_policy(own, settings, own=own, adapter=self.adapter)
        if settings.lora_rank or self._own is not None:
            return make_policy(self._lend_start(), settings, own=self._own, adapter=self.adapter)
        start = self._give_start()
        return make_policy(start, settings, own=start)

    def sketch(self, settings: ModelConfig) -> Any:
        from transformers import AutoModelForCausalLM

        model = sketch_pretrained(AutoModelForCausalLM, settings.path, dtype=base_dtype(settings))
        if not settings.lora_rank:
            return model
        lora = lora_config(model, settings, head=model.get_output_embeddings(), task_type="CAUSAL_LM")
        return sketch_adapter(model, lora.target_modules, settings.lora_rank, lora.layers_to_transform)

    def scorer(
        self,
        model: Any,
        kind: ScoreKind,
        *,
        precision: str,
        wide: bool = False,
        tokens: tuple[TokenSelector, Any] | None = None,
        statistics: bool = False,
    ) -> LanguageScorer:
        return LanguageScorer(self.plan(model), kind, precision, wide, tokens, statistics)

    def prepare(self, model: Any, scorer: LanguageScorer, training: TrainConfig) -> LanguageScorer:
        if not self.settings.model.dropout:
            sequences = trial_sequences(model, scorer.plan.layout)
            refuse_noise(model, lambda: token_logps(model, sequences, plan=scorer.plan))
        if training.frozen_cache_gb and process_count() > 1:
            _LOG.warning("train.frozen_cache_gb has no effect with several processes: all layers run in every step")
        elif training.frozen_cache_gb:
            # The first run's memory limit applies to all.
            self._frozen = self._frozen or FrozenOutputs(training.frozen_cache_gb)
            self._plans.keep(model, self._frozen.share(model, scorer.plan))
        if training.compile:
            compile_layers(model)
        return replace(scorer, plan=self.plan(model))

    def decoupled(self, scorer: LanguageScorer, weight: float) -> LanguageScorer:
        """The same scorer with the reference beside the policy.

        It is the reference model, not the policy with its adapter off: that would be none where a reference is named
        or an adapter lies under the trained one. Its weights are those under the policy's adapter, or a second copy.

        Raises:
            ConfigError: the reference has another vocabulary.
        """
        ours, theirs = token_count(self.start_outline), token_count(self.reference_model)
        if ours != theirs:
            raise ConfigError(
                f"De-coupled log-probs compare logits of the whole vocabulary, but reference.model "
                f"'{self.settings.reference.model}' has {theirs:,} of them and model.path '{self.settings.model.path}' "
                f"{ours:,}. Choose a reference of the same size of vocabulary, or set the objective's decoupling to 0."
            )
        live = LiveReference(weight, self.reference_model, self.plan(self.reference_model))
        return replace(scorer, plan=taken_by_both(scorer.plan, live.plan), other=live)

    def inputs(
        self,
        encoded: TokenizedPreferences,
        scorer: LanguageScorer,
        *,
        reference: ReferenceLogps | None = None,
        scoring: ReferenceLogps | None = None,
    ) -> TokenInputs:
        known = {"reference": reference, "scoring": scoring}
        cached = {name: logps for name, logps in known.items() if logps is not None}
        return TokenInputs(encoded, self.tokenizer.pad_token_id, scorer.plan.layout, cached=cached)

    def fingerprints(self, sides: Mapping[str, TokenizedPreferences], scoring: str | None = None) -> dict[str, str]:
        facts = super().fingerprints(sides)
        if self.settings.reference.model is not None:
            facts["reference model"] = self.reference_fingerprint
        if scoring is not None:
            facts["token selector's reference"] = model_fingerprint(self._scoring_model(scoring))
        return facts

    # -- saving ----------------------------------------------------------------------------------------------------

    def merges(self, settings: ModelConfig) -> bool:
        return bool(settings.lora_rank) and not stands_alone(settings)  # on a base that is not on disk

    def finish(
        self,
        model: Any,
        folder: Path,
        saved: Mapping[str, Any],
        settings: ModelConfig,
        sides: Sequence[TokenizedPreferences],
    ) -> None:
        super().finish(model, folder, saved, settings, sides)
        ends = sorted({token for encoded in sides for token in self.ends(encoded)})
        save_ends(folder, self.start_outline, ends, self.tokenizer.pad_token_id)

    def load(self, folder: Path) -> nn.Module:
        refuse_pickles(str(folder), str(folder))
        if (folder / ADAPTER_CONFIG).is_file():
            return load_policy(folder, self._lend_start(), fingerprint=lambda: self.start_fingerprint)
        return load_policy(folder, self.start_outline, fingerprint=lambda: self.start_fingerprint)

    # -- generation ------------------------------------------------------------------------------------------------

    def prompt_lengths(self, prompts: Sequence[Any]) -> np.ndarray:
        """Tokens of prompts, whole (P,)."""
        return tokenize_prompts(list(prompts), self.tokenizer).lengths

    def room_for_prompts(self, settings: EvaluationConfig) -> int:
        """Maximum tokens of a prompt next to a completion.

        Raises:
            RunError: there is no room.
        """
        room = self.settings.data.max_length - settings.max_new_tokens
        if room < 1:
            raise RunError(
                f"evaluation.max_new_tokens {settings.max_new_tokens} leaves no room for prompts within "
                f"data.max_length {self.settings.data.max_length}: lower the former or raise the latter."
            )
        return room

    def sample(
        self,
        model: Any,
        prompts: Sequence[Any],
        encoded: TokenizedPreferences,
        settings: EvaluationConfig,
        *,
        progress: bool,
        keys: Sequence[str] | None = None,
        log_ratio: bool = True,
    ) -> Samples:
        model = self.reference_model if model is None else model
        precision = self.settings.model.precision
        tokens = tokenize_prompts(list(prompts), self.tokenizer, max_length=self.room_for_prompts(settings))
        sampling = Sampling(
            samples=settings.samples,
            max_new_tokens=settings.max_new_tokens,
            temperature=settings.temperature,
            top_k=settings.top_k,
            top_p=settings.top_p,
            generation_config=settings.generation_config,
            batch_size=settings.generation_batch_size,
            seed=settings.seed,
            precision=precision,
        )
        ends = self.ends(encoded)
        completions = sample(model, self.tokenizer, tokens, sampling, ends=ends, keys=keys, progress=progress)
        rows = [tokens[place] for place in range(len(tokens)) for _ in range(settings.samples)]
        ids = [completion.tokens for completion in completions]
        log_ratios = np.full(len(ids), 0.0 if log_ratio else np.nan)
        if log_ratio and model is not self.reference_model:
            log_ratios = self._sums(model, rows, ids, settings) - self._sums(self.reference_model, rows, ids, settings)
        return Samples(
            texts=[completion.text for completion in completions],
            lengths=np.array([len(row) for row in ids], dtype=np.int64),
            finished=np.array([completion.finished for completion in completions]),
            log_ratio=log_ratios,
            drawn=sampling.drawn,
        )

    def _sums(
        self, model: Any, prompts: list[np.ndarray], completions: list[np.ndarray], settings: EvaluationConfig
    ) -> np.ndarray:
        return completion_logps(
            model,
            prompts,
            completions,
            plan=self.plan(model),
            tokens_per_batch=settings.tokens_per_batch,
            precision=self.settings.model.precision,
            pad_id=self.tokenizer.pad_token_id,
        )
