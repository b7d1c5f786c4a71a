"""Text-to-image models: diffusers pipelines, scored by the denoising errors of images against a reference."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from popmargin.config import EvaluationConfig
from popmargin.tasks.base import Task, task
from popmargin.tasks.image_options import ImagesOptions

if TYPE_CHECKING:
    from popmargin.generate.samples import Samples


@task("images", options=ImagesOptions)
class ImageTask(Task):
    """A text-to-image model, whose score of an image is minus half its denoising error, or the change of it."""

    provides: ClassVar[frozenset[str]] = frozenset(
        {"log_ratio", "mean_log_ratio", "logp", "mean_logp", "reference", "generation"}
    )
    noun: ClassVar[str] = "a text-to-image model"
    beta: ClassVar[float | None] = 2000.0
    columns: ClassVar[tuple[str, ...]] = ("chosen_image", "rejected_image")
    use: ClassVar[str] = " Load it with diffusers: DiffusionPipeline.from_pretrained('{model}')."

    def sample(
        self, model: Any, prompts: Sequence[Any], encoded: Any, settings: EvaluationConfig, *, progress: bool
    ) -> "Samples":
        raise NotImplementedError
