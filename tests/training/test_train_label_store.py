"""Training straight from a label store: whose labels become edges, and what happens when more come."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from popmargin.cli.main import main
from popmargin.config import RunConfig
from popmargin.data.load import load_preferences
from popmargin.errors import DataError
from popmargin.label.export.store_edges import store_edges
from popmargin.label.labellers.labelling import label_store, store_strengths
from popmargin.label.labellers.numeric import RatingLabeller
from popmargin.label.projects.open_project import open_project
from popmargin.label.store.address import is_store
from popmargin.label.store.label_store import LabelStore
from popmargin.pop.edge_sources import read_edges
from popmargin.pop.edges import PopEdges
from popmargin.training.build import Run, make_parts
from popmargin.training.run import train
from popmargin.training.run_account import training_steps
from popmargin.training.sides import load_split


@pytest.fixture
def db(tmp_path: Path, data_path: str) -> str:
    """All preferences, two comparisons each, labelled by their ratings."""
    url = str(tmp_path / "labels.db")
    with LabelStore.open(url) as store:
        project = open_project(store, load_preferences(data_path), "answers", k=2)
        label_store(store, project.id, RatingLabeller(store_strengths(store, project.id)))
    return url


def test_labels_between_training_preferences_become_edges(
    db: str, configure: Callable[..., RunConfig], caplog: pytest.LogCaptureFixture
) -> None:
    with LabelStore.open(db) as store:  # one who says the opposite of everything, and is left out
        project = store.project("answers")
        turned = {key: -strength for key, strength in store_strengths(store, project.id).items()}
        label_store(store, project.id, RatingLabeller(turned, "bad"))
    config = configure({"objective": {"name": "pop"}, "pop": {"edges": db, "without": "bad"}})
    with caplog.at_level(logging.WARNING):
        run, _ = train(config)
    edges = PopEdges.load(run.path / "edges.parquet")
    trained, test = load_split(config.data)
    strength = dict(zip(trained.ids, trained.strength, strict=True))
    rows = edges.table.to_pylist()
    assert rows and not {row["stronger"] for row in rows} & set(test.ids)
    assert all(strength[row["stronger"]] > strength[row["weaker"]] for row in rows if not row["tie"])
    assert {row["source"] for row in rows} == {"ratings"}
    assert f"of {2 * (len(trained) + len(test))} labels involve preferences that are not trained on" in caplog.text


def test_edges_of_who_counts_less_weigh_less_in_training(db: str, configure: Callable[..., RunConfig]) -> None:
    with LabelStore.open(db) as store:
        project = store.project("answers")
        turned = {key: -strength for key, strength in store_strengths(store, project.id).items()}
        label_store(store, project.id, RatingLabeller(turned, "bad"))
        who = next(one for one in store.annotators(project.id) if one.name == "bad")
        store.set_weight(who.id, 0.25)
    run = Run.read(configure({"objective": {"name": "pop"}, "pop": {"edges": db}}))
    parts = make_parts(run, run.workspace())
    assert parts.edges is not None
    whose = [row["annotator"] for row in parts.edges.table.to_pylist() if not row["tie"]]
    wanted = [0.25 if name == "bad" else 1.0 for name in whose]
    batch = parts.collator(range(len(whose)))
    assert batch["weight"] == sum(wanted) < len(whose)
    assert [value for part in batch["parts"] for value in part["columns"]["weight"].tolist()] == wanted
    (told,) = (step for step in training_steps(run, run.workspace(), parts) if step.name.startswith("what"))
    assert "each edge of bad counts 0.25" in told.notes


def test_an_exported_file_trains_as_the_store_does(
    db: str, tmp_path: Path, data_path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    exported = tmp_path / "edges.parquet"
    assert main(["label", "export", "--db", db, "--out", str(exported)]) == 0
    ids = load_preferences(data_path).ids[5:]  # the rest are held out
    assert read_edges(str(exported), ids).fingerprint() == read_edges(db, ids).fingerprint()
    with pytest.raises(DataError, match="no label \\(of 80\\)"):
        read_edges(str(exported), ["someone else"])
    sampled = PopEdges.from_columns(["a"], ["b"])
    sampled.save(tmp_path / "sampled.parquet")
    assert len(read_edges(str(tmp_path / "sampled.parquet"), ["a"])) == 1  # whole: training refuses the unknown one


def test_a_run_that_goes_on_keeps_its_edges(db: str, configure: Callable[..., RunConfig], data_path: str) -> None:
    config = configure({"objective": {"name": "pop"}, "pop": {"edges": db}, "train": {"max_steps": 2, "save_steps": 1}})
    run, _ = train(config)
    before = PopEdges.load(run.path / "edges.parquet").fingerprint()
    (run.path / "run.json").unlink()  # as if it had been killed
    with LabelStore.open(db) as store:
        project = store.project("answers")
        ids = load_preferences(data_path).ids
        store.add_items(project.id, "pop", ids[:1], ids[5:6])
        label_store(store, project.id, RatingLabeller(store_strengths(store, project.id)))
    train(config, resume=True)
    assert PopEdges.load(run.path / "edges.parquet").fingerprint() == before
    train(config, overwrite=True)
    assert PopEdges.load(run.path / "edges.parquet").fingerprint() != before


def test_what_a_store_cannot_give(db: str, tmp_path: Path, data_path: str) -> None:
    with pytest.raises(DataError, match="no label \\(of 80\\)"):
        store_edges(db, ["someone else"])
    with pytest.raises(DataError, match=r"no project 'answer'.*Did you mean 'answers'"):
        store_edges(f"{db}#answer", ["a"])
    with pytest.raises(DataError, match="no such label store"):
        store_edges(str(tmp_path / "none.db"), ["a"])
    with LabelStore.open(db) as store:
        store.create_project("another")
    with pytest.raises(DataError, match=r"2 projects \(answers, another\): choose one"):
        store_edges(db, ["a"])
    assert is_store("postgresql://host/labels") and is_store("a.sqlite3") and not is_store("edges.parquet")
    with LabelStore.open(db) as store:
        single = open_project(store, load_preferences(data_path), "single", kind="preference")
        label_store(store, single.id, RatingLabeller(store_strengths(store, single.id)))
    with pytest.raises(
        DataError, match="Its labels are single preferences: train on the output of `popmargin label export"
    ):
        store_edges(f"{db}#single", load_preferences(data_path).ids)
