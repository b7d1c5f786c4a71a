"""The item browser: for the lead only, with everybody's labels and notes, escaped."""

from collections.abc import Callable

from test_web_pages import answer
from web_site import ADMIN, Site, image_rows


def test_the_list_leads_to_items_and_back(site: Site) -> None:
    site.store.change(site.project.id, overlap=2)
    for name, choice in (("anna", "left"), ("ben", "tie")):
        answer(site.client(site.add(name)[1]), choice, note=f"<b>{name}</b> says so")
    admin = site.client(ADMIN)
    assert "/admin/items?project=1&amp;state=disputed" in admin.get("/admin").text
    html = admin.get("/admin/items?project=1").text
    assert html.count('scope="row"') == 6 and "&lt;b&gt;anna&lt;/b&gt; says so" in html and "<b>anna" not in html
    noted = admin.get("/admin/items?project=1&state=notes&q=prompt").text
    number = site.store.browse(1, state="notes").items[0].id
    assert f"/admin/items/{number}?project=1&amp;state=notes&amp;q=prompt" in noted
    whole = admin.get(f"/admin/items/{number}?project=1&state=notes").text
    assert "About equal" in whole and "disputed" in whole
    assert "&lt;b&gt;ben&lt;/b&gt; says so" in whole and "/admin/items?project=1&amp;state=notes" in whole
    assert admin.get("/admin/items/999?project=1").status_code == 404
    assert admin.get("/admin/items?project=9").status_code == 404
    assert admin.get("/admin/items?state=lost").status_code == 422
    assert "No such items." in admin.get("/admin/items", params={"q": '"><script>'}).text


def test_pages_of_fifty(make_site: Callable[..., Site]) -> None:
    site = make_site("preference", items=30)  # 60 of them
    admin = site.client(ADMIN)
    first = admin.get("/admin/items").text
    assert first.count('scope="row"') == 50 and "Next items" in first
    rest = admin.get(f"/admin/items?project=1&after={site.store.browse(1).last}").text
    assert rest.count('scope="row"') == 10 and "Next items" not in rest and "From the beginning" in rest


def test_nobody_but_the_lead_sees_items(make_site: Callable[..., Site]) -> None:
    site = make_site("preference", rows=image_rows(1))
    number = site.store.browse(1).items[0].id
    digits = site.store.browse(1).items[0].first.chosen.removeprefix("image:")
    paths = ["/admin/items", f"/admin/items/{number}", f"/admin/images/1/{digits}"]
    lead, anna, nobody = site.client(ADMIN), site.client(site.add("anna")[1]), site.client()
    for path in paths:
        assert lead.get(path).status_code == 200
        assert anna.get(path).status_code == nobody.get(path).status_code == 401
    assert lead.get(f"/admin/images/1/{digits}").headers["content-type"] == "image/png"
