"""Training items on the pages: the known answer after one's own, and waiting for the lead; settings of the admin."""

from collections.abc import Callable

from test_web_pages import fields
from web_site import ADMIN, Site


def give(site: Site, client: object, *, right: bool) -> str:
    """Answer the open task with the known answer, or with the other one; the page that follows."""
    html = client.get("/").text
    sent = fields(html, "/answer")
    assignment = site.store.assignment(site.store.annotators(site.project.id)[0].id, int(sent["assignment"]))
    left = assignment.shown.swap_first == (not right)  # of single preferences, first is the known answer
    page = client.post("/answer", data={**sent, "choice": "left" if left else "right"})
    assert page.status_code == 200
    return page.text


def trained_site(make_site: Callable[..., Site]) -> Site:
    site = make_site("preference", items=3)
    items = [row["item"] for batch in site.store.items(site.project.id) for row in batch.to_pylist()]
    site.store.set_gold(site.project.id, dict.fromkeys(items[:2], "first"))
    return site


def test_the_known_answer_follows_and_who_fails_waits(make_site: Callable[..., Site]) -> None:
    site = trained_site(make_site)
    admin = site.client(ADMIN)
    form = fields(admin.get("/admin").text, "/admin/settings")
    settings = {
        "overlap": "2",
        "repeat_percent": "12.5",
        "lease_minutes": "3",
        "training": "2",
        "passing_percent": "75",
    }
    page = admin.post("/admin/settings", data={**form, **settings})
    assert page.status_code == 200 and "What was changed" in page.text and 'value="12.5"' in page.text
    found = site.store.project("demo")
    assert (found.overlap, found.repeat_share, found.lease_seconds, found.training, found.passing) == (
        2, 0.125, 180, 2, 0.75,
    )  # fmt: skip
    assert {change.who for change in site.store.changes(found.id)[1:]} == {"admin"}
    refused = admin.post("/admin/settings", data={**form, **settings, "overlap": "0"})
    assert refused.status_code == 409 and "overlap=0" in refused.text
    anna, token = site.add("anna")
    client = site.client(token)
    page = give(site, client, right=True)
    assert 'data-kind="told"' in page and "As expected" in page
    page = give(site, client, right=False)
    assert "Another answer was expected" in page and "the known answer is <strong>Response" in page
    waiting = client.get("/").text
    assert "Your answers to the training tasks: 1 of 2 as expected; 75% are needed" in waiting
    overview = admin.get("/admin").text
    assert "waits for you" in overview and "1 of 2 training items right" in overview
    admin.post(f"/admin/annotators/{anna.id}/admit", data=fields(overview, f"/{anna.id}/admit"))
    page = give(site, client, right=True)
    assert 'data-kind="preference"' in page and site.store.labels(found.id).num_rows == 3  # nothing is told of others
    assert client.get("/told/3").url.path == f"/p/{found.id}/"


def test_programs_are_told_too(make_site: Callable[..., Site]) -> None:
    site = trained_site(make_site)
    site.store.change(site.project.id, training=1)
    client = site.client(headers={"Authorization": f"Bearer {site.add('anna')[1]}"})
    known = []
    for number in range(3):
        task = client.get("/api/next").json()["task"]
        assert task["choice"] is None and "known" not in task
        sent = {"assignment": task["assignment"], "choice": "left", "request": f"request-{number}"}
        known.append(client.post("/api/labels", json=sent).json()["known"])
    assert known[0] in ("left", "right") and known[1:] == [None, None]


def test_an_adjudicator_sees_the_votes_unless_they_are_hidden(make_site: Callable[..., Site]) -> None:
    site = make_site("preference", items=2, overlap=2)
    for name in ("anna", "ben"):
        who, token = site.add(name)
        client = site.client(token)
        while "/answer" in (html := client.get("/").text):
            number = int(fields(html, "/answer")["assignment"])
            first = "right" if site.store.assignment(who.id, number).shown.swap_first else "left"
            said = first if name == "anna" else {"left": "right", "right": "left"}[first]
            client.post("/answer", data={**fields(html, "/answer"), "choice": said, "note": f"as {name} <b>"})
    eve, token = site.add("eve")
    admin = site.client(ADMIN)
    overview = admin.get("/admin").text
    form = fields(overview, f"/{eve.id}/adjudicator")
    page = admin.post(f"/admin/annotators/{eve.id}/adjudicator", data=form).text
    assert "4 disputed items wait for an adjudicator" in page and ">adjudicator</span>" in page
    client = site.client(token)
    html = client.get("/").text
    assert "Others disagree" in html and "as anna &lt;b&gt;" in html and "as ben" in html
    assert html.count('<li dir="auto"><strong>Response ') == 2 and '<li dir="auto"><strong>Response 1' in html
    site.store.change(site.project.id, votes_hidden=True)
    hidden = client.get("/").text
    assert "is not shown in this project" in hidden and "as anna" not in hidden
    page = client.post("/answer", data={**fields(html, "/answer"), "choice": "left"})
    assert page.status_code == 200 and site.store.disputed(site.project.id) == 2  # the next one is open


def test_a_ranking_is_told_what_was_ranked_otherwise(make_site: Callable[..., Site]) -> None:
    site = make_site("rank", items=2, language="de", training=1, passing=0.9)
    (row,) = site.store.item_page(site.project.id)
    site.store.set_gold(site.project.id, {row["item"]: "4>3>2>1"})
    anna, token = site.add("anna")
    client = site.client(token)
    form = fields(client.get("/").text, "/answer")
    shown = site.store.assignment(anna.id, int(form["assignment"])).shown.order
    order = [shown.index(number) + 1 for number in (3, 4, 2, 1)]  # the first two are known the other way round
    said = {f"criterion_place_{place}": str(order[place - 1]) for place in (1, 2, 3)}
    page = client.post("/answer", data={**form, **said}).text
    assert 'data-kind="told"' in page and "umgekehrt bekannt sind, 1 von 6:" in page
    assert f"Sie haben Paar {order[0]} vor Paar {order[1]} gesetzt" in page
    waiting = client.get("/").text
    assert "In Ihren Rangfolgen zur Übung sind 83% der Vergleiche wie erwartet; nötig sind 90%" in waiting
    overview = site.client(ADMIN).get("/admin").text
    assert "0.833 of 1 training items right" in overview


def test_votes_on_a_ranking_are_said_in_the_order_of_the_screen(make_site: Callable[..., Site]) -> None:
    site = make_site("rank", items=2, overlap=2)
    for name, order in (("anna", "1>2>3>4"), ("ben", "4>3>2>1")):
        who, _ = site.add(name)
        given = site.store.next_assignment(who.id)
        site.store.record(who.id, given.id, order, request=name)
    eve, token = site.add("eve")
    site.store.set_adjudicator(eve.id, True)
    client = site.client(token)
    queue = client.get("/disputed").text
    assert queue.count("Prompt number") == 4 and "4: Prompt number 3?" in queue
    page = client.get("/").text
    shown = site.store.next_assignment(eve.id).shown.order
    places = {number: f"Pair {shown.index(number) + 1}" for number in (1, 2, 3, 4)}
    for numbers in ((1, 2, 3, 4), (4, 3, 2, 1)):
        assert " &gt; ".join(places[number] for number in numbers) in page
