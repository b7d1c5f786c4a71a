"""What a `PreferenceTrainer` was trained on, stored in each checkpoint, so that nothing else is resumed.

checkpoint-N/popmargin/   the record of a run directory (see `training/fingerprints.py`), for the training side
    settings.json         settings of the loss and the order of the rows, by name
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transformers import TrainingArguments

from popmargin.config import to_dict
from popmargin.errors import RunError
from popmargin.files import whole_file
from popmargin.safe_reading import read_object
from popmargin.training.build import Run
from popmargin.training.fingerprints import Record, Rows
from popmargin.training.inputs import flat

_FOLDER, _SETTINGS = "popmargin", "settings.json"
_FREE = ("name", "output", "model.path", "model.save_dtype", "pop.edges", "pop.scale", "train.frozen_cache_gb",
         "train.compile", "train.token_statistics", "data.workers", "data.cache")  # fmt: skip
"""Settings that change neither loss nor order, or whose content is in the record."""
_FREE_SECTIONS = ("evaluation.", "reference.")
_TOGETHER = ("train.tokens_per_batch", "train.micro_batch_size")
"""Settings that matter only to objectives with statistics over the rows forwarded together."""
_ARGUMENTS = ("data_seed", "dataloader_drop_last")
_UNSAID = ("base_model_name_or_path", "revision", "inference_mode", "peft_version", "auto_mapping")
"""Entries of an adapter's configuration that do not affect its training."""


@dataclass(frozen=True)
class CheckpointRecord:
    """A record of what a trainer is trained on.

    Attributes:
        settings: those of the loss and the order of the rows, by name.
        record: data, models, edges and code, by content.
    """

    settings: Mapping[str, Any]
    record: Record

    @staticmethod
    def of(
        run: Run, arguments: TrainingArguments, adapter: Any, record: Record, held_out: str | None
    ) -> "CheckpointRecord":
        """The record of a trainer.

        Args:
            run: its settings and loss.
            arguments: transformers' own.
            adapter: peft's configuration of what is trained; None trains all weights.
            record: of the run; its held-out side is not part of the training.
            held_out: fingerprint of the held-out preferences, if they choose the best checkpoint.
        """
        free = _FREE if run.loss.objective.uses_batch_statistics(run.loss.options) else (*_FREE, *_TOGETHER)
        settings = {name: value for name, value in flat(to_dict(run.config)).items()
                    if name not in free and not name.startswith(_FREE_SECTIONS)}  # fmt: skip
        settings |= {f"args.{name}": getattr(arguments, name) for name in _ARGUMENTS}
        if adapter is not None:
            entries = {name: value for name, value in adapter.to_dict().items() if name not in _UNSAID}
            settings |= flat({"peft_config": entries})
        none = Rows([], [], [])
        facts = {name: value for name, value in record.facts.items() if not name.endswith("held-out preferences")}
        facts |= {} if held_out is None else {"the held-out preferences, which choose the best checkpoint": held_out}
        sides = {"train": record.sides["train"], "test": none, "aside": none}
        return CheckpointRecord(_plain(settings), replace(record, sides=sides, facts=facts))

    def save(self, checkpoint: Path) -> None:
        """Write it into a checkpoint."""
        folder = checkpoint / _FOLDER
        self.record.save(folder)
        with whole_file(folder / _SETTINGS) as partial:
            partial.write_text(json.dumps(dict(self.settings), indent=1) + "\n", encoding="utf-8")

    @staticmethod
    def load(checkpoint: Path) -> "CheckpointRecord | None":
        """Read what `save` wrote; None in a checkpoint without it.

        Raises:
            RunError: a file is missing or damaged.
        """
        folder = checkpoint / _FOLDER
        if not folder.is_dir():
            return None
        record = Record.load(folder)
        settings = read_object(folder / _SETTINGS, "Resume from another checkpoint, or train from the start.")
        if record is None:
            raise RunError(f"{folder}: the record of its training lacks data.parquet and fingerprints.json.")
        return CheckpointRecord(settings, record)

    def changes(self, now: "CheckpointRecord") -> list[str]:
        """The differences, a sentence each; empty if there are none."""
        names = dict.fromkeys([*self.settings, *now.settings])
        pairs = {name: (self.settings.get(name, "not set"), now.settings.get(name, "not set")) for name in names}
        other = [f"{name}: {before} → {after}" for name, (before, after) in pairs.items() if before != after]
        return [*other, *self.record.changes(now.record)]


def _plain(value: Any) -> Any:
    """A value after a round trip through JSON; sets sorted."""

    def other(given: Any) -> Any:
        return sorted(given, key=str) if isinstance(given, set) else str(given)

    return json.loads(json.dumps(value, default=other))
