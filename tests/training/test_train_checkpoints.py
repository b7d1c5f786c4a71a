"""A checkpoint is whole, or it is not used: whatever was lost or changed, and whenever the process died."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

from few_fast import few_fast
from popmargin.config import RunConfig, dump_yaml, to_dict
from popmargin.errors import RunError
from popmargin.training import build, checkpoint_times, checkpointing
from popmargin.training.checkpoints import (
    MANIFEST,
    UNFINISHED,
    checkpoints_in,
    fault_of,
    newest_whole,
    publish,
    refuse_broken,
    remove_old,
)
from popmargin.training.run import train
from popmargin.training.run_directory import RunDirectory

Configure = Callable[..., RunConfig]
FILES = {"model.safetensors": b"weights", "optimizer.pt": b"moments", "parts/shard-0.bin": b"shard"}


def written(folder: Path, step: int) -> Path:
    """A checkpoint with these files."""
    unfinished = folder / UNFINISHED / f"checkpoint-{step}"
    for name, content in FILES.items():
        (unfinished / name).parent.mkdir(parents=True, exist_ok=True)
        (unfinished / name).write_bytes(content)
    publish(unfinished, folder / f"checkpoint-{step}")
    return folder / f"checkpoint-{step}"


def flip(file: Path) -> None:
    """Change one bit, and neither size nor time."""
    content, stat = bytearray(file.read_bytes()), file.stat()
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_the_newest_by_number_is_used(tmp_path: Path) -> None:
    for step in (9, 10, 100):
        written(tmp_path, step)
    (tmp_path / "checkpoint-old").mkdir()
    assert newest_whole(tmp_path) == tmp_path / "checkpoint-100" and not (tmp_path / UNFINISHED).exists()
    assert [path.name for path in checkpoints_in(tmp_path)] == ["checkpoint-9", "checkpoint-10", "checkpoint-100"]
    assert newest_whole(tmp_path / "nowhere") is None


@pytest.mark.parametrize("name", [*FILES, MANIFEST])
@pytest.mark.parametrize(
    "damage", [flip, Path.unlink, lambda file: file.write_bytes(b""), lambda file: file.write_bytes(b"{}")]
)
def test_whatever_is_broken_is_named_and_the_one_before_is_used(
    tmp_path: Path, name: str, damage: Callable[[Path], Any]
) -> None:
    before, broken = written(tmp_path, 2), written(tmp_path, 4)
    damage(broken / name)
    told: list[str] = []
    assert newest_whole(tmp_path, told.append) == before
    assert len(told) == 1 and str(broken) in told[0] and name in told[0]
    with pytest.raises(RunError, match=rf"{name}.* Resume from .*checkpoint-2 instead"):
        refuse_broken(broken)
    refuse_broken(before)
    shutil.rmtree(before)
    with pytest.raises(RunError, match="Train from the start"):
        refuse_broken(broken)


def test_another_steps_checkpoint_is_not_taken(tmp_path: Path) -> None:
    written(tmp_path, 2).rename(tmp_path / "checkpoint-3")
    assert fault_of(tmp_path / "checkpoint-3") == f"its {MANIFEST} is that of step 2"


def test_the_newest_and_the_best_are_never_deleted(tmp_path: Path) -> None:
    """A run that goes on from an earlier checkpoint writes one with a lower number than those that were refused."""
    found = [written(tmp_path, step) for step in (1, 2, 3, 4)]
    remove_old(tmp_path, 1, [found[1], str(found[0]), None])
    assert checkpoints_in(tmp_path) == [found[0], found[1], found[3]]
    remove_old(tmp_path, None, [])
    remove_old(tmp_path, 5, [])
    assert len(checkpoints_in(tmp_path)) == 3


def lora(output: Path, **changes: Any) -> dict[str, Any]:
    steps = {"max_steps": 4, "save_steps": 1, "save_total_limit": 3} | changes
    return {"output": str(output), "model": {"lora_rank": 2}, "train": steps}


def same(one: RunDirectory, other: RunDirectory, weights: Any) -> bool:
    ours, theirs = weights(one.model), weights(other.model)
    lines = [(run.path / "metrics.jsonl").read_bytes() for run in (one, other)]
    return lines[0] == lines[1] and all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize(
    "name", few_fast(["optimizer.pt", "scheduler.pt", "rng_state.pth", "popmargin_state.safetensors"], (0,))
)
def test_a_run_goes_on_from_the_one_before_and_ends_alike(
    tmp_path: Path, configure: Configure, weights: Any, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Each of these files was once read, or left out, without a word."""
    whole, _ = train(configure(lora(tmp_path / "whole")))
    config = configure(lora(tmp_path / "run"))
    run, _ = train(config)
    (run.path / "run.json").unlink()
    shutil.rmtree(run.checkpoints / "checkpoint-4")
    if name == "optimizer.pt":
        flip(run.checkpoints / "checkpoint-3" / name)
    else:
        (run.checkpoints / "checkpoint-3" / name).unlink()
    again, _ = train(config, resume=True)
    assert f"checkpoint-3 is not used: {name} is" in caplog.text
    assert again.facts()["resumed"] and same(again, whole, weights)


def test_where_nothing_is_whole_training_begins_anew_and_says_so(
    tmp_path: Path, configure: Configure, caplog: pytest.LogCaptureFixture
) -> None:
    config = configure(lora(tmp_path / "run", max_steps=1))
    run, _ = train(config)
    (run.path / "run.json").unlink()
    (run.checkpoints / "checkpoint-1" / MANIFEST).write_text("{}")
    assert not train(config, resume=True)[0].facts()["resumed"]
    assert "so training begins anew" in caplog.text


def test_a_full_disk_costs_a_checkpoint_and_not_the_run(
    tmp_path: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(unfinished: Path, folder: Path) -> None:
        if folder.name == "checkpoint-2":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        publish(unfinished, folder)

    monkeypatch.setattr(checkpointing, "publish", full)
    run, _ = train(configure(lora(tmp_path / "run", max_steps=3)))
    assert [path.name for path in checkpoints_in(run.checkpoints)] == ["checkpoint-1", "checkpoint-3"]
    assert run.facts()["steps"] == 3 and not (run.checkpoints / UNFINISHED).exists()
    assert "The checkpoint of step 2 could not be written" in caplog.text and "the last one is " in caplog.text


def test_checkpoints_by_the_clock_are_there_while_it_runs(
    tmp_path: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch, weights: Any
) -> None:
    """After every step here; a finished run keeps none of them."""
    seen: list[str] = []

    class Watch(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            seen.append(",".join(path.name for path in checkpoints_in(Path(args.output_dir))))

    class Watched(build.PreferenceTrainer):
        def __init__(self, **arguments: Any) -> None:
            super().__init__(**arguments)
            self.add_callback(Watch())

    monkeypatch.setattr(build, "PreferenceTrainer", Watched)
    run, _ = train(configure(lora(tmp_path / "run", save_steps=0, save_minutes=1e-9, save_total_limit=1)))
    assert seen == ["", "checkpoint-1", "checkpoint-2", "checkpoint-3"] and not run.checkpoints.exists()
    without, _ = train(configure(lora(tmp_path / "without", save_steps=0, save_minutes=0)))
    assert not without.checkpoints.exists() and same(run, without, weights)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_stop_it_saves_first_and_goes_on_alike(
    tmp_path: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch, weights: Any, number: signal.Signals
) -> None:
    class Ask(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 2:
                signal.raise_signal(number)

    class Asked(build.PreferenceTrainer):
        def __init__(self, **arguments: Any) -> None:
            super().__init__(**arguments)
            self.add_callback(Ask())

    whole, _ = train(configure(lora(tmp_path / "whole", save_steps=0)))
    config = configure(lora(tmp_path / "run", save_steps=0))
    before = signal.signal(signal.SIGINT, signal.default_int_handler), signal.getsignal(signal.SIGTERM)
    try:
        with monkeypatch.context() as patched:
            patched.setattr(build, "PreferenceTrainer", Asked)
            with pytest.raises(checkpoint_times.StoppedError) as stop:
                train(config)
        assert signal.getsignal(signal.SIGTERM) is before[1]
    finally:
        signal.signal(signal.SIGINT, before[0])
    run = RunDirectory(tmp_path / "run")
    assert stop.value.signal == number and run.checkpoint() == run.checkpoints / "checkpoint-3" and not run.finished
    assert same(train(config, resume=True)[0], whole, weights)


@pytest.mark.slow
def test_killed_while_it_saves(
    tmp_path: Path, configure: Configure, popmargin_environment: dict[str, str], weights: Any
) -> None:
    """SIGKILL when a checkpoint begins, when it appears, and later; each resume goes on, and the end is the same."""
    whole, _ = train(configure(lora(tmp_path / "whole", max_steps=12)))
    changes = lora(tmp_path / "run", max_steps=12)
    (tmp_path / "run.yaml").write_text(dump_yaml(to_dict(configure(changes))))
    run = RunDirectory(tmp_path / "run")
    watched = [lambda: (run.checkpoints / UNFINISHED).exists(), lambda: bool(checkpoints_in(run.checkpoints)[1:])]
    for number, ready in enumerate([*watched, watched[0]]):
        words = ["train", str(tmp_path / "run.yaml"), *(["--resume"] if number else [])]
        process = subprocess.Popen([sys.executable, "-m", "popmargin", *words], env=popmargin_environment)
        deadline = time.monotonic() + 120
        while not ready() and process.poll() is None:
            assert time.monotonic() < deadline
        time.sleep(0.005 * number)
        process.send_signal(signal.SIGKILL)
        process.wait(60)
    assert same(train(configure(changes), resume=True)[0], whole, weights)
