"""Models of RecBole, fitted by RecBole itself in a Python that has it, and ranked by our metrics."""

import contextlib
import json
import subprocess
import tempfile
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from popmargin.bounds import Size
from popmargin.data.ragged import Ragged
from popmargin.errors import ConfigError, RunError
from popmargin.recommend import recbole_worker
from popmargin.recommend.baselines.base import Observed, baseline
from popmargin.recommend.splitting import Cases


@dataclass(frozen=True, kw_only=True)
class RecBoleOptions:
    """Options of `recbole`.

    Attributes:
        python: the interpreter of an environment with RecBole, which is no dependency of popmargin.
        model: `SASRec`, or `DiffRec`, which reads a history as a set.
        settings: of RecBole's own, such as {learning_rate: 0.001, hidden_size: 64}.
        length: the last items of a history that count, with SASRec.
        epochs: at most so many.
        patience: stop after so many epochs without a better validation recall@10, and keep the best weights.
        seed: of RecBole.
    """

    python: str = ""
    model: Literal["SASRec", "DiffRec"] = "SASRec"
    settings: dict[str, Any] = field(default_factory=dict[str, Any])
    length: Size = 10
    epochs: Size = 100
    patience: Size = 10
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.python:
            raise ConfigError("recbole: python is missing. Give the interpreter of an environment with RecBole.")


class RecBole:
    """A process that holds a fitted model of RecBole and scores histories; it ends with this object.

    Args:
        observed: what it is fitted on.
        options: see `RecBoleOptions`.

    Raises:
        RunError: RecBole is not there, or failed.
    """

    def __init__(self, observed: Observed, options: RecBoleOptions) -> None:
        self._place = tempfile.TemporaryDirectory(prefix="popmargin-recbole-")
        self.folder = Path(self._place.name)
        _write(self.folder / "train.npz", observed.train)
        _write(self.folder / "valid.npz", _whole(observed.valid))
        job = {
            "folder": str(self.folder), "items": observed.items, "model": options.model, "settings": options.settings,
            "length": options.length, "epochs": options.epochs, "patience": options.patience, "seed": options.seed,
        }  # fmt: skip
        (self.folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
        words = [options.python, recbole_worker.__file__]
        try:
            with (self.folder / "log.txt").open("wb") as log:
                self._process = subprocess.Popen(
                    words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, cwd=self.folder
                )
        except OSError as error:
            self._place.cleanup()
            raise RunError(
                f"recbole: {options.python} cannot be started ({error}). Set python to the interpreter of an "
                "environment with RecBole."
            ) from error
        self._end = weakref.finalize(self, _end, self._process, self._place)
        self._ask(self.folder / "job.json")

    def scores(self, histories: Ragged, users: Sequence[str]) -> Float[np.ndarray, "B I"]:
        """Scores (B, I), as RecBole's model gives them."""
        file = self.folder / "asked.npz"
        _write(file, histories)
        self._ask(file)
        return np.load(file.with_suffix(".npy"))

    def _ask(self, file: Path) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it ended: what it said is read below
            self._process.stdin.write(f"{file}\n")
            self._process.stdin.flush()
        said = self._process.stdout.readline().strip()
        if said != "ok":
            last = (self.folder / "log.txt").read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
            self._end()
            raise RunError(f"recbole: {said or 'its process ended: ' + ' '.join(last)}")


def _write(file: Path, sequences: Ragged) -> None:
    np.savez(file, values=sequences.values, offsets=sequences.offsets)


def _whole(cases: Cases) -> Ragged:
    """Histories with their targets at the end."""
    return Ragged.of([[*cases.histories[row].tolist(), int(target)] for row, target in enumerate(cases.targets)])


def _end(process: subprocess.Popen[str], place: tempfile.TemporaryDirectory[str]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
    process.kill()
    process.wait()
    place.cleanup()


@baseline("recbole", options=RecBoleOptions)
def fit_recbole(observed: Observed, options: RecBoleOptions) -> RecBole:
    """SASRec or DiffRec of RecBole, trained by its own code on the same training sequences, in a Python that has it.

    RecBole gets them as benchmark files. The best epoch is chosen by validation recall@10, and rankings come from its
    scores, with the same code as those of every other recommender; DiffRec's histories are sets.

    Raises:
        RunError: RecBole is not there, or failed; the message says what to install.
    """
    return RecBole(observed, options)
