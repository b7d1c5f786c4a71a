"""Columns of the data on the pages and in the API: escaped, and never more than the project shows."""

from collections.abc import Callable

import pytest
from test_web_pages import fields
from web_site import ADMIN, Site

from popmargin.data.load import load_preferences
from popmargin.label.projects.open_project import open_project


@pytest.fixture
def shown_site(make_site: Callable[..., Site]) -> Site:
    site = make_site(items=1)
    rows = [
        {"id": f"s{row}", "prompt": f"Why {row}?", "chosen": "yes", "rejected": "no",
         "stance": f"<b>pro {row}</b>", "secret": "hush"}
        for row in range(2)
    ]  # fmt: skip
    site.project = open_project(site.store, load_preferences(rows), "shown", shown=("stance",), say=lambda line: None)
    return site


def test_page_and_api_show_the_asked_columns_only(shown_site: Site) -> None:
    token = shown_site.add("anna")[1]
    page = shown_site.client(token).get("/", follow_redirects=True).text
    assert page.count("<dt>stance</dt>") == 2 and "&lt;b&gt;pro 1&lt;/b&gt;" in page
    assert "<b>pro" not in page and "hush" not in page and "secret" not in page
    task = shown_site.client().get("/api/next", headers={"Authorization": f"Bearer {token}"}).json()["task"]
    assert {side: task[side]["columns"]["stance"][3:6] for side in ("left", "right")} == {"left": "pro", "right": "pro"}
    assert "hush" not in str(task)


def test_the_lead_changes_them_and_other_forms_leave_them(shown_site: Site) -> None:
    admin, number = shown_site.client(ADMIN), shown_site.project.id
    form = fields(admin.get(f"/admin?project={number}").text, "/admin/settings")
    whole = {"state": "open", "overlap": 1, "repeat_percent": 0, "lease_minutes": 30, "votes_hidden": "false"}
    admin.post("/admin/settings", data={"csrf": form["csrf"], "project": number, **whole})
    assert shown_site.store.project("shown").shown == ("stance",)
    admin.post("/admin/settings", data={"csrf": form["csrf"], "project": number, **whole, "shown": "secret, stance"})
    assert shown_site.store.project("shown").shown == ("secret", "stance")
    refused = admin.post("/admin/settings", data={"csrf": form["csrf"], "project": number, **whole, "shown": "hm"})
    assert refused.status_code == 409 and "no column &#39;hm&#39; to show" in refused.text
