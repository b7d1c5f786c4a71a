"""Files that appear when they are complete, and what is said of places that cannot be written."""

import functools
from collections.abc import Callable
from pathlib import Path

import pytest

from popmargin.cli.main import main
from popmargin.data.load import load_preferences
from popmargin.errors import RunError
from popmargin.files import no_such_file, whole_file
from popmargin.pop.edges import PopEdges
from popmargin.report.results import write_text


def test_a_file_appears_at_the_end_or_stays_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.txt"
    with whole_file(path) as partial:
        partial.write_text("one")
        assert not path.exists()
    with pytest.raises(ZeroDivisionError), whole_file(path) as partial:
        partial.write_text("two")
        _ = 1 / 0
    assert path.read_text() == "one" and [found.name for found in path.parent.iterdir()] == ["file.txt"]


@pytest.mark.parametrize(
    "save",
    [
        PopEdges.from_columns(["a"], ["b"]).save,
        load_preferences([{"prompt": "p", "chosen": "c", "rejected": "r"}]).save,
        functools.partial(write_text, text="text"),
    ],
)
def test_places_that_cannot_be_written_are_named(tmp_path: Path, save: Callable[[Path], None]) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder.parquet").mkdir()
    for path, reason in (
        (Path("/proc/x.parquet"), "/proc/x.parquet: cannot be written .*No such file"),
        (tmp_path / "file" / "x.parquet", "file/x.parquet: cannot be written .*Not a directory"),
        (tmp_path / "folder.parquet", "folder.parquet is a folder. Give a file"),
    ):
        with pytest.raises(RunError, match=reason):
            save(path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.parquet"]


def test_other_paths_that_the_system_refuses_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(error: OSError) -> None:
        def act(_: object) -> int:
            raise error

        monkeypatch.setattr("popmargin.cli.objectives.run", act)

    refused(PermissionError(13, "Permission denied", "/closed/x"))
    assert main(["objectives"]) == 2
    assert "error: /closed/x: Permission denied." in capsys.readouterr().err
    refused(OSError("a bug of ours"))
    with pytest.raises(OSError, match="a bug of ours"):
        main(["objectives"])


def test_names_like_one_that_is_not_there(tmp_path: Path) -> None:
    for name in ("run.yaml", "Run.json", "other.txt", ".run.yaml"):
        (tmp_path / name).touch()
    said = no_such_file(tmp_path / "runs.yml", what="configuration")
    assert said == (
        f"No such configuration: {tmp_path}/runs.yml. Did you mean {tmp_path}/Run.json or {tmp_path}/run.yaml?"
    )
    assert no_such_file(tmp_path / "x") == f"No such file: {tmp_path}/x."
    assert no_such_file(tmp_path / "a" / "b") == f"No such file: {tmp_path}/a/b (there is no folder {tmp_path}/a)."
