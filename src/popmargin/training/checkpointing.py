"""`transformers.Trainer` whose checkpoints are whole or are not there: see `training/checkpoints.py`."""

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import Trainer

from popmargin.errors import RunError
from popmargin.training.checkpoints import UNFINISHED, newest_whole, publish, remove_old
from popmargin.training.disk_space import refuse_full, sizes
from popmargin.training.finite import bad_weights

_LOG = logging.getLogger(__name__)


class CheckpointingTrainer(Trainer):
    """Writes each checkpoint beside the others, seals it, and moves it to its place."""

    logs: Sequence[Path] = ()
    """Files that grow along with the training; each checkpoint holds them as they were."""
    saved_copies = 0
    """Of the trained weights in fp32, which a checkpoint holds besides those and the optimizer's."""
    _is_saving = False

    @torch.no_grad()
    def refuse_bad_weights(self) -> None:
        """Before weights are saved: each must be finite, in all processes.

        A step is checked before it is taken; what it does to the weights is seen only here, or in the next step.

        Raises:
            RunError: some are not; the message names them and the last checkpoint.
        """
        model: Any = self.model
        bad = bad_weights(model)
        found = len(bad)
        if self.args.world_size > 1:
            counts: Any = self.accelerator.gather(torch.tensor([found], device=self.args.device))
            found = int(counts.max())
        if not found:
            return
        whole = newest_whole(Path(str(self.args.output_dir)))
        named = f" ({', '.join(bad[:3])}{' …' if len(bad) > 3 else ''})" if bad else ""
        raise RunError(
            f"Weights are not finite after step {self.state.global_step}{named}. They were not saved. Train again with "
            "a lower train.learning_rate" + ("." if whole is None else f"; {whole} is from before.")
        )

    def _get_output_dir(self, trial: Any) -> str:
        folder = super()._get_output_dir(trial)
        return str(Path(folder) / UNFINISHED) if self._is_saving else folder

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Write a checkpoint beside the others, seal it, and move it to its place: see `training/checkpoints.py`."""
        self.refuse_bad_weights()
        folder = Path(self._get_output_dir(trial))
        unfinished, name = folder / UNFINISHED, f"checkpoint-{self.state.global_step}"
        if self.args.should_save:
            shutil.rmtree(unfinished, ignore_errors=True)  # of a save that was killed
        self.accelerator.wait_for_everyone()
        self._is_saving = True
        try:
            if self.args.should_save:
                refuse_full(folder, sizes(self)[0])
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()  # every process has written its part
            if self.args.should_save:
                self._name_best(unfinished / name, folder / name)
                for log in self.logs:
                    if log.is_file():
                        shutil.copyfile(log, unfinished / name / log.name)
                publish(unfinished / name, folder / name)
                remove_old(folder, self.args.save_total_limit, [folder / name, self.state.best_model_checkpoint])
        except (OSError, RuntimeError, SafetensorError) as error:
            if type(error) is RuntimeError and "PytorchStreamWriter" not in str(error):  # torch, where a disk is full
                raise
            self._tell_unsaved(error, folder, unfinished)
        finally:
            self._is_saving = False
        self.accelerator.wait_for_everyone()

    def _name_best(self, written: Path, place: Path) -> None:
        """The best checkpoint by the name that it will have."""
        if self.state.best_model_checkpoint == str(written):
            self.state.best_model_checkpoint = str(place)
            self.state.save_to_json(str(written / "trainer_state.json"))

    def _tell_unsaved(self, error: Exception, folder: Path, unfinished: Path) -> None:
        """A checkpoint could not be written: alone a process goes on, and says so.

        Raises:
            RunError: there are other processes, which wait for this one.
        """
        shutil.rmtree(unfinished, ignore_errors=True)
        whole, told = newest_whole(folder), getattr(error, "strerror", None) or error
        last = "there is none yet" if whole is None else f"the last one is {whole}"
        said = f"The checkpoint of step {self.state.global_step} could not be written ({told}); {last}."
        if self.args.world_size > 1:
            raise RunError(f"{said} Make room, and go on with --resume.") from error
        _LOG.warning("%s Training goes on; make room for the next one.", said)
