"""The end of a run: its weights are saved, read back, and compared with those in memory."""

import contextlib
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor

from popmargin.config import ModelConfig
from popmargin.errors import RunError
from popmargin.files import whole_folder
from popmargin.listed_files import sync_folder, write_list
from popmargin.tasks.base import Task
from popmargin.training.checkpoints import newest_whole
from popmargin.training.divided import divides_weights
from popmargin.training.trainer import PreferenceTrainer

_FREE = ("README.md", ".gitattributes")
"""Files that people write about a model, which nothing reads."""


def save_trained(
    trainer: PreferenceTrainer, task: Task, settings: ModelConfig, folder: Path, sides: Sequence[Any]
) -> dict[str, Any]:
    """Save a run's trained model and its files.

    Called by every process, since those of a sharded model gather it for the first one.

    Args:
        trainer: after its last step.
        task: knows how its models are saved.
        settings: of the trained model.
        folder: created if missing.
        sides: encoded training and held-out preferences.

    Returns:
        In the first process, for run.json: the task's facts about the saved weights.

    Raises:
        RunError: weights are not finite, the files differ from those in memory, or cannot be written.
    """
    trainer.refuse_bad_weights()
    first = trainer.is_world_process_zero()
    try:
        with whole_folder(folder, replace=True) if first else contextlib.nullcontext(folder) as place:
            saved = _save(trainer, task, settings, place, sides)
            if first:
                files = [file for file in place.rglob("*") if file.is_file() and file.name not in _FREE]
                write_list(place, files)
    except (RunError, OSError, SafetensorError) as error:
        if isinstance(error, RunError) and not isinstance(error.__cause__, OSError):
            raise
        whole = newest_whole(Path(str(trainer.args.output_dir)))
        since = "trains again" if whole is None else f"goes on from {whole}"
        raise RunError(
            f"{folder}: the trained model cannot be written ({error.__cause__ or error}). Make room or check its "
            f"permissions; then popmargin train --resume {since}."
        ) from error
    if first:
        sync_folder(folder.parent)
    return saved


def _save(
    trainer: PreferenceTrainer, task: Task, settings: ModelConfig, folder: Path, sides: Sequence[Any]
) -> dict[str, Any]:
    saved: dict[str, Any] = {}

    def write(model: Any, folder: Path, state: Mapping[str, Tensor] | None = None) -> None:
        saved.update(task.save(model, folder, state, settings))

    divided = divides_weights(trainer)
    merges = task.merges(settings) and not divided  # otherwise they are gathered first
    if not merges:
        trainer.write = write
        with _whole(trainer):
            trainer.save_model(str(folder))
    if not trainer.is_world_process_zero():
        return {}
    if merges:
        write(trainer.model, folder)
    if not saved:
        raise RunError(
            f"Nothing was saved in {folder}: DeepSpeed keeps the weights sharded. Set "
            "stage3_gather_16bit_weights_on_model_save in its zero_optimization."
        )
    model = None if trainer.args.world_size > 1 or divided else trainer.model
    task.finish(model, folder, saved, settings, sides)
    return {"saved_weights": saved}


@contextlib.contextmanager
def _whole(trainer: PreferenceTrainer) -> Generator[None]:
    """Make FSDP gather full weights, although its checkpoints may be sharded."""
    plugin: Any = trainer.accelerator.state.fsdp_plugin if trainer.is_fsdp_enabled else None
    if plugin is None or "FULL_STATE_DICT" in str(plugin.state_dict_type):
        yield
        return
    kept = {name: getattr(plugin, name) for name in ("state_dict_type", "state_dict_config", "optim_state_dict_config")}
    plugin.state_dict_config = plugin.optim_state_dict_config = None
    plugin.set_state_dict_type("FULL_STATE_DICT")
    try:
        yield
    finally:
        for name, value in kept.items():
            setattr(plugin, name, value)
