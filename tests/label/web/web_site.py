"""Builds sites for the tests: preferences, a store, an application."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
from fastapi import FastAPI
from fastapi.testclient import TestClient

from popmargin.data.images import encode_png, image_name
from popmargin.data.load import load_preferences
from popmargin.data.load_report import LoadReport
from popmargin.data.questions import SIDES
from popmargin.data.schema import COLUMNS, Preferences, arrow_schema
from popmargin.label.store.label_store import LabelStore
from popmargin.label.store.records import Annotator, Project

ADMIN = "admin-token-of-the-tests"


def preferences_of(rows: list[dict[str, Any]]) -> Preferences:
    """Preferences from rows with id, prompt, chosen and rejected."""
    columns = {name: [row.get(name) for row in rows] for name in COLUMNS}
    schema = arrow_schema(conversational=not isinstance(rows[0]["prompt"], str))
    if "chosen_image" in rows[0]:
        return load_preferences(rows)
    dataset = datasets.Dataset.from_dict(columns, features=datasets.Features.from_arrow_schema(schema))
    return Preferences(dataset, LoadReport("test", "memory", "canonical", len(rows), len(rows), len(rows)))


def rows_of(count: int) -> list[dict[str, Any]]:
    """Distinct preferences whose texts say where they belong."""
    return [
        {"id": f"p{i}", "prompt": f"Prompt number {i}?", "chosen": f"Good answer {i}.", "rejected": f"Poor reply {i}."}
        for i in range(count)
    ]


def picture(number: int, width: int = 48, height: int = 32) -> bytes:
    """A PNG file of a colour of its own, with a darker corner."""
    pixels = np.full((height, width, 3), [(40 * number) % 256, (90 + 67 * number) % 256, 200], np.uint8)
    pixels[: height // 2, : width // 2] //= 2
    return encode_png(pixels)


def image_rows(count: int, pictures: Sequence[bytes] | None = None) -> list[dict[str, Any]]:
    """Preferences whose responses are distinct images, two each, or these."""
    files = list(pictures or (picture(number) for number in range(2 * count)))
    return [
        {"id": f"p{i}", "prompt": f"Prompt number {i}?"}
        | {side: image_name(file) for side, file in zip(SIDES, files[2 * i : 2 * i + 2], strict=True)}
        | {f"{side}_image": {"bytes": f, "path": None} for side, f in zip(SIDES, files[2 * i : 2 * i + 2], strict=True)}
        for i in range(count)
    ]


@dataclass
class Site:
    """An application, the store behind it and one project."""

    store: LabelStore
    app: FastAPI
    project: Project

    def add(self, name: str, *, example: bool = True) -> tuple[Annotator, str]:
        """A new person, who has seen the worked example."""
        person, token = self.store.add_annotator(self.project.id, name)
        if example:
            self.store.note_example(person.id)
        return person, token

    def read(self, token: str) -> None:
        """Acknowledge the guidelines, if the token is that of an annotator."""
        if (found := self.store.annotator_of(token)) is not None:
            self.store.acknowledge(found[1].id, found[0].guidelines_version)

    def client(self, token: str | None = None, **settings: Any) -> TestClient:
        """A browser without scripts; signed in, and with the guidelines read, if there is a token."""
        client = TestClient(self.app, base_url="http://127.0.0.1:8000", **settings)
        if token is not None:
            self.read(token)
            assert client.get(f"/login/{token}").status_code == 200
        return client
