"""The policy that a name means: a run directory with what it has trained, or a model's folder or hub id."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from popmargin.config import ModelConfig, from_dict, read_saved
from popmargin.data.encode import AS_TEMPLATE, Writing
from popmargin.data.goals import GoalFacts
from popmargin.engine.reference import model_fingerprint
from popmargin.errors import ConfigError, RunError
from popmargin.listed_files import refuse_changed
from popmargin.models.path import resolve_path
from popmargin.models.policies import base_dtype, load_model, load_policy, load_tokenizer
from popmargin.models.refusals import refuse_pickles
from popmargin.safe_reading import read_json, read_object

_START = "start model"
"""What a run's fingerprints.json calls the model that it started from."""
_REMEDY = "Restore it from a copy, or train the run again with --overwrite."


@dataclass(frozen=True)
class NamedPolicy:
    """A policy by its name, of which nothing is loaded yet.

    Attributes:
        name: as given.
        folder: what loads: the model's folder of a run, else the name itself.
        trained: how a run trained it; None where it is no run.
        own_reference: what a run names as its reference; None for its start model.
        writing: how its training wrote conversations.
    """

    name: str
    folder: str
    trained: ModelConfig | None = None
    own_reference: str | None = None
    writing: Writing = AS_TEMPLATE

    @cached_property
    def tokenizer(self) -> Any:
        """Its tokenizer, with a padding token."""
        return load_tokenizer(self.folder)

    @property
    def precision(self) -> str:
        """fp32 or bf16, as it was trained; fp32 where it is no run."""
        return "fp32" if self.trained is None else self.trained.precision

    @property
    def trained_ends(self) -> list[int]:
        """Ids of the tokens that a run has saved as the ends of completions; empty where it is none."""
        file = Path(self.folder) / "generation_config.json"
        if self.trained is None or not file.is_file():
            return []
        ends = read_json(file).get("eos_token_id")
        return list(ends) if isinstance(ends, list) else [] if ends is None else [ends]

    @cached_property
    def goal(self) -> GoalFacts | None:
        """What a run was trained to be asked for; None where it is none, or its data had no goals."""
        file = Path(self.name) / "run.json"
        stored = read_object(file, _REMEDY).get("goal") if file.is_file() else None
        return None if stored is None else GoalFacts.from_dict(stored)

    def load(self) -> Any:
        """The model in evaluation mode: the adapter of a LoRA run on its start model, else the whole weights.

        Raises:
            RunError: it cannot be loaded, or its start model has changed.
        """
        if self.trained is None:
            return load_model(self.folder, torch.float32).eval()
        if not (Path(self.folder) / "adapter_config.json").is_file():
            return load_model(self.folder, base_dtype(self.trained)).eval()
        start = self._start()
        refuse_pickles(self.folder, self.folder)
        return load_policy(Path(self.folder), start, fingerprint=lambda: model_fingerprint(start)).eval()

    def load_reference(self) -> Any:
        """The run's own reference: the model that `reference.model` names, else its start model.

        Raises:
            ConfigError: it is no run.
            RunError: it cannot be loaded, or is no longer what it was in training.
        """
        if self.trained is None:
            raise ConfigError(
                f"'{self.name}' is a model and no run, so it has no reference of its own. Name one: {self.name}@MODEL, "
                "or the option reference."
            )
        named = self.own_reference
        if named is not None:
            model = load_model(named, base_dtype(self.trained)).eval()
            self._check(model, "reference model", named)
            return model
        model = self._start()
        self._check(model, _START, self.trained.path)
        return model

    def _start(self) -> Any:
        assert self.trained is not None
        settings = self.trained
        stack = settings.start_adapter == "stack"
        quantization = settings.quantization
        return load_model(
            settings.path, base_dtype(settings), dropout=settings.dropout, stack=stack, quantization=quantization
        ).eval()

    def _check(self, model: Any, what: str, path: str) -> None:
        """Refuse a model whose weights are others than those that the run was trained with."""
        file = Path(self.name) / "fingerprints.json"
        known = read_object(file, _REMEDY).get(what) if file.is_file() else None
        if known is not None and known != model_fingerprint(model):
            raise RunError(
                f"The {what} '{path}' of {self.name} has changed since the run was trained, so log-ratios to it would "
                "be others. Restore it, or name another reference."
            )


def find_policy(name: str) -> NamedPolicy:
    """What a name means; nothing is loaded.

    Args:
        name: a run directory, a model's folder, a hub id, or `demo`.

    Raises:
        RunError: there is no such folder, or the run has not finished.

    Example:
        >>> find_policy("demo").trained is None
        True
    """
    folder = Path(name).expanduser()
    if (folder / "config.yaml").is_file():
        if not (folder / "run.json").is_file():
            raise RunError(f"{name} has not finished training. Continue with popmargin train --resume.")
        refuse_changed(folder, ["run.json", "fingerprints.json"], remedy=_REMEDY)
        saved = read_saved(folder / "config.yaml")
        model, data = from_dict(ModelConfig, saved.get("model", {}), "model"), saved.get("data", {})
        writing = Writing(data.get("prompt", "template"), data.get("reasoning", "template"))
        reference = saved.get("reference", {}).get("model")
        return NamedPolicy(str(folder), str(folder / "model"), model, reference, writing)
    resolve_path(name)
    return NamedPolicy(name, name)
