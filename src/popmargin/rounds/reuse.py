"""Finished stages of another plan's folder, taken instead of doing the same work again."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from popmargin.errors import RunError
from popmargin.files import whole_folder
from popmargin.rounds.manifest import FINISHED, MARK, Manifest, State, fingerprint
from popmargin.rounds.plan import Stage


def is_plan(folder: Path) -> bool:
    """Whether a folder is a plan's."""
    return (folder / MARK).is_file()


def check_reused(folders: Sequence[Path]) -> None:
    """Every folder must be a plan's.

    Raises:
        RunError: one is not.
    """
    for folder in folders:
        if not is_plan(folder):
            raise RunError(f"{folder} is not a folder of rounds, so no stage can be taken from it (--reuse).")


def take_finished(stage: Stage, state: State, folder: Path, others: Sequence[Path]) -> Path | None:
    """Copy a stage that another plan has finished from the same inputs, with the same settings.

    Args:
        stage: it has not been begun.
        state: of it.
        folder: of its plan.
        others: folders of other plans.

    Returns:
        The folder that it was copied from; None where none has it.
    """
    for other in others:
        try:
            done = Manifest.load(other / stage.name / FINISHED)
        except RunError:  # it cannot be read, so it says nothing of its stage
            continue
        if done is None or state.planned is None or list(done.changes(state.planned)):
            continue
        if done.outputs != {name: _found(other / stage.name / path) for name, path in stage.outputs.items()}:
            continue
        own = folder / stage.name
        for left in own.parent.glob(f".{own.name}.*.part"):  # of a copy that was killed
            shutil.rmtree(left, ignore_errors=True)
        with whole_folder(own, replace=True) as unfinished:
            shutil.copytree(other / stage.name, unfinished, dirs_exist_ok=True, ignore=_checkpoints)
            replace(done, taken_from=str(other)).save(unfinished / FINISHED)
        return other
    return None


def _checkpoints(folder: str, names: list[str]) -> set[str]:
    """What a finished training does not need any more."""
    return {"checkpoints"} & set(names) if Path(folder).name == "run" else set()


def _found(file: Path) -> str | None:
    return fingerprint(file) if file.exists() else None
