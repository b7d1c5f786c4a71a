"""Projects about images: what the store keeps, what exports give back, and what is refused."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from popmargin.cli.main import main
from popmargin.data.images import encode_png, image_name
from popmargin.data.load import load_preferences
from popmargin.data.schema import Preferences
from popmargin.errors import DataError
from popmargin.label.export.pop_edges import pop_edges
from popmargin.label.export.preferences import preferences_of
from popmargin.label.labellers.labelling import label_store, store_strengths
from popmargin.label.labellers.numeric import RatingLabeller, RewardLabeller
from popmargin.label.projects.open_project import open_project
from popmargin.label.store.label_store import LabelStore


def file_of(number: int, suffix: str = "png") -> bytes:
    pixels = np.full((4, 6, 3), (50 * number) % 256, np.uint8)
    pixels[0, 0] = number % 256
    if suffix == "png":
        return encode_png(pixels)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG")
    return out.getvalue()


FILES = [file_of(number, "jpg" if number == 3 else "png") for number in range(6)]
PAIRS = [(0, 1), (2, 3), (4, 5), (0, 2)]


@pytest.fixture
def data(tmp_path: Path) -> Preferences:
    """Four preferences of six images, one of them a JPEG on disk, one in two preferences of the same prompt."""
    path = tmp_path / "three.jpg"
    path.write_bytes(FILES[3])
    cells = [{"bytes": file, "path": None} for file in FILES]
    cells[3] = {"bytes": None, "path": str(path)}
    return load_preferences(
        [
            {"id": f"p{row}", "prompt": "red 3", "chosen": cells[one], "rejected": cells[other], "seed": row}
            | {"chosen_rating": 3.0, "rejected_rating": 1.0 + row / 2}
            for row, (one, other) in enumerate(PAIRS)
        ]
    )


def images_in(store: LabelStore, table: str = "image") -> int:
    with store._database.read() as connection:
        return connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar()


def answer_all(store: LabelStore, project: Any, verdicts: list[Any], **more: Any) -> list[Any]:
    """The assignments, answered in the order in which they come."""
    person = store.add_annotator(project.id, "anna")[0]
    done = []
    for place, verdict in enumerate(verdicts):
        now = store.next_assignment(person.id)
        store.record(person.id, now.id, verdict, request=f"request-{place}", **more)
        done.append(now)
    assert store.next_assignment(person.id) is None
    return done


def side_by_side(preferences: Preferences) -> None:
    """Every image is that of its response."""
    for row in preferences.batches("chosen", "rejected", "chosen_image", "rejected_image"):
        for side in ("chosen", "rejected"):
            assert row[side] == [image_name(image["bytes"]) for image in row[f"{side}_image"]]


def test_every_image_is_stored_once_and_comes_back_byte_for_byte(store, data, tmp_path) -> None:
    said: list[str] = []
    project = open_project(store, data, "digits", k=1, say=said.append)
    assert project.images and said[0] == "preferences to compare: 4 in = 4 in some pair"
    assert images_in(store) == 6 == images_in(store, "project_image")
    again = open_project(store, data, "more", kind="preference", say=said.append)
    assert again.images and images_in(store) == 6 and images_in(store, "project_image") == 12
    out = preferences_of(store, project)
    side_by_side(out)
    out.save(tmp_path / "out.parquet")
    read = load_preferences(tmp_path / "out.parquet")
    side_by_side(read)
    assert read.fingerprint() == data.fingerprint() and read.column("seed").tolist() == [0, 1, 2, 3]
    assert next(row for row in read.batches())["rejected_image"][1]["bytes"] == FILES[3]
    with pytest.raises(DataError, match=r"'chosen_image' contains bytes.*Write a \.parquet file"):
        out.save(tmp_path / "out.jsonl")


def test_labels_become_edges_between_the_preferences(store, data) -> None:
    project = open_project(store, data, k=1, say=lambda _: None)
    done = answer_all(store, project, ["first", "second", "tie", "unsure"])
    assert all(set(one.images) >= {one.first.chosen, one.second.rejected} for one in done)
    edges, account = pop_edges(store, project)
    rows = edges.table.to_pylist()
    assert [(row["stronger"], row["weaker"], row["tie"]) for row in rows] == [
        (done[0].first.id, done[0].second.id, False),
        (done[1].second.id, done[1].first.id, False),
        (done[2].first.id, done[2].second.id, True),
    ]
    assert (account.used, account.left_out["unsure"]) == (3, 1)
    assert set(edges.table["stronger"].to_pylist()) <= set(preferences_of(store, project).ids)


def test_images_turn_with_their_responses(store, data) -> None:
    project = open_project(store, data, kind="preference", say=lambda _: None)
    done = answer_all(store, project, ["second", "first", "second", "tie"], confidence=0.75)
    out = preferences_of(store, project)
    side_by_side(out)
    before, after = ({row["id"]: row for row in map(dict, (d[i] for i in range(4)))} for d in (data, out))
    for one, turned in zip(done, (True, False, True, False), strict=True):
        key = one.first.id
        assert (after[key]["chosen"] == before[key]["rejected"]) == turned
    labels = dict(zip(out.ids, out.soft_label.tolist(), strict=True))
    assert labels[done[0].first.id] == labels[done[1].first.id] == 0.75 and labels[done[3].first.id] == 0.5


def test_an_image_in_several_preferences_of_a_prompt_is_rated_once(store, data) -> None:
    project = open_project(store, data, kind="rating", scale=5, say=lambda _: None)
    assert project.items == 6
    ratings = {image_name(file): rating for file, rating in zip(FILES, "324151", strict=True)}
    person = store.add_annotator(project.id, "anna")[0]
    while now := store.next_assignment(person.id):
        name = getattr(now.first, now.response)
        store.record(person.id, now.id, ratings[name], request=name.removeprefix("image:"))
    out = preferences_of(store, project)
    side_by_side(out)
    for row in (out[place] for place in range(4)):
        assert row["chosen_rating"] == float(ratings[row["chosen"]]) >= row["rejected_rating"]


def test_texts_and_images_do_not_mix(store, data) -> None:
    texts = load_preferences([{"id": "t", "prompt": "Hi", "chosen": "a", "rejected": "b"}])
    for name, first, second in (("images", data, texts), ("texts", texts, data)):
        project = store.create_project(name)
        store.import_preferences(project.id, first)
        with pytest.raises(DataError, match=f"The responses of project '{name}' are {name}"):
            store.import_preferences(project.id, second)
        assert store.project(name).preferences == len(first)
    assert images_in(store, "project_image") == 6  # of the first project only


def test_a_changed_file_is_refused_and_an_import_that_ended_early_is_repeated(store, data, tmp_path) -> None:
    path = tmp_path / "three.jpg"
    whole = path.read_bytes()
    path.write_bytes(file_of(9))
    with pytest.raises(DataError, match=r"row 1 \(id 'p1'\), column 'rejected_image': .*has changed since it was read"):
        open_project(store, data, "digits", say=lambda _: None)
    assert store.project("digits").preferences == 0
    path.write_bytes(whole)
    project = open_project(store, data, "digits", say=lambda _: None)
    assert project.preferences == 4 and images_in(store) == 6
    path.unlink()  # the store has all that it needs
    person = store.add_annotator(project.id, "anna")[0]
    assert store.next_assignment(person.id) is not None
    side_by_side(preferences_of(store, project))


class _Asked:
    """A judge of texts that must not be asked."""

    name, kind = "costly", "judge"

    def label(self, *_: Any, **__: Any) -> list[Any]:
        raise AssertionError("asked")


def test_what_reads_texts_is_refused_and_the_datas_ratings_label(store, data) -> None:
    project = open_project(store, data, k=1, say=lambda _: None)
    for labeller in (_Asked(), RewardLabeller(lambda prompts, completions: [len(text) for text in completions])):
        with pytest.raises(DataError, match=r"are images, and (costly|reward) reads texts\. Nothing was asked"):
            label_store(store, project.id, labeller)
    assert store.annotators(project.id) == []
    bright = RewardLabeller(
        lambda prompts, images: [round(one.getpixel((5, 3))[0] / 50) for one in images], images=store.images
    )
    assert label_store(store, project.id, bright) == 4
    for row in store.labels(project.id).to_pylist():
        first, second = (one - other for one, other in (PAIRS[int(row[side][1:])] for side in ("first", "second")))
        assert row["verdict"] == ("first" if first > second else "second" if first < second else "tie")
    ratings = RatingLabeller(store_strengths(store, project.id))
    assert label_store(store, project.id, ratings) == 4
    assert {row["annotator"] for row in store.labels(project.id).to_pylist()} == {"reward", "ratings"}


def test_on_the_command_line(data, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, db = tmp_path / "data.parquet", str(tmp_path / "labels.db")
    data.save(file)
    assert main(["label", "import", str(file), "--db", db, "--kind", "preference"]) == 0
    assert "columns of bytes are not stored" not in capsys.readouterr().out
    assert main(["label", "judge", "--db", db, "--judge", "judge:gpt@http://127.0.0.1:1/v1"]) == 2
    assert "scores texts, and the responses here are images. Give a reward of images" in capsys.readouterr().err
    assert main(["label", "export", "--db", db, "--as", "preferences", "--out", str(tmp_path / "out.jsonl")]) == 2
    assert "Nobody has judged a preference" in capsys.readouterr().err
    kept = ["label", "export", "--db", db, "--as", "preferences", "--unjudged", "keep", "--out"]
    assert main([*kept, str(tmp_path / "out.jsonl")]) == 2
    assert "Write a .parquet file" in capsys.readouterr().err and not (tmp_path / "out.jsonl").exists()
    assert main([*kept, str(tmp_path / "out.parquet")]) == 0
    columns = pq.read_table(tmp_path / "out.parquet").column_names
    assert {"chosen_image", "rejected_image", "seed"} <= set(columns)
    assert main(["label", "export", "--db", db, "--unjudged", "keep", "--out", str(tmp_path / "folder")]) == 0
    side_by_side(load_preferences(tmp_path / "folder"))
    assert main(["label", "import", str(file), "--db", db, "--kind", "pop"]) == 2  # another kind of the same data
