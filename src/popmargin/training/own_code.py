"""A user's own components: what their code is made of, which a run keeps a copy of; and the reward model.

code/FIELD/…   in a run directory: the component's file, and modules it imports from the same folder
"""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub

from popmargin.config import EvaluationConfig
from popmargin.errors import RunError
from popmargin.files import digest, folder_digest
from popmargin.models.path import resolve_path
from popmargin.rewards.naming import model_path
from popmargin.tasks.base import TASKS
from popmargin.training.loss import Loss
from popmargin.user_files import file_of, files_of

FOLDER = "code"
_MODEL_FILES = (".safetensors", ".json", ".jinja", ".model", ".txt")
"""What a model is read from: weights, configuration, tokenizer and template."""


@dataclass(frozen=True)
class OwnCode:
    """The code of a component from outside popmargin.

    Attributes:
        field: its field in a configuration, e.g. `objective` or `regularizers.0`.
        name: the component, for messages.
        file: that holds the component.
        files: name → content; the first one is `file`, which imports the others.
    """

    field: str
    name: str
    file: Path
    files: Mapping[str, bytes]

    @staticmethod
    def of(field: str, name: str, file: Path) -> "OwnCode":
        """The code of a component in a file."""
        return OwnCode(field, name, file, {place: one.read_bytes() for place, one in files_of(file).items()})

    @property
    def facts(self) -> dict[str, str]:
        """A fingerprint of every file."""
        first, *others = self.files
        facts = {f"the code of {self.name}": digest(self.files[first])}
        return facts | {f"{place}, which {self.name} imports": digest(self.files[place]) for place in others}


def own_code(task: str, loss: Loss, evaluation: EvaluationConfig) -> list[OwnCode]:
    """The code of a run's components from outside popmargin.

    Args:
        task: the name of its task.
        loss: its parts.
        evaluation: names its reward.
    """
    parts: dict[str, Any] = {"task": TASKS.get(task), "objective": loss.objective}
    parts |= {"margin": loss.margin[0]} if loss.margin is not None else {}
    parts |= {"tokens": loss.tokens[0]} if loss.tokens is not None else {}
    parts |= {f"regularizers.{number}": part for number, (_, part, _) in enumerate(loss.regularizers)}
    found: list[OwnCode] = []
    for field, part in parts.items():
        if part.function.__module__.startswith("popmargin."):
            continue
        file = inspect.getsourcefile(part.function)
        if file is not None and Path(file).is_file():
            found.append(OwnCode.of(field, f"'{part.name}'", Path(file)))
    return found + code_of_reward(evaluation)


def code_of_reward(config: EvaluationConfig) -> list[OwnCode]:
    """The code of a user's own rewards, and the template of a judge."""
    template = config.reward_options.get("template")
    named = [("reward", "the reward", config.reward or "")]
    named += [
        (f"also.{number}", f"the further reward '{_short(spec)}'", spec) for number, spec in enumerate(config.also)
    ]
    found: list[OwnCode] = []
    for field, name, spec in named:
        if not spec.startswith(("model:", "implicit:", "judge:")) and (file := file_of(spec)) is not None:
            found.append(OwnCode.of(field, name, file))
    if isinstance(template, str) and Path(template).is_file():
        file = Path(template)
        found.append(OwnCode("template", "the judge's template", file, {file.name: file.read_bytes()}))
    return found


def reward_facts(config: EvaluationConfig) -> dict[str, str]:
    """Fingerprints of the files of reward models; none where a reward is no model, or the model is not here yet."""
    named = {"the reward model": config.reward} | {
        f"the model of the further reward '{_short(spec)}'": spec for spec in config.also
    }
    places = {name: place for name, spec in named.items() if (place := _folder_of(model_path(spec))) is not None}
    return {name: folder_digest(place, _MODEL_FILES) for name, place in places.items()}


def _short(spec: str) -> str:
    """A further reward's name, the same wherever its file lies."""
    return spec.rpartition(":")[2].rstrip("/").rpartition("/")[2]


def _folder_of(path: str | None) -> Path | None:
    """The folder of a model, if it is on this machine."""
    if path is None:
        return None
    try:
        place = Path(resolve_path(path))
    except RunError:
        return None
    if place.is_dir():
        return place
    kept = huggingface_hub.try_to_load_from_cache(str(place), "config.json")
    return Path(kept).parent if isinstance(kept, str) else None


def code_facts(code: Sequence[OwnCode]) -> dict[str, str]:
    """Fingerprints of all files."""
    return {name: value for one in code for name, value in one.facts.items()}


def copies_used(code: Sequence[OwnCode], folder: Path) -> list[str]:
    """A sentence for every component whose own file is gone, so that a run directory's copy takes its place.

    Args:
        code: the user's own components, as they are read now.
        folder: the run directory.
    """
    copies = (folder / FOLDER).resolve()
    return [
        f"the file of {one.name} is gone: the run's copy, {one.file.resolve().relative_to(copies.parent)}, is used"
        for one in code
        if one.file.resolve().is_relative_to(copies)
    ]


def kept_files(code: Sequence[OwnCode]) -> dict[str, bytes]:
    """The copies in a run directory: path → content."""
    return {f"{FOLDER}/{one.field}/{place}": content for one in code for place, content in one.files.items()}
