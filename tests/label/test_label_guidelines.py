"""Guidelines: every project has some, they can be changed, and people see them before their first task with them."""

from pathlib import Path

import pytest
from label_stores import preferences

from popmargin.cli.main import main
from popmargin.errors import DataError
from popmargin.label.projects.open_project import open_project
from popmargin.label.store.label_store import LabelStore


@pytest.mark.parametrize(("kind", "asks"), [("pop", "better by more"), ("preference", "Which response is better"),
                                            ("rating", "How good is the response")])  # fmt: skip
def test_a_project_made_by_import_has_those_of_its_kind(
    tmp_path: Path, data_path: str, kind: str, asks: str, capsys: pytest.CaptureFixture[str]
) -> None:
    db, own = str(tmp_path / "labels.db"), tmp_path / "own.md"
    own.write_text("Look twice.", encoding="utf-8")
    assert main(["label", "import", data_path, "--db", db, "--kind", kind]) == 0
    assert (
        main(["label", "import", data_path, "--db", db, "--kind", kind, "--project", "own", "--guidelines", str(own)])
        == 0
    )
    capsys.readouterr()
    assert main(["label", "guidelines", "--db", db, "--project", "default"]) == 0
    assert asks in capsys.readouterr().out
    with LabelStore.open(db) as store:
        assert store.project("own").guidelines == "Look twice."


def test_they_are_changed_while_people_label(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    db, new = str(tmp_path / "labels.db"), tmp_path / "new.md"
    new.write_text("Look **twice**.", encoding="utf-8")
    with LabelStore.open(db) as store:
        open_project(store, preferences(3), say=lambda line: None)
    for said in ("version 2 of the guidelines; people see it with their next task", "has these guidelines already"):
        assert main(["label", "guidelines", "--db", db, "--set", str(new)]) == 0
        assert said in capsys.readouterr().out
    assert main(["label", "guidelines", "--db", db]) == 0
    assert capsys.readouterr().out == "Look **twice**.\n"
    assert main(["label", "guidelines", "--db", db, "--set", str(tmp_path / "none.md")]) == 2
    assert "guidelines cannot be read" in capsys.readouterr().err


def test_an_annotator_has_seen_the_version_of_the_newest_answer(store: LabelStore) -> None:
    project = open_project(store, preferences(4), say=lambda line: None)
    who, _ = store.add_annotator(project.id, "ann")

    def seen() -> int:
        return store.annotators(project.id)[0].guidelines_seen

    for act in ("record", "skip"):
        now = store.next_assignment(who.id)
        assert now is not None and seen() < store.project().guidelines_version
        if act == "record":
            store.record(who.id, now.id, "first", request="r1")
        else:
            store.skip(who.id, now.id)
        assert seen() == store.project().guidelines_version
        store.set_guidelines(project.id, f"changed after {act}")
    with pytest.raises(DataError, match="There is no project 99"):
        store.set_guidelines(99, "x")
