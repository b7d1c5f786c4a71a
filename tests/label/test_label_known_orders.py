"""Rankings whose order is known: the file, gold and training items, their score, and feedback."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("sqlalchemy")

from label_stores import preferences

from popmargin.cli.main import main
from popmargin.data.questions import numbers_of, order_of
from popmargin.errors import ConfigError, DataError
from popmargin.label.projects.append import append_rows
from popmargin.label.projects.change_gold import set_known_answers
from popmargin.label.projects.known_orders import KnownOrders, read_orders
from popmargin.label.projects.open_project import open_project
from popmargin.label.quality.label_quality import label_quality
from popmargin.label.store.label_store import LabelStore
from popmargin.label.store.records import Assignment
from popmargin.label.store.training import Trained


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LabelStore]:
    with LabelStore.open(tmp_path / "labels.db") as opened:
        yield opened


def by_number(given: Assignment) -> list[int]:
    """The order of the ids' numbers, the highest first, as numbers of the preferences."""
    ids = [int(one.id[1:]) for one in given.preferences]
    return sorted(range(1, len(ids) + 1), key=lambda number: -ids[number - 1])


def items_of(store: LabelStore, project: int) -> list[dict[str, str]]:
    return [row for batch in store.items(project) for row in batch.to_pylist()]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("gold.csv", 'order,who\np3 > p1>p2,ann\n"[""p4"", ""p0"", ""p1""]",ann\n'),
        ("gold.jsonl", '{"order": ["p3", "p1", "p2"]}\n{"order": "p4>p0>p1"}\n{"order": ["p3", "p1", "p2"]}\n'),
    ],
)
def test_a_file_has_ids_in_their_order(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert read_orders(tmp_path / name).orders == (("p3", "p1", "p2"), ("p4", "p0", "p1"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ids\np0>p1>p2\n", r"gold.csv:2: no column 'order'"),
        ("order\np0>p1\n", r"gold.csv:2, column 'order': 2 preferences; a ranking has 3 to 6"),
        ("order\np0>p1>p0\n", r"gold.csv:2, column 'order': a preference comes twice"),
        ("order\np0>p1>p2\np2>p1>p0\n", r"gold.csv:3, column 'order': gold.csv:2 has another order"),
        ('order,a\n"[p0, p1]",1\n', r"gold.csv:2, column 'order': '\[p0, p1\]' begins like a list, and is none"),
        ("order,a\n,1\n", r"gold.csv:2, column 'order': there is no order"),
    ],
)
def test_what_is_no_order_is_refused_by_row_and_column(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "gold.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_orders(tmp_path / "gold.csv")


def test_gold_of_a_new_project_is_asked_of_everybody_and_scored(store: LabelStore) -> None:
    data = preferences(9)
    drawn = [row["first"] for row in items_of(store, open_project(store, data, "x", rank=4, say=lambda _: None).id)]
    gold = KnownOrders("gold.csv", (("p8", "p5", "p2"), ("p7", "p6", "p1", "p0")))
    project = open_project(store, data, rank=4, gold=gold, say=lambda _: None)
    assert open_project(store, data, rank=4, gold=gold, say=lambda _: None).id == project.id
    rows = items_of(store, project.id)
    assert [(row["first"], json.loads(row["others"]), row["gold"]) for row in rows[:2]] == [
        ("p2", ["p5", "p8"], "3>2>1"), ("p0", ["p1", "p6", "p7"], "4>3>2>1"),
    ]  # fmt: skip
    assert [row["first"] for row in rows[2:]] == drawn and {row["gold"] for row in rows[2:]} == {None}
    for name in ("anna", "ben"):
        who, _ = store.add_annotator(project.id, name)
        while (given := store.next_assignment(who.id)) is not None:
            order = by_number(given)
            if name == "ben":
                order[:2] = order[1::-1]  # one comparison is turned
            store.record(who.id, given.id, order_of(order), request=f"{name}-{given.id}")
    found = label_quality(store.labels(project.id)).rankings
    assert found is not None
    assert [row.gold.estimate for row in found.rankers] == pytest.approx([1.0, (2 / 3 + 5 / 6) / 2])
    with pytest.raises(ConfigError, match="different items"):
        open_project(store, data, rank=4, gold=KnownOrders("g", gold.orders[:1]), say=lambda _: None)
    append_rows(store, project, preferences(12), say=lambda _: None)  # as large as those that are not gold
    assert {len(json.loads(row["others"])) for row in items_of(store, project.id)[5:]} == {3}


def test_gold_changes_while_people_rank(store: LabelStore) -> None:
    project = open_project(store, preferences(5), rank=3, say=lambda _: None)
    row = items_of(store, project.id)[0]
    ids = [row["first"], *json.loads(row["others"])]
    gold = KnownOrders("gold.csv", ((ids[2], ids[0], ids[1]), ("p0", "p1", "p2", "p3")))
    assert set_known_answers(store, project, gold) == {"new": 1, "changed": 0, "removed": 0, "added": 1}
    rows = items_of(store, project.id)
    assert [(one["item"], one["gold"]) for one in rows if one["gold"]] == [
        (row["item"], "3>1>2"), (rows[-1]["item"], "1>2>3>4"),
    ]  # fmt: skip
    assert set_known_answers(store, project, gold, remove=True)["removed"] == 2
    with pytest.raises(DataError, match=r"gold\.csv orders preference 'p9', which is not in project"):
        set_known_answers(store, project, KnownOrders("gold.csv", (("p0", "p1", "p9"),)))
    with pytest.raises(ConfigError, match="whose gold is known orders: a file with a column 'order'"):
        set_known_answers(store, project, preferences(5))
    with pytest.raises(DataError, match=r"gold is '1>2', which is no order of 3 preferences"):
        store.set_gold(project.id, {row["item"]: "1>2"})  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(("passing", "held"), [(0.75, False), (0.8, True)])
def test_training_counts_comparisons(store: LabelStore, passing: float, held: bool) -> None:
    """Two rankings of four: five of six comparisons right, then four."""
    gold = KnownOrders("gold.csv", (("p7", "p6", "p1", "p0"), ("p5", "p4", "p3", "p2")))
    project = open_project(store, preferences(8), rank=4, gold=gold, training=2, passing=passing, say=lambda _: None)
    who, _ = store.add_annotator(project.id, "anna")
    for turn in ((1, 0, 2, 3), (1, 0, 3, 2)):
        given = store.next_assignment(who.id)
        assert given is not None and given.training and given.gold is None
        order = by_number(given)
        store.record(who.id, given.id, order_of([order[place] for place in turn]), request=f"r{given.id}")
        known = store.assignment(who.id, given.id).gold
        assert known is not None and numbers_of(known) == order
    assert store.trained(project.id)[who.id] == Trained(given=2, answered=2, asked=2, right=pytest.approx(9 / 6))
    (person,) = store.annotators(project.id)
    assert bool(person.held) == held and (store.next_assignment(who.id) is None) == held


def test_the_command_line_takes_known_orders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"id": f"p{n}", "prompt": f"Question {n}?", "chosen": f"yes {n}", "rejected": "no"} for n in range(6)]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "gold.csv").write_text("order\np3 > p0 > p1\n")
    db = ["--db", str(tmp_path / "labels.db")]
    assert main(["label", "import", str(tmp_path / "data.jsonl"), *db, "--rank", "3", "--gold",
                 str(tmp_path / "gold.csv"), "--training", "1", "--passing", "0.6"]) == 0  # fmt: skip
    assert "of kind 'rank', 1 of them gold" in capsys.readouterr().out
    (tmp_path / "gold.csv").write_text("order\np3 > p1 > p0\np5>p4>p0>p2\n")
    assert main(["label", "set", *db, "--gold", str(tmp_path / "gold.csv")]) == 0
    assert "known answers: 1 changed, 1 added" in capsys.readouterr().out
