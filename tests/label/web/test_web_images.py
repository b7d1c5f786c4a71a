"""Tasks about images: their pages, their files, and who gets them."""

import io
import re
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image
from test_web_pages import answer, number
from web_site import ADMIN, Site, image_rows, picture, preferences_of

from popmargin.data.images import decode, image_name
from popmargin.label.web.screen import screen_of

KINDS = ["pop", "preference", "rating"]


@pytest.fixture
def images(make_site: Callable[..., Site]) -> Callable[..., Site]:
    return lambda kind="pop", count=4, **settings: make_site(kind, rows=image_rows(count), **settings)


def addresses(html: str) -> list[str]:
    return re.findall(r'<img src="([^"]*)"', html)


QUESTIONS = {
    "pop": "In which pair is the preferred image better by more?",
    "preference": "Which image is better?",
    "rating": "How good is this image?",
}
ALTERNATIVE = r"(Pair [12], (first|second) image|Image( [12])?), for the prompt: Prompt number \d\?"


@pytest.mark.parametrize("kind", KINDS)
def test_the_page_shows_the_files_in_the_stored_order_and_tells_no_side(images, kind: str) -> None:
    site = images(kind, seed=3)
    person, token = site.add("anna")
    client = site.client(token)
    files = {row[side]: row[f"{side}_image"]["bytes"] for row in image_rows(4) for side in ("chosen", "rejected")}
    while (html := client.get("/").text) and number(html) != "finished":
        screen = screen_of(site.store.next_assignment(person.id))
        shown = addresses(html)
        names = [str(response.text) for side in screen.sides for response in side.responses]
        assert shown == [f"/p/{site.project.id}/images/{name.removeprefix('image:')}" for name in names]
        assert re.findall(r'<a class="box" href="([^"]*)"', html) == shown  # also without scripts
        texts = re.findall(r'alt="([^"]*)"', html)
        assert len(texts) == len(set(texts)) == len(names) and all(re.fullmatch(ALTERNATIVE, text) for text in texts)
        words = html.partition("<body>")[2]
        assert QUESTIONS[kind] in words and not re.search("esponse|ifferences|chosen|rejected", words)
        assert "image:" not in re.sub("<[^>]*>", "", html)  # the name is nowhere to be read
        for address, name in zip(shown, names, strict=True):
            got = client.get(address)
            assert got.content == files[name] and got.headers["content-type"] == "image/png"
        assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?! src=)", html)
        answer(client, "4" if kind == "rating" else "left")
    assert site.store.progress(site.project.id, person.id).own_done == {"pop": 2, "preference": 4, "rating": 8}[kind]
    history = client.get("/history").text
    assert "image:" not in re.sub("<[^>]*>", "", history) and len(re.findall('<img class="thumbnail', history)) == 8


def test_a_browser_keeps_an_image_for_good_and_asks_again_with_its_tag(images) -> None:
    site = images()
    client = site.client(site.add("anna")[1])
    address = addresses(client.get("/").text)[0]
    first = client.get(address)
    assert first.headers["cache-control"] == "private, max-age=31536000, immutable"
    assert first.headers["x-content-type-options"] == "nosniff"
    again = client.get(address, headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["cache-control"] == first.headers["cache-control"]
    other = client.get(address, headers={"If-None-Match": '"another"'})
    assert other.status_code == 200 and other.content == first.content


def test_only_people_of_a_project_get_its_images(images, make_site) -> None:
    site = images()
    client = site.client(site.add("anna")[1])
    address = addresses(client.get("/").text)[0]
    # A project of the same store with other images: one image in both is stored once, and given to both.
    shared, alone = picture(0), picture(99)
    other = site.store.create_project("other")
    rows = image_rows(1, [shared, alone])
    site.store.import_preferences(other.id, preferences_of(rows))
    _, token = site.store.add_annotator(other.id, "ben")
    stranger = site.client(token)
    theirs = {name: f"/images/{image_name(file)[6:]}" for name, file in (("shared", shared), ("alone", alone))}
    assert [stranger.get(theirs[name]).status_code for name in ("shared", "alone")] == [200, 200]
    assert [client.get(theirs[name]).status_code for name in ("shared", "alone")] == [200, 404]
    refused = client.get(theirs["alone"])
    assert refused.headers["cache-control"] == "no-store"
    for nobody in (site.client(), site.client(ADMIN)):
        assert nobody.get(address).status_code == 401
    with site.store._database.read() as connection:
        names = connection.exec_driver_sql("SELECT name FROM image").scalars().all()
    assert len(names) == len(set(names)) == 9


def test_strange_addresses_give_nothing(images) -> None:
    site = images()
    client = site.client(site.add("anna")[1])
    strange = ("../app.py", "..%2f..%2fetc%2fpasswd", "%2e%2e/labels.db", "0" * 31, "0" * 33, "0" * 31 + "G", "")
    for path in (*strange, "image:" + "0" * 32):
        response = client.get(f"/images/{path}")
        assert response.status_code in (404, 422) and response.headers["cache-control"] == "no-store", path
        assert "text/html" in response.headers["content-type"]


def test_the_api_gives_addresses(images) -> None:
    site = images("preference", root_path="/label")
    _, token = site.add("anna")
    client = site.client()
    headers = {"Authorization": f"Bearer {token}"}
    task = client.get("/label/api/next", headers=headers).json()["task"]
    sides = [task[side]["responses"][0] for side in ("left", "right")]
    assert [one["preferred"] for one in sides] == [None, None]
    for one in sides:
        assert (one["image"]["width"], one["image"]["height"]) == (48, 32)
        assert one["image"]["url"] == f"/label/api/images/{one['text'][6:]}"
        got = client.get(one["image"]["url"], headers=headers)
        assert got.status_code == 200 and image_name(got.content) == one["text"]
        assert "immutable" in got.headers["cache-control"]
        assert client.get(one["image"]["url"]).status_code == 401
    missing = client.get("/label/api/images/" + "0" * 32, headers=headers)
    assert missing.status_code == 404 and missing.json() == {"error": "This project has no such image."}
    assert (
        client.post(
            "/label/api/labels",
            headers=headers,
            json={"assignment": task["assignment"], "choice": "left", "request": "abcdefgh"},
        ).json()["revision"]
        == 1
    )


def test_texts_have_no_image_in_the_api(site: Site) -> None:
    headers = {"Authorization": f"Bearer {site.add('anna')[1]}"}
    task = site.client().get("/api/next", headers=headers).json()["task"]
    assert {response["image"] for side in ("left", "right") for response in task[side]["responses"]} == {None}


def file_of(format: str, mode: str = "RGB", **options) -> bytes:
    out = io.BytesIO()
    image = Image.new(mode, (6, 4), (200, 30, 30, 0)[: len(mode)] if mode != "L" else 90)
    image.save(out, format, **options)
    return out.getvalue()


def test_what_browsers_show_otherwise_is_shown_as_training_reads_it(make_site) -> None:
    """Transparency, formats that not every browser has, and animations become PNG; the file itself is exported."""
    frames = [Image.new("RGB", (6, 4), colour) for colour in ("red", "blue")]
    animated = io.BytesIO()
    frames[0].save(animated, "GIF", save_all=True, append_images=frames[1:])
    turned = Image.new("RGB", (6, 4), "green")
    exif = turned.getexif()
    exif[0x0112] = 6
    jpeg = io.BytesIO()
    turned.save(jpeg, "JPEG", exif=exif)
    files = {
        "as it is": file_of("PNG"), "grey": file_of("PNG", "L"), "jpeg": jpeg.getvalue(),
        "webp": file_of("WEBP", lossless=True),
        "transparent": file_of("PNG", "RGBA"), "tiff": file_of("TIFF"), "animated": animated.getvalue(),
        "cmyk": file_of("JPEG", "CMYK"),
    }  # fmt: skip
    site = make_site("rating", rows=image_rows(4, list(files.values())))
    client = site.client(site.add("anna")[1])
    got = {name: client.get(f"/images/{image_name(file)[6:]}") for name, file in files.items()}
    types = {name: answer.headers["content-type"] for name, answer in got.items()}
    alike = ("as it is", "grey", "jpeg", "webp")
    assert types == dict.fromkeys(files, "image/png") | {"jpeg": "image/jpeg", "webp": "image/webp"}
    for name, answer_ in got.items():
        assert (answer_.content == files[name]) == (name in alike), name
    assert Image.open(io.BytesIO(got["transparent"].content)).getpixel((0, 0)) == (255, 255, 255)
    for name in ("transparent", "animated", "cmyk"):
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(got[name].content))), decode(files[name])), name
    assert site.store.images([image_name(files["tiff"])]) == {image_name(files["tiff"]): files["tiff"]}
    known = {one.name: one for one in site.store.next_assignment(1).images.values()}
    for name, one in known.items():
        assert (one.width, one.height) == ((4, 6) if name == image_name(files["jpeg"]) else (6, 4))


def test_a_large_image_is_first_shown_smaller(make_site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("popmargin.label.store.shown_images.LARGE", 999)
    monkeypatch.setattr("popmargin.label.store.shown_images.REDUCED_SIDE", 20)
    files = [picture(0, 50, 20), picture(1, 9, 9)]
    site = make_site("preference", rows=image_rows(1, files))
    client = site.client(site.add("anna")[1])
    html = client.get("/").text
    large, small = (f"/p/{site.project.id}/images/{image_name(file)[6:]}" for file in files)
    assert set(addresses(html)) == {f"{large}/reduced", small}
    assert set(re.findall(r'<a class="box" href="([^"]*)"', html)) == {large, small}  # enlarged, it is the file itself
    reduced = client.get(f"{large}/reduced")
    assert Image.open(io.BytesIO(reduced.content)).size == (20, 8) and reduced.headers["content-type"] == "image/png"
    assert client.get(large).content == files[0] and client.get(f"{small}/reduced").content == files[1]
    assert reduced.headers["etag"] != client.get(large).headers["etag"]


def test_small_images_keep_their_pixels_and_boxes_one_shape(make_site) -> None:
    sizes = [
        ((8, 8), (9, 9), "square", 2), ((300, 100), (40, 20), "wide", 1), ((10, 200), (130, 260), "tall", 0),
        ((300, 110), (110, 300), "square", 0),
    ]  # fmt: skip
    files = [picture(row, *size) for row, (*both, _, _) in enumerate(sizes) for size in both]
    site = make_site("preference", rows=image_rows(4, files))
    client = site.client(site.add("anna")[1])
    seen = {}
    for _ in range(4):
        html = client.get("/").text
        row = re.findall(r"Prompt number (\d)", html)[0]
        seen[int(row)] = (re.findall(r'data-images="(\w+)"', html)[0], html.count('class="picture pixels"'))
        answer(client, "tie")
    assert seen == {row: tuple(shown) for row, (*_, shape, pixels) in enumerate(sizes) for shown in [(shape, pixels)]}


def test_an_image_that_the_store_has_lost_is_asked_for_all_the_same(images) -> None:
    """Then the browser says that it did not load, and the page takes no answer but "can't tell"."""
    site = images("preference")
    client = site.client(site.add("anna")[1])
    before = addresses(client.get("/").text)
    site.store._database.write(lambda c: c.exec_driver_sql("DELETE FROM project_image"))
    site.store._database.write(lambda c: c.exec_driver_sql("DELETE FROM image"))
    assert addresses(client.get("/").text) == before and client.get(before[0]).status_code == 404
    assert "did not load" in client.get("/").text
    with pytest.raises(Exception, match="Restore a backup"):
        site.store.images([f"image:{before[0].removeprefix('/images/')}"])
