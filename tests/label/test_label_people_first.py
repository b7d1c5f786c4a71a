"""A judge does not outvote a person, unless it is told to."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from popmargin.cli.main import main
from popmargin.errors import ConfigError
from popmargin.label.export.pop_edges import pop_edges
from popmargin.label.export.preferences import preferences_of
from popmargin.label.store.label_store import LabelStore
from popmargin.label.store.records import Project


def judge(store: LabelStore, project: Project, name: str, verdict: str) -> None:
    """A judge that says the same of every item, very sure."""
    who, _ = store.add_annotator(project.id, name, kind="judge")
    items = [row["item"] for batch in store.items(project.id) for row in batch.to_pylist()]
    columns = {"item": items, "verdict": [verdict] * len(items), "confidence": [0.99] * len(items)}
    store.record_many(who.id, pa.table({**columns, "request": [f"{name}-{item}" for item in items]}))


def person(store: LabelStore, project: Project, verdicts: list[Any]) -> list[int]:
    """Answers in the order of the screen; returns their items."""
    who, _ = store.add_annotator(project.id, "ann")
    done: list[int] = []
    for number, verdict in enumerate(verdicts):
        task = store.next_assignment(who.id)
        assert task is not None
        store.record(who.id, task.id, verdict, request=f"ann-{number}")
        done.append(task.item)
    return done


def test_two_sure_judges_do_not_outvote_a_person(store: LabelStore, make_project: Callable[..., Project]) -> None:
    """One preference that a person prefers, one of which she is unsure, one that she has not seen."""
    project = make_project(3, kind="preference")
    judged, unsure = person(store, project, ["first", "unsure"])
    for name in ("one", "two"):
        judge(store, project, name, "second")
    ids = {row["item"]: row["first"] for batch in store.items(project.id) for row in batch.to_pylist()}

    def soft(**settings: Any) -> dict[str, float]:
        made = preferences_of(store, project, wrong="keep", unjudged="drop", **settings)
        return dict(zip(made.ids, made.column("soft_label"), strict=True))

    kept = soft()
    assert kept[ids[judged]] == 1.0 and kept[ids[unsure]] == pytest.approx(0.01)
    notes = preferences_of(store, project).report.notes
    assert any(note.startswith("2 labels of models left out, since a person has decided the item") for note in notes)
    assert soft(models="equal")[ids[judged]] == pytest.approx((1 + 0.01 + 0.01) / 3)
    with pytest.raises(ConfigError, match="models is 'all'; choose fill, equal"):
        preferences_of(store, project, models="all")  # type: ignore[arg-type]


def test_edges_of_what_a_person_decided_are_hers_and_all_labels_are_counted(
    store: LabelStore, make_project: Callable[..., Project]
) -> None:
    project = make_project(4)
    person(store, project, ["first", "tie", "unsure"])
    judge(store, project, "one", "second")
    edges, account = pop_edges(store, project)
    assert sorted(edges.table["source"].to_pylist()) == ["judge", "judge", "person", "person"]
    assert account.labels == 7 == account.used + sum(account.left_out.values())
    assert account.left_out["of models, where a person has decided"] == 2
    assert len(pop_edges(store, project, models="equal")[0]) == 6
    majority, _ = pop_edges(store, project, aggregate="weighted")
    assert len(majority) == 4


def test_the_flag_of_the_export(
    tmp_path: Path, store: LabelStore, make_project: Callable[..., Project], url: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    project = make_project(2)
    person(store, project, ["first", "first"])
    judge(store, project, "one", "second")
    for flags, count in ((["--models", "equal"], 4), ([], 2)):
        out = tmp_path / f"edges{count}.parquet"
        assert main(["label", "export", "--db", url, "--out", str(out), *flags]) == 0
        assert f"wrote {count} edges" in capsys.readouterr().out
    assert main(["label", "export", "--db", url, "--out", str(tmp_path / "raw.jsonl"), "--models", "equal"]) == 2
    assert "--models is only for preferences and edges" in capsys.readouterr().err
