"""`popmargin rounds` is killed at random moments, and ends with the files of a run that nobody has killed."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from popmargin.config import dump_yaml, to_dict
from popmargin.listed_files import LISTED
from popmargin.rounds.rounds_config import RoundsConfig

MakeRounds = Callable[..., RoundsConfig]
_TIMES = {"started", "seconds", "attempts"}
_RUN_TIMES = {"train_seconds", "tokens", "tokens_per_second", "peak_memory_mb", "resumed"}  # of the last process


def contents(folder: Path) -> dict[str, Any]:
    """All files of finished stages by name; what says when and how fast something was done is left out."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_file() or "/checkpoints/" in name or name.startswith("locks/") or path.name == "timing.jsonl":
            continue
        if path.name == "manifest.json":
            manifest = {key: value for key, value in json.loads(path.read_text()).items() if key not in _TIMES}
            found[name] = manifest
        elif path.name == "run.json":
            found[name] = {key: value for key, value in json.loads(path.read_text()).items() if key not in _RUN_TIMES}
        elif path.name == LISTED:
            listed = json.loads(path.read_text())["files"]
            found[name] = {file: entry for file, entry in listed.items() if file != "run.json"}
        elif path.name != "report.html":
            found[name] = path.read_bytes()
    return found


@pytest.mark.slow
def test_killed_five_times(tmp_path: Path, make_rounds: MakeRounds, popmargin_environment: dict[str, str]) -> None:
    config = make_rounds({"name": "spa", "rounds": 1, "seed_prompts": 12, "prompts_per_round": 12})
    file = tmp_path / "spa.yaml"
    file.write_text(dump_yaml(to_dict(config)))
    command = [sys.executable, "-m", "popmargin", "rounds", str(file)]
    folder = tmp_path / "rounds"
    environment = os.environ | popmargin_environment

    def run(seconds: float | None) -> bool:
        process = subprocess.Popen(
            command, env=environment, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        try:
            _, error = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return False
        assert process.returncode == 0, error.decode()
        return True

    started = time.monotonic()
    assert run(None)
    whole = time.monotonic() - started
    expected = contents(folder)
    assert "round-1/train/run/model/model.safetensors" in expected
    folder.rename(tmp_path / "uninterrupted")
    moments = random.Random(0)
    for _ in range(5):
        if run(whole * moments.uniform(0.3, 0.8)):
            break
    run(None)
    found = contents(folder)
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []
    assert (folder / "report.html").is_file()
