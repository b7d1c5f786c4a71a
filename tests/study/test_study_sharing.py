"""Several processes at one study: every run is made once, whatever they stop at."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from popmargin.config import dump_yaml, to_dict
from popmargin.errors import ConfigError
from popmargin.study.compare import compare
from popmargin.study.config import StudyConfig, TuneConfig
from popmargin.study.sharing import share


@pytest.mark.parametrize("finished_elsewhere", [True, False])
def test_what_another_process_is_at_comes_last(tmp_path: Path, finished_elsewhere: bool) -> None:
    done: list[str] = []
    here: list[tuple[int, str]] = []
    passed = threading.Event()

    def do(number: int, item: str) -> None:
        here.append((number, item))
        done.append(item)
        if item == "c":
            passed.set()

    def run() -> None:
        share({"one": "a", "two": "b", "three": "c"}, tmp_path, done.__contains__, do)

    theirs = FileLock(tmp_path / "two.lock")
    theirs.acquire()
    thread = threading.Thread(target=run)
    thread.start()
    assert passed.wait(10)
    thread.join(0.2)
    assert thread.is_alive() and here == [(1, "a"), (3, "c")]  # it waits
    if finished_elsewhere:
        done.append("b")
    theirs.release()
    thread.join(10)
    assert here == [(1, "a"), (3, "c")] + ([] if finished_elsewhere else [(2, "b")])


def test_a_lock_does_not_outlive_a_failure(tmp_path: Path) -> None:
    def fail(_: int, item: str) -> None:
        raise ValueError(item)

    with pytest.raises(ValueError, match="a"):
        share({"one": "a"}, tmp_path, lambda _: False, fail)
    taken: list[str] = []
    share({"one": "a"}, tmp_path, taken.__contains__, lambda _, item: taken.append(item))
    assert taken == ["a"]


def test_processes_of_one_training_run_are_refused(
    tmp_path: Path, make_study: Callable[..., StudyConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match=r"does not run under torchrun\. Start the same command several times"):
        compare(make_study())
    assert not (tmp_path / "study").exists()


@pytest.mark.slow
def test_two_processes_share_a_study(
    tmp_path: Path, make_study: Callable[..., StudyConfig], popmargin_environment: dict[str, str]
) -> None:
    study = make_study(
        {"evaluation": {"reward": None, "curve_points": 0}}, tune=TuneConfig(learning_rates=[1e-3, 1e-2])
    )
    file = tmp_path / "study.yaml"
    file.write_text(dump_yaml(to_dict(study)))
    command = [sys.executable, "-m", "popmargin", "compare", str(file)]
    options = {"env": popmargin_environment | {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}, "text": True}
    both = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)  # pyright: ignore
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=240) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    said = "".join(errors for _, errors in outputs)
    for arm in ("dpo", "pop"):
        for rate in ("0.001", "0.01"):
            assert said.count(f"{arm}, learning rate {rate},") == 1
        for seed in (0, 1):
            lines = [line for line in said.splitlines() if line.endswith(f"{arm}, seed {seed}")]
            assert len(lines) == 1
            assert (tmp_path / "study" / "runs" / arm / f"seed-{seed}" / "evaluation" / "metrics.json").is_file()
    assert len((tmp_path / "study" / "tuning.jsonl").read_text().splitlines()) == 4
    assert outputs[0][0] == outputs[1][0] and "report:" in outputs[0][0]
