"""Several projects on one server: a list of one's own, and pages whose address names the project."""

from typing import Any

import pytest
from test_web_pages import answer, fields
from web_site import ADMIN, Site, preferences_of, rows_of

from popmargin.label.store.records import Project


@pytest.fixture
def second(site: Site) -> Project:
    """Another project in the store of the site, of single preferences."""
    project = site.store.create_project("other")
    site.store.import_preferences(project.id, preferences_of(rows_of(4)))
    site.store.add_items(project.id, "preference", [f"p{i}" for i in range(4)])
    return site.store.project("other")


def test_a_link_of_two_projects_opens_a_list(site: Site, second: Project) -> None:
    anna, token = site.add("anna")
    site.read(token)
    other, second_token = site.store.add_annotator(second.id, "anna")
    client = site.client()
    page = client.get(f"/login/{token}.{second_token}")
    assert 'href="/"' in page.text
    listed = client.get("/").text
    assert 'data-kind="projects"' in listed and listed.index(">demo") < listed.index(">other")
    for project, kind, who in ((site.project, "pop", anna), (second, "preference", other)):
        address = f"/p/{project.id}/"
        assert f'href="{address}"' in listed
        page = client.get(address)
        assert page.url.path == address and f'data-kind="{kind}"' in page.text and "Projects</a>" in page.text
        sent = {**fields(page.text, "/answer"), "choice": "left"}
        page = client.post(f"{address}answer", data=sent)
        assert page.url.path == address and site.store.progress(project.id, who.id).own_done == 1
        assert client.get(f"{address}history").status_code == 200
        assert client.get(f"{address}static/annotate.css").status_code == 200
    # The form of one project is none of the other's.
    assert client.post(f"/p/{site.project.id}/answer", data=sent).status_code == 403
    client.post(f"/p/{site.project.id}/logout", data={"csrf": fields(client.get("/p/1/").text, "/undo")["csrf"]})
    assert client.get(f"/p/{site.project.id}/").status_code == 401
    assert client.get("/").url.path == f"/p/{second.id}/"  # one is left


def test_links_of_one_project_each_are_kept_together(site: Site, second: Project) -> None:
    _, token = site.add("anna")
    other, second_token = site.store.add_annotator(second.id, "anna")
    client = site.client(token)
    assert client.get("/").url.path == f"/p/{site.project.id}/"
    assert f"url=/p/{second.id}/" in client.get(f"/login/{second_token}").text
    assert 'data-kind="projects"' in client.get("/").text
    renewed = site.store.new_token(other.id)
    assert client.get("/").url.path == f"/p/{site.project.id}/"  # the session of the old link has ended
    client.get(f"/login/{renewed}")
    assert 'data-kind="projects"' in client.get("/").text and client.get(f"/p/{second.id}/").status_code == 200


@pytest.mark.parametrize(
    "path", ["/p/1/admin", "/p/1/api/next", "/p/1/login/x", "/p/1/p/1/", "/p/0/", "/p/x/", "/p/99/"]
)
def test_only_pages_of_annotators_are_in_a_project(site: Site, path: str) -> None:
    client = site.client(site.add("anna")[1])
    client.get(f"/login/{ADMIN}")
    assert client.get(path).status_code in (401, 404)


def test_a_proxy_prefix_stays_before_the_project(make_site: Any) -> None:
    site = make_site(root_path="/label")
    client = site.client()
    _, token = site.add("anna")
    site.read(token)
    page = client.get(f"/label/login/{token}")
    assert f"url=/label/p/{site.project.id}/" in page.text
    page = client.get("/label/")
    assert (
        page.url.path == f"/label/p/{site.project.id}/" and f'action="/label/p/{site.project.id}/answer"' in page.text
    )
    sent = {**fields(page.text, "/answer"), "choice": "left"}
    page = client.post(f"/label/p/{site.project.id}/answer", data=sent)
    assert page.status_code == 200 and page.url.path == f"/label/p/{site.project.id}/"


def test_an_address_without_a_project_still_takes_answers(site: Site) -> None:
    client = site.client(site.add("anna")[1])
    assert 'data-number="2"' in answer(client, "left")
