"""Ratings of single responses by people: what is asked, what is an answer, and out again into training data."""

import json
from pathlib import Path
from typing import Any

import pytest
from label_stores import Clock, preferences

from popmargin.cli.main import main
from popmargin.data.load import load_preferences
from popmargin.data.schema import Preferences
from popmargin.errors import ConfigError, DataError
from popmargin.label.export.pop_edges import pop_edges
from popmargin.label.export.preferences import preferences_of
from popmargin.label.projects.open_project import open_project
from popmargin.label.store.label_store import LabelStore
from popmargin.label.store.records import Project

# Response "a" stands in two preferences of a prompt, and is one response to rate.
ROWS = [
    {"id": "p0", "prompt": "q", "chosen": "a", "rejected": "b", "strength": 9.0},
    {"id": "p1", "prompt": "q", "chosen": "a", "rejected": "c"},
    {"id": "p2", "prompt": "r", "chosen": "a", "rejected": "d"},
    {"id": "p3", "prompt": "s", "chosen": "e", "rejected": "f"},
    {"id": "p4", "prompt": "t", "chosen": "g", "rejected": "h", "chosen_rating": 40.0, "rejected_rating": 10.0},
]
RESPONSES = [("p0", "chosen"), ("p0", "rejected"), ("p1", "rejected"), ("p2", "chosen"), ("p2", "rejected"),
             ("p3", "chosen"), ("p3", "rejected"), ("p4", "chosen"), ("p4", "rejected")]  # fmt: skip
# p0: 4.5 above 2; p1: 4.5 below 5; p2: equal; p3: a response without a rating; p4: 5 above 1.
GIVEN: dict[tuple[str, str], tuple[str, str]] = {
    RESPONSES[0]: ("4", "5"), RESPONSES[1]: ("1", "3"), RESPONSES[2]: ("5", "5"), RESPONSES[3]: ("2", "unsure"),
    RESPONSES[4]: ("2", "2"), RESPONSES[5]: ("3", "3"), RESPONSES[6]: ("unsure", "unsure"), RESPONSES[7]: ("5", "5"),
    RESPONSES[8]: ("1", "1"),
}  # fmt: skip


def quiet(line: str) -> None:
    assert line


def asked(store: LabelStore, project: Project) -> list[dict[str, Any]]:
    return [row for batch in store.items(project.id) for row in batch.to_pylist()]


def rate(store: LabelStore, project: Project, answers: dict[tuple[str, str], tuple[str, str]] = GIVEN) -> None:
    """Both people of an overlap of two give their ratings, through leases as on the page."""
    for person, name in enumerate(("anna", "ben")):
        who, _ = store.add_annotator(project.id, name)
        while (now := store.next_assignment(who.id)) is not None:
            assert now.kind == "rating" and now.second is None and now.response is not None
            verdict: Any = answers[now.first.id, now.response][person]
            store.record(who.id, now.id, verdict, request=str(now.id), seconds=4.0)


def test_every_distinct_response_is_asked_about_once(store: LabelStore) -> None:
    said: list[str] = []
    project = open_project(store, load_preferences(ROWS), kind="rating", overlap=2, say=said.append)
    assert project.scale == 5 and "9 items of kind 'rating'" in said[-1]
    rows = asked(store, project)
    assert sorted((row["first"], row["response"]) for row in rows) == sorted(RESPONSES)
    assert {row["kind"] for row in rows} == {"rating"} and {row["second"] for row in rows} == {None}
    assert open_project(store, None, say=said.append) == project


def test_answers_are_numbers_of_the_scale_and_keep_every_rule_of_the_store(store: LabelStore, clock: Clock) -> None:
    project = open_project(store, preferences(3), kind="rating", scale=7, overlap=2, say=quiet)
    anna, ben = (store.add_annotator(project.id, name)[0].id for name in ("anna", "ben"))
    now = store.next_assignment(anna)
    assert now is not None and now.response in ("chosen", "rejected")
    for verdict, message in (("8", "from 1 to 7"), ("first", "from 1 to 7"), ("tie", "or 'unsure'"), ("0", "verdict")):
        with pytest.raises(DataError, match=message):
            store.record(anna, now.id, verdict, request="r1")  # pyright: ignore[reportArgumentType]
    label = store.record(anna, now.id, "7", request="r1", seconds=3.0, note="well")
    assert store.record(anna, now.id, "7", request="r1") == label
    with pytest.raises(DataError, match="already stored a different answer"):
        store.record(anna, now.id, "6", request="r1")
    assert store.record(anna, now.id, "2", request="r2").revision == 2
    undone = store.undo(anna)
    assert undone is not None and undone.id == now.id and undone.label is not None and undone.label.note == ""
    store.record(anna, now.id, "unsure", request="r3")
    assert [row["verdict"] for row in store.label_history(project.id).to_pylist()] == ["7", "2", None, "unsure"]
    skipped = store.next_assignment(anna)
    assert skipped is not None
    store.skip(anna, skipped.id)
    late = store.next_assignment(ben)
    assert late is not None
    clock.pass_seconds(4000)  # the lease has ended, and the place is still free
    assert store.record(ben, late.id, "1", request="r4").verdict == "1"
    assert store.progress(project.id, anna).own_skipped == 1 and store.progress(project.id).labels_wanted == 12


def test_ratings_and_comparisons_do_not_mix(store: LabelStore) -> None:
    project = open_project(store, preferences(4), "pairs", say=quiet)
    who, _ = store.add_annotator(project.id, "anna")
    now = store.next_assignment(who.id)
    assert now is not None
    with pytest.raises(DataError, match="do not ask for one"):
        store.record(who.id, now.id, "3", request="r")
    with pytest.raises(DataError, match="no rating scale"):
        store.add_items(project.id, "rating", ["p0"], response=["chosen"])
    rated = store.create_project("rated", scale=3)
    store.import_preferences(rated.id, preferences(2))
    for columns, message in (
        ({}, "need a response each"),
        ({"response": ["left"]}, "row 0: response is 'left'"),
        ({"response": ["chosen"], "gold": ["4"]}, "row 0: gold is '4'"),
        ({"response": ["chosen"], "second": ["p1"]}, "'pop' need a second"),
    ):
        with pytest.raises(DataError, match=message):
            store.add_items(rated.id, "rating", ["p0"], **columns)
    with pytest.raises(DataError, match="row 0: gold is '2'"):
        store.add_items(rated.id, "pop", ["p0"], ["p1"], gold=["2"])
    for settings, message in (
        ({"scale": 11, "kind": "rating"}, "from 2 to 10"),
        ({"scale": 4}, "is only for kind 'rating'"),
    ):
        with pytest.raises(ConfigError, match=message):
            open_project(store, preferences(4), "new", **settings)  # pyright: ignore[reportArgumentType]
    assert len(store.projects()) == 2


def test_known_ratings_are_gold_for_everybody(store: LabelStore) -> None:
    """The gold of p1's chosen response is that of the same response in p0."""
    gold = load_preferences([{**ROWS[1], "chosen_rating": 4.0, "rejected_rating": 1.0}])
    project = open_project(store, load_preferences(ROWS), kind="rating", gold=gold, say=quiet)
    known = {(row["first"], row["response"]): row["gold"] for row in asked(store, project) if row["gold"]}
    assert known == {("p0", "chosen"): "4", ("p1", "rejected"): "1"} and project.gold_items == 2
    for people in ("anna", "ben"):
        who, _ = store.add_annotator(project.id, people)
        seen = set[tuple[str, Any]]()
        while (now := store.next_assignment(who.id)) is not None:
            seen.add((now.first.id, now.response))
            store.record(who.id, now.id, "3", request=str(now.id))
        assert set(known) <= seen
    for row, message in (
        (
            {**ROWS[1], "chosen_rating": 4.5, "rejected_rating": 1.0},
            "preference 'p1', column 'chosen_rating': 4.5 is no",
        ),
        ({**ROWS[1], "id": "p9", "chosen_rating": 4.0}, "'p9' is not in"),
    ):
        with pytest.raises(DataError, match=message):
            open_project(store, load_preferences(ROWS), "two", kind="rating", gold=load_preferences([row]), say=quiet)
    both = load_preferences([{**ROWS[0], "chosen_rating": 4.0}, {**ROWS[1], "chosen_rating": 5.0}])
    with pytest.raises(DataError, match="two different known ratings"):
        open_project(store, load_preferences(ROWS), "two", kind="rating", gold=both, say=quiet)


def test_gold_is_found_by_its_text_whichever_side_it_stands_on(store: LabelStore) -> None:
    """People rated p0's rejected response higher; the export exchanges the texts, and so does its gold."""
    turned = {**ROWS[0], "chosen": "b", "rejected": "a", "chosen_rating": 5.0, "rejected_rating": 2.0}
    project = open_project(store, load_preferences(ROWS), kind="rating", gold=load_preferences([turned]), say=quiet)
    known = {(row["first"], row["response"]): row["gold"] for row in asked(store, project) if row["gold"]}
    assert known == {("p0", "chosen"): "2", ("p0", "rejected"): "5"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"chosen": "A", "chosen_rating": 4.0}, "preference 'p0', column 'chosen': .* has no such prompt and response"),
        (
            {"rejected": "c", "rejected_rating": 4.0},
            "preference 'p0', column 'rejected': .* has no such prompt and response",
        ),
        ({"prompt": "Q", "chosen_rating": 4.0}, "has no such prompt and response"),
        ({}, "no preference of .* has a rating"),
    ],
)
def test_gold_that_tells_nothing_of_the_data_is_refused(
    store: LabelStore, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        gold = load_preferences([{**ROWS[0], **change}])
        open_project(store, load_preferences(ROWS), kind="rating", gold=gold, say=quiet)
    assert store.projects() == []


def test_gold_is_read_without_the_options_of_the_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, gold = tmp_path / "data.jsonl", tmp_path / "gold.jsonl"
    rows = [
        {"id": "p0", "question": "q", "good": "a", "bad": "b"},
        {"id": "p1", "question": "q", "good": "a", "bad": "c"},
    ]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    gold.write_text(json.dumps({**ROWS[0], "chosen_rating": 4.0}) + "\n", encoding="utf-8")
    words = ["--column", "prompt=question", "--column", "chosen=good", "--column", "rejected=bad", "--kind", "rating"]
    assert main(["label", "import", str(data), "--db", str(tmp_path / "x.db"), *words, "--gold", str(gold)]) == 0
    assert "3 items of kind 'rating', 1 of them gold" in capsys.readouterr().out


@pytest.fixture
def rated(store: LabelStore) -> Project:
    project = open_project(store, load_preferences(ROWS), kind="rating", overlap=2, say=quiet)
    rate(store, project)
    return project


def gaps(data: Preferences) -> list[tuple[str, str, Any, Any]]:
    return [(row["id"], row["chosen"], row["chosen_rating"], row["rejected_rating"]) for row in data]


def test_mean_ratings_become_columns_and_nothing_is_lost_silently(
    store: LabelStore, rated: Project, tmp_path: Path
) -> None:
    none = (None, None)
    swapped = preferences_of(store, rated)
    assert gaps(swapped) == [("p0", "a", 4.5, 2.0), ("p1", "c", 5.0, 4.5), ("p2", "a", 2.0, 2.0), ("p3", "e", *none),
                             ("p4", "g", 5.0, 1.0)]  # fmt: skip
    assert swapped[0]["strength"] is None  # of another scale than the ratings
    assert swapped.report.notes == (
        "4 of 5 preferences have annotators' ratings for both responses; 1 of these are ties (a gap of 0)",
        "1 do not (p3): --unrated keeps them without ratings or drops them",
        "1 marked wrong by most annotators who judged them (p1): chosen and rejected swapped",
    )
    swapped.save(tmp_path / "rated.jsonl")
    assert gaps(load_preferences(str(tmp_path / "rated.jsonl"))) == gaps(swapped)
    dropped = preferences_of(store, rated, wrong="drop", unrated="drop")
    assert dropped.ids == ["p0", "p2", "p4"]
    report = dropped.report
    assert (report.rows_in, report.rows_kept, report.rows_reported) == (5, 3, 2)
    assert [problem.kind for problem in report.problems] == ["called_wrong", "unrated"]
    assert "people rated chosen 4.5 and rejected 5" in report.problems[0].message
    kept = preferences_of(store, rated, wrong="keep")
    assert gaps(kept)[1] == ("p1", "a", *none) and "their ratings are left empty" in kept.report.notes[-1]
    with pytest.raises(ConfigError, match="keep, drop"):
        preferences_of(store, rated, unrated="swap")  # pyright: ignore[reportArgumentType]
    edges, account = pop_edges(store, rated)
    assert len(edges) == 0 and account.left_out["ratings"] == account.labels == 18


def test_ratings_of_the_data_are_not_taken_for_labels(store: LabelStore, tmp_path: Path, capsys: Any) -> None:
    """p4 has ratings of its own; "unsure" alone is no rating either."""
    project = open_project(store, load_preferences(ROWS), kind="rating", say=quiet)
    with pytest.raises(DataError, match=r"Nobody has rated a response of project '.*' yet"):
        preferences_of(store, project)
    rate(store, project, dict.fromkeys(RESPONSES, ("unsure", "unsure")))
    with pytest.raises(DataError, match="Nobody has rated"):
        preferences_of(store, project, strengths={"p0": 0.5})
    file, db, out = tmp_path / "rows.jsonl", str(tmp_path / "new.db"), tmp_path / "out.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    for kind in ("rating", "preference"):
        assert main(["label", "import", str(file), "--db", db, "--kind", kind, "--project", kind]) == 0
    capsys.readouterr()
    flags = ["--as", "preferences", "--out", str(out)]
    assert main(["label", "export", "--db", db, "--project", "rating", *flags]) == 2
    assert "Nobody has rated a response of project 'rating' yet" in capsys.readouterr().err and not out.exists()
    flags += ["--db", db, "--project", "preference"]
    assert main(["label", "export", *flags]) == 2
    assert "Nobody has judged a preference of project 'preference' yet" in capsys.readouterr().err and not out.exists()
    assert main(["label", "export", *flags, "--unjudged", "keep"]) == 0
    assert "nobody has judged a preference yet" in capsys.readouterr().out


def test_strengths_that_are_given_stay_beside_ratings(store: LabelStore, rated: Project) -> None:
    assert preferences_of(store, rated, strengths={"p0": 0.5})[0]["strength"] == 0.5


def test_repeated_items_do_not_count_twice(store: LabelStore) -> None:
    """The second time everybody says 1; the mean is of the first time."""
    project = open_project(store, preferences(30), kind="rating", repeat_share=0.5, say=quiet)
    who, _ = store.add_annotator(project.id, "anna")
    had, again = set[int](), 0
    while (now := store.next_assignment(who.id)) is not None:
        again += now.item in had
        store.record(who.id, now.id, "1" if now.item in had else "5", request=str(now.id))
        had.add(now.item)
    assert again > 5
    assert {(row["chosen_rating"], row["rejected_rating"]) for row in preferences_of(store, project)} == {(5.0, 5.0)}


def test_from_the_command_line_to_a_training_run(tmp_path: Path, data_path: str, capsys: Any, model_path: str) -> None:
    """import, ratings, export, a run with the rating margin, and one with PoP labels that these ratings give."""
    db, out = str(tmp_path / "labels.db"), tmp_path / "rated.jsonl"
    rows = [json.loads(line) for line in Path(data_path).read_text(encoding="utf-8").splitlines()[:16]]
    few = tmp_path / "few.jsonl"
    few.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert main(["label", "import", str(few), "--db", db, "--kind", "rating", "--scale", "7"]) == 0
    with LabelStore.open(db) as store:
        project = store.project()
        who, _ = store.add_annotator(project.id, "anna")
        while (now := store.next_assignment(who.id)) is not None:
            verdict: Any = str(4 + now.item % 3) if now.response == "chosen" else "2"
            store.record(who.id, now.id, verdict, request=str(now.id))
    capsys.readouterr()
    assert main(["label", "export", "--db", db, "--as", "preferences", "--out", str(out), "--unrated", "drop"]) == 0
    assert "16 of 16 preferences have annotators' ratings" in capsys.readouterr().out
    assert main(["pop", "sample", str(out), "--k", "1", "--out", str(tmp_path / "edges.parquet")]) == 0
    words = ["train", "--model.path", model_path, "--data.train", str(out), "--train.batch_size", "8"]
    words += ["--train.max_steps", "1", "--output"]
    assert main([*words, str(tmp_path / "margin"), "--objective.name", "dpo_rating_margin"]) == 0
    assert main([*words, str(tmp_path / "pop"), "--objective.name", "pop"]) == 0
    labels = tmp_path / "labels.jsonl"
    assert main(["label", "export", "--db", db, "--out", str(labels)]) == 0
    raw = [json.loads(line) for line in labels.read_text(encoding="utf-8").splitlines()]
    assert len(raw) == 32 and {row["response"] for row in raw} == {"chosen", "rejected"}
    assert {row["verdict"] for row in raw if row["response"] == "rejected"} == {"2"}


def test_models_and_ask_say_that_a_project_asks_for_something_else(tmp_path: Path, data_path: str, capsys: Any) -> None:
    db = str(tmp_path / "labels.db")
    for kind in ("rating", "preference"):
        assert main(["label", "import", data_path, "--db", db, "--kind", kind, "--project", kind]) == 0
        assert main(["label", "ask", "--db", db, "--project", kind, "--n", "5"]) == 2
        assert f"has items of kind '{kind}'" in capsys.readouterr().err
    with LabelStore.open(db) as store:
        assert {row["kind"] for row in asked(store, store.project("preference"))} == {"preference"}
    assert main(["label", "judge", "--db", db, "--project", "rating", "--judge", "ratings"]) == 2
    assert "asks for ratings, but labellers make comparisons" in capsys.readouterr().err
    both = ["--kind", "preference", "--criteria", "clear: Which is clearer?", "kind: Which is kinder?"]
    assert main(["label", "import", data_path, "--db", db, *both, "--project", "both"]) == 0
    judge = ["label", "judge", "--db", db, "--project", "both", "--judge"]
    for named in (["ratings"], ["judge:x@http://127.0.0.1:1/v1"], ["judge:x@http://127.0.0.1:1/v1", "--dry-run"]):
        capsys.readouterr()
        assert main([*judge, *named]) == 2
        said = capsys.readouterr()
        assert "asks about several criteria" in said.err and "Nothing was asked" in said.err and not said.out
