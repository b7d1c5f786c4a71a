"""The lead's API: tokens that may read or change, and what a lead does in a month of labelling."""

import argparse
import io
import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient
from web_site import ADMIN, Site, rows_of

from popmargin.cli.main import main
from popmargin.cli.project_options import add_project_arguments, project_settings
from popmargin.label.export.preferences import preferences_of
from popmargin.label.language.page_texts import shipped
from popmargin.label.store.change_settings import CHANGEABLE


def client_of(site: Site, role: Any = "lead") -> TestClient:
    _, token = site.store.api_tokens.add(role, role)
    return site.client(headers={"Authorization": f"Bearer {token}"})


def test_a_lead_does_everything_over_http(site: Site) -> None:
    """Import, people, guidelines, settings, answers, adjudication, append, report and files."""
    lead = client_of(site)
    made = lead.post(
        "/api/lead/projects", json={"name": "month", "rows": rows_of(5), "kind": "preference", "overlap": 2}
    )
    assert made.status_code == 201, made.text
    assert made.json()["said"][0] == "5 in = 5 kept"
    place = f"/api/lead/projects/{made.json()['project']}"
    number = made.json()["project"]
    again = lead.post("/api/lead/projects", json={"name": "month", "rows": rows_of(1)})
    assert again.status_code == 409 and "already exists" in again.json()["error"]
    people = {name: lead.post(f"{place}/annotators", json={"name": name}).json() for name in ("anna", "ben", "cleo")}
    new = lead.put(f"{place}/guidelines", json={"text": "Be *brief*."})
    assert new.json() == lead.get(f"{place}/guidelines").json() == {"version": 2, "text": "Be *brief*."}
    choices = {"anna": "left", "ben": "left", "cleo": "right"}
    for name, who in people.items():
        person = site.client(headers={"Authorization": f"Bearer {who['token']}"})
        if name == "cleo":
            changed = lead.patch(f"{place}/annotators/{who['id']}", json={"adjudicator": True, "quota": 2})
            assert changed.json()["adjudicator"] and changed.json()["quota"] == 2
        while (task := person.get("/api/next").json()["task"]) is not None:
            answer = {
                "assignment": task["assignment"],
                "choice": choices[name],
                "request": f"request-{name}-{task['number']}",
            }
            assert person.post("/api/labels", json=answer).status_code == 200
    shown = lead.get(place).json()
    assert shown["labels_done"] == shown["labels_wanted"] == 10 and shown["kind"] == "preference"
    assert {who["name"]: who["own_done"] for who in shown["annotators"]} == {"anna": 5, "ben": 5, "cleo": 1}
    assert [change["who"] for change in shown["changes"]] == ["token lead"]
    more = lead.post(f"{place}/rows", json={"rows": rows_of(7)}).json()
    assert any("2 new" in line for line in more["said"]) and lead.get(place).json()["items"] == 7
    report = lead.get(f"{place}/report").json()
    assert report["labels"] == 10 and report["adjudications"] is not None and report["reading"]
    assert lead.patch(f"{place}/annotators/{people['ben']['id']}", json={"discarded": True}).json()["discarded"]
    assert lead.get(f"{place}/report").json()["left_out"] == ["ben"]
    table = pq.read_table(io.BytesIO(lead.get(f"{place}/export/labels.parquet").content))
    assert table.num_rows == site.store.labels(number).num_rows == 6
    kept = pq.read_table(io.BytesIO(lead.get(f"{place}/export/preferences.parquet").content))
    assert kept["id"].to_pylist() == preferences_of(site.store, site.store.project("month")).ids
    assert len(lead.get(f"{place}/export/history.jsonl?adjudication=ignore").text.splitlines()) == 11
    lighter = lead.patch(f"{place}/annotators/{people['anna']['id']}", json={"weight": 0.5}).json()
    assert lighter["weight"] == 0.5 and lead.get(place).json()["changes"][-1]["who"] == "token lead"
    assert lead.patch(place, json={"overlap": 1, "state": "paused"}).json()["state"] == "paused"
    assert lead.delete(f"{place}/annotators/{people['anna']['id']}").json()["name"] == "person 1"


def test_known_answers_judges_and_webhooks_over_http(site: Site) -> None:
    lead, place = client_of(site), f"/api/lead/projects/{site.project.id}"
    numbers = [one["item"] for one in lead.get(f"{place}/items?limit=3").json()]
    rest = [one["item"] for one in lead.get(f"{place}/items?after={numbers[-1]}").json()]
    assert len(numbers) == 3 and len(numbers + rest) == 6 and sorted(numbers + rest) == numbers + rest
    known = {"answers": [{"item": numbers[0], "answer": "first"}, {"item": numbers[1], "answer": "tie"}]}
    assert lead.patch(f"{place}/gold", json=known).json() == {"new": 2, "changed": 0, "removed": 0}
    known["answers"][1]["answer"] = None
    assert lead.patch(f"{place}/gold", json=known).json() == {"new": 0, "changed": 0, "removed": 1}
    (gold,) = lead.get(f"{place}/items?gold=true").json()
    assert (gold["item"], gold["gold"]) == (numbers[0], "first")
    assert lead.get(place).json()["changes"][-1]["who"] == "token lead"
    made = lead.put(f"{place}/webhook", json={"url": "https://example.org/hook"}).json()
    assert made["secret"] == site.store.webhooks.of(site.project.id).secret and not made["private"]
    labels = [
        {"item": number, "verdict": "first", "request": f"request-{number}", "confidence": 0.9} for number in numbers
    ]
    new = {"name": "mine", "labels": labels}
    assert (
        lead.post(f"{place}/judges", json={"name": "other", "labels": [labels[0] | {"item": 10**9}]}).status_code == 409
    )
    assert [lead.post(f"{place}/judges", json=new).json()["stored"] for _ in range(2)] == [3, 0]
    (judge,) = lead.get(f"{place}/judges").json()  # the refused one was not added
    assert (judge["name"], judge["labels"], judge["calibration"]) == ("mine", 3, [])
    person, token = site.add("anna")
    client = site.client(headers={"Authorization": f"Bearer {token}"})
    task = client.get("/api/next").json()["task"]
    client.post("/api/labels", json={"assignment": task["assignment"], "choice": "left", "request": "request-1"})
    (judge,) = lead.get(f"{place}/judges").json()
    assert [one["items"] for one in judge["calibration"]] in ([], [1])
    taken = lead.post(f"{place}/judges", json=new | {"name": person.name})
    assert taken.status_code == 409 and "not a judge" in taken.json()["error"]
    waiting = lead.get(f"{place}/webhook").json()["waiting"]
    assert waiting >= 4  # the judge's labels, anna's, and an item that this may finish
    assert (
        lead.delete(f"{place}/webhook").json() == {"dropped": waiting} and lead.get(f"{place}/webhook").json() is None
    )


def test_the_language_of_a_project_is_a_tag_or_all_texts(site: Site) -> None:
    """Never a file: it would be one of the server."""
    lead = client_of(site)
    new = {"name": "deutsch", "rows": rows_of(1), "kind": "preference", "language": "de"}
    number = lead.post("/api/lead/projects", json=new).json()["project"]
    place = f"/api/lead/projects/{number}"
    assert lead.get(place).json()["language"] == "de" and site.store.project("deutsch").language == "de"
    texts = dict(shipped("en").by_key) | {"lang": "en-GB"}
    changed = lead.patch(place, json={"language": texts, "shown": [], "both_bad": True}).json()
    assert (changed["language"], changed["shown"], changed["both_bad"]) == ("en-GB", [], True)
    assert lead.patch(place, json={"language": "en"}).json()["language"] == "en"
    for wrong, said in ((__file__, "popmargin has en and de"), ({"lang": "fr"}, "texts cannot be used")):
        refused = lead.patch(place, json={"language": wrong})
        assert refused.status_code == 409 and said in refused.json()["error"]
    assert lead.get(place).json()["language"] == "en"


def test_what_the_command_line_sets_a_program_can_set(site: Site) -> None:
    """So that no setting is forgotten here; those that name files of the command line are apart."""
    models = client_of(site).get("/api/lead/openapi.json").json()["components"]["schemas"]
    (made,) = (models[name] for name in models if name.endswith("NewProject"))
    (changed,) = (models[name] for name in models if name.endswith("Settings"))
    parser = argparse.ArgumentParser()
    add_project_arguments(parser)
    of_new = project_settings(parser.parse_args([])).keys()
    assert of_new - {"edges", "gold", "training", "passing"} <= made["properties"].keys()
    assert set(CHANGEABLE) <= changed["properties"].keys()
    text = (Path(__file__).parents[3] / "docs" / "api.md").read_text(encoding="utf-8")
    assert [name for name in changed["properties"] if f"`{name}`" not in text] == []


def test_who_may_do_what(site: Site) -> None:
    lead, reader = client_of(site), client_of(site, "read")
    place = f"/api/lead/projects/{site.project.id}"
    assert [found["name"] for found in reader.get("/api/lead/projects").json()] == ["demo"]
    assert reader.get(f"{place}/report").status_code == 200
    refused = reader.put(f"{place}/guidelines", json={"text": "new"})
    assert refused.status_code == 403 and "may only read" in refused.json()["error"]
    assert site.store.project("demo").guidelines_version == 1
    _, annotator = site.add("anna")
    for token in (annotator, ADMIN, "", "nobody"):
        outsider = site.client(headers={"Authorization": f"Bearer {token}"})
        assert outsider.get("/api/lead/projects").status_code == 401
    assert lead.get("/api/next").status_code == lead.get("/admin").status_code == 401
    site.store.api_tokens.revoke("lead")
    assert lead.get("/api/lead/projects").status_code == 401


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "said"),
    [
        ("GET", "/projects/99", None, 404, "no project 99"),
        ("POST", "/projects", {"name": "x", "rows": [{"prompt": "a"}]}, 409, "rows.jsonl: No known format"),
        ("POST", "/projects", {"name": "x", "rows": []}, 422, "rows"),
        ("PATCH", "/projects/1", {"overlap": 0}, 409, "overlap"),
        ("PATCH", "/projects/1", {"overlapp": 2}, 422, "overlapp"),
        ("PATCH", "/projects/1/annotators/7", {"active": False}, 404, "no annotator 7"),
        ("GET", "/projects/1/report?without=zoe", None, 409, "zoe"),
        ("GET", "/projects/1/export/edges.jsonl", None, 409, "parquet"),
        ("GET", "/projects/1/export/edges.exe", None, 422, "suffix"),
    ],
)
def test_refusals(site: Site, method: str, path: str, body: Any, status: int, said: str) -> None:
    answer = client_of(site).request(method, f"/api/lead{path}", json=body)
    assert answer.status_code == status and list(answer.json()) == ["error"] and said in answer.json()["error"]
    assert [found.name for found in site.store.projects()] == ["demo"]


def test_bad_rows_are_told(site: Site) -> None:
    rows = [*rows_of(2), {"id": "bad", "prompt": "?", "chosen": "same", "rejected": "same"}]
    lead, new = client_of(site), {"name": "some", "kind": "preference"}
    refused = lead.post("/api/lead/projects", json=new | {"rows": rows})
    assert refused.status_code == 409 and "rows.jsonl:3, column" in refused.json()["error"]
    assert "drop_bad_rows" in refused.json()["error"] and "--" not in refused.json()["error"]
    made = lead.post("/api/lead/projects", json=new | {"rows": rows, "drop_bad_rows": True})
    said = made.json()["said"]
    assert (
        made.status_code == 201 and said[0].startswith("3 in = 2 kept") and any("rows.jsonl:3" in line for line in said)
    )


def test_rows_may_be_many_and_pages_may_not(site: Site) -> None:
    """A lead sends more than a form may; others do not."""
    row = rows_of(1)[0] | {"chosen": "x" * (2 << 20)}
    made = client_of(site).post("/api/lead/projects", json={"name": "long", "rows": [row], "kind": "preference"})
    assert made.status_code == 201
    person = site.client(headers={"Authorization": f"Bearer {site.add('anna')[1]}"})
    assert person.post("/api/labels", content=b"x" * (2 << 20)).status_code == 413


def test_tokens_on_the_command_line(site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A token is printed once, works, is not in the store, and ends when it is revoked."""
    db = ["--db", site.store.name]
    assert main(["label", "token", "add", "ci", "--role", "lead", *db]) == 0
    name, role, token = capsys.readouterr().out.split()
    assert (name, role) == ("ci", "lead")
    client = site.client(headers={"Authorization": f"Bearer {token}"})
    assert client.get("/api/lead/projects").status_code == 200
    assert token.encode() not in b"".join(path.read_bytes() for path in tmp_path.glob("labels0.db*"))
    assert main(["label", "token", "add", "ci", *db]) == 2
    assert "already a token 'ci'" in capsys.readouterr().err
    assert main(["label", "token", "list", *db]) == 0
    assert capsys.readouterr().out.startswith("ci\tlead\t")
    assert main(["label", "token", "revoke", "cii", *db]) == 2
    assert "Did you mean 'ci'?" in capsys.readouterr().err
    assert main(["label", "token", "revoke", "ci", *db]) == 0
    assert client.get("/api/lead/projects").status_code == 401


def test_every_route_is_documented(site: Site) -> None:
    """docs/api.md names each path and method of the schema, and no others."""
    text = (Path(__file__).parents[3] / "docs" / "api.md").read_text(encoding="utf-8")
    named = set()
    for methods, path in re.findall(r"^\| `((?:GET|POST|PUT|PATCH|DELETE)(?:`, `PUT)?) (/\S+)` \|", text, re.M):
        whole = path if path.startswith("/api/") else f"/api/lead{path}"
        named |= {(method, whole) for method in re.findall("[A-Z]+", methods)}
    paths = client_of(site, "read").get("/api/lead/openapi.json").json()["paths"]
    assert named == {(method.upper(), path) for path, methods in paths.items() for method in methods}
