"""Rating single responses: the pages without scripts, the JSON API, and what the admin sees."""

import re
from collections.abc import Callable

import pytest
from test_web_pages import answer, fields, number
from web_site import ADMIN, Site


@pytest.fixture
def site(make_site: Callable[..., Site]) -> Site:
    """Four preferences, of which eight responses are rated from 1 to 7."""
    return make_site("rating", items=2, scale=7)


def test_rate_everything(site: Site) -> None:
    person, token = site.add("anna")
    client = site.client(token)
    for choice in ("1", "2", "3", "4", "5", "6", "7", "unsure"):
        answer(client, choice, note=f"because {choice}")
    assert "Nothing left to do" in client.get("/").text
    rows = site.store.labels(site.project.id).to_pylist()
    assert sorted((row["first"], row["response"]) for row in rows) == sorted(
        (f"p{row}", side) for row in range(4) for side in ("chosen", "rejected")
    )
    assert all(row["note"] == f"because {row['verdict']}" and 0 <= row["seconds"] < 60 for row in rows)
    assert site.store.progress(site.project.id, person.id).own_done == 8


def test_the_page_shows_one_response_and_not_what_the_data_call_it(site: Site) -> None:
    person, token = site.add("anna")
    client = site.client(token)
    for _ in range(8):
        html = client.get("/").text
        now = site.store.next_assignment(person.id)
        assert now is not None and now.response is not None
        texts = {"chosen": now.first.chosen, "rejected": now.first.rejected}
        shown = [side for side, text in texts.items() if str(text) in html]
        assert shown == [now.response] and str(now.first.prompt) in html
        task = html[html.index("<main") : html.index("</main>")]
        assert not re.search("preferred|chosen|rejected|differences|How sure", task, re.IGNORECASE)
        buttons = re.findall(r'<button name="choice" value="(\w+)"[^>]* data-keys="(\w)"[^>]*>([^<]+) <kbd>', html)
        assert buttons == [*((str(n), str(n), str(n)) for n in range(1, 8)), ("unsure", "x", "Can&#39;t tell")]
        answer(client, "3")


def test_undo_skip_history_and_a_changed_rating(site: Site) -> None:
    person, token = site.add("anna")
    client = site.client(token)
    first = answer(client, "6", note="hasty")
    assert number(first) == "2"
    undone = client.post("/undo", data=fields(first, "/undo")).text
    assert number(undone) == "1" and ">hasty</textarea>" in undone
    answer(client, "2")
    skipped = fields(client.get("/").text, "/skip")
    assert client.post("/skip", data=skipped).status_code == 200
    assert site.store.progress(site.project.id, person.id).own_skipped == 1
    history = client.get("/history").text
    row = next(one for one in site.store.history(person.id) if one.label is not None)
    assert '<td class="answered">2' in history and str(getattr(row.first, str(row.response))) in history
    page = client.get(f"/item/{row.id}").text
    assert "your answer: 2" in page and re.search(r'value="2"[^>]*aria-pressed="true"', page)
    client.post("/answer", data={**fields(page, "/answer"), "choice": "7"})
    changed = site.store.assignment(person.id, row.id).label
    assert changed is not None and (changed.verdict, changed.revision, changed.seconds) == ("7", 4, None)


@pytest.mark.parametrize("choice", ["8", "0", "left", "tie", "wrong-both"])
def test_what_is_no_rating_is_refused_and_nothing_is_saved(site: Site, choice: str) -> None:
    client = site.client(site.add("anna")[1])
    page = client.get("/").text
    response = client.post("/answer", data={**fields(page, "/answer"), "choice": choice})
    assert response.status_code in (409, 422)
    assert site.store.labels(site.project.id).num_rows == 0


def test_the_api_says_how_far_the_scale_goes(site: Site) -> None:
    person, token = site.add("anna")
    client = site.client(headers={"Authorization": f"Bearer {token}"})
    task = client.get("/api/next").json()["task"]
    now = site.store.next_assignment(person.id)
    assert now is not None
    text = now.first.chosen if now.response == "chosen" else now.first.rejected
    assert (task["kind"], task["scale"], task["right"]) == ("rating", 7, None)
    shown = {"text": text, "preferred": None, "image": None}
    assert task["left"] == {"prompt": now.first.prompt, "responses": [shown], "columns": {}}
    body = {"assignment": task["assignment"], "choice": "7", "request": "request-1"}
    assert client.post("/api/labels", json=body).status_code == 200
    assert client.post("/api/labels", json={**body, "choice": "9", "request": "request-2"}).status_code == 409
    assert client.post("/api/undo").json()["task"]["assignment"] == task["assignment"]


def test_the_admin_sees_agreement_of_ratings_and_takes_them_out(make_site: Callable[..., Site]) -> None:
    site = make_site("rating", items=2, overlap=2)
    for name, ratings in (("anna", "54321543"), ("ben", "54321542")):
        client = site.client(site.add(name)[1])
        for rating in ratings:
            answer(client, rating)
    admin = site.client(ADMIN)
    page = admin.get("/admin").text
    assert "preferences.jsonl" in page and "edges.parquet" not in page
    quality = re.sub(r"\s+", " ", re.sub("<[^>]*>", " ", admin.get("/admin/quality").text))
    assert "single responses" in quality and "Ordinal α" in quality and "Chose left" not in quality
    assert "anna" in quality and "ben" in quality
    exported = admin.get(f"/admin/export/preferences.jsonl?project={site.project.id}")
    assert exported.status_code == 200 and exported.text.count('"chosen_rating"') == 4
