"""Leads with links of their own, items that are given to people, and the queues of an annotator."""

from typing import Any

import pytest
from test_web_api import headers
from test_web_pages import answer, fields
from web_site import ADMIN, Site, preferences_of, rows_of

from popmargin.label.store.records import Project


@pytest.fixture
def second(site: Site) -> Project:
    project = site.store.create_project("other")
    site.store.import_preferences(project.id, preferences_of(rows_of(4)))
    site.store.add_items(project.id, "preference", [f"p{i}" for i in range(4)])
    return site.store.project("other")


def test_a_lead_sees_the_own_project_and_no_other(site: Site, second: Project) -> None:
    lead, token = site.add("lena")
    site.add("anna")
    hidden, _ = site.store.add_annotator(second.id, "secret person")
    plain = site.client(token)
    assert plain.get("/admin").status_code == 401  # not yet
    admin = site.client(ADMIN)
    page = admin.get(f"/admin?project={site.project.id}").text
    admin.post(f"/admin/annotators/{lead.id}/lead", data={**fields(page, f"/{lead.id}/lead"), "lead": "true"})
    client = site.client()
    assert f'url=/admin?project={site.project.id}"' in client.get(f"/login/{token}").text.replace("&#39;", "'")
    page = client.get("/admin").text
    assert "anna" in page and "secret person" not in page and ">other<" not in page
    form = fields(page, "/admin/annotators")
    assert client.post("/admin/annotators", data={**form, "name": "Ben"}).status_code == 200
    other = site.store.browse(second.id).items[0].id
    pages = ("/admin", "/admin/quality", "/admin/export/labels.jsonl", "/admin/export/preferences.jsonl")
    for path in (*pages, "/admin/items", f"/admin/items/{other}"):
        assert client.get(f"{path}?project={second.id}").status_code == 404, path
    assert client.get(f"/admin/items/{other}?project={site.project.id}").status_code == 404
    assert ">other<" not in client.get("/admin/items").text
    elsewhere = {**form, "project": str(second.id)}
    for path, more in (
        ("/admin/annotators", {"name": "Eve"}),
        ("/admin/guidelines", {"guidelines": "x"}),
        ("/admin/settings", {"overlap": "2", "repeat_percent": "0", "lease_minutes": "5"}),
        (f"/admin/annotators/{hidden.id}/link", {}),
        (f"/admin/annotators/{hidden.id}/weight", {"weight": "0.5"}),
        ("/admin/assign", {"annotator": str(hidden.id), "share_percent": "50"}),
    ):
        assert client.post(path, data={**elsewhere, **more}).status_code == 404, path
    # Nobody of another project by the number of the own one, and no further leads.
    assert client.post(f"/admin/annotators/{hidden.id}/link", data=form).status_code == 404
    refused = client.post(f"/admin/annotators/{lead.id}/lead", data={**form, "lead": "true"})
    assert refused.status_code == 403 and "Only the admin" in refused.text
    client.post("/admin/guidelines", data={**form, "guidelines": "Be exact."})
    assert site.store.changes(site.project.id)[-1].who == "lena"
    assert "Label</a>" in page and client.get(f"/p/{site.project.id}/").status_code == 200
    assert f"/admin?project={site.project.id}" in client.get(f"/p/{site.project.id}/history").text
    site.store.set_lead(lead.id, False)
    assert client.get("/admin").status_code == 401


def test_a_lead_who_labels_nothing_is_not_waited_for(site: Site) -> None:
    site.store.add_items(site.project.id, "pop", ["p0"], ["p3"], gold=["first"])
    site.add("anna")
    lead, _ = site.add("lena")
    before = site.store.progress(site.project.id).labels_wanted
    site.store.set_lead(lead.id, True)
    assert site.store.progress(site.project.id).labels_wanted == before - 1


def test_items_are_given_and_weights_set_on_the_page(site: Site) -> None:
    anna, token = site.add("anna")
    ben, _ = site.add("ben")
    admin = site.client(ADMIN)
    form = fields(admin.get("/admin").text, "/admin/assign")
    page = admin.post("/admin/assign", data={**form, "annotator": anna.id, "share_percent": "50", "exclusive": "true"})
    assert page.status_code == 200 and "3 items were given" in page.text and "3 given items wait" in page.text
    assert "2 given to you" in site.client(token).get("/").text  # and one is open
    page = admin.post("/admin/assign", data={**form, "annotator": ben.id, "source": anna.id})
    assert "2 items were given" in page.text  # one is open
    page = admin.post("/admin/assign", data={**form, "annotator": ben.id, "take_back": "true"})
    assert "2 items were given" in page.text and site.store.given(site.project.id) == {}
    for more, message in (
        ({}, "Which items?"),
        ({"items": "p99"}, "no preference p99"),
        ({"where": "topic=law"}, "no column"),
        ({"share_percent": "500"}, "above 0 and at most 1"),
    ):
        refused = admin.post("/admin/assign", data={**form, "annotator": ben.id, **more})
        assert refused.status_code == 409 and message in refused.text
    page = admin.post(f"/admin/annotators/{ben.id}/weight", data={**form, "weight": "0.5"}).text
    assert "weight 0.5" in page and site.store.changes(site.project.id)[-1].who == "admin"
    assert admin.post(f"/admin/annotators/{ben.id}/weight", data={**form, "weight": "2"}).status_code == 409


def test_the_queues_of_an_annotator(site: Site) -> None:
    client = site.client(site.add("anna")[1])
    first = client.get("/").text
    client.post("/skip", data=fields(first, "/skip"))
    answer(client, "left")
    page = client.get("/skipped").text
    assert "Skipped <b>1</b>" in page and "Mine <b>1</b>" in page and "Disputed" not in page
    mine = client.get("/history").text
    assert "/item/" in mine and "Open now" not in mine
    open_now = client.post("/resume", data=fields(page, "/resume"))
    assert open_now.url.path.endswith("/") and "Prompt number" in open_now.text
    assert fields(open_now.text, "/answer")["assignment"] == fields(first, "/answer")["assignment"]
    answer(client, "right")
    assert "You have skipped nothing" in client.get("/skipped").text
    refused = client.post("/resume", data=fields(page, "/resume"))
    assert refused.status_code == 409 and "already answered" in refused.text
    assert "Only adjudicators" in client.get("/disputed").text


def test_an_adjudicator_chooses_from_a_list(make_site: Any) -> None:
    site = make_site(items=4, overlap=2)
    for name, choice in (("anna", "left"), ("ben", "tie")):
        client = site.client(site.add(name)[1])
        for _ in range(4):
            answer(client, choice)
    eve, token = site.add("eve")
    site.store.set_adjudicator(eve.id, True)
    client = site.client(token)
    page = client.get("/disputed").text
    assert "Disputed <b>4</b>" in page and page.count("Decide now") == 4
    last = site.store.disputed_items(site.project.id, 9)[-1]
    decided = client.post("/decide", data={**fields(page, "/decide"), "item": str(last.item)})
    assert str(last.prompts[0]) in decided.text
    assert client.post("/decide", data={**fields(page, "/decide"), "item": str(last.item)}).status_code == 409


def test_the_api_of_queues_and_leads(site: Site) -> None:
    anna, token = site.add("anna")
    lead, lead_token = site.add("lena")
    client = site.client(headers=headers(token))
    task = client.get("/api/next").json()["task"]
    site.store.skip(anna.id, task["assignment"])
    other = client.get("/api/next").json()["task"]
    body = {"assignment": other["assignment"], "choice": "left", "request": "request-1"}
    assert client.post("/api/labels", json=body).status_code == 200
    skipped = client.get("/api/queue?which=skipped").json()
    assert [row["assignment"] for row in skipped["tasks"]] == [task["assignment"]] and skipped["older"] is None
    assert [row["choice"] for row in client.get("/api/queue").json()["tasks"]] == ["left"]
    again = client.post("/api/resume", json={"assignment": task["assignment"]}).json()
    assert again["task"]["assignment"] == task["assignment"]
    assert client.get("/api/disputed").json() == []
    assert client.post("/api/decide", json={"item": 1}).status_code == 409
    assert client.get("/api/team").status_code == 403
    site.store.set_lead(lead.id, True)
    leads = site.client(headers=headers(lead_token))
    assert leads.post("/api/team/weight", json={"name": "anna", "weight": 0.5}).json()["weight"] == 0.5
    given = leads.post("/api/team/assign", json={"name": "anna", "share": 0.5, "exclusive": True}).json()
    assert (given["given"] + given["had"], given["waiting"]) == (3, given["given"])
    members = {row["name"]: row for row in leads.get("/api/team").json()}
    assert members["anna"]["weight"] == 0.5 and members["anna"]["waiting"] == given["given"]
    assert members["lena"]["lead"] and members["anna"]["done"] == 1
    for path, sent, status in (
        ("/api/team/weight", {"name": "anna", "weight": 7}, 409),
        ("/api/team/weight", {"name": "ana", "weight": 1}, 404),
        ("/api/team/assign", {"name": "anna"}, 409),
        ("/api/team/assign", {"name": "anna", "share": 0.5, "more": 1}, 422),
    ):
        assert leads.post(path, json=sent).status_code == status
