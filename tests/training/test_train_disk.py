"""A full disk costs a sentence, and a run that goes on ends as if the disk had been large enough.

A limit on the size of files stands for the full disk: writes fail in the middle, in our code and below it.
"""

import contextlib
import resource
import shutil
from collections import namedtuple
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

from few_fast import few_fast
from popmargin.config import RunConfig
from popmargin.errors import RunError
from popmargin.files import append_jsonl, read_jsonl
from popmargin.training import build, disk_space
from popmargin.training import run as training
from popmargin.training.checkpoints import checkpoints_in
from popmargin.training.final import save_trained
from popmargin.training.run import train
from popmargin.training.run_directory import RunDirectory

Configure = Callable[..., RunConfig]
Usage = namedtuple("Usage", "total used free")


@contextlib.contextmanager
def size_limit() -> Generator[Callable[[int], None]]:
    """A function that ends files at so many bytes, for as long as this lasts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        yield lambda most: resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("name", ["metrics.jsonl", "timing.jsonl"])
def test_a_line_that_does_not_fit_is_a_sentence(tmp_path: Path, name: str) -> None:
    append_jsonl(tmp_path / name, {"step": 1})
    with size_limit() as limit:
        limit((tmp_path / name).stat().st_size + 5)
        with pytest.raises(RunError, match=rf"{name}: a line cannot be written .*Make room.*--resume"):
            append_jsonl(tmp_path / name, {"step": 2})
    append_jsonl(tmp_path / name, {"step": 2})
    assert [line["step"] for line in read_jsonl(tmp_path / name)] == [1, 2]


@pytest.mark.parametrize("name", few_fast(["metrics.jsonl", "timing.jsonl", "model"], (0,)))
def test_a_run_on_a_full_disk_stops_with_a_sentence_and_goes_on(
    tmp_path: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch, weights: Any, name: str
) -> None:
    changes = {"model": {"lora_rank": 2}, "train": {"max_steps": 4, "save_steps": 1, "save_total_limit": 1}}
    whole, _ = train(configure(changes, {"output": str(tmp_path / "whole")}))
    config = configure(changes)
    run = RunDirectory(Path(config.output))

    class Fill(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 2 and name != "model":
                (run.path / name).unlink()
                (run.path / name).symlink_to("/dev/full")

    class Filled(build.PreferenceTrainer):
        def __init__(self, **arguments: Any) -> None:
            super().__init__(**arguments)
            self.add_callback(Fill())

    with size_limit() as limit, monkeypatch.context() as patched:

        def save(*arguments: Any) -> Any:
            if name == "model":
                limit(2000)
            return save_trained(*arguments)

        patched.setattr(build, "PreferenceTrainer", Filled)
        patched.setattr(training, "save_trained", save)
        with pytest.raises(RunError, match=rf"{name}: (a line|the trained model) cannot be written .*--resume"):
            train(config)
    assert not run.finished and not run.model.exists() and run.checkpoint() is not None
    (run.path / "timing.jsonl").unlink()
    if name == "metrics.jsonl":
        (run.path / name).unlink()
    again, _ = train(config, resume=True)
    assert (again.path / "metrics.jsonl").read_bytes() == (whole.path / "metrics.jsonl").read_bytes()
    ours, theirs = weights(again.model), weights(whole.model)
    assert again.facts()["resumed"] and all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_room_is_looked_for_before_a_checkpoint_and_once_for_the_run(
    tmp_path: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The first checkpoint needs what is estimated, later ones what the last one has."""
    usage, asked = shutil.disk_usage, list[int]()

    def little(place: Any) -> Any:
        asked.append(1)
        return Usage(10, 5, 5) if len(asked) in (1, 3) else usage(place)  # the run's start, the second checkpoint

    monkeypatch.setattr(disk_space.shutil, "disk_usage", little)
    change = {"objective": {"name": "pop"}, "train": {"max_steps": 3, "save_steps": 1, "save_total_limit": 3}}
    run, _ = train(configure(change))
    assert [path.name for path in checkpoints_in(run.checkpoints)] == ["checkpoint-1", "checkpoint-3"]
    assert "The run keeps up to 3 checkpoints of about" in caplog.text and "train.save_total_limit" in caplog.text
    assert "The checkpoint of step 2 could not be written (it needs about" in caplog.text
    size = sum(file.stat().st_size for file in (run.checkpoints / "checkpoint-1").rglob("*"))
    (said,) = [record.args for record in caplog.records if "keeps up to" in record.msg]
    estimated = float(str(said[1]).split()[0]) * 1e3  # kB
    assert 0.8 * size < estimated < 1.8 * size


def test_room_for_a_merged_reward_model_is_that_of_all_its_weights(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(disk_space, "free_bytes", lambda folder: 5)
    monkeypatch.setattr(disk_space, "refuse_full", lambda folder, needed: None)
    run, _ = train(configure({"task": "reward", "model": {"lora_rank": 2}, "train": {"max_steps": 1, "save_steps": 1}}))
    (said,) = [record.args for record in caplog.records if "keeps up to" in record.msg]
    size = (run.model / "model.safetensors").stat().st_size
    assert 0.9 * size < float(str(said[2]).split()[0]) * 1e3 < 1.1 * size
