"""Text-to-image models: diffusers pipelines, scored by the denoising errors of images against a reference."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from accelerate.utils import send_to_device
from safetensors import safe_open
from torch import Tensor, nn
from transformers import TrainerCallback

from popmargin.config import EvaluationConfig, ModelConfig
from popmargin.data.schema import Preferences
from popmargin.engine.sequences import split_to_budget
from popmargin.errors import ConfigError, RunError
from popmargin.files import digest
from popmargin.generate.sample_images import check_sampling_of_images, image_samples
from popmargin.generate.samples import Samples
from popmargin.models.pipelines import Pipeline, load_pipeline, part_fingerprint, sketch_denoiser
from popmargin.models.policies import base_dtype
from popmargin.models.saved import choose_dtype, round_weights, write_model, write_state
from popmargin.models.saved_pipelines import load_trained, make_denoiser, save_lora, save_whole
from popmargin.models.sketch import sketch_adapter
from popmargin.objectives.base import ScoreKind
from popmargin.tasks.base import Task, TaskSettings, task
from popmargin.tasks.image_guards import SaturationWatch
from popmargin.tasks.image_inputs import ImageInputs, ImagePreferences, encode_preferences, stored_errors
from popmargin.tasks.image_options import ImagesOptions
from popmargin.tasks.image_scores import ImageScorer
from popmargin.tasks.text import cache_folder

_DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}


@dataclass(frozen=True, eq=False)
class ImageReference:
    """The reference's errors of some preferences.

    Attributes:
        encoded: the preferences.
        of_draws: from a scorer with fixed draws to the errors (N, K, 2).
    """

    encoded: ImagePreferences
    of_draws: Callable[[ImageScorer], np.ndarray]


@task("images", options=ImagesOptions)
class ImageTask(Task):
    """A text-to-image model, whose score of an image is minus half its denoising error, or the change of that."""

    provides: ClassVar[frozenset[str]] = frozenset(
        {"log_ratio", "mean_log_ratio", "logp", "mean_logp", "reference", "generation", "images"}
    )
    noun: ClassVar[str] = "a text-to-image model"
    beta: ClassVar[float | None] = 2000.0
    columns: ClassVar[tuple[str, ...]] = ("chosen_image", "rejected_image")
    encodes_with_weights: ClassVar[bool] = True
    use: ClassVar[str] = " Load it with diffusers."
    no_tokens: ClassVar[str] = (
        "images have no tokens, and the model's own text encoder says how long a prompt may be. Remove it; task.size "
        "sets the size of the images."
    )

    def __init__(self, settings: TaskSettings) -> None:
        super().__init__(settings)
        self.options: ImagesOptions = settings.options
        self._errors: dict[tuple[Any, ...], np.ndarray] = {}

    def fits(self, settings: TaskSettings) -> bool:
        mine = self.settings
        same_dtype = base_dtype(settings.model) == base_dtype(mine.model)
        return same_dtype and replace(settings, model=settings.model.start) == replace(mine, model=mine.model.start)

    def samples_like(self, other: Any) -> bool:
        def sampled(settings: TaskSettings) -> tuple[Any, ...]:
            model, options = settings.model, settings.options
            named = settings.reference.model or model.path
            return model.path, named, base_dtype(model), model.precision, options.size

        return isinstance(other, ImageTask) and sampled(self.settings) == sampled(other.settings)

    @cached_property
    def pipeline(self) -> Pipeline:
        """The start model with its other parts, frozen."""
        settings = self.settings.model
        if settings.start_adapter == "stack":
            raise ConfigError(
                "model.start_adapter: stack is only for policies with model.lora_rank above 0. Remove it."
            )
        return load_pipeline(settings.path, base_dtype(settings), size=self.options.size, dropout=settings.dropout)

    @cached_property
    def start_dtype(self) -> torch.dtype:
        """The dtype in which the start model is stored."""
        for file in sorted((self.pipeline.folder / self.pipeline.name).glob("*.safetensors"))[:1]:
            with safe_open(file, "pt") as tensors:
                stored = {tensors.get_slice(name).get_dtype() for name in tensors.keys()}  # noqa: SIM118
            return next((dtype for name, dtype in _DTYPES.items() if name in stored), torch.float32)
        return torch.float32

    @cached_property
    def cache(self) -> Path:
        """The folder of latents, encoded prompts and the reference's errors."""
        return cache_folder(self.settings.reference.cache) / "images"

    def encode(self, preferences: Preferences) -> ImagePreferences:
        return encode_preferences(preferences, self.pipeline, self.cache)

    def check(self, sides: Sequence[ImagePreferences], evaluation: EvaluationConfig) -> None:
        if evaluation.reward is not None:
            check_sampling_of_images(self.pipeline.denoiser(self.pipeline.model), evaluation)

    # -- reference -------------------------------------------------------------------------------------------------

    @cached_property
    def reference_model(self) -> nn.Module:
        """The reference, frozen."""
        named = self.settings.reference.model
        if named is None:
            return self.pipeline.model
        start = self.pipeline
        other = load_pipeline(named, base_dtype(self.settings.model), size=start.size)
        same = ["vae", *start.conditioning, "scheduler"]
        wrong = [part for part in same if start.fingerprint(part) != other.fingerprint(part)]
        if wrong or other.shape != start.shape:
            raise ConfigError(
                f"reference.model '{named}' has another {', '.join(wrong) or 'size of images'} than model.path "
                f"'{start.path}', so its errors are of other numbers. Choose a reference of the same family."
            )
        return other.model

    def reference(self, encoded: ImagePreferences, model: str | None = None) -> ImageReference:
        def of_draws(scorer: ImageScorer) -> np.ndarray:
            place = (encoded.fingerprint, scorer.fixed, scorer.drawing)
            if place not in self._errors:
                self._errors[place] = self._reference_errors(encoded, scorer)
            return self._errors[place]

        return ImageReference(encoded, of_draws)

    def _reference_errors(self, encoded: ImagePreferences, scorer: ImageScorer) -> np.ndarray:
        """The reference's errors of all preferences under fixed draws (N, K, 2), from the cache or computed."""
        model, options = self.reference_model, self.options
        told = (part_fingerprint(model), self.pipeline.fingerprint("scheduler"), encoded.fingerprint, scorer.precision,
                repr(scorer.drawing), str(scorer.fixed), options.space, str(options.snr_limit))  # fmt: skip
        inputs, device = ImageInputs(encoded), self.pipeline.device

        def compute() -> np.ndarray:
            found = np.empty((len(encoded), scorer.fixed, 2))
            for rows in split_to_budget(inputs.costs().tolist(), self.settings.reference.tokens_per_batch):
                batch = send_to_device(inputs.collate(np.array(rows)), device)
                with torch.no_grad():
                    found[rows] = scorer.fixed_errors(model, batch).cpu().numpy()
            if not np.isfinite(found).all():
                raise RunError("The reference model gives non-finite errors: are its weights intact?")
            return found

        return stored_errors(self.cache / f"errors-{digest(*(part.encode() for part in told))}", compute)

    def start_gaps(self, encoded: ImagePreferences, kind: ScoreKind, reference: Callable[[], ImageReference]) -> Tensor:
        if kind in ("log_ratio", "mean_log_ratio"):
            return torch.zeros(len(encoded))
        if self.settings.reference.model is not None:
            raise ConfigError(
                "target.kind `bank` with an objective on log-probs starts from the errors of the start model, which "
                "are known only if it is also the reference: remove reference.model, or choose another target."
            )
        scorer = self.scorer(None, kind, precision=self.settings.model.precision, wide=True)
        errors = torch.from_numpy(reference().of_draws(scorer)).mean(1)
        return (errors[:, 1] - errors[:, 0]) / 2

    # -- training --------------------------------------------------------------------------------------------------

    def sketch(self, settings: ModelConfig) -> Any:
        model = sketch_denoiser(settings.path)
        names = {name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, nn.Linear)}
        return sketch_adapter(model, names, settings.lora_rank) if settings.lora_rank else model

    def make_model(self, settings: ModelConfig) -> Any:
        return make_denoiser(self.pipeline.model, settings)

    def scorer(
        self,
        model: Any,
        kind: ScoreKind,
        *,
        precision: str,
        wide: bool = False,
        tokens: Any = None,
        statistics: bool = False,
    ) -> ImageScorer:
        return ImageScorer(self.pipeline, kind, precision, self.options, self.reference_model, wide)

    def watch(self, beta: float) -> Sequence[TrainerCallback]:
        return (SaturationWatch(beta),)

    def inputs(
        self,
        encoded: ImagePreferences,
        scorer: ImageScorer,
        *,
        reference: ImageReference | None = None,
        scoring: Any = None,
    ) -> ImageInputs:
        if reference is None:
            return ImageInputs(encoded)
        errors = reference.of_draws(scorer) if scorer.fixed else None
        return ImageInputs(encoded, errors, live=errors is None or scorer.inverts)

    def fingerprints(self, sides: Mapping[str, ImagePreferences], scoring: str | None = None) -> dict[str, str]:
        facts = {"start model": self.pipeline.fingerprint()}
        if self.settings.reference.model is not None:
            facts["reference model"] = part_fingerprint(self.reference_model)
        return facts | {f"made: images and prompts of {name}": encoded.fingerprint for name, encoded in sides.items()}

    # -- saving ----------------------------------------------------------------------------------------------------

    def checkpoint(self, model: Any, folder: Path, state: Mapping[str, Tensor] | None) -> None:
        if hasattr(model, "peft_config"):
            write_model(model, folder, state, own_names=True)
        else:
            write_state(model, folder, state)

    def save(
        self, model: Any, folder: Path, state: Mapping[str, Tensor] | None, settings: ModelConfig
    ) -> dict[str, Any]:
        if settings.lora_rank:
            save_lora(self.pipeline, model, state, folder)
            return {"dtype": "float32", "kept": 1.0}
        weights = model.state_dict() if state is None else state
        dtype, kept = choose_dtype(weights, lambda: self.pipeline.model, self.start_dtype, settings.save_dtype)
        save_whole(self.pipeline, model, weights, folder, dtype)
        return {"dtype": str(dtype).removeprefix("torch."), "kept": kept}

    def finish(
        self,
        model: Any,
        folder: Path,
        saved: Mapping[str, Any],
        settings: ModelConfig,
        sides: Sequence[ImagePreferences],
    ) -> None:
        if saved["dtype"] != "float32" and not settings.lora_rank and model is not None:
            round_weights(model, getattr(torch, saved["dtype"]))

    def load(self, folder: Path) -> Any:
        return load_trained(folder, self.pipeline)

    # -- generation ------------------------------------------------------------------------------------------------

    def sample(
        self,
        model: Any,
        prompts: Sequence[Any],
        encoded: ImagePreferences,
        settings: EvaluationConfig,
        *,
        progress: bool,
        keys: Sequence[str] | None = None,
        log_ratio: bool = True,
    ) -> Samples:
        model = self.reference_model if model is None else model
        denoiser = self.pipeline.denoiser(model, self.settings.model.precision)
        made = image_samples(denoiser, prompts, settings, progress=progress, keys=keys)
        return replace(made, notes=tuple(self.pipeline.cut_prompts(prompts)))
