"""One recommender, fitted and ranked in a process of its own, so that its time and memory are nobody else's.

The parent writes the job as one line to the process's standard input and keeps the pipe open; when the parent dies, the
pipe closes and the process ends, so that no orphan trains into a folder that another process goes on with.
"""

import contextlib
import dataclasses
import gc
import importlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

from popmargin import errors
from popmargin.config import RunConfig, from_dict
from popmargin.errors import PopmarginError, RunError
from popmargin.files import whole_file
from popmargin.recommend.ranks import Ranking, Recommender
from popmargin.recommend.splitting import Cases, Parts
from popmargin.study.recommenders.saved_rankings import save_rankings

COSTS = "costs.json"
"""What a training cost, in its run directory."""
_STOPPED = 130
_SMALL = 1.0  # processor seconds of helpers of the libraries, which are not the recommender's


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """What one process does.

    Attributes:
        data: folder of the split.
        output: folder to write rankings and measurements to.
        part: `test` or `valid`.
        places: of the catalogue's best items that are kept.
        exclude_history: whether items of a history may be recommended again.
        draws: rankings of a model, with noise of their own.
        record: what the rankings depend on; kept beside them.
        recommender: a registered baseline; empty for a model.
        options: of the baseline.
        run: the configuration of a model's run, as plain values; empty for a baseline.
        model: folder of a run, or of a model, that is trained already.
        overwrite: train again what lies in the run's folder.
        vector_seconds: what the start model took to make.
    """

    data: str
    output: str
    part: str
    places: int
    exclude_history: bool
    draws: int
    record: dict[str, Any]
    recommender: str = ""
    options: dict[str, Any] = dataclasses.field(default_factory=dict[str, Any])
    run: dict[str, Any] = dataclasses.field(default_factory=dict[str, Any])
    model: str = ""
    overwrite: bool = False
    vector_seconds: float = 0.0


def run_job(job: Job, title: str) -> None:
    """Run a job in a process of its own, and wait for it.

    Raises:
        PopmarginError: what went wrong there, of the same kind; or the process was killed.
    """
    with tempfile.TemporaryDirectory(prefix="popmargin-job-") as folder:
        said = Path(folder) / "error.json"
        words = [sys.executable, "-m", "popmargin.study.recommenders.recommender_job", str(said)]
        with subprocess.Popen(words, stdin=subprocess.PIPE, text=True) as process:
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):  # it ended at once: its exit code says how
                process.stdin.write(json.dumps(dataclasses.asdict(job)) + "\n")
                process.stdin.flush()
            code = process.wait()
        if said.is_file():
            error = json.loads(said.read_text(encoding="utf-8"))
            raise getattr(errors, error["kind"], RunError)(f"{title}: {error['text']}")
    if code == _STOPPED:
        raise KeyboardInterrupt
    if code:
        why = "was killed, perhaps for want of memory" if code < 0 else "failed; its message is above"
        raise RunError(f"{title}: its process {why} (exit code {code}). Finished arms are kept: run the command again.")


def main(argv: Sequence[str]) -> int:
    """The process of a job: read it, do it; errors of a user go into a file, others to standard error."""
    job = Job(**json.loads(sys.stdin.readline()))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        do_job(job)
    except PopmarginError as error:
        kind = next(base.__name__ for base in type(error).__mro__ if base.__module__ == errors.__name__)
        with whole_file(argv[0]) as partial:
            partial.write_text(json.dumps({"kind": kind, "text": str(error)}), encoding="utf-8")
        return 2
    except KeyboardInterrupt:
        return _STOPPED
    return 0


def _end_with_parent() -> None:
    while os.read(0, 1):  # nothing else is written: it returns when the pipe closes
        pass
    os._exit(_STOPPED)


@dataclasses.dataclass
class Clock:
    """Seconds of wall time and of processor time (all threads) of a stretch of work."""

    wall: float = 0.0
    cpu: float = 0.0

    @contextlib.contextmanager
    def running(self) -> Generator[None]:
        """Count what happens inside."""
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self.wall, self.cpu = self.wall + time.perf_counter() - wall, self.cpu + time.process_time() - cpu


def do_job(job: Job) -> None:
    """Fit, rank and measure; the output appears when everything is done.

    Raises:
        PopmarginError: with the remedy.
    """
    from popmargin.recommend.baselines.base import BASELINES
    from popmargin.recommend.saved_parts import load_parts
    from popmargin.training.memory import peak_megabytes, reset_peak

    for module in ("popmargin.training.run", "popmargin.tasks.items") if job.run else ():
        importlib.import_module(module)  # not part of the arm's cost
    parts = load_parts(Path(job.data))
    costs: dict[str, Any] = {"vector_seconds": job.vector_seconds}
    BASELINES.names()
    reset_peak()
    before = peak_megabytes()
    if job.run:
        recommenders, trained = _trained(job)
        costs |= trained
    elif job.model:
        recommenders = drawn_models(Path(job.model), job.draws)
        costs |= costs_of_run(Path(job.model))
    else:
        clock = Clock()
        with clock.running():
            recommenders: list[Recommender] = [BASELINES.get(job.recommender).fit(parts, job.options)]
        costs |= {"fit_seconds": clock.wall, "fit_cpu_seconds": clock.cpu}
    cases = cases_of(parts, job.part)
    rankings, clock = rankings_of(recommenders, cases, parts, job)
    peak = max(peak_megabytes(), float(costs.get("peak_memory_mb", 0.0)))
    count = len(recommenders)
    recommenders.clear()
    cpu, megabytes = _of_children()
    if cpu:
        costs["fit_cpu_seconds"], peak = costs["fit_cpu_seconds"] + cpu, peak + megabytes
    costs |= {
        "rank_seconds": clock.wall / count, "rank_cpu_seconds": clock.cpu / count,
        "peak_memory_mb": peak, "start_memory_mb": costs.get("start_memory_mb", before),
    }  # fmt: skip
    save_rankings(Path(job.output), rankings, {"record": job.record, "costs": costs})


def _of_children() -> tuple[float, float]:
    """Processor seconds and peak megabytes of processes that a recommender started, such as RecBole's; else 0."""
    gc.collect()  # they end with the recommender
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = used.ru_utime + used.ru_stime
    unit = 1 if sys.platform == "darwin" else 1024
    return (seconds, used.ru_maxrss * unit / 2**20) if seconds > _SMALL else (0.0, 0.0)


def cases_of(parts: Parts, part: str) -> Cases:
    """Test or validation cases."""
    return parts.test if part == "test" else parts.valid


def rankings_of(
    recommenders: Sequence[Recommender], cases: Cases, parts: Parts, job: Job
) -> tuple[list[Ranking], Clock]:
    """One ranking for each recommender, and what they took."""
    from popmargin.recommend.ranks import rank_cases

    clock, items = Clock(), len(parts.catalogue)
    with clock.running():
        found = [
            rank_cases(one, cases, items=items, exclude_history=job.exclude_history, count=job.places)
            for one in recommenders
        ]
    return found, clock


def _trained(job: Job) -> tuple[list[Recommender], dict[str, Any]]:
    """Train the run, or go on with it, and its model with every draw of noise."""
    config = from_dict(RunConfig, job.run)
    costs = train_run(config, resume=not job.overwrite, overwrite=job.overwrite)
    return drawn_models(Path(config.output), job.draws), costs


def drawn_models(folder: Path, draws: int) -> list[Recommender]:
    """A trained model as one recommender for each draw of noise, on the GPU if there is one."""
    import torch

    from popmargin.recommend.denoising.item_denoiser import DenoisingRecommender
    from popmargin.recommend.trained import load

    model = load(folder).model.to("cuda" if torch.cuda.is_available() else "cpu")
    return [DenoisingRecommender(model, draw=draw) for draw in range(draws)]


def train_run(config: RunConfig, *, resume: bool, overwrite: bool) -> dict[str, Any]:
    """Train a run, or go on with it; returns its costs, which lie beside it from then on.

    Raises:
        PopmarginError: with the remedy.
    """
    from popmargin.training.memory import peak_megabytes, reset_peak
    from popmargin.training.run import train
    from popmargin.training.run_directory import RunDirectory

    directory = RunDirectory(Path(config.output))
    clock, was_finished = Clock(), directory.finished and not overwrite
    reset_peak()
    start = peak_megabytes()
    with clock.running():
        train(config, resume=resume, overwrite=overwrite)
    if not was_finished:
        with whole_file(directory.path / COSTS) as partial:
            told = {"fit_seconds": clock.wall, "fit_cpu_seconds": clock.cpu, "start_memory_mb": start}
            partial.write_text(json.dumps(told), encoding="utf-8")
    return costs_of_run(directory.path)


def costs_of_run(folder: Path) -> dict[str, Any]:
    """What the training in a run directory cost; nothing of a folder that holds a model alone.

    Raises:
        RunError: the run has not finished.
    """
    from popmargin.training.run_directory import RunDirectory

    directory, file = RunDirectory(folder), folder / COSTS
    if not directory.started:
        return {}
    facts = directory.facts()
    told = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return {
        "fit_seconds": told.get("fit_seconds", facts["train_seconds"]),
        "fit_cpu_seconds": told.get("fit_cpu_seconds"),
        "start_memory_mb": told.get("start_memory_mb"),
        "peak_memory_mb": facts["peak_memory_mb"],
        "resumed": bool(facts.get("resumed")),
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
