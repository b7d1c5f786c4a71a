"""People of a project: names that are forgotten, labels that count less, projects that are paused or archived."""

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from popmargin.cli.main import main
from popmargin.errors import ConfigError, DataError
from popmargin.label.export.mean_ratings import mean_ratings
from popmargin.label.export.pop_edges import pop_edges
from popmargin.label.export.preferences import preferences_of
from popmargin.label.export.rated_responses import rated_responses
from popmargin.label.store.label_store import LabelStore
from popmargin.label.store.records import Project
from popmargin.pop.edges import PopEdges
from popmargin.pop.labelled import edge_weights, weighted_annotators

SECRET = "Wilhelmina Rosenzweig"
NOTE = "my dentist told me the same thing"


def test_a_name_and_its_notes_are_gone_for_good(
    store: LabelStore, make_project: Callable[..., Project], capsys: pytest.CaptureFixture[str]
) -> None:
    """From every revision, the log and the bytes of the file; the labels and their places stay."""
    project = make_project(items=4)
    store.add_annotator(project.id, "person 1")
    who, token = store.add_annotator(project.id, SECRET)
    for verdict in ("first", "second"):
        now = store.next_assignment(who.id)
        assert now is not None
        store.record(who.id, now.id, verdict, request=verdict, note=NOTE)
        store.undo(who.id)
        store.record(who.id, now.id, verdict, request=f"{verdict}-again", note=NOTE * 3)
    store.change(project.id, overlap=2, who=SECRET)
    assert store.next_assignment(who.id) is not None
    assert store.forget(who.id) == "person 2"
    assert store.annotator_of(token) is None and not store.is_switched_off(token)
    assert store.progress(project.id).labels_done == 2 and store.progress(project.id).leased == 0
    history = store.label_history(project.id)
    assert set(history["note"].to_pylist()) == {""} and set(history["annotator"].to_pylist()) == {"person 2"}
    assert store.labels(project.id)["verdict"].to_pylist() == ["first", "second"]
    assert [change.who for change in store.changes(project.id)] == ["person 2"]
    with pytest.raises(DataError, match="There is no annotator 99"):
        store.forget(99)
    if "://" not in store.name:
        assert main(["label", "annotators", "forget", "person 2", "--db", store.name]) == 0
        assert "'person 2' now" not in capsys.readouterr().out  # the pseudonym is another one
        store.close()
        content = Path(store.name).read_bytes()
        assert SECRET.encode() not in content and NOTE.encode() not in content


def test_a_paused_project_takes_answers_to_open_tasks_and_an_archived_one_none(
    store: LabelStore, make_project: Callable[..., Project]
) -> None:
    project = make_project(items=4)
    who, _ = store.add_annotator(project.id, "ann")
    now = store.next_assignment(who.id)
    assert now is not None and project.state == "open"
    assert store.change(project.id, state="paused").state == "paused"
    assert store.next_assignment(who.id) is None
    store.record(who.id, now.id, "first", request="r1")
    store.change(project.id, state="archived")
    for act in (
        lambda: store.record(who.id, now.id, "second", request="r2"),
        lambda: store.skip(who.id, now.id),
        lambda: store.undo(who.id),
    ):
        with pytest.raises(DataError, match="archived, so nothing in it changes"):
            act()
    store.record(who.id, now.id, "first", request="r1")  # sent again: it was stored
    store.change(project.id, state="open")
    assert store.next_assignment(who.id) is not None and store.labels(project.id).num_rows == 1
    assert [(change.before, change.after) for change in store.changes(project.id)] == [
        ("open", "paused"), ("paused", "archived"), ("archived", "open"),
    ]  # fmt: skip
    with pytest.raises(ConfigError, match=r"state is 'pause'\. Did you mean 'paused'"):
        store.change(project.id, state="pause")


def test_labels_that_count_less(store: LabelStore, make_project: Callable[..., Project]) -> None:
    """Soft labels and what most call wrong are weighted; half a vote against a whole one is a third."""
    project = make_project(items=3, kind="preference", overlap=2)
    for name, verdict in (("good", "first"), ("bad", "second")):
        who, _ = store.add_annotator(project.id, name)
        while (now := store.next_assignment(who.id)) is not None:
            store.record(who.id, now.id, verdict, request=f"{name}-{now.id}")
    assert {preferences_of(store, project).soft_label.tolist()[0]} == {0.5}
    share = 2 / 3
    for name in ("bad", "good"):
        found = preferences_of(store, project, weights={name: 0.5})
        assert found.soft_label.tolist()[:3] == pytest.approx([share] * 3)  # swapped where bad counts more
        (who,) = (one for one in store.annotators(project.id) if one.name == name)
        store.set_weight(who.id, 0.5)  # the weight of the store says the same, and one that is given goes before it
        kept = preferences_of(store, project)
        assert kept.soft_label.tolist() == found.soft_label.tolist()
        assert f"each label of {name} counts 0.5" in kept.report.notes
        assert preferences_of(store, project, weights={name: 1.0}).soft_label.tolist()[0] == 0.5
        store.set_weight(who.id, 1.0)
        texts = [row["chosen"][:4] for row in found.dataset][:3]  # nobody was asked for the fourth
        assert texts == (["good"] * 3 if name == "bad" else ["bad "] * 3)
    with pytest.raises(DataError, match=r"no annotator 'bda'\. Did you mean 'bad'"):
        preferences_of(store, project, weights={"bda": 0.5})


def test_ratings_that_count_less(store: LabelStore, make_project: Callable[..., Project]) -> None:
    project = make_project(items=2, kind="preference", scale=5, overlap=2)
    store.add_items(project.id, "rating", ["p0", "p0"], response=["chosen", "rejected"])
    for name, rating in (("good", "5"), ("bad", "2")):
        who, _ = store.add_annotator(project.id, name)
        while (now := store.next_assignment(who.id)) is not None:
            verdict = "unsure" if now.kind == "preference" else rating if now.response == "chosen" else "1"
            store.record(who.id, now.id, verdict, request=f"{name}-{now.id}")
    labels = store.labels(project.id)
    rated = mean_ratings(labels, store.preference_columns(project.id), {"bad": 0.5})
    assert rated is not None and rated.pairs[0] == pytest.approx(((5 + 0.5 * 2) / 1.5, 1.0))
    bad = store.annotators(project.id)[1]
    store.set_weight(bad.id, 0.5)
    assert rated_responses(store, project)[0]["rating"].to_pylist() == pytest.approx([4.0, 1.0])


def test_weights_reach_edges_scales_and_the_report(
    store: LabelStore, make_project: Callable[..., Project], capsys: pytest.CaptureFixture[str]
) -> None:
    """Two against one on every pair: half each is a tie of the votes, and less gives the one the majority."""
    project = make_project(items=4, overlap=3)
    people: dict[str, int] = {}
    for name, verdict in (("good", "first"), ("bad", "second"), ("worse", "second")):
        people[name] = store.add_annotator(project.id, name)[0].id
        while (now := store.next_assignment(people[name])) is not None:
            store.record(people[name], now.id, verdict, request=f"{name}-{now.id}", confidence=0.8)

    def stronger(how: str) -> set[str]:
        """Which preference of each pair: the first ones are p0 to p3."""
        return set(pop_edges(store, project, aggregate=how)[0].table["stronger"].to_pylist())

    first, second = ({row[side] for row in store.labels(project.id).to_pylist()} for side in ("first", "second"))
    assert stronger("majority") == second
    store.set_weight(people["bad"], 0.25)
    store.set_weight(people["worse"], 0.25)
    edges, account = pop_edges(store, project)
    assert edges.parameters["weights"] == {"bad": 0.25, "worse": 0.25}
    sure = dict(zip(edges.table["annotator"].to_pylist(), edges.table["confidence"].to_pylist(), strict=True))
    assert sure == pytest.approx({"good": 0.8, "bad": 0.2, "worse": 0.2})
    assert edge_weights(edges) == pytest.approx(
        [1.0 if name == "good" else 0.25 for name in edges.table["annotator"].to_pylist()]
    )
    assert "each label of bad counts 0.25" in str(account)
    again = weighted_annotators(edges, {"bad": 0.5}, "here")  # in place of 0.25, not times it
    assert sorted(set(again.table["confidence"].to_pylist())) == pytest.approx([0.2, 0.4, 0.8])
    assert stronger("majority") == stronger("weighted") == first
    if "://" not in store.name:
        out = str(Path(store.name).with_name("report.html"))
        assert main(["label", "report", "--db", store.name, "--out", out]) == 0
        said = capsys.readouterr().out
        assert "8 labels of bad (weight 0.25), worse (weight 0.25) are included" in said


def test_edges_that_count_less_in_a_scale(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two against one about which preference is stronger: with a weight of 0.2 each, the one decides."""
    rows = [{"id": name, "prompt": f"q {name}", "chosen": "a", "rejected": "b"} for name in "xy"]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    table = {
        "stronger": ["x", "y", "y"], "weaker": ["y", "x", "x"], "annotator": ["ann", "bob", "cat"],
        "source": ["person"] * 3, "tie": [False] * 3, "confidence": pa.array([None, None, 1.0], pa.float64()),
    }  # fmt: skip
    PopEdges(pa.table(table), {"labels": 3}).save(tmp_path / "edges.parquet")
    command = ["pop", "scale", str(tmp_path / "edges.parquet"), "--data", str(tmp_path / "data.jsonl"), "--overwrite"]
    command += ["--out", str(tmp_path / "scale.parquet")]
    order = []
    for more in ([], ["--weight", "bob=0.2", "cat=0.2"]):
        assert main([*command, *more]) == 0
        scale = pq.read_table(tmp_path / "scale.parquet")
        order.append(scale["strength"].to_pylist()[0] > scale["strength"].to_pylist()[1])
    assert order == [False, True]
    for more, message in (
        (["--weight", "bob=0.2", "--confidence", "ignore"], "has none"),
        (["--weight", "bob=2"], "at most 1"),
        (["--weight", "bob"], "give NAME=WEIGHT"),
        (["--weight", "bob=0.2", "bob=0.3"], "two weights"),
        (["--weight", "bop=0.2"], "Did you mean 'bob'"),
    ):
        assert main([*command, *more]) == 2
        assert message in capsys.readouterr().err


def test_a_quota_ends_the_tasks_and_a_higher_one_gives_a_batch(
    store: LabelStore, make_project: Callable[..., Project]
) -> None:
    project = make_project(items=6)
    who, _ = store.add_annotator(project.id, "ann")

    def answer() -> int:
        done = 0
        while (now := store.next_assignment(who.id)) is not None:
            store.record(who.id, now.id, "first", request=f"r{now.id}-{now.revision}")
            done += 1
        return done

    store.set_quota(who.id, 2)
    assert store.progress(project.id, who.id).own_left == 2
    assert answer() == 2 and store.progress(project.id, who.id).own_left == 0
    assert store.undo(who.id) is not None and answer() == 1  # what was taken back may be answered
    store.set_quota(who.id, 3)
    assert store.annotators(project.id)[0].quota == 3 and answer() == 1
    store.set_quota(who.id, None)
    assert answer() == 3
    with pytest.raises(ConfigError, match="give a number from 0"):
        store.set_quota(who.id, -1)
