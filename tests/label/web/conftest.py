"""A store with a few preferences, its application, people who label, and a browser."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("sqlalchemy")
pytest.importorskip("uvicorn")

from browsing import Server
from web_site import ADMIN, Site, preferences_of, rows_of

from chromium import chromium
from popmargin.label.store.label_store import LabelStore
from popmargin.label.web.app import create_app


@pytest.fixture
def make_site(tmp_path: Path) -> Iterator[Callable[..., Site]]:
    """Build a site; the store is closed at the end."""
    opened = list[LabelStore]()

    def make(
        kind: str = "pop",
        items: int = 6,
        rows: list[dict[str, Any]] | None = None,
        root_path: str = "",
        **settings: Any,
    ) -> Site:
        store = LabelStore.open(tmp_path / f"labels{len(opened)}.db")
        opened.append(store)
        scale = {"scale": 5} if kind == "rating" else {}
        project = store.create_project("demo", **{"guidelines": "Be **kind**.", **scale, **settings})
        rows = rows or rows_of(2 * items)
        store.import_preferences(project.id, preferences_of(rows))
        ids = [row["id"] for row in rows]
        if kind == "pop":
            store.add_items(project.id, "pop", ids[0::2], ids[1::2])
        elif kind == "rating":
            store.add_items(
                project.id, "rating", [*ids, *ids], response=["chosen"] * len(ids) + ["rejected"] * len(ids)
            )
        elif kind == "rank":
            store.add_items(project.id, "rank", ids[:1], others=[ids[1:]])
        else:
            store.add_items(project.id, "preference", ids)
        return Site(store, create_app(store, admin_token=ADMIN, root_path=root_path), project)

    yield make
    for store in opened:
        store.close()


@pytest.fixture
def site(make_site: Callable[..., Site]) -> Site:
    """Six pairs of preferences."""
    return make_site()


@pytest.fixture(scope="module")
def open_browser() -> Iterator[Callable[[], Any]]:
    with contextlib.ExitStack() as opened:
        yield lambda: opened.enter_context(chromium())


@pytest.fixture(scope="module")
def browser(open_browser: Callable[[], Any]) -> Any:
    return open_browser()


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    running = list[Server]()

    def start(site: Site, port: int = 0) -> Server:
        running.append(Server(site, port))
        return running[-1]

    yield start
    for server in running:
        server.stop()
