"""Several questions on one page: saved together or not at all, with and without scripts, and through the API."""

import re
from collections.abc import Callable

import pytest
from test_web_pages import fields
from web_site import ADMIN, Site

from popmargin.label.store.criteria import criteria_of

CRITERIA = criteria_of([("clear", "Which is <clearer>?"), ("kinder", "Which one is kinder?")])


@pytest.fixture
def asked(make_site: Callable[..., Site]) -> Site:
    return make_site("preference", items=1, criteria=CRITERIA)


def test_a_form_saves_all_answers_or_none(asked: Site) -> None:
    client = asked.client(asked.add("anna")[1])
    html = client.get("/").text
    assert "Questions about the two responses" in html and "Which is &lt;clearer&gt;?" in html
    assert html.count('name="criterion_kinder"') == 4 and 'name="choice"' not in html
    form = fields(html, "/answer")
    for given, message in (
        ({"criterion_clear": "left"}, "has no answer"),
        ({"criterion_clear": "left", "criterion_kinder": "wrong-both"}, "is no answer"),
        ({"criterion_clear": "left", "criterion_kinder": "tie", "criterion_x": "tie"}, "no criterion"),
        ({"choice": "left"}, "has no answer"),
    ):
        refused = client.post("/answer", data={**form, **given})
        assert refused.status_code == 409 and message in refused.text
    assert asked.store.labels(1).num_rows == 0
    client.post("/answer", data={**form, "criterion_clear": "left", "criterion_kinder": "right"})
    (row,) = asked.store.labels(1).to_pylist()
    left = "second" if row["swap_first"] else "first"
    right = "first" if row["swap_first"] else "second"
    assert row["verdict"] == left and row["criteria"] == f'{{"kinder": "{right}"}}'
    history = client.get("/history").text
    assert "Response 1; kinder: Response 2" in history
    again = client.get(re.search(r"/item/\d+", history)[0]).text
    assert re.findall(r'name="criterion_(\w+)" value="(\w+)"[^>]*checked', again) == [
        ("clear", "left"), ("kinder", "right"),
    ]  # fmt: skip


def test_a_stale_page_says_what_stands_and_replaces_all(asked: Site) -> None:
    client = asked.client(asked.add("anna")[1])
    form = fields(client.get("/").text, "/answer")
    client.post("/answer", data={**form, "criterion_clear": "left", "criterion_kinder": "right"})
    late = {**form, "key": "another-key-1", "criterion_clear": "tie", "criterion_kinder": "tie"}
    stale = client.post("/answer", data=late)
    assert stale.status_code == 409 and "About equal; About equal" in stale.text
    assert "Response 1; kinder: Response 2" in stale.text
    client.post("/answer", data=dict(re.findall(r'<input type="hidden" name="([\w-]+)" value="([^"]*)">', stale.text)))
    (row,) = asked.store.labels(1).to_pylist()
    assert (row["verdict"], row["criteria"]) == ("tie", '{"kinder": "tie"}')


def test_the_api_names_the_questions_and_takes_answers_to_all(asked: Site) -> None:
    token = asked.add("anna")[1]
    api, headers = asked.client(), {"Authorization": f"Bearer {token}"}
    task = api.get("/api/next", headers=headers).json()["task"]
    assert [one["name"] for one in task["criteria"]] == ["clear", "kinder"] and task["choices"] == {}
    given = {"assignment": task["assignment"], "request": "request-1", "choices": {"clear": "tie"}}
    assert api.post("/api/labels", headers=headers, json=given).status_code == 409
    given["choices"]["kinder"] = "unsure"
    assert api.post("/api/labels", headers=headers, json=given).status_code == 200
    undone = api.post("/api/undo", headers=headers).json()["task"]
    assert undone["choices"] == {} and undone["choice"] is None


def test_training_tells_what_is_known_on_each_criterion(asked: Site) -> None:
    _, secret = asked.store.api_tokens.add("lead", "lead")
    lead, place = asked.client(headers={"Authorization": f"Bearer {secret}"}), f"/api/lead/projects/{asked.project.id}"
    items = [one["item"] for one in lead.get(f"{place}/items").json()]
    answers = [{"item": item, "answer": {"clear": "first", "kinder": "second"}} for item in items]
    assert lead.patch(f"{place}/gold", json={"answers": answers}).json()["new"] == len(items) == 2
    assert lead.get(f"{place}/items?gold=true").json()[0]["gold_criteria"] == {"clear": "first", "kinder": "second"}
    wrong = {"answers": [{"item": items[0], "answer": {"kind": "first"}}]}
    assert lead.patch(f"{place}/gold", json=wrong).status_code == 409
    asked.store.change(asked.project.id, training=2, passing=1.0)
    who, token = asked.add("anna")
    client = asked.client(token)
    form = fields(client.get("/").text, "/answer")
    swapped = asked.store.assignment(who.id, int(form["assignment"])).shown.swap_first
    first = "right" if swapped else "left"  # right about clearness, not about kindness
    told = client.post("/answer", data={**form, "criterion_clear": first, "criterion_kinder": first}).text
    assert 'data-kind="told"' in told and "Another answer was expected" in told
    assert "Which is &lt;clearer&gt;?" in told and told.count("as the lead of the project did") == 1
    assert told.count("the known answer is <strong>Response") == 1
    api = asked.client(headers={"Authorization": f"Bearer {token}"})
    task = api.get("/api/next").json()["task"]
    given = {"assignment": task["assignment"], "request": "request-1", "choices": {"clear": "left", "kinder": "tie"}}
    saved = api.post("/api/labels", json=given).json()
    assert {saved["known"], saved["known_choices"]["kinder"]} == {"left", "right"}
    assert "of 4 as expected" in client.get("/").text  # two items, two questions each
    admin = asked.client(ADMIN)
    assert (
        "clear: <strong>Response 1</strong>, kinder: <strong>Response 2</strong>"
        in admin.get(f"/admin/items/{items[0]}").text
    )
    assert "of 4 training answers right" in admin.get("/admin").text
