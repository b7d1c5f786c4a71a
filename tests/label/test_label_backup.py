"""Copies of a store in use: by `label backup`, of the file alone, and after SIGTERM."""

import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from label_stores import preferences

from popmargin.cli.main import main
from popmargin.errors import ConfigError, DataError, RunError
from popmargin.label.store import database
from popmargin.label.store.backup import back_up
from popmargin.label.store.label_store import LabelStore


def fill(store: LabelStore, items: int = 60) -> int:
    """A project with pairs of preferences; returns the id of its annotator."""
    project = store.create_project("demo")
    store.import_preferences(project.id, preferences(items + 1))
    store.add_items(project.id, "pop", [f"p{n}" for n in range(items)], [f"p{n + 1}" for n in range(items)])
    return store.add_annotator(project.id, "ann")[0].id


def answer(store: LabelStore, who: int, number: int) -> None:
    now = store.next_assignment(who)
    assert now is not None
    store.record(who, now.id, "first", request=f"r{number}")


def labels_in(path: Path) -> int:
    """Labels in a file by itself; -1 if it holds no project."""
    alone = path.with_name("alone.db")
    shutil.copyfile(path, alone)
    with closing(sqlite3.connect(alone)) as connection:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'project'").fetchone():
            return -1
        projects = connection.execute("SELECT count(*) FROM project").fetchone()[0]
        return connection.execute("SELECT count(*) FROM label").fetchone()[0] if projects else -1


def test_the_file_alone_soon_holds_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the store is open, some time after each write; another open connection does not prevent it."""
    monkeypatch.setattr(database, "CHECKPOINT_SECONDS", 0.05)
    path = tmp_path / "labels.db"
    with LabelStore.open(path) as store, LabelStore.open(path) as other:
        who = fill(store)
        for count in (1, 2):
            answer(store, who, count)
            deadline = time.monotonic() + 30
            while labels_in(path) < count and time.monotonic() < deadline:
                time.sleep(0.02)
            assert labels_in(path) == count
        assert other.progress(1).labels_done == 2


def test_closing_moves_everything_though_others_have_the_file_open(tmp_path: Path) -> None:
    path = tmp_path / "labels.db"
    with LabelStore.open(path) as other:
        assert other.projects() == []
        with LabelStore.open(path) as store:
            answer(store, fill(store), 1)
        assert labels_in(path) == 1


def test_a_backup_under_load_is_whole_and_of_one_moment(tmp_path: Path) -> None:
    """Every label that was acknowledged before the backup began is in it, and no half of a later one."""
    path, done, stop = tmp_path / "labels.db", list[int](), threading.Event()
    with LabelStore.open(path) as store:
        who = fill(store)

        def label() -> None:
            for number in range(60):
                answer(store, who, number)
                done.append(number)
                if stop.wait(0.002):
                    return

        writer = threading.Thread(target=label)
        writer.start()
        while len(done) < 5:
            time.sleep(0.005)
        for copy in range(3):
            before, out = len(done), tmp_path / f"copy{copy}.db"
            projects, labels = back_up(str(path), out)
            assert projects == 1 and labels >= before
            assert not list(tmp_path.glob("copy*-wal")) and not list(tmp_path.glob(".copy*"))
            with LabelStore.open(out) as copied:
                progress = copied.progress(copied.project().id)
                assert progress.labels_done == labels == copied.labels(1).num_rows
        stop.set()
        writer.join()


def test_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = tmp_path / "labels.db", tmp_path / "copies" / "monday.db"
    with LabelStore.open(path) as store:
        answer(store, fill(store), 1)
    assert main(["label", "backup", str(out), "--db", str(path)]) == 0
    assert capsys.readouterr().out == f"wrote {out}: 1 project, 1 revision of labels\n"
    assert labels_in(out) == 1
    for words, message in (
        ([str(out)], "already exists. Choose another file, or pass --overwrite"),
        ([str(path), "--overwrite"], "is also the input"),
        ([str(tmp_path / "new.db"), "--db", str(tmp_path / "none.db")], "no such label store"),
    ):
        assert main(["label", "backup", *words, *(() if "--db" in words else ("--db", str(path)))]) == 2
        assert message in capsys.readouterr().err
    assert main(["label", "backup", str(out), "--db", str(path), "--overwrite"]) == 0


def test_what_cannot_be_copied_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    out = tmp_path / "out.db"
    with pytest.raises(
        ConfigError, match=r"pg_dump --format=custom --file .*out\.db postgresql://ann@host/labels"
    ) as told:
        back_up("postgresql://ann:secret@host/labels", out)
    assert "secret" not in str(told.value)
    words, other, empty = tmp_path / "notes.txt", tmp_path / "other.db", tmp_path / "empty.db"
    words.write_text("no database, " * 100)
    other.touch()
    LabelStore.open(empty).close()
    for path, error, message in (
        (words, DataError, "not a label store"),
        (other, DataError, "holds no label store. If it is a copy .* is other.db-wal missing"),
        (empty, DataError, "holds no project, .* is empty.db-wal missing"),
    ):
        with pytest.raises(error, match=message):
            back_up(str(path), out)
    with LabelStore.open(tmp_path / "labels.db") as store:
        fill(store)
        with pytest.raises(RunError, match="Choose another place"):
            back_up(str(tmp_path / "labels.db"), words / "copy.db")
    assert not out.exists() and not list(tmp_path.glob(".out*"))


def test_a_store_without_a_project_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As does a copy of the file that a program still has open, whose content is in the log."""
    path, copy = tmp_path / "labels.db", tmp_path / "copy.db"
    with LabelStore.open(path) as store:
        fill(store, items=5)
        shutil.copyfile(path, copy)
    for flags in ([], ["--json"]):
        assert main(["label", "status", "--db", str(copy), *flags]) == 2
        said: Any = capsys.readouterr()
        assert "has no project" in said.err and "is copy.db-wal missing?" in said.err and said.out == ""


@pytest.mark.slow
@pytest.mark.parametrize("ended", [signal.SIGTERM, signal.SIGINT])
def test_a_server_that_is_told_to_end_leaves_one_whole_file(tmp_path: Path, ended: int) -> None:
    data, path = tmp_path / "data.jsonl", tmp_path / "labels.db"
    preferences(12).save(data)
    words = [sys.executable, "-m", "popmargin", "annotate", str(data), "--db", str(path), "--no-browser", "--port", "0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:
        assert server.stdout is not None
        try:
            said = list[str]()
            for line in server.stdout:
                said.append(line)
                if "Ctrl-C" in line:
                    break
            server.send_signal(ended)
            rest = server.communicate(timeout=60)[0]
        finally:
            server.kill()
    assert server.returncode == (0 if ended == signal.SIGTERM else 130), "".join([*said, rest])
    assert sorted(file.name for file in tmp_path.glob("labels.db*")) == ["labels.db"]
    assert labels_in(path) == 0
