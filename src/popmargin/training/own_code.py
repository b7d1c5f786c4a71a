"""A user's own components: what their code is made of, which a run keeps a copy of.

code/FIELD/…   in a run directory: the file that holds the component, and what it imports from beside it
"""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from popmargin.config import EvaluationConfig, RunConfig
from popmargin.files import digest
from popmargin.tasks.base import TASKS
from popmargin.training.loss import Loss
from popmargin.user_files import file_of, files_of

FOLDER = "code"


@dataclass(frozen=True)
class OwnCode:
    """The code of a component that is not popmargin's own.

    Attributes:
        field: what it is in a configuration, e.g. `objective` or `regularizers.0`.
        name: the component, for messages.
        files: name → content; the first one holds the component, which imports the others.
    """

    field: str
    name: str
    files: Mapping[str, bytes]

    @staticmethod
    def of(field: str, name: str, file: Path) -> "OwnCode":
        """That of a component in a file."""
        return OwnCode(field, name, {place: one.read_bytes() for place, one in files_of(file).items()})

    @property
    def facts(self) -> dict[str, str]:
        """A fingerprint of every file."""
        first, *others = self.files
        facts = {f"the code of {self.name}": digest(self.files[first])}
        return facts | {f"{place}, which {self.name} imports": digest(self.files[place]) for place in others}


def own_code(config: RunConfig, loss: Loss) -> list[OwnCode]:
    """The code of a run's components that are not popmargin's own.

    Args:
        config: the run.
        loss: its parts.
    """
    parts: dict[str, Any] = {"task": TASKS.get(config.task), "objective": loss.objective}
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
    return found + code_of_reward(config.evaluation)


def code_of_reward(config: EvaluationConfig) -> list[OwnCode]:
    """The code of a user's own reward, and the template of a judge."""
    spec, template = config.reward or "", config.reward_options.get("template")
    found: list[OwnCode] = []
    if not spec.startswith(("model:", "implicit:", "judge:")) and (file := file_of(spec)) is not None:
        found.append(OwnCode.of("reward", "the reward", file))
    if isinstance(template, str) and Path(template).is_file():
        found.append(OwnCode("template", "the judge's template", {Path(template).name: Path(template).read_bytes()}))
    return found


def code_facts(code: Sequence[OwnCode]) -> dict[str, str]:
    """Fingerprints of all files."""
    return {name: value for one in code for name, value in one.facts.items()}


def kept_files(code: Sequence[OwnCode]) -> dict[str, bytes]:
    """What a run directory keeps: place in it → content."""
    return {f"{FOLDER}/{one.field}/{place}": content for one in code for place, content in one.files.items()}
