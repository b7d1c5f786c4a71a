"""A run directory: resolved configuration, versions, fingerprints, seed, metrics and the trained model.

config.yaml       the resolved configuration, paths absolute
data.parquet      ids, prompts and contents (as digests) of the training and held-out preferences
fingerprints.json of the start model, tokenizer, edges and the user's own components
code/             the source of the user's own components, and modules imported from the same folder
run.json          facts: versions, fingerprints, the account of the data, seconds, memory
metrics.jsonl     training metrics, the same for the same seed
timing.jsonl      tokens per second and seconds, which differ from run to run
curves.jsonl      held-out metrics during training
model/            the trained weights or adapter, and the tokenizer
checkpoints/      to resume from
edges.parquet     PoP edges, if the objective or its scale needs them
scale.parquet     the strength scale, if the objective needs one
evaluation/       held-out margins, generations and metrics

popmargin_files.json lists, with SHA-256, the files that no longer change; each is compared with it before it is read.
"""

import json
import logging
import platform
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from popmargin.config import RunConfig, dump_yaml, from_dict, read_saved, to_dict
from popmargin.errors import ConfigError, RunError
from popmargin.files import no_such_file, read_jsonl, whole_file
from popmargin.listed_files import LISTED, fault_of, refuse_changed, write_list
from popmargin.safe_reading import read_object
from popmargin.training.checkpoints import checkpoints_in, newest_whole, step_of
from popmargin.training.inputs import differences, refuse_inputs_inside, with_code_of, with_kept_code

if TYPE_CHECKING:
    from popmargin.training.fingerprints import Record

_LOG = logging.getLogger(__name__)
LOGS = ("metrics.jsonl", "curves.jsonl")
"""Those of a run that seed and data determine; a checkpoint holds them as they were."""
_FIXED = ("config.yaml", "data.parquet", "fingerprints.json", "code", "edges.parquet", "scale.parquet")
_AGAIN = "Restore it from a copy, or train again with --overwrite."


def versions() -> dict[str, str]:
    """Versions of Python, popmargin and the packages that affect its numbers."""
    result = {"python": platform.python_version()}
    for package in ("popmargin", "torch", "transformers", "accelerate", "peft", "datasets", "numpy"):
        try:
            result[package] = version(package)
        except PackageNotFoundError:
            result[package] = "not installed"
    return result


@dataclass(frozen=True)
class RunDirectory:
    """The files of one run.

    Attributes:
        path: the folder.
        measured: name of its folder for evaluation results.
    """

    path: Path
    measured: str = "evaluation"

    @property
    def model(self) -> Path:
        """Folder of the trained weights."""
        return self.path / "model"

    @property
    def checkpoints(self) -> Path:
        """Folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def evaluation(self) -> Path:
        """Folder of evaluation results."""
        return self.path / self.measured

    @property
    def started(self) -> bool:
        """Whether a run was started here."""
        return (self.path / "config.yaml").is_file()

    @property
    def finished(self) -> bool:
        """Whether training ended."""
        return (self.path / "run.json").is_file()

    def config(self) -> RunConfig:
        """The configuration of the run; with the run's copy of user code whose file is gone.

        Raises:
            RunError: this is not a run directory.
        """
        return with_kept_code(self.stored(), self.path / "code")

    def stored(self) -> RunConfig:
        """The configuration of the run as it was stored.

        Raises:
            RunError: this is not a run directory.
        """
        file = self.path / "config.yaml"
        if not self.path.exists():
            raise RunError(no_such_file(self.path, what="run directory"))
        if not file.is_file():
            raise RunError(
                f"{self.path} is not a run directory: it has no config.yaml. Create one with popmargin train."
            )
        refuse_changed(self.path, ["config.yaml", "code"], remedy=_AGAIN)
        try:
            return from_dict(RunConfig, read_saved(file))
        except ConfigError as error:
            raise error if str(file) in str(error) else RunError(f"{file}: {error}") from error

    def facts(self) -> dict[str, Any]:
        """The contents of run.json.

        Raises:
            RunError: the run has not finished.
        """
        if not self.finished:
            raise RunError(f"{self.path} has not finished training. Continue with popmargin train --resume.")
        remedy = "Delete it and continue with popmargin train --resume, which goes on from the last checkpoint if any."
        refuse_changed(self.path, ["run.json"], remedy=remedy)
        return read_object(self.path / "run.json", remedy)

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl.

        Raises:
            RunError: the run has finished, and they have changed since.
        """
        if self.finished:
            refuse_changed(self.path, ["metrics.jsonl"], remedy=_AGAIN)
        return read_jsonl(self.path / "metrics.jsonl")

    def check_model(self) -> None:
        """Check that the trained weights are as they were written.

        Raises:
            RunError: they are not; the message says which file, and how the run saves them again.
        """
        if not (self.model / LISTED).exists() or fault_of(self.model) is None:
            return
        whole = self.checkpoint()
        since = "trains again" if whole is None else f"goes on from {whole}"
        remedy = f"Delete {self.path / 'run.json'} and continue with popmargin train --resume, which {since}."
        refuse_changed(self.model, remedy=remedy)

    def list_files(self) -> None:
        """List the files that no longer change: once a run is ready to train, and once it has finished."""
        names = (*_FIXED, *(("run.json", *LOGS) if self.finished else ()))
        places = [self.path / name for name in names]
        inner = [file for place in places if place.is_dir() for file in place.rglob("*") if file.is_file()]
        write_list(self.path, [*(place for place in places if place.is_file()), *inner])

    def checkpoint(self, say: Callable[[str], None] | None = None) -> Path | None:
        """The newest checkpoint whose files are as they were written, if any; `say` is told of broken newer ones."""
        return newest_whole(self.checkpoints, say)

    def says_where_code_is(self) -> str:
        """A sentence about copies of user code; empty without any."""
        code = self.path / "code"
        return f" A copy of its code is in {code}." if code.is_dir() else ""

    def check(self, config: RunConfig, *, resume: bool, overwrite: bool) -> None:
        """Before any work: check that the run can be started or resumed in this folder.

        Raises:
            ConfigError: the folder would be deleted, but contains inputs of the run.
            RunError: the folder is in use by another run, or by the same one without `resume`.
        """
        file = self.path / "config.yaml"
        if not self.path.exists() or all(_is_part(entry) for entry in self.path.iterdir()):
            return
        if not file.is_file():
            raise RunError(
                f"{self.path} is not empty and not a run directory (it has no config.yaml). Choose another output."
            )
        if overwrite:
            refuse_inputs_inside(config, self.path)
            return
        if not resume:
            raise RunError(f"{self.path} already contains a run: pass --resume, --overwrite, or another output.")
        changed = differences(self.config(), config)
        if changed:
            raise RunError(
                f"{self.path} was started with a different configuration (see {file}) and cannot continue with this "
                f"one:\n"
                + "".join(f"  {name}: {change}\n" for name, change in changed.items())
                + f"Omit these settings (popmargin train --resume --output {self.path} uses the run's own), or train "
                f"again with --overwrite or another output."
            )

    @property
    def _half_begun(self) -> bool:
        """Whether the run died before its record was written, which is before it trained."""
        written = (self.path / "fingerprints.json").is_file() or (self.path / LISTED).exists()
        return not (written or self.finished or checkpoints_in(self.checkpoints))

    def check_record(self, now: "Record") -> None:
        """Check that a resumed or finished run still has the data, models and code it was started with.

        Raises:
            RunError: it does not; the message says what differs.
        """
        from popmargin.training.fingerprints import Record

        before = None if self._half_begun else Record.load(self.path)
        changed = [] if before is None else before.changes(now)
        if changed:
            raise RunError(
                f"{self.path} was trained on different inputs:\n"
                + "".join(f"  {sentence}\n" for sentence in changed)
                + f"Restore it, or train again with --overwrite or another output.{self.says_where_code_is()}"
            )

    def start(self, config: RunConfig, record: "Record", *, resume: bool, overwrite: bool) -> None:
        """Prepare the folder, for a new run or for resuming from its last checkpoint; only one process does so.

        Args:
            config: the run, its paths absolute.
            record: of what it is trained on.
            resume: resume the run in the folder.
            overwrite: delete an existing run in the folder.

        Raises:
            ConfigError, RunError: as in `check` and `check_record`.
        """
        self.check(config, resume=resume, overwrite=overwrite)
        if self.path.exists() and overwrite:
            shutil.rmtree(self.path)
        going_on = (self.path / "config.yaml").is_file()
        if going_on:
            self.check_record(record)
            config = with_code_of(config, self.stored())
        self.path.mkdir(parents=True, exist_ok=True)
        made_again = ["edges.parquet", "scale.parquet"]
        if (self.path / LISTED).exists() and (fault := fault_of(self.path, only=made_again)) is not None:
            _LOG.warning("%s: %s. It is made again.", self.path, fault)
        (self.path / LISTED).unlink(missing_ok=True)  # until `list_files`: what it lists may change now
        with whole_file(self.path / "config.yaml") as partial:  # first: it makes the folder a run directory
            partial.write_text(dump_yaml(to_dict(config)), encoding="utf-8")
        if not (self.path / "fingerprints.json").is_file():
            record.save(self.path)
        checkpoint = self.checkpoint()
        for name in LOGS:
            self._restore(name, checkpoint)
        step = step_of(checkpoint) if checkpoint else 0
        timing = read_jsonl(self.path / "timing.jsonl", lenient=True) if checkpoint else []
        _write_lines(self.path / "timing.jsonl", [line for line in timing if line.get("step", step + 1) <= step])

    def _restore(self, name: str, checkpoint: Path | None) -> None:
        """A log as it was at a checkpoint, which holds a copy; those of older versions hold none."""
        log = self.path / name
        if checkpoint is None:
            _write_lines(log, [])
        elif (checkpoint / name).is_file():
            content = (checkpoint / name).read_bytes()
            if not log.is_file() or not log.read_bytes().startswith(content):
                _LOG.warning("%s is not as it was written; its lines are taken from %s.", log, checkpoint)
            with whole_file(log) as partial:
                partial.write_bytes(content)
        elif log.is_file():
            step = step_of(checkpoint)
            _write_lines(log, [line for line in read_jsonl(log) if line["step"] <= step])

    def finish(self, facts: Mapping[str, Any]) -> None:
        """Write run.json, which marks the run as finished."""
        text = json.dumps(dict(sorted(facts.items())), indent=1)  # an account keeps the order of its entries
        with whole_file(self.path / "run.json") as partial:
            partial.write_text(text + "\n", encoding="utf-8")
        self.list_files()


def _is_part(entry: Path) -> bool:
    """Whether a file is what a killed process left of one that it was writing."""
    return entry.name.startswith(".") and entry.name.endswith(".part")


def _write_lines(log: Path, lines: list[dict[str, Any]]) -> None:
    with whole_file(log) as partial:
        partial.write_text("".join(json.dumps(line, sort_keys=True) + "\n" for line in lines), encoding="utf-8")
