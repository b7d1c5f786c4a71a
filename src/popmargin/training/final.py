"""The end of a run: its weights are saved, read back, and compared with what was trained."""

import contextlib
import logging
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import torch

from popmargin.config import RunConfig
from popmargin.errors import RunError
from popmargin.models.loading import stored_dtype
from popmargin.models.policies import BASE_FILE, merged, stands_alone
from popmargin.models.reward_models import RewardFormat
from popmargin.models.saved import dtype_to_save, refuse_other_base, round_weights, write_model
from popmargin.training.prepare import Workspace
from popmargin.training.trainer import PreferenceTrainer

_LOG = logging.getLogger(__name__)


def is_merged(config: RunConfig) -> bool:
    """Whether a run's adapter is saved inside whole weights: a classifier's, or those of a base that is on no disk."""
    return bool(config.model.lora_rank) and (config.task == "reward" or not stands_alone(config.model))


def save_trained(trainer: PreferenceTrainer, config: RunConfig, workspace: Workspace, folder: Path) -> dict[str, Any]:
    """Save what a run has trained; of a reward model always all weights, so that transformers loads it as a classifier.

    Called by every process, as those of a sharded model put it together for the first. Whole weights that are rounded
    to be saved are rounded in memory too, so that an evaluation is of what was saved.

    Returns:
        In the first process, for run.json: the dtype of the saved weights, and the share of the training that it keeps.

    Raises:
        RunError: the files do not hold what is in memory.
    """
    saved: dict[str, Any] = {}
    adapter = bool(config.model.lora_rank) and not is_merged(config)

    def write(model: Any, folder: Path, state: Mapping[str, torch.Tensor] | None = None) -> None:
        dtype, kept = (None, 1.0) if adapter else _dtype(config, workspace, state or model.state_dict())
        write_model(model, folder, state, dtype=dtype)
        saved.update(dtype=str(dtype or torch.float32).removeprefix("torch."), kept=kept)

    if not is_merged(config):
        trainer.write = write
        with _whole(trainer):
            trainer.save_model(str(folder))
    if not trainer.is_world_process_zero():
        return {}
    if is_merged(config):
        write(merged(trainer.model), folder)
    if not saved:
        raise RunError(
            f"Nothing was saved in {folder}: DeepSpeed keeps the weights in parts. Set "
            "stage3_gather_16bit_weights_on_model_save in its zero_optimization."
        )
    model: Any = trainer.model
    if adapter:
        refuse_other_base(model, workspace.start_model, folder, config.model.path)
        (folder / BASE_FILE).write_text(workspace.start_fingerprint + "\n", encoding="utf-8")
    elif (
        saved["dtype"] != "float32"
        and not is_merged(config)
        and trainer.args.world_size == 1
        and not trainer.is_fsdp_enabled
    ):
        round_weights(model, getattr(torch, saved["dtype"]))
    if config.task == "reward":
        data = config.data
        RewardFormat(
            max_length=data.max_length, truncation=data.truncation, prompt=data.prompt, reasoning=data.reasoning
        ).save(folder)
    return {"saved_weights": saved}


def _dtype(config: RunConfig, workspace: Workspace, weights: Mapping[str, torch.Tensor]) -> tuple[torch.dtype, float]:
    stored = stored_dtype(config.model.path)
    wanted = {"start": None, "fp32": torch.float32, "bf16": torch.bfloat16}[config.model.save_dtype]
    dtype, kept = dtype_to_save(weights, workspace.start_model, stored, wanted)
    if wanted is None and dtype != stored:
        _LOG.warning(
            "The weights are saved in fp32: %s, which the start model is saved in, would round much of the training "
            "away. To save them so all the same, set model.save_dtype.",
            str(stored).removeprefix("torch."),
        )
    elif kept < 0.9:
        _LOG.warning("Rounding to model.save_dtype keeps %.0f%% of the training.", 100 * kept)
    return dtype, kept


@contextlib.contextmanager
def _whole(trainer: PreferenceTrainer) -> Generator[None]:
    """FSDP gives whole weights, though its checkpoints may be in parts."""
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
