"""Messages after Ctrl-C: how far the work is, and the command that continues it."""

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from popmargin.errors import counted
from popmargin.files import read_jsonl

if TYPE_CHECKING:
    from popmargin.config import RunConfig
    from popmargin.study.config import StudyConfig


def say_where_it_stands(arguments: Sequence[str], args: argparse.Namespace | None) -> str:
    """The sentences after Ctrl-C, and the command that continues.

    Args:
        arguments: everything after `popmargin`.
        args: parsed; its verb may have `standing(args)`, which returns a sentence and further arguments. None if
            interrupted before.
    """
    _close_bars()
    sentence, more = "Run the same command again.", list[str]()
    standing = getattr(args, "standing", None)
    if standing is not None:
        try:
            sentence, more = standing(args)
        except Exception:  # whatever it is: no traceback after an interruption
            sentence = "Its progress cannot be read. Run the same command again."
    kept = [word for word in arguments if word not in ("--overwrite", *more)]
    return f"interrupted: {sentence}\ncontinue with: {shlex.join(['popmargin', *kept, *more])}"


def _close_bars() -> None:
    """Close progress bars, which would otherwise be drawn again below the message."""
    from tqdm.auto import tqdm

    bars: list[Any] = list(getattr(tqdm, "_instances", ()))
    for bar in bars:
        bar.close()


def run_standing(config: "RunConfig") -> tuple[str, list[str]]:
    """How far a training run is, and what its command needs to continue."""
    from popmargin.training.run_directory import RunDirectory

    directory = RunDirectory(Path(config.output))
    if directory.finished:
        return f"{directory.path} is trained.", ["--resume"]
    if not (directory.path / "config.yaml").is_file():
        return "Training had not started.", []
    lines = read_jsonl(directory.path / "metrics.jsonl")
    step = lines[-1]["step"] if lines else 0
    checkpoint = directory.checkpoint()
    where = f"{directory.path} reached step {step}"
    if checkpoint is None:
        return f"{where}, without a checkpoint: it will start over.", ["--resume"]
    return f"{where}; its last checkpoint is at step {checkpoint.name.rpartition('-')[2]}.", ["--resume"]


def study_standing(study: "StudyConfig") -> tuple[str, list[str]]:
    """How many runs of a study are done; the same command continues."""
    configs = [config for arm in study.run_configs().values() for config in arm]
    from popmargin.training.run_directory import RunDirectory

    runs = [RunDirectory(Path(config.output)) for config in configs]
    done = sum(run.finished and (run.evaluation / "metrics.json").is_file() for run in runs)
    return f"{done} of {counted(len(runs), 'run')} of {study.output} are trained and evaluated, and are kept.", []
