"""The admin's pages."""

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from test_web_pages import answer, fields
from web_site import ADMIN, Site

from popmargin.label.quality.label_quality import label_quality
from popmargin.label.web.figures import FigureCache


def test_add_a_person_whose_link_works(site: Site) -> None:
    admin = site.client(ADMIN)
    html = admin.get("/admin").text
    page = admin.post("/admin/annotators", data={**fields(html, "/admin/annotators"), "name": " Anna "}).text
    link = re.search(r"<code>(http://127\.0\.0\.1:8000/login/[^<]+)</code>", page)
    assert link and "Link for Anna" in page
    assert site.client().get(link[1]).status_code == 200
    assert link[1] not in admin.get("/admin").text  # shown this once
    twice = admin.post("/admin/annotators", data={**fields(html, "/admin/annotators"), "name": "Anna"})
    assert twice.status_code == 409 and "Anna" in twice.text


def test_renew_and_switch_off(site: Site) -> None:
    anna, token = site.add("anna")
    admin = site.client(ADMIN)
    html = admin.get("/admin").text
    data = fields(html, f"/{anna.id}/link")
    page = admin.post(f"/admin/annotators/{anna.id}/link", data=data).text
    renewed = re.search(r"/login/([^<]+)</code>", page)[1]
    assert site.client().get(f"/login/{token}").status_code == 401
    client = site.client(renewed)
    admin.post(f"/admin/annotators/{anna.id}/active", data={**data, "active": "false"})
    assert client.get("/").status_code == 401
    assert "Activate" in admin.get("/admin").text
    admin.post(f"/admin/annotators/{anna.id}/active", data={**data, "active": "true"})
    assert client.get("/").status_code == 200
    assert admin.post("/admin/annotators/999/active", data={**data, "active": "true"}).status_code == 404


def test_exports(site: Site) -> None:
    client = site.client(site.add("anna")[1])
    for choice in ("left", "right", "tie", "unsure", "wrong-left"):
        answer(client, choice)
    admin = site.client(ADMIN)
    labels = [
        json.loads(line)
        for line in admin.get(f"/admin/export/labels.jsonl?project={site.project.id}").text.splitlines()
    ]
    assert len(labels) == 5 and {row["annotator"] for row in labels} == {"anna"}
    response = admin.get(f"/admin/export/edges.parquet?project={site.project.id}")
    assert "attachment" in response.headers["content-disposition"]
    edges = pq.read_table(io.BytesIO(response.content)).to_pylist()
    assert len(edges) >= 3
    decided = {(row["first"], row["second"]): row["verdict"] for row in labels if row["verdict"] in ("first", "second")}
    plain = [edge for edge in edges if not edge["tie"]]
    for (first, second), verdict in decided.items():
        stronger, weaker = (first, second) if verdict == "first" else (second, first)
        assert any(edge["stronger"] == stronger and edge["weaker"] == weaker for edge in plain)
    assert sum(edge["tie"] for edge in edges) == 1
    assert admin.get("/admin/export/edges.parquet?project=99").status_code == 404


@pytest.mark.parametrize("name", ["labels.jsonl", "edges.parquet", "preferences.jsonl"])
def test_exports_of_the_only_project_need_no_number(site: Site, name: str) -> None:
    admin = site.client(ADMIN)
    alone, named = (admin.get(f"/admin/export/{name}{end}") for end in ("", f"?project={site.project.id}"))
    assert alone.status_code == 200 and alone.content == named.content
    second = site.store.create_project("second")
    refused = admin.get(f"/admin/export/{name}")
    assert refused.status_code == 422 and "?project=NUMBER" in refused.text and f"{second.id} (second)" in refused.text


def test_the_overview_counts(make_site: Callable[..., Site]) -> None:
    site = make_site(items=4, overlap=2)
    (_, first), (_, second) = site.add("anna"), site.add("ben")
    for token, choices in ((first, "left left tie unsure"), (second, "left left tie tie")):
        client = site.client(token)
        for choice in choices.split():
            answer(client, choice)
    admin = site.client(ADMIN)
    html = admin.get("/admin").text
    assert "anna" in html and "ben" in html and ">8<" in html
    link = re.search(r'hx-get="(/admin/quality\?project=\d+)"', html)
    page = admin.get(link[1]).text
    quality = label_quality(site.store.labels(site.project.id))
    assert [(row.left.estimate, row.unsure) for row in quality.annotators] == [(1.0, 0.25), (1.0, 0.0)]
    for value in (quality.agreement[0].alpha, *(row.kappa for row in quality.annotators)):  # the report's own numbers
        assert f'<td class="number">{value.estimate:.2f}<br>' in page.replace("−", "-")


def test_gold_and_repeats_are_measured(make_site: Callable[..., Site]) -> None:
    site = make_site(items=24, repeat_share=0.9)
    anna, _ = site.add("anna")
    site.store.add_items(site.project.id, "pop", ["p0", "p2"], ["p3", "p5"], gold=["first", "second"])
    count = 0
    while (assignment := site.store.next_assignment(anna.id)) is not None:
        site.store.record(anna.id, assignment.id, "first", request=f"request-{count}")
        count += 1
    cells = site.client(ADMIN).get("/admin/quality").text.split('<th scope="row">anna')[1]
    shares = re.findall(r'<td class="number">(\S+?%)<br>', cells)
    assert (shares[0], shares[2]) == ("100%", "50%") and count > 26  # the same again, and gold


def test_figures_are_kept_while_they_are_good_enough(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read once, again only for new labels, and then only after ten times what reading took."""
    client = site.client(site.add("anna")[1])
    figures, clock = FigureCache(site.store), [0.0]
    monkeypatch.setattr("popmargin.label.web.figures.time.monotonic", lambda: clock[0])
    read = site.store.labels

    def slow(project: int, **settings: Any) -> Any:
        clock[0] += 3.0
        return read(project, **settings)

    monkeypatch.setattr(site.store, "labels", slow)
    for _ in range(2):
        assert figures.of(site.project).labels == 0 and clock[0] == 3.0
    answer(client, "left")
    clock[0] = 32.9
    assert figures.of(site.project).labels == 0
    clock[0] = 33.1
    assert figures.of(site.project).labels == 1
    clock[0] = 1000.0
    assert figures.of(site.project).labels == 1 and clock[0] == 1000.0  # nothing new, nothing read


def test_no_project(tmp_path: Path) -> None:
    from popmargin.label.store.label_store import LabelStore
    from popmargin.label.web.app import create_app

    with LabelStore.open(tmp_path / "empty.db") as store:
        client = Site(store, create_app(store, admin_token=ADMIN), None).client(ADMIN)
        page = client.get("/admin")
        assert page.status_code == 404 and "popmargin annotate" in page.text


@pytest.mark.parametrize(("kind", "offered"), [("pop", {"edges.parquet"}), ("preference", set()), ("rating", set())])
def test_the_exports_on_offer_are_those_of_the_kind(
    make_site: Callable[..., Site], kind: str, offered: set[str]
) -> None:
    """Preferences always, edges where pairs of them are compared; each gives a file once something is labelled."""
    site = make_site(kind, items=2)
    client = site.client(site.add("anna")[1])
    for _ in range({"pop": 2, "preference": 4, "rating": 8}[kind]):
        answer(client, "3" if kind == "rating" else "left")
    admin = site.client(ADMIN)
    found = re.findall(r'href="(/admin/export/[^"]+)"', admin.get("/admin").text)
    names = {link.rpartition("/")[2].partition("?")[0] for link in found}
    assert names == {"preferences.jsonl", "labels.jsonl"} | offered
    assert {admin.get(link).status_code for link in found} == {200}
