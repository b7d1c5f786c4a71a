"""Train one model from a file of events: split, vectors and rows, then an ordinary training run."""

import sys
from pathlib import Path

from popmargin.study.recommenders.prepared_events import (
    TRAIN,
    VALID,
    prepare,
    read_events,
    split_events,
    start_model,
)
from popmargin.study.recommenders.recommend_config import TrainedConfig
from popmargin.study.recommenders.recommender_job import train_run
from popmargin.training.run_directory import RunDirectory


def train_recommender(
    config: TrainedConfig, *, resume: bool = False, overwrite: bool = False
) -> tuple[RunDirectory, float]:
    """Train one model; what it is trained from lies in `config.prepared_folder`.

    Args:
        config: data, vectors and run.
        resume: continue from the last checkpoint.
        overwrite: delete an existing run, and make the data again if they have changed.

    Returns:
        The run directory, and the seconds of this training.

    Raises:
        ConfigError, DataError, RunError: with the remedy.
    """
    folder = Path(config.prepared_folder)
    directory = RunDirectory(Path(config.output))
    if not resume and not overwrite:
        directory.check(config.run_config(), resume=False, overwrite=False)  # before the data are read
    parts = split_events(read_events(config.data), config.data)
    for step in parts.account:
        print("\n".join(step.lines()), file=sys.stderr)
    prepare(parts, config.data, folder, overwrite=overwrite)
    start, _, notes = start_model(parts, config.vectors, folder / "start")
    for note in notes:
        print(note, file=sys.stderr)
    place = {"model": {"path": str(start)}, "data": {"train": str(folder / TRAIN), "test": str(folder / VALID)}}
    run = config.run_config(place)
    costs = train_run(run, resume=resume, overwrite=overwrite)
    return directory, float(costs["fit_seconds"])
