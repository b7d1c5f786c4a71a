"""The benchmark's own claims: both sides train on the same batches, and agree on loss and gradient."""

import importlib
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch

from rounding import rounding

ROOT = Path(__file__).parent.parent
STEP = ROOT / "benchmarks" / "step.py"


def measure(*words: str) -> dict[str, Any]:
    shown = subprocess.run(
        [
            sys.executable,
            str(STEP),
            "--model",
            "tiny",
            "--steps",
            "2",
            "--batch",
            "2",
            "--threads",
            "1",
            "--json",
            *words,
        ],
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert shown.returncode == 0, shown.stderr[-2000:]
    return json.loads(shown.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [[], ["--lora"], ["--profile", "long_prompt", "--tokens_per_batch", "300"], ["--reference", "every_step"]],
    ids=" ".join,
)
def test_both_sides_compute_the_same(words: list[str]) -> None:
    found = measure(*words)
    assert found["loss_rel_diff"] <= 1e-4 and found["grad_rel_diff"] <= 1e-4
    assert min(found["speedup"], found["memory_ratio"], found["mfu"], found["tokens_per_second"]) > 0
    low, high = found["speedup_spread"]
    assert low <= found["speedup"] <= high


@pytest.mark.slow
def test_one_side_alone() -> None:
    found = measure("--peer", "none", "--equal_lengths", "--dtype", "bf16")
    assert "speedup" not in found and found["step_seconds"] > 0


@pytest.mark.slow
def test_kept_outputs_of_frozen_layers_are_the_same_pass() -> None:
    words = ["--model", "tiny", "--layers", "1", "--batches", "1", "--threads", "1", "--json"]
    shown = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "frozen.py"), *words], capture_output=True, text=True, check=True
    )
    row = json.loads(shown.stdout)[0]
    assert row["layers"] == 1 and row["lowest"] <= row["speedup"] <= row["highest"]
    assert row["largest_difference_nats"] < rounding(torch.bfloat16, math.log(8192), 40)  # four layers, 8,192 tokens


def test_the_page_says_what_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/performance.md comes from the two files of results, and from nothing else."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    page, plan = importlib.import_module("performance_page"), importlib.import_module("run")
    gpu = importlib.import_module("gpu")
    page.write_page(plan.results(), list(plan.plan()), gpu.results(), tmp_path)
    for name in ("performance.md", "performance.svg"):
        assert (tmp_path / name).read_text(encoding="utf-8") == (ROOT / "docs" / name).read_text(encoding="utf-8")
    assert set(plan.results()) <= set(plan.plan()) and set(gpu.results()) <= set(gpu.plan(6))


def test_the_figure_shows_the_whole_spread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten times the spread is a longer bar beside the shorter one, not one that is cut at an edge."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    page = importlib.import_module("performance_page")
    spreads = {"a": [1.0, 4.0], "b": [1.0, 40.0]}
    steps = {name: {"speedup": 2.0, "speedup_spread": ends, "memory_ratio": 0.5} for name, ends in spreads.items()}
    bars = [part for part in ElementTree.fromstring(page._figure(steps)).iter() if part.get("class") == "bar s1"]
    lengths = [float(part.get("x2") or 0) - float(part.get("x1") or 0) for part in bars]
    assert len(lengths) == 2 and lengths[1] / lengths[0] == pytest.approx(13, rel=0.01)


@pytest.mark.slow
def test_the_same_numbers_are_the_same_and_a_last_bit_is_not(tmp_path: Path) -> None:
    """benchmarks/identity.py is deterministic, and sees a change of one part in ten million."""

    def identity(*words: str, source: Path = ROOT / "src") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(ROOT / "benchmarks" / "identity.py"), *words],
            env=os.environ | {"PYTHONPATH": str(source)},
            capture_output=True,
            text=True,
        )

    changed = tmp_path / "src"
    shutil.copytree(ROOT / "src", changed)
    file = changed / "popmargin" / "objectives" / "simpo.py"
    text = file.read_text(encoding="utf-8")
    assert "gamma: float = 1.0" in text
    file.write_text(text.replace("gamma: float = 1.0", "gamma: float = 1.0000001"), encoding="utf-8")
    results = {name: tmp_path / f"{name}.json" for name in ("old", "same", "other")}
    for name, path in results.items():
        words = ("--only", "simpo/full/*", "--out", str(path))
        shown = identity(*words, source=changed if name == "other" else ROOT / "src")
        assert shown.returncode == 0, shown.stderr[-2000:]
    same = identity("--compare", str(results["old"]), str(results["same"]))
    assert same.returncode == 0 and "| simpo | same | – | refused | – |" in same.stdout
    other = identity("--compare", str(results["old"]), str(results["other"]))
    assert other.returncode == 1 and "straight: differs in" in other.stdout and "weights" in other.stdout


@pytest.mark.slow
@pytest.mark.parametrize("draws", [0, 2])
def test_steps_of_images_are_those_of_the_example(draws: int) -> None:
    """With one pair, where the example's mean inside log σ is none: the same loss and the same gradient."""
    words = ["--channels", "8", "--size", "32", "--batch", "1", "--steps", "1", "--threads", "1", "--json"]
    script = ROOT / "benchmarks" / "images.py"
    shown = subprocess.run(
        [sys.executable, str(script), *words, "--draws", str(draws)], capture_output=True, text=True, check=True
    )
    found = json.loads(shown.stdout.splitlines()[-1])
    assert found["loss_abs_diff"] < 1e-3 and found["grad_rel_diff"] < 1e-2
    assert found["cpu_seconds"] > 0 and found["peer_cpu_seconds"] > 0 and found["setting"]["draws"] == draws
    assert found["bound"] > 1 and min(found["parts"].values()) > 0
