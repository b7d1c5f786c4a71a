"""From labels of images to training: the exported preferences and edges are all that a run needs."""

from pathlib import Path

import pytest
from image_runs import Configure, metrics

from popmargin.data.load import load_preferences
from popmargin.label.export.pop_edges import pop_edges
from popmargin.label.export.preferences import preferences_of
from popmargin.label.projects.open_project import open_project
from popmargin.label.store.label_store import LabelStore
from popmargin.training.run import train


@pytest.mark.slow
def test_labelled_images_train(configure: Configure, image_preferences: str, tmp_path: Path) -> None:
    data = load_preferences(image_preferences)
    with LabelStore.open(tmp_path / "labels.db") as store:
        project = open_project(store, data, k=2, say=lambda _: None)
        person = store.add_annotator(project.id, "anna")[0]
        for place in range(project.items):
            task = store.next_assignment(person.id)
            assert task is not None and task.images
            store.record(person.id, task.id, ["first", "second", "tie"][place % 3], request=f"request-{place}")
        pop_edges(store, project)[0].save(tmp_path / "edges.parquet")
        preferences_of(store, project).save(tmp_path / "labelled.parquet")
    pop = {"objective": {"name": "pop"}, "target": {"kind": "ema"}, "pop": {"edges": str(tmp_path / "edges.parquet")}}
    changes = {
        "exported": {"data": {"train": str(tmp_path / "labelled.parquet")}},
        "as_imported": {},
        "from_the_store": {"pop": {"edges": str(tmp_path / "labels.db")}},
    }
    losses = {}
    for name, change in changes.items():
        run, _ = train(configure(pop, change, name=name))
        losses[name] = [line["loss"] for line in metrics(run)]
    assert losses["exported"] == losses["as_imported"] == losses["from_the_store"] and len(losses["exported"]) == 2
