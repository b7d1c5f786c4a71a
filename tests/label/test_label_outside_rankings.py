"""Labels of rankings from elsewhere: what is exported comes back, by hand-written tables, and what is left out."""

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("sqlalchemy")

from label_stores import preferences

from popmargin.cli.main import main
from popmargin.data.questions import numbers_of, order_of
from popmargin.errors import ConfigError
from popmargin.label.export.pop_edges import pop_edges
from popmargin.label.outside.import_labels import Imported, import_labels, told
from popmargin.label.quality.label_quality import label_quality
from popmargin.label.store.label_store import LabelStore
from popmargin.label.store.ranked_items import ranked_ids
from popmargin.label.store.records import Project

GROUPS = [["p0", "p1", "p2", "p3"], ["p3", "p4", "p5", "p6"], ["p6", "p7", "p8", "p0"]]


def make(path: Path, *, turned: bool = False) -> tuple[LabelStore, Project]:
    """Three rankings, of which another store may number the preferences the other way round."""
    store = LabelStore.open(path)
    project = store.create_project("default", overlap=2)
    store.import_preferences(project.id, preferences(9))
    groups = [group[::-1] for group in GROUPS] if turned else GROUPS
    store.add_items(project.id, "rank", [one[0] for one in groups], others=[one[1:] for one in groups], chained=True)
    return store, project


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LabelStore]:
    opened, _ = make(tmp_path / "labels.db")
    with opened:
        yield opened


def reasons(found: Imported) -> dict[str, int]:
    return dict(found.account.left_out)


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_the_same_labels_give_the_same_report(tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]) -> None:
    one, project = make(tmp_path / "one.db")
    with one:
        for place, name in enumerate(("ann", "ben")):
            who, _ = one.add_annotator(project.id, name)
            while (given := one.next_assignment(who.id)) is not None:
                turned = order_of(numbers_of("1>2>3>4")[:: -1 if given.item == 2 else 1] if place else (2, 1, 3, 4))
                verdict = "unsure" if place and given.item == 3 else turned
                one.record(who.id, given.id, verdict, request=f"{name}{given.id}", seconds=3.0 + place, note="=x")
        ours = one.labels(project.id)
    out = tmp_path / f"labels.{suffix}"
    assert main(["label", "export", "--db", str(tmp_path / "one.db"), "--as", "labels", "--out", str(out)]) == 0
    other, project = make(tmp_path / "other.db", turned=True)
    with other:
        found = import_labels(other, project, out, format="csv" if suffix == "csv" else "jsonl")
        assert (found.account.kept, found.untimed) == ({"stored": 6}, 0)
        theirs = other.labels(project.id)
        assert repr(label_quality(theirs).rankings) == repr(label_quality(ours).rankings)
        assert repr(label_quality(theirs).order) == repr(label_quality(ours).order)
        key = [("annotator", "ascending"), ("item", "ascending")]
        pairs = zip(ours.sort_by(key).to_pylist(), theirs.sort_by(key).to_pylist(), strict=True)
        for mine, yours in pairs:
            same = ("item", "seconds", "note", "created_at", "annotator")
            assert [mine[name] for name in same] == [yours[name] for name in same]
            if mine["verdict"] != "unsure":
                assert ranked_ids(mine) == ranked_ids(yours)
            shown = [{**row, "verdict": row["shown_order"]} for row in (mine, yours)]
            assert ranked_ids(shown[0]) == ranked_ids(shown[1])
        assert import_labels(other, project, out, format="jsonl" if suffix != "csv" else "csv").annotators == {}
        who, _ = other.add_annotator(project.id, "cleo")
        assert other.next_assignment(who.id) is None  # all places are taken
    capsys.readouterr()


def test_a_table_by_hand_needs_an_order_and_a_name(store: LabelStore, tmp_path: Path) -> None:
    project = store.project()
    path = tmp_path / "votes.csv"
    path.write_text(
        "who,ranking,note\n"
        "ann,p2 > p0 > p3 > p1,why\n"
        'ben,"[""p0"", ""p1"", ""p2"", ""p3""]",\n'
        "ann,p0 > p1 > p2 > p3,\n"
        "cleo,p0 > p1 > p2,\n"
        "cleo,p0 > p1 > p2 > p2,\n"
        "cleo,>,\n"
        "cleo,,\n"
    )
    found = import_labels(store, project, path, format="csv", named={"order": "ranking", "annotator": "who"})
    assert found.annotators == {"ann": 1, "ben": 1} and found.untimed == 2
    assert reasons(found) == {"duplicate": 1, "no such item": 2, "unknown answer": 1, "no answer": 1}
    assert any("the project has no ranking of p0, p1, p2. Remedy: give the ids" in line for line in told(found))
    rows = store.labels(project.id).to_pylist()
    assert [(ranked_ids(row), row["shown_order"], row["note"]) for row in rows] == [
        (["p2", "p0", "p3", "p1"], None, "why"), (["p0", "p1", "p2", "p3"], None, ""),
    ]  # fmt: skip
    quality = label_quality(store.labels(project.id)).rankings
    assert quality is not None and all(row.left.estimate != row.left.estimate for row in quality.rankers)  # unknown
    assert len(pop_edges(store, project)[0]) == 6
    who = next(one.id for one in store.annotators(project.id) if one.name == "ann")
    assert len(store.history(who)[0].shown.order) == 4  # it can be shown, in a drawn order
    with pytest.raises(ConfigError, match="Convert the labels from argilla to CSV or JSONL"):
        import_labels(store, project, path, format="argilla")
