"""Files that appear when they are complete, and what is said of places that cannot be written."""

import ast
import functools
import re
from collections.abc import Callable
from pathlib import Path

import pytest

import popmargin
from popmargin.cli.main import main
from popmargin.data.load import load_preferences
from popmargin.errors import RunError
from popmargin.files import no_such_file, whole_file, whole_folder
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


def test_a_folder_appears_at_the_end_or_stays_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "folder"
    with whole_folder(path) as partial:
        (partial / "a").write_text("one")
        assert not path.exists()
    with pytest.raises(ZeroDivisionError), whole_folder(path, replace=True) as partial:
        (partial / "b").write_text("two")
        _ = 1 / 0
    with pytest.raises(RunError, match="folder is there already"), whole_folder(path):
        pass
    assert [found.name for found in path.parent.iterdir()] == ["folder"]
    assert [found.name for found in path.iterdir()] == ["a"]
    with whole_folder(path, replace=True) as partial:
        (partial / "b").write_text("two")
    assert [found.name for found in path.iterdir()] == ["b"]
    assert [found.name for found in path.parent.iterdir()] == ["folder"]


WRITERS = {
    "write_text", "write_bytes", "write_table", "ParquetWriter", "save_file", "save_pretrained", "save_to_disk",
    "to_parquet", "to_csv", "savez", "dump", "truncate", "copy", "copy2", "copyfile", "copytree", "move",
}  # fmt: skip
"""Names of functions and methods that write files, where what they belong to is a module, a path or a model."""
NO_WRITERS = {"copy", "dump"}
"""Of these, names that other objects have too: only of `shutil`, `json`, `yaml` and `pickle` do they write files."""
WRITE_IN_PLACE = {
    ("label/export/hub_push.py", "push"): "into a temporary folder, which is sent whole",
    ("label/web/posted_rows.py", "rows_as_preferences"): "into a temporary folder, to be read at once",
    ("files.py", "append_jsonl"): "a log grows line by line; what a kill leaves of a line is cut off",
    ("generate/batch_log.py", "_write"): "a log of batches, likewise",
    ("generate/answer_cache.py", "_append"): "a log of answers, likewise",
    ("generate/answer_cache.py", "_is_torn"): "reads",
    ("generate/answer_cache.py", "_mended"): "cuts off what a kill left of a line",
    (
        "generate/part_file.py",
        "__init__",
    ): "a log of finished responses: cuts off what a kill left of a line",
    ("generate/part_file.py", "_append"): "a log, whole lines at its end",
    ("data/token_cache.py", "_key"): "into memory, to hash it",
    ("data/token_workers.py", "serve"): "standard output",
    ("data/token_cache.py", "_append"): "shard behind shard, each with its line last",
    ("data/token_cache.py", "_resumed"): "cuts off what a kill left of a shard",
    ("training/memory.py", "reset_peak"): "a switch of the system's, no file",
    ("models/demo_model.py", "_convert"): "into a folder of its own, which is renamed",
    ("training/checkpointing.py", "_save_checkpoint"): "into a checkpoint before it is sealed",
    ("models/saved.py", "write_model"): "into the part of `save_trained`, or a checkpoint before it is sealed",
    ("models/saved.py", "write_tensors"): "likewise",
    ("models/saved_pipelines.py", "save_whole"): "likewise",
    ("models/saved_pipelines.py", "save_lora"): "likewise",
    ("models/saved.py", "_say_dtype"): "likewise",
    ("models/reward_models.py", "save"): "likewise",
    ("generate/ends.py", "save_ends"): "likewise",
    ("tasks/text.py", "finish"): "likewise",
    ("training/trainer.py", "save_model"): "likewise",
    ("tasks/image_inputs.py", "_store_latents"): "into a folder of the cache that is renamed when it is whole",
    ("tasks/image_inputs.py", "stored_errors"): "likewise",
    ("recommend/baselines/recbole.py", "__init__"): "into a temporary folder that two processes share and one deletes",
    ("recommend/baselines/recbole.py", "_write"): "likewise",
    ("recommend/recbole_worker.py", "answer"): "likewise, and it must not import popmargin",
    ("recommend/recbole_worker.py", "main"): "standard output",
    ("recommend/recbole_worker.py", "write_benchmark"): "likewise",
}
"""File, function: why it may write outside `whole_file` and `whole_folder`."""


def writes_in_place(source: str) -> list[tuple[str, int]]:
    """Functions that write a file outside `with whole_file` and `with whole_folder`, with the line."""
    found: list[tuple[str, int]] = []

    def look(node: ast.AST, function: str, whole: bool) -> None:
        if isinstance(node, ast.FunctionDef):
            function = node.name
        if isinstance(node, ast.With):
            whole = whole or any(name_of(item.context_expr) in ("whole_file", "whole_folder") for item in node.items)
        if isinstance(node, ast.Call) and not whole and is_writer(node):
            found.append((function, node.lineno))
        for child in ast.iter_child_nodes(node):
            look(child, function, whole)

    look(ast.parse(source), "", False)
    return found


def name_of(node: ast.AST) -> str:
    node = node.func if isinstance(node, ast.Call) else node
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def is_writer(call: ast.Call) -> bool:
    name = name_of(call)
    of = name_of(call.func.value) if isinstance(call.func, ast.Attribute) else ""
    if name in ("open", "fdopen"):
        values = [*call.args, *(keyword.value for keyword in call.keywords if keyword.arg == "mode")]
        modes = [str(value.value) for value in values if isinstance(value, ast.Constant)]
        return any(set(mode) <= set("rwaxbt+") and set(mode) & set("wax+") for mode in modes)
    if name == "dump" and len(call.args) < 2 and not any(keyword.arg == "stream" for keyword in call.keywords):
        return False  # YAML's gives a text then
    if name in NO_WRITERS or (of in ("torch", "np", "numpy") and name == "save"):
        return of in ("shutil", "json", "yaml", "pickle", "torch", "np", "numpy")
    return name in WRITERS and (isinstance(call.func, ast.Attribute) or name in ("save_file", "ParquetWriter"))


def test_every_file_is_written_whole_or_is_listed_with_its_reason() -> None:
    package = Path(popmargin.__file__).parent
    found = {
        (file.relative_to(package).as_posix(), function): line
        for file in sorted(package.rglob("*.py"))
        for function, line in writes_in_place(file.read_text(encoding="utf-8"))
    }
    others = {f"{file}:{line}, in {name}" for (file, name), line in found.items() if (file, name) not in WRITE_IN_PLACE}
    assert not others, "write with popmargin.files.whole_file, or whole_folder"
    assert not WRITE_IN_PLACE.keys() - found.keys(), "these write no file any more"


def test_the_rule_sees_what_writes() -> None:
    for line in (
        "path.write_text('x')", "path.open('w')", "open(path, mode='ab')", "json.dump(x, f)", "np.save(p, x)",
        "shutil.copy(a, b)", "model.save_pretrained(p)", "save_file(x, p)", "pq.write_table(t, p)", "path.open('r+b')",
    ):  # fmt: skip
        assert writes_in_place(f"def f():\n    {line}\n") == [("f", 2)], line
        assert not writes_in_place(f"def f():\n    with whole_file(p) as q:\n        {line}\n")
    for line in ("path.open()", "open(path)", "rows.copy()", "path.open('rb')", "json.dumps(x)", "write_text(path, x)"):
        assert not writes_in_place(line), line


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


def test_no_part_of_a_library_that_is_loaded_later_is_imported_by_name() -> None:
    """A part imported before the lazy whole is there twice, with two classes of the same name (`datasets.table`)."""
    for path in Path(popmargin.__file__).parent.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        for name in re.findall(r"lazy_loader\.load\(\"(\w+)\"\)", text):
            assert not re.search(rf"^\s*(from|import) {name}\.", text, re.M), path
