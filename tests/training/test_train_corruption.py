"""Whatever happens to a file of a run: it is refused by name with a remedy, or what was verified before is used.

Each test goes through all files that are there, so that a new one is covered too.
"""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from popmargin.config import RunConfig, from_dict
from popmargin.errors import PopmarginError, RunError
from popmargin.files import read_jsonl
from popmargin.models.path import resolve_path
from popmargin.pop.edges import PopEdges
from popmargin.training.build import Run
from popmargin.training.checkpoints import MANIFEST, checkpoints_in, fault_of, newest_whole
from popmargin.training.fingerprints import Record
from popmargin.training.run import train
from popmargin.training.run_directory import RunDirectory
from popmargin.training.workspace import Workspace

LIST = "popmargin_files.json"


def flip(file: Path, place: float = 0.5) -> None:
    """Change one bit."""
    content = bytearray(file.read_bytes())
    content[int(place * (len(content) - 1))] ^= 1
    file.write_bytes(bytes(content))


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "first bit": lambda file: flip(file, 0.0),
    "a bit": flip,
    "last bit": lambda file: flip(file, 1.0),
    "half": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "empty": lambda file: file.write_bytes(b""),
    "missing": Path.unlink,
}
damages = pytest.mark.parametrize("damage", list(DAMAGES))


@pytest.fixture(scope="module")
def config(
    tmp_path_factory: pytest.TempPathFactory, model_path: str, data_path: str, shared_reference: str
) -> RunConfig:
    values = {
        "output": str(tmp_path_factory.mktemp("corruption") / "run"),
        "model": {"path": model_path, "lora_rank": 2},
        "data": {"train": data_path, "test_size": 8, "max_length": 96},
        "objective": {"name": "pop"},
        "reference": {"cache": shared_reference},
        "train": {"batch_size": 8, "max_steps": 3, "save_steps": 1, "save_total_limit": 3},
        "evaluation": {"curve_points": 3},
    }
    return from_dict(RunConfig, values)


@pytest.fixture(scope="module")
def workspace(config: RunConfig) -> Workspace:
    return Run.read(config).workspace()


@pytest.fixture(scope="module")
def trained(config: RunConfig, workspace: Workspace) -> RunDirectory:
    """One tiny training, of which tests damage copies."""
    run, _ = train(config, workspace=workspace, probe=lambda _, step: {"seen": float(step)})
    return run


@pytest.fixture
def run(trained: RunDirectory, tmp_path: Path) -> RunDirectory:
    return RunDirectory(Path(shutil.copytree(trained.path, tmp_path / "copy")))


def files_in(folder: Path, *without: str) -> list[str]:
    files = [file.relative_to(folder) for file in sorted(folder.rglob("*")) if file.is_file()]
    return [file.as_posix() for file in files if file.parts[0] not in without]


def damaged(folder: Path, damage: str, *without: str) -> Iterator[str]:
    """The name of each file of a folder in turn, while it is damaged."""
    names = files_in(folder, *without)
    assert names
    for name in names:
        before = (folder / name).read_bytes()
        DAMAGES[damage](folder / name)
        yield name
        (folder / name).write_bytes(before)


@damages
def test_of_a_checkpoint(run: RunDirectory, damage: str) -> None:
    *_, before, newest = checkpoints_in(run.checkpoints)
    assert {"metrics.jsonl", "optimizer.pt", MANIFEST} <= set(files_in(newest))
    for name in damaged(newest, damage):
        told: list[str] = []
        assert newest_whole(run.checkpoints, told.append) == before
        assert len(told) == 1 and str(newest) in told[0] and name in told[0]
    assert fault_of(newest) is None


def looked_at(run: RunDirectory) -> None:
    """What evaluations, reports and resumed runs read of a finished one."""
    run.facts()
    run.config()
    run.metrics()
    Record.load(run.path)
    PopEdges.load(run.path / "edges.parquet")


@damages
def test_of_a_run_directory(run: RunDirectory, damage: str) -> None:
    """Those that are passed over: speed, and curves, which a run that goes on takes from its checkpoint."""
    passed = {"timing.jsonl", "curves.jsonl", *([LIST] if damage == "missing" else [])}
    edges = PopEdges.load(run.path / "edges.parquet").fingerprint()
    for name in damaged(run.path, damage, "checkpoints", "model"):
        try:
            looked_at(run)
        except PopmarginError as error:
            assert name in str(error) and any(word in str(error) for word in ("again", "Delete", "popmargin")), error
            assert name not in passed
        else:
            if name == "edges.parquet" and damage.endswith("bit"):  # not every bit of a Parquet file means something
                assert PopEdges.load(run.path / name).fingerprint() == edges
                continue
            assert name in passed, f"{name} ({damage}) was read without a word"
    looked_at(run)


@damages
@pytest.mark.parametrize("name", ["metrics.jsonl", "curves.jsonl", "timing.jsonl"])
def test_of_the_logs_of_a_run_that_goes_on(
    run: RunDirectory, damage: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Metrics and curves are as they were at the checkpoint; speed, which nothing depends on, stops nothing."""
    (run.path / "run.json").unlink()
    whole = {name: (run.path / name).read_bytes() for name in ("metrics.jsonl", "curves.jsonl")}
    DAMAGES[damage](run.path / name)
    record = Record.load(run.path)
    assert record is not None
    run.start(run.stored(), record, resume=True, overwrite=False)
    assert {name: (run.path / name).read_bytes() for name in whole} == whole
    assert len(read_jsonl(run.path / "timing.jsonl")) <= 3
    if name in whole:
        assert f"{run.path / name} is not as it was written" in caplog.text


@damages
def test_of_the_trained_model(run: RunDirectory, damage: str, tmp_path: Path) -> None:
    """Wherever its folder has been copied to."""
    elsewhere = Path(shutil.copytree(run.model, tmp_path / "elsewhere"))
    (elsewhere / "notes.txt").write_text("added later")
    assert {"adapter_model.safetensors", "adapter_config.json", LIST} <= set(files_in(elsewhere))
    for name in damaged(elsewhere, damage):
        free = name in ("README.md", "notes.txt") or (name == LIST and damage == "missing")
        try:
            assert resolve_path(str(elsewhere)) == str(elsewhere)
            assert free, f"{name} ({damage}) was read without a word"
        except RunError as error:
            assert name in str(error) and not free
    assert resolve_path(str(elsewhere)) == str(elsewhere)


def test_a_finished_run_does_not_go_on_with_a_broken_model(
    run: RunDirectory, config: RunConfig, workspace: Workspace
) -> None:
    path = Path(config.output)
    weights = path / "model" / "adapter_model.safetensors"
    before = weights.read_bytes()
    flip(weights)
    try:
        with pytest.raises(RunError, match=r"adapter_model.*Delete .*run\.json .* goes on from .*checkpoint-3"):
            train(config, workspace=workspace, resume=True)
        with pytest.raises(RunError, match=r"adapter_model\.safetensors is not what was written"):
            workspace.task.load(path / "model")
    finally:
        weights.write_bytes(before)
    assert train(config, workspace=workspace, resume=True)[0].facts()["steps"] == 3


@pytest.mark.parametrize("written", [[], ["data.parquet"]])
def test_a_run_that_died_before_it_began_begins(run: RunDirectory, tmp_path: Path, written: list[str]) -> None:
    """Its folder is half written, and nothing is lost."""
    record, dead = Record.load(run.path), RunDirectory(tmp_path / "dead")
    assert record is not None
    dead.path.mkdir()
    (dead.path / ".config.yaml.1.part").write_text("name: ")
    dead.check(run.stored(), resume=False, overwrite=False)
    for name in ["config.yaml", *written]:
        shutil.copy(run.path / name, dead.path / name)
    dead.start(run.stored(), record, resume=True, overwrite=False)
    again = Record.load(dead.path)
    assert again is not None and not again.changes(record)
