"""Guidelines: every project has some, they can be changed, and people see them before their first task with them."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from label_stores import preferences

from popmargin.cli.main import main
from popmargin.errors import DataError
from popmargin.label.projects.open_project import open_project
from popmargin.label.quality.annotators import annotator_quality
from popmargin.label.quality.label_quality import label_quality
from popmargin.label.quality.report_page import reading, render_label_report
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
    for said in (
        "version 2 of the guidelines; people acknowledge it before their next task",
        "has these guidelines already",
    ):
        assert main(["label", "guidelines", "--db", db, "--set", str(new)]) == 0
        assert said in capsys.readouterr().out
    assert main(["label", "guidelines", "--db", db]) == 0
    assert capsys.readouterr().out == "Look **twice**.\n"
    assert main(["label", "guidelines", "--db", db, "--version", "1"]) == 0
    assert "better by more" in capsys.readouterr().out
    assert main(["label", "guidelines", "--db", db, "--version", "3"]) == 2
    assert "versions 1 to 2 of the guidelines, not 3" in capsys.readouterr().err
    assert main(["label", "guidelines", "--db", db, "--set", str(tmp_path / "none.md")]) == 2
    assert "guidelines cannot be read" in capsys.readouterr().err


def test_a_label_knows_the_version_that_its_annotator_had_acknowledged(store: LabelStore) -> None:
    """A change counts from the acknowledgement on; models are not shown guidelines."""
    project = open_project(store, preferences(8), say=lambda line: None)
    who, _ = store.add_annotator(project.id, "ann")
    for number, version in enumerate((0, 1, 2, 0)):
        if version:
            store.acknowledge(who.id, version)
        now = store.next_assignment(who.id)
        assert now is not None
        store.record(who.id, now.id, "first", request=f"r{number}")
        store.set_guidelines(project.id, f"changed after {number}", who="lead")
    store.record(who.id, now.id, "second", request="changed")  # under the version of the change
    judge, _ = store.add_annotator(project.id, "judge", kind="judge")
    store.record_many(judge.id, pa.table({"item": [now.item], "verdict": ["first"], "request": ["j"]}))
    assert store.labels(project.id)["guidelines_version"].to_pylist() == [None, 1, 2, 2, None]
    assert store.history(who.id)[0].label.guidelines_version == 2  # type: ignore[union-attr]
    assert store.guidelines(project.id, 3) == "changed after 1"
    assert [(change.who, change.setting, change.after) for change in store.changes(project.id)] == [
        ("lead", "guidelines", f"changed after {number}") for number in range(4)
    ]
    for call in (lambda: store.set_guidelines(99, "x"), lambda: store.guidelines(99, 1)):
        with pytest.raises(DataError, match="There is no project 99"):
            call()
    for version in (0, 6):
        with pytest.raises(DataError, match=f"no version {version}; the newest is 5"):
            store.acknowledge(who.id, version)


def test_the_report_shows_agreement_by_version(store: LabelStore) -> None:
    """Two people who answer alike only under the second version; each version's figures are those of its labels."""
    project = open_project(store, preferences(12), kind="preference", overlap=2, say=lambda line: None)
    people = [store.add_annotator(project.id, name)[0] for name in ("ann", "ben")]
    for version in (1, 2):
        for place, who in enumerate(people):
            store.acknowledge(who.id, version)
            for number in range(6):
                now = store.next_assignment(who.id)
                assert now is not None
                odd = (now.item + (place if version == 1 else 0)) % 2
                store.record(who.id, now.id, "second" if odd else "first", request=f"{version}-{number}")
        store.set_guidelines(project.id, "new")
    labels = store.labels(project.id)
    found = label_quality(labels)
    assert [(row.version, row.labels, row.people) for row in found.versions] == [(1, 12, 2), (2, 12, 2)]
    for row in found.versions:
        own = labels.filter(pc.equal(labels["guidelines_version"], row.version))
        assert row.agreement == annotator_quality(own)[1]
    assert [row.agreement[0].people.estimate for row in found.versions] == [0.0, 1.0]
    page = render_label_report(found, "demo")
    assert 'id="versions"' in page and "Under version 2 of the guidelines" in " ".join(reading(found))
    assert label_quality(own).versions == [] and 'id="versions"' not in render_label_report(label_quality(own), "demo")
