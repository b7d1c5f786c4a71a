"""The JSON API: the same rules, one shape of errors, nothing that breaks it."""

import pytest
from web_site import Site

from popmargin.label.web.screen import screen_of
from popmargin.label.web.security import LEAD


def headers(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_next_save_undo_progress(site: Site) -> None:
    person, token = site.add("anna")
    client = site.client(headers=headers(token))
    task = client.get("/api/next").json()["task"]
    assert task == client.get("/api/next").json()["task"]  # the same until it is answered
    screen = screen_of(site.store.next_assignment(person.id))
    for place, side in zip(("left", "right"), screen.sides, strict=True):
        assert task[place]["prompt"] == side.prompt
        shown = [{"text": r.text, "preferred": r.preferred, "image": None} for r in side.responses]
        assert task[place]["responses"] == shown
    body = {"assignment": task["assignment"], "choice": "left", "request": "request-1", "confidence": 0.5}
    saved = [client.post("/api/labels", json=body) for _ in range(2)]
    assert saved[0].status_code == 200 and saved[0].json() == saved[1].json()
    other = client.post("/api/labels", json=body | {"choice": "right"})
    assert other.status_code == 409 and "already stored a different answer" in other.json()["error"]
    assert client.get("/api/progress").json()["own_done"] == 1
    assert client.get("/api/next").json()["task"]["assignment"] != task["assignment"]
    assert client.post("/api/undo").json()["task"]["assignment"] == task["assignment"]
    assert client.get("/api/progress").json()["own_done"] == 0
    for index in range(6):
        task = client.get("/api/next").json()["task"]
        client.post(
            "/api/labels", json={"assignment": task["assignment"], "choice": "tie", "request": f"request-again-{index}"}
        )
    assert client.get("/api/next").json()["task"] is None


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"assignment": 10**6}, 404),
        ({"assignment": 2**63}, 422),
        ({"assignment": 0}, 422),
        ({"choice": "first"}, 422),
        ({"request": "short"}, 422),
        ({"confidence": 1.5}, 422),
        ({"note": "x" * 5000}, 422),
        ({"verdict": "first"}, 422),
    ],
)
def test_refusals_have_one_shape(site: Site, change: dict, status: int) -> None:
    _, token = site.add("anna")
    client = site.client(headers=headers(token))
    task = client.get("/api/next").json()["task"]
    body = {"assignment": task["assignment"], "choice": "left", "request": "request-1", **change}
    response = client.post("/api/labels", json=body)
    assert response.status_code == status
    assert list(response.json()) == ["error"]
    assert site.store.labels(site.project.id).num_rows == 0


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"note": "\\ud800"}',
        b'{"assignment": NaN}',
        b"\xff\xfe",
        b'{"assignment": 1e400}',
        b"1" * 5000,
    ],
)
def test_broken_bodies(site: Site, content: bytes) -> None:
    client = site.client(headers={**headers(site.add("anna")[1]), "content-type": "application/json"})
    response = client.post("/api/labels", content=content)
    assert response.status_code in (400, 422) and list(response.json()) == ["error"]


def test_nul_in_notes_is_left_out_and_lone_surrogates_are_refused(site: Site) -> None:
    person, token = site.add("anna")
    client = site.client(headers={**headers(token), "content-type": "application/json"})
    number = client.get("/api/next").json()["task"]["assignment"]
    body = b'{"assignment": %d, "choice": "left", "request": "request-1", "note": "a%sb"}'
    assert client.post("/api/labels", content=body % (number, b"\\ud800")).status_code == 422
    assert client.post("/api/labels", content=body % (number, b"\\u0000")).status_code == 200
    assert site.store.history(person.id)[0].label.note == "ab"


def test_a_number_is_no_boolean(site: Site) -> None:
    client = site.client(headers=headers(site.add("anna")[1]))
    assert client.post("/api/guidelines", json={"version": True}).status_code == 422
    answer = {"assignment": True, "choice": "left", "request": "a" * 32}
    assert client.post("/api/labels", json=answer).status_code == 422


def test_openapi_describes_the_api_alone(site: Site) -> None:
    client = site.client(headers=headers(site.add("anna")[1]))
    paths = client.get("/api/openapi.json").json()["paths"]
    names = {"next", "labels", "undo", "progress", "guidelines", "images/{digits}"}
    names |= {"queue", "resume", "disputed", "decide", "team", "team/weight", "team/assign"}
    of_programs = {path for path in paths if path.startswith("/api/lead/")}  # test_web_lead_api compares these
    assert of_programs and set(paths) - of_programs == {f"/api/{name}" for name in names}


@pytest.mark.slow
@pytest.mark.parametrize(("of", "examples", "least"), [("annotator", 120, 500), ("lead", 6, 80)])
def test_schemathesis_finds_nothing(make_site, of: str, examples: int, least: int) -> None:
    import schemathesis
    from hypothesis import HealthCheck, Phase, assume, given, settings
    from hypothesis import strategies as st

    site = make_site(items=400 if of == "annotator" else 20)
    anna, token = site.add("anna")
    site.store.set_lead(anna.id, True)
    place, numbers = "/api", dict[str, int]()
    if of == "lead":
        place, (_, token) = LEAD, site.store.api_tokens.add("script", "lead")
        numbers = {"project": site.project.id, "annotator": anna.id}  # others that are drawn are hardly ever there
    schema = schemathesis.openapi.from_asgi(f"{place}/openapi.json", site.app, headers=headers(token))
    calls = 0

    def known(case):
        for name in (case.path_parameters or {}).keys() & numbers.keys():
            case.path_parameters[name] = numbers[name]
        return case

    for result in schema.get_all_operations():
        operation = result.ok()
        if operation.path.startswith(LEAD) != (of == "lead"):
            continue
        right, wrong = (
            operation.as_strategy(generation_mode=mode)
            for mode in (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE)
        )

        @given(case=st.one_of(right.map(known), wrong))
        @settings(max_examples=examples, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
        def check(case) -> None:
            nonlocal calls
            # What is empty is not sent, and a missing token is put back: such a request breaks no rule.
            assume(all(value not in (None, [], {}) for value in (case.query or {}).values()))
            calls += 1
            case.call_and_validate(headers=headers(token))

        check()
    assert calls >= least
