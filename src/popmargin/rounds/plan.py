"""A plan: the stages of a recipe, what each reads, and what it writes."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from popmargin.account import Step
from popmargin.errors import ConfigError, did_you_mean
from popmargin.rounds.named_files import named_files, place_of, with_bases

_NAME = re.compile(r"[a-z0-9]([a-z0-9_.-]*[a-z0-9])?(/[a-z0-9]([a-z0-9_.-]*[a-z0-9])?)*")


@dataclass(frozen=True)
class Output:
    """A file or folder that a stage writes, as the input of a later one.

    Attributes:
        stage: name of the stage.
        name: what the stage calls it.
        path: where it lies, relative to the folder of the plan.
    """

    stage: str
    name: str
    path: Path


@dataclass(frozen=True)
class Waiting:
    """What a stage waits for before it can start.

    Attributes:
        done: answers that are there.
        of: answers that it needs.
        how: a sentence that says how to give the others.
    """

    done: int
    of: int
    how: str

    def __str__(self) -> str:
        return f"waiting for people ({self.done} of {self.of} answered)"


@dataclass(frozen=True)
class Work:
    """What the function of a stage gets.

    Attributes:
        folder: of the stage. It may hold what an earlier attempt wrote before it was killed.
        inputs: where each input lies.
        settings: of the stage, as in its plan.
        outputs: where each output is expected.
        say: prints a line for the user.
        how: as in the plan: what may differ from call to call.
    """

    folder: Path
    inputs: Mapping[str, Path]
    settings: Mapping[str, Any]
    outputs: Mapping[str, Path]
    say: Callable[[str], None]
    how: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def tell(self, *steps: Step) -> list[dict[str, Any]]:
        """Say what became of rows, and return that as the facts of a stage keep it."""
        for step in steps:
            for line in step.lines():
                self.say(f"  {line}")
        return [step.to_dict() for step in steps]


Function = Callable[[Work], Mapping[str, Any] | None]


@dataclass(frozen=True)
class Stage:
    """One step of a plan.

    Attributes:
        name: also its folder, such as `round-1/sample`.
        function: does the work; what it returns (numbers, costs, notes) is kept in the manifest.
        inputs: by name: outputs of earlier stages, or files and folders of the user.
        settings: whatever else decides the result, as JSON has it.
        outputs: name -> file or folder below the folder of the stage.
        waits: says from the settings whether people have to answer before it can start; None where nobody has to.
        how: settings that do not decide the result, such as the workers and the price of a judge; they may change
            between calls.
    """

    name: str
    function: Function
    inputs: Mapping[str, Output | Path] = field(default_factory=dict[str, Output | Path])
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    outputs: Mapping[str, str] = field(default_factory=dict[str, str])
    waits: Callable[[Mapping[str, Any]], Waiting | None] | None = None
    how: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def __getitem__(self, name: str) -> Output:
        if name not in self.outputs:
            raise ConfigError(f"Stage '{self.name}' writes no '{name}'. {did_you_mean(name, self.outputs)}")
        return Output(self.name, name, Path(self.name) / self.outputs[name])

    @property
    def does(self) -> str:
        """Name of the function, which manifests keep."""
        return place_of(self.function)

    @property
    def files(self) -> dict[str, Path]:
        """Files whose content counts although they are no inputs: the user's code, files and models of settings."""
        return with_bases(self.inputs) | named_files(self.function, self.settings)


class Plan:
    """Stages in the order in which they can run.

    Example:
        >>> def count(work):
        ...     work.outputs["lines"].write_text(str(len(work.inputs["text"].read_text().split())))
        >>> plan = Plan()
        >>> first = plan.add("count", count, inputs={"text": Path("notes.txt")}, outputs={"lines": "lines.txt"})
        >>> first["lines"].path.as_posix(), [stage.name for stage in plan]
        ('count/lines.txt', ['count'])
    """

    def __init__(self) -> None:
        self._stages: dict[str, Stage] = {}

    def add(
        self,
        name: str,
        function: Function,
        *,
        inputs: Mapping[str, Output | Path] | None = None,
        settings: Mapping[str, Any] | None = None,
        outputs: Mapping[str, str] | None = None,
        waits: Callable[[Mapping[str, Any]], Waiting | None] | None = None,
        how: Mapping[str, Any] | None = None,
    ) -> Stage:
        """Append a stage; see `Stage` for the arguments.

        Raises:
            ConfigError: the name is taken or cannot be a folder, an input comes from no earlier stage, or settings are
                not JSON.
        """
        if not _NAME.fullmatch(name):
            raise ConfigError(f"'{name}' cannot name a stage: use small letters, digits, '-', '_', '.' and '/'.")
        clash = [other for other in self._stages if f"{other}/".startswith(f"{name}/") or name.startswith(f"{other}/")]
        if clash:
            raise ConfigError(f"Stage '{name}' would share the folder of stage '{clash[0]}'. Choose another name.")
        for key, value in (inputs or {}).items():
            if isinstance(value, Output) and value.stage not in self._stages:
                raise ConfigError(
                    f"Stage '{name}': its input '{key}' comes from '{value.stage}', which is not planned."
                )
        try:
            plain = json.loads(json.dumps(dict(settings or {}), allow_nan=False))
        except (TypeError, ValueError) as error:
            raise ConfigError(f"Stage '{name}': its settings are not JSON ({error}).") from error
        stage = Stage(name, function, dict(inputs or {}), plain, dict(outputs or {}), waits, dict(how or {}))
        self._stages[name] = stage
        return stage

    def until(self, name: str | None) -> list[Stage]:
        """All stages up to one and including it; a folder such as `round-1` stands for its last stage.

        Raises:
            ConfigError: no stage has that name.
        """
        stages = list(self)
        if name is None:
            return stages
        named = [number for number, stage in enumerate(stages) if f"{stage.name}/".startswith(f"{name.rstrip('/')}/")]
        if not named:
            raise ConfigError(f"There is no stage '{name}'. {did_you_mean(name, self._stages)}")
        return stages[: named[-1] + 1]

    def __getitem__(self, name: str) -> Stage:
        if name not in self._stages:
            raise ConfigError(f"There is no stage '{name}'. {did_you_mean(name, self._stages)}")
        return self._stages[name]

    def __iter__(self) -> Iterator[Stage]:
        return iter(self._stages.values())

    def __len__(self) -> int:
        return len(self._stages)
