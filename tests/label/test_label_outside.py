"""Labels that people gave in other tools come in with name and time, and count like those given on the page."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from label_stores import preferences

from few_fast import few_fast
from popmargin.cli.main import main
from popmargin.errors import ConfigError, DataError
from popmargin.label.outside.import_labels import PARSERS, Imported, import_labels, told
from popmargin.label.projects.open_project import open_project
from popmargin.label.quality.label_quality import label_quality
from popmargin.label.store.label_store import LabelStore
from popmargin.label.store.records import Project

TIME = "2026-03-01T10:00:00+00:00"


@pytest.fixture
def project(store: LabelStore) -> Project:
    return open_project(store, preferences(6), kind="preference", overlap=2, say=lambda line: None)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, Any], Path]:
    def save(name: str, content: Any) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = name.endswith(".jsonl")
        text = "".join(json.dumps(row) + "\n" for row in content) if lines else json.dumps(content)
        path.write_text(content if isinstance(content, str) else text, encoding="utf-8")
        return path

    return save


def verdicts(store: LabelStore, project: Project) -> dict[tuple[str, str], tuple[str, str, float | None]]:
    rows = store.labels(project.id).to_pylist()
    return {
        (row["annotator"], row["first"]): (row["verdict"], row["created_at"].isoformat(), row["seconds"])
        for row in rows
    }


def reasons(found: Imported) -> dict[str, int]:
    assert found.account.rows_in == sum(found.account.kept.values()) + sum(found.account.left_out.values())
    return dict(found.account.left_out)


def texts(row: int) -> dict[str, str]:
    """The texts of a preference of `preferences`, as other tools show them."""
    only = preferences(row + 1)[row]
    return {"prompt": only["prompt"], "response_a": only["chosen"], "response_b": only["rejected"]}


def turned(fields: dict[str, str]) -> dict[str, str]:
    return fields | {"response_a": fields["response_b"], "response_b": fields["response_a"]}


def test_argilla_as_its_client_writes_it(store: LabelStore, project: Project, write: Any) -> None:
    """Records are matched by id or by their texts, in either order; a draft and an unknown answer are reported."""
    path = write(
        "records.json",
        [
            {"id": "p0", "status": "completed", "fields": texts(0), "metadata": {}, "responses":
             {"better": [{"value": "response_a", "user_id": "u1"}, {"value": "response_b", "user_id": "u2"}]}},
            {"id": "77", "fields": turned(texts(1)), "metadata": {},
             "responses": {"better": [{"value": "response_a", "user_id": "u1"}]}},
            {"id": "p2", "fields": texts(2), "responses": {"better": [{"value": "maybe", "user_id": "u1"}]}},
            {"id": "p3", "fields": texts(4), "responses": {"better": [{"value": "tie", "user_id": "u1"}]}},
            {"id": "p4", "fields": texts(4), "responses": {}},
        ],
    )  # fmt: skip
    found = import_labels(store, project, path, format="argilla", names={"u1": "anna"})
    assert reasons(found) == {"unknown answer": 1, "other texts": 1, "no answer": 1} and found.untimed == 3
    assert {key: value[0] for key, value in verdicts(store, project).items()} == {
        ("anna", "p0"): "first", ("u2", "p0"): "second", ("anna", "p1"): "second",
    }  # fmt: skip
    again = import_labels(store, project, path, format="argilla", names={"u1": "anna"}, answers={"maybe": "tie"})
    assert reasons(again) == {"other texts": 1, "no answer": 1, "already there": 3}
    assert again.annotators == {"anna": 1}


def test_argilla_as_its_server_and_as_a_table(store: LabelStore, project: Project, write: Any) -> None:
    server = write(
        "server.jsonl",
        [{"id": "uuid", "external_id": "p0", "fields": texts(0), "responses": [
            {"user_id": "u1", "status": "submitted", "updated_at": "2026-03-01T11:00:00+01:00",
             "values": {"better": {"value": [{"value": "response_b", "rank": 1}, {"value": "response_a", "rank": 2}]},
                        "why": {"value": "x"}}},
            {"user_id": "u2", "status": "discarded", "values": {}}]}],
    )  # fmt: skip
    found = import_labels(store, project, server, format="argilla")
    assert reasons(found) == {"several questions": 1, "discarded": 1}
    found = import_labels(store, project, server, format="argilla", question="better")
    assert reasons(found) == {"discarded": 1}
    assert verdicts(store, project) == {("u1", "p0"): ("second", TIME, None)}
    flat = [{"id": "p1", **texts(1), "better.responses": ["response_a", "tie"], "better.responses.users": ["u1", "u2"],
             "better.responses.status": ["submitted", "draft"]}]  # fmt: skip
    found = import_labels(store, project, write("flat.jsonl", flat), format="argilla")
    assert reasons(found) == {"draft": 1} and verdicts(store, project)["u1", "p1"][0] == "first"


def test_label_studio(store: LabelStore, project: Project, write: Any) -> None:
    """Tasks and flat rows; skipped tasks are reported, times and seconds come along."""

    def annotation(who: Any, value: dict[str, Any], **more: Any) -> dict[str, Any]:
        result = [{"from_name": "better", "to_name": "text", "type": "x", "value": value}]
        return {"completed_by": who, "result": result, "created_at": "2026-03-01T10:00:00Z", "lead_time": 4.5} | more

    tasks = [
        {"id": 1, "data": {"id": "p0", **texts(0)}, "annotations": [
            annotation(3, {"choices": ["A"]}), annotation({"id": 4, "email": "b@x.org"}, {"selected": "right"}),
            annotation(5, {}, was_cancelled=True)]},
        {"id": 2, "data": turned(texts(1)), "annotations": [annotation(3, {"choices": ["B"]})]},
        {"id": 3, "data": {"id": "p9"}, "annotations": [annotation(3, {"choices": ["B"]})]},
        {"id": 4, "data": {"id": "p2"}, "annotations": []},
    ]  # fmt: skip
    found = import_labels(store, project, write("tasks.json", tasks), format="label-studio")
    assert reasons(found) == {"skipped": 1, "no such item": 1, "no answer": 1} and not found.untimed
    assert verdicts(store, project) == {
        ("label-studio-3", "p0"): ("first", TIME, 4.5),
        ("b@x.org", "p0"): ("second", TIME, 4.5),
        ("label-studio-3", "p1"): ("first", TIME, 4.5),
    }
    flat = [
        {**texts(3), "id": 12, "choice": "A", "annotator": 3, "annotation_id": 9, "created_at": TIME, "lead_time": 1}
    ]
    found = import_labels(store, project, write("min.json", flat), format="label-studio")
    assert reasons(found) == {} and verdicts(store, project)["label-studio-3", "p3"] == ("first", TIME, 1.0)


def test_potato(store: LabelStore, project: Project, write: Any) -> None:
    """A folder a user, a table of all users, and a state; several answers to one item are reported."""
    write(
        "out/anna/annotated_instances.jsonl",
        [
            {"id": "p0", "displayed_text": "…", "label_annotations": {"better": {"response A": "true"}},
             "span_annotations": {}, "behavioral_data": {"time_string": "Time spent: 0d 0h 1m 5s "}},
            {"id": "p1", "displayed_text": "…", "label_annotations": {"better": {"A": "true", "B": "true"}},
             "span_annotations": {}, "behavioral_data": {}},
        ],
    )  # fmt: skip
    folder = write(
        "out/ben/user_state.json",
        {"user_id": "ben", "instance_id_to_label_to_value": {
            "p0": [[{"schema": "better", "name": "B"}, "true"]], "p2": {"better": {"tie": True}}}},
    ).parents[1]  # fmt: skip
    found = import_labels(store, project, folder, format="potato")
    assert reasons(found) == {"several answers": 1}
    kept = verdicts(store, project)
    assert {key: value[0] for key, value in kept.items()} == {
        ("anna", "p0"): "first", ("ben", "p0"): "second", ("ben", "p2"): "tie",
    } and kept["anna", "p0"][2] == 65.0  # fmt: skip
    table = write("all.csv", "user,instance_id,displayed_text,better:::A,better:::B\ncleo,p0,x,true,\ncleo,p1,x,,\n")
    found = import_labels(store, project, table, format="potato")
    assert reasons(found) == {"no answer": 1} and verdicts(store, project)["cleo", "p0"][0] == "first"


def test_a_table_with_all_that_can_be_wrong(store: LabelStore, project: Project, write: Any) -> None:
    """Rows in = stored + reported, each with its line; columns and words may be named."""
    path = write(
        "votes.csv",
        "pair,worker,vote,when,seconds\n"
        "p0,anna,a,2026-03-01 10:00,3\n"
        "p0,anna,b,2026-03-01 10:00,3\n"
        "p9,anna,a,,\n"
        "p1,anna,oui,1772359200,\n"
        "p2,anna,hm,,\n"
        "p3,,a,,\n"
        "p4,anna,a,yesterday,\n"
        "p5,anna,a,,soon\n"
        "p5,anna,,,\n",
    )
    settings: dict[str, Any] = {"named": {"id": "pair", "label": "vote", "time": "when"}, "answers": {"oui": "second"}}
    found = import_labels(store, project, path, format="csv", **settings)
    assert reasons(found) == {
        "duplicate": 1, "no such item": 1, "unknown answer": 1, "no annotator": 1, "unusable value": 2, "no answer": 1,
    }  # fmt: skip
    assert verdicts(store, project) == {
        ("anna", "p0"): ("first", TIME, 3.0), ("anna", "p1"): ("second", TIME, None),
    }  # fmt: skip
    said = "\n".join(told(found))
    assert "9 in = 2 stored + 7 left out" in said and "votes.csv:3: 'anna' has another label of the same item" in said
    assert "votes.csv:6: 'hm' is no answer here. Remedy: say what it means: --answer" in said
    for wrong, message in (
        ({"answers": {"oui": "yes"}}, "'yes' is no answer"),
        ({"named": {"who": "worker"}}, "'who' is not a field"),
        ({"format": "excel"}, "format is 'excel'"),
        ({"kind": "pop"}, "asks for preference, not pop"),
    ):
        with pytest.raises(ConfigError, match=message):
            import_labels(store, project, path, **({"format": "csv"} | settings | wrong))
    with pytest.raises(DataError, match="has no items"):
        import_labels(store, store.create_project("empty"), path, format="csv")


def test_people_from_elsewhere(store: LabelStore, project: Project, write: Any) -> None:
    """They cannot sign in; their labels take places, or make room; an answer of the page stands."""
    ann, token = store.add_annotator(project.id, "ann")
    store.add_annotator(project.id, "gpt", kind="judge")
    task = store.next_assignment(ann.id)
    assert task is not None
    store.record(ann.id, task.id, "first", request="r")
    waiting = store.next_assignment(ann.id)
    assert waiting is not None
    rows = [{"id": key, "annotator": name, "label": "b"} for name in ("ann", "b", "c") for key in ("p0", "p1", "p2")]
    rows += [{"id": one.first.id, "annotator": "ann", "label": "b"} for one in (task, waiting)]
    unique = list({(row["id"], row["annotator"]): row for row in rows}.values())
    found = import_labels(store, project, write("v.jsonl", unique), format="jsonl")
    assert reasons(found) == {"another answer stands": 1}
    people = {who.name: who for who in store.annotators(project.id)}
    assert people["ann"].active and not people["b"].active and people["b"].kind == "person"
    kept = {key: value[0] for key, value in verdicts(store, project).items()}
    assert kept["ann", task.first.id] == "first" and kept["ann", waiting.first.id] == "second"
    progress = store.progress(project.id)
    assert progress.labels_done == len(kept) == len(unique) and progress.leased == 0
    by_item = [sum(key == item for _, key in kept) for item in {f"p{row}" for row in range(6)}]
    assert progress.labels_wanted == sum(max(count, 2) for count in by_item)
    done = len(kept)
    while (task := store.next_assignment(ann.id)) is not None:  # what is left is asked as before
        store.record(ann.id, task.id, "tie", request=str(task.id))
        done += 1
    assert store.annotator_of(token) is not None and store.progress(project.id).labels_done == done
    odd = [{"id": "p0", "annotator": "gpt", "label": "a"}, {"id": "p0", "annotator": "n" * 201, "label": "a"},
           {"id": "p0", "annotator": "m", "annotator_kind": "judge", "label": "a"}]  # fmt: skip
    found = import_labels(store, project, write("g.jsonl", odd), format="jsonl")
    assert reasons(found) == {"name of a model": 1, "unusable value": 1, "label of a model": 1}


@pytest.mark.parametrize("kind", few_fast(["pop", "preference", "rating"], (0,)))
def test_the_same_labels_give_the_same_report(tmp_path: Path, kind: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Labels from the page, exported as CSV and imported into a store without any, give the same figures: agreement,
    κ, α, position bias, times. Without the order on the screen, only the position bias is unknown."""
    data = preferences(12)
    one, other, out = (str(tmp_path / name) for name in ("one.db", "other.db", "labels.csv"))
    with LabelStore.open(one) as store:
        project = open_project(store, data, kind=kind, overlap=3, seed=4, say=lambda line: None)
        for place, name in enumerate(("ann", "ben", "=cleo")):
            who, _ = store.add_annotator(project.id, name)
            while (task := store.next_assignment(who.id)) is not None:
                # A third of the answers differ, and some people are quicker.
                number = (task.item + (task.item % 3 == place)) % 4
                words = ("1", "4", "5", "unsure") if kind == "rating" else ("first", "second", "tie", "first")
                verdict: Any = words[number]
                store.record(who.id, task.id, verdict, request=str(task.id), seconds=2.0 + place, confidence=0.75)
        ours = store.labels(project.id)
    assert main(["label", "export", "--db", one, "--out", out]) == 0
    with LabelStore.open(other) as store:
        open_project(store, data, kind=kind, overlap=3, seed=4, say=lambda line: None)
    assert main(["label", "import-labels", out, "--db", other]) == 0
    assert f"{ours.num_rows} in = {ours.num_rows} stored" in capsys.readouterr().out
    with LabelStore.open(other) as store:
        project = store.project()
        theirs = store.labels(project.id)
        names = [name for name in ours.column_names if name not in ("label", "assignment", "request", "repeat_of")]
        names = [name for name in names if name not in ("idle", "guidelines_version")]
        order = [("item", "ascending"), ("annotator", "ascending")]
        assert theirs.select(names).sort_by(order) == ours.select(names).sort_by(order)
        assert repr(label_quality(theirs)) == repr(label_quality(ours))
        progress = store.progress(project.id)
        assert progress.labels_done == progress.labels_wanted
    assert main(["label", "import-labels", out, "--db", other]) == 0
    assert "already there" in capsys.readouterr().out
    if kind == "preference":
        blind = str(tmp_path / "blind.db")
        with LabelStore.open(blind) as store:
            project = open_project(store, data, kind=kind, overlap=3, seed=4, say=lambda line: None)
            rows = [{"id": row["first"], "annotator": row["annotator"], "label": row["verdict"]}
                    for row in ours.to_pylist()]  # fmt: skip
            path = tmp_path / "plain.jsonl"
            path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
            import_labels(store, project, path, format="jsonl", clock=lambda: datetime(2026, 3, 1, tzinfo=UTC))
            plain = label_quality(store.labels(project.id))
        assert [str(row.kappa) for row in plain.annotators] == [
            str(row.kappa) for row in label_quality(ours).annotators
        ]
        assert repr(plain.agreement) == repr(label_quality(ours).agreement)
        assert all(row.left.estimate != row.left.estimate for row in plain.annotators)  # unknown


def test_every_format_of_the_command_has_a_parser() -> None:
    from popmargin.cli.label_import_labels import FORMATS

    assert set(FORMATS) == set(PARSERS)
