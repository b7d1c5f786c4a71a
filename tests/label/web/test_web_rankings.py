"""Rankings on one screen: the places without scripts, earlier answers, a stale page, and the API."""

import re
from collections.abc import Callable

import pytest
from test_web_pages import fields
from web_site import Site, image_rows

from popmargin.label.store.ranked_items import ranked_ids
from popmargin.label.web.guidelines import guidelines_of


@pytest.fixture
def ranked(make_site: Callable[..., Site]) -> Site:
    return make_site("rank", items=2)


def on_page(html: str) -> list[str]:
    """Ids of the preferences from left to right."""
    return [f"p{number}" for number in re.findall(r"Good answer (\d+)\.", html)]


def test_places_are_saved_as_an_order_or_refused(ranked: Site) -> None:
    client = ranked.client(ranked.add("anna")[1])
    html = client.get("/").text
    assert "Order the pairs by how much better the preferred response is." in html and "comes last" in html
    assert len(set(on_page(html))) == 4 and html.count('name="criterion_place_1"') == 4 and "place_4" not in html
    form = fields(html, "/answer")
    for given, message in (
        ({"criterion_place_1": "2", "criterion_place_2": "3"}, "No pair has place 3"),
        ({"criterion_place_1": "2", "criterion_place_2": "3", "criterion_place_3": "2"}, "Pair 2 has two places"),
        ({"choice": "left"}, "no order of 4 pairs"),
        ({"choice": "2>1>3"}, "no order of 4 pairs"),
    ):
        refused = client.post("/answer", data={**form, **given})
        assert refused.status_code == 409 and message in refused.text
    assert ranked.store.labels(1).num_rows == 0
    client.post("/answer", data={**form, "criterion_place_1": "2", "criterion_place_2": "4", "criterion_place_3": "1"})
    (row,) = ranked.store.labels(1).to_pylist()
    shown = on_page(html)
    assert ranked_ids(row) == [shown[1], shown[3], shown[0], shown[2]]
    history = client.get("/history").text
    assert "Pair 2 &gt; Pair 4 &gt; Pair 1 &gt; Pair 3" in history and "4: Prompt number" in history
    again = client.get(re.search(r"/item/\d+", history)[0]).text
    assert re.findall(r'name="criterion_(place_\d)" value="(\d)"[^>]*checked', again) == [
        ("place_1", "2"), ("place_2", "4"), ("place_3", "1"),
    ]  # fmt: skip


def test_pairs_of_images_are_ranked_too(make_site: Callable[..., Site]) -> None:
    site = make_site("rank", rows=image_rows(3), guidelines=guidelines_of("rank", images=True))
    client = site.client(site.add("anna")[1])
    html = client.get("/").text
    assert "how much better the preferred image is." in html and "esponse" not in html.partition("<body>")[2]
    assert len(set(re.findall(r'alt="(Pair [123], (?:first|second) image)', html))) == 6
    client.post("/answer", data={**fields(html, "/answer"), "criterion_place_1": "2", "criterion_place_2": "3"})
    history = client.get("/history").text
    assert "Pair 2 &gt; Pair 3 &gt; Pair 1" in history and history.count('<img class="thumbnail') == 6


def test_a_stale_page_says_what_stands_and_replaces_it(ranked: Site) -> None:
    client = ranked.client(ranked.add("anna")[1])
    form = fields(client.get("/").text, "/answer")
    client.post("/answer", data={**form, "choice": "unsure"})
    late = {
        **form,
        "key": "another-key-1",
        "criterion_place_1": "4",
        "criterion_place_2": "3",
        "criterion_place_3": "2",
    }
    stale = client.post("/answer", data=late)
    assert stale.status_code == 409 and "Can&#39;t tell" in stale.text
    assert "Pair 4 &gt; Pair 3 &gt; Pair 2 &gt; Pair 1" in stale.text
    client.post("/answer", data=dict(re.findall(r'<input type="hidden" name="([\w-]+)" value="([^"]*)">', stale.text)))
    (row,) = ranked.store.labels(1).to_pylist()
    assert row["revision"] == 2 and row["verdict"].count(">") == 3


def test_the_api_and_the_lead_see_all_pairs(ranked: Site) -> None:
    token = ranked.add("anna")[1]
    api, headers = ranked.client(), {"Authorization": f"Bearer {token}"}
    task = api.get("/api/next", headers=headers).json()["task"]
    sides = [task["left"], task["right"], *task["more"]]
    assert task["kind"] == "rank" and len(sides) == 4 and task["choices"] == {}
    assert all(side["responses"][0]["preferred"] is not None for side in sides)
    given = {"assignment": task["assignment"], "request": "request-1", "choice": "3>1>2"}
    assert api.post("/api/labels", headers=headers, json=given).status_code == 409
    assert api.post("/api/labels", headers=headers, json={**given, "choice": "3>1>7>2"}).status_code == 422
    assert api.post("/api/labels", headers=headers, json={**given, "choice": "3>1>4>2"}).status_code == 200
    (row,) = ranked.store.labels(1).to_pylist()
    texts = [next(r["text"] for r in side["responses"] if r["preferred"]) for side in sides]
    assert [f"Good answer {key[1:]}." for key in ranked_ids(row)] == [texts[2], texts[0], texts[3], texts[1]]
    admin = ranked.client("admin-token-of-the-tests")
    item = admin.get(f"/admin/items/{row['item']}?project=1").text
    assert item.count("Preferred") == 4 and "Pair 4" in item and row["verdict"].split(">")[0] in item
    quality = admin.get("/admin/quality?project=1").text
    assert "Annotators who ranked" in quality and "anna" in quality
    edges = admin.get("/admin/export/edges.parquet?project=1")
    assert edges.status_code == 200 and edges.content[:4] == b"PAR1"
