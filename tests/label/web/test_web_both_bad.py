"""Both bad on the page and in the API: a button where the project offers it, and the same page as ever elsewhere."""

import re
from collections.abc import Callable

import pytest
from test_web_pages import answer
from web_site import Site

from popmargin.label.web.wording import buttons_of


@pytest.mark.parametrize("grades", [False, True])
def test_it_stands_between_the_sides_and_cannot_tell(make_site: Callable[..., Site], grades: bool) -> None:
    site = make_site("preference", items=1, both_bad=True, grades=grades)
    client = site.client(site.add("anna")[1])
    page = client.get("/", follow_redirects=True).text
    values = re.findall(r'name="choice" value="([^"]+)"', page)
    assert values[-3:] == (["right-3", "both_bad", "unsure"] if grades else ["tie", "both_bad", "unsure"])
    hints = [button.hint for button in buttons_of("preference", None, grades=grades, both_bad=True)]
    assert hints == [str(number) for number in range(1, len(values) + 1)]
    answer(client, "both_bad")
    assert "Both bad" in client.get(f"/p/{site.project.id}/history").text
    (row,) = site.store.labels(site.project.id).to_pylist()
    assert (row["verdict"], row["grade"]) == ("both_bad", None)


def test_projects_without_it_have_no_button_and_refuse_it(make_site: Callable[..., Site]) -> None:
    site = make_site("preference", items=1)
    token = site.add("anna")[1]
    client = site.client(token)
    assert "both_bad" not in client.get("/", follow_redirects=True).text
    api = site.client()
    headers = {"Authorization": f"Bearer {token}"}
    task = api.get("/api/next", headers=headers).json()["task"]
    given = {"assignment": task["assignment"], "choice": "both_bad", "request": "request-1"}
    refused = api.post("/api/labels", headers=headers, json=given)
    assert refused.status_code == 409 and "does not offer" in refused.json()["error"]
