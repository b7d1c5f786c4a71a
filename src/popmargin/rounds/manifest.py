"""The manifest of a stage: from what it was made, how, when and at what cost; and what has changed since.

FOLDER/STAGE/manifest.json   written last, when the stage is finished
FOLDER/STAGE/begun.json      the same of a stage that was begun and is not finished
FOLDER/plan.txt              says that a folder is a plan's
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from popmargin.config_names import PAYING
from popmargin.errors import RunError
from popmargin.files import no_such_file, whole_file
from popmargin.rounds.plan import Output, Stage, Waiting
from popmargin.safe_reading import read_json

_CHUNK = 2**22
FINISHED, BEGUN, MARK = "manifest.json", "begun.json", "plan.txt"


def fingerprint(path: Path) -> str:
    """A digest of a file, or of all files of a folder with their names.

    Raises:
        RunError: there is nothing there.
    """
    if not path.exists():
        raise RunError(no_such_file(path, what="file or folder"))
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    total = hashlib.blake2b(digest_size=16)
    for file in files:
        stat = file.stat()
        name = file.relative_to(path).as_posix() if path.is_dir() else ""
        total.update(f"{name}\x1f{_content(str(file), stat.st_size, stat.st_mtime_ns)}\x1f".encode())
    return total.hexdigest()


@lru_cache(maxsize=4096)
def _content(file: str, size: int, changed: int) -> str:
    """Digest of a file; it is read again when its size or time of change differs."""
    digest = hashlib.blake2b(digest_size=16)
    with Path(file).open("rb") as opened:
        while chunk := opened.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


@dataclass(frozen=True)
class Manifest:
    """What a stage was made from, and what came of it.

    Attributes:
        stage: its name.
        function: what did the work.
        settings: of the stage.
        inputs: name -> fingerprint.
        outputs: name -> fingerprint; empty until it is finished.
        facts: what the function returned.
        versions: of Python, popmargin and what numbers depend on.
        started: when the last attempt began, ISO 8601.
        seconds: that the last attempt took.
        attempts: how often it was begun.
        taken_from: folder of the plan that did it, if it was copied from there.
    """

    stage: str
    function: str
    settings: Mapping[str, Any]
    inputs: Mapping[str, str]
    outputs: Mapping[str, str] = field(default_factory=dict[str, str])
    facts: Mapping[str, Any] = field(default_factory=dict[str, Any])
    versions: Mapping[str, str] = field(default_factory=dict[str, str])
    started: str = ""
    seconds: float = 0.0
    attempts: int = 1
    taken_from: str = ""

    def save(self, file: Path) -> None:
        """Write it as JSON."""
        with whole_file(file) as partial:
            text = json.dumps(vars(self), indent=1, sort_keys=True, ensure_ascii=False)
            partial.write_text(text + "\n", encoding="utf-8")

    @staticmethod
    def load(file: Path) -> "Manifest | None":
        """Read what `save` wrote; None where there is no such file.

        Raises:
            RunError: it cannot be read.
        """
        try:
            return Manifest(**read_json(file))
        except FileNotFoundError:  # also if another process has just finished the stage
            return None
        except (OSError, ValueError, TypeError) as error:
            raise RunError(f"{file} cannot be read ({error}). Delete the folder to do the stage again.") from error

    def changes(self, planned: "Manifest") -> Iterator[str]:
        """What is planned differently now, a phrase each."""
        if self.function != planned.function:
            yield f"it is done by {planned.function}, before by {self.function}"
        yield from _changes(self.settings, planned.settings)
        for name in sorted({*self.inputs, *planned.inputs}):
            if self.inputs.get(name) != planned.inputs.get(name):
                yield f"the input '{name}' has {_verb(self.inputs.get(name), planned.inputs.get(name))}"


def _changes(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name in sorted({*before, *now}):
        old, new = before.get(name), now.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from _changes(old, new, f"{prefix}{name}.")
        elif old != new and not (prefix.endswith("options.") and name in PAYING):
            yield f"{prefix}{name} was {json.dumps(old)}, now {json.dumps(new)}"


def _verb(before: str | None, now: str | None) -> str:
    return "been added" if before is None else "been removed" if now is None else "changed"


Standing = Literal["finished", "begun", "ready", "waiting", "asking", "changed"]


@dataclass(frozen=True)
class State:
    """Where a stage stands.

    Attributes:
        standing: finished; begun, and not finished; ready to start; waiting for another stage; asking: people have to
            answer first; or changed: what was done is not what is planned.
        changes: what differs, a phrase each.
        manifest: of what was done, if anything.
        planned: what would be done; None while inputs are missing.
        people: what it waits for, while it is asking.
    """

    standing: Standing
    changes: tuple[str, ...] = ()
    manifest: Manifest | None = None
    planned: Manifest | None = None
    people: Waiting | None = None


def state_of(stage: Stage, folder: Path, finished: set[str]) -> State:
    """Compare what lies in the folder of a stage with its plan.

    Args:
        stage: the stage.
        folder: of the plan.
        finished: names of the stages that are finished.

    Raises:
        RunError: an input of the user's is missing.
    """
    own = folder / stage.name
    done = Manifest.load(own / FINISHED)
    begun = Manifest.load(own / BEGUN) if done is None else None
    before = {value.stage for value in stage.inputs.values() if isinstance(value, Output)}
    if before - finished:
        return State("waiting", manifest=done or begun)
    known = done or begun
    if known is not None:
        _refuse_vanished(stage, known)
    inputs = {name: fingerprint(where(value, folder)) for name, value in stage.inputs.items()}
    inputs |= {name: fingerprint(path) for name, path in stage.files.items()}
    planned = Manifest(stage.name, stage.does, stage.settings, inputs)
    people = stage.waits(stage.settings) if stage.waits is not None and done is None else None
    if known is None:
        return State("ready" if people is None else "asking", planned=planned, people=people)
    changes = list(known.changes(planned))
    if done is not None:
        for name, path in stage.outputs.items():
            file = own / path
            if name not in done.outputs:
                changes.append(f"it did not write '{name}'")
            elif not file.exists():
                changes.append(f"{file} is missing")
            elif fingerprint(file) != done.outputs[name]:
                changes.append(f"{file} is not what the stage wrote")
    standing: Standing = "changed" if changes else "finished" if done else "begun" if people is None else "asking"
    return State(standing, tuple(changes), known, planned, people)


def _refuse_vanished(stage: Stage, known: Manifest) -> None:
    """A file or folder that is not there any more is taken for a name (of a data set or model on the hub).

    Raises:
        RunError: an input was a file or folder, and a setting now has a name in its place.
    """
    for name in known.inputs:
        section, _, field = name.partition(".")
        named = stage.settings.get(section)
        now = named.get(field) if field and isinstance(named, Mapping) else named if name == "policy" else None
        if isinstance(now, str) and name not in stage.inputs and name not in stage.files:
            raise RunError(
                f"Stage '{stage.name}' was made with a file or folder as {name}, and there is no {now} here (looked in "
                f"{Path.cwd()}). Start the command where it was started before, or put it back. For a name on the hub, "
                "choose another folder (--output)."
            )


def where(value: Output | Path, folder: Path) -> Path:
    """Where an input lies, given the folder of the plan."""
    return folder / value.path if isinstance(value, Output) else value
