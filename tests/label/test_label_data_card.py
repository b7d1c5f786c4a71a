"""Data cards of exports, and pushing them to a hub: a server that speaks its protocol, on this machine."""

import base64
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from datasets import load_from_disk
from label_stores import preferences

from popmargin.cli.main import main
from popmargin.label.projects.open_project import open_project
from popmargin.label.store.label_store import LabelStore


@pytest.fixture
def labelled(tmp_path: Path) -> str:
    """A store whose people agree on three of four items, and one of whom is discarded."""
    path = str(tmp_path / "labels.db")
    with LabelStore.open(path) as store:
        project = open_project(
            store, preferences(4), "study | one", kind="preference", overlap=2, say=lambda line: None,
            guidelines="Be ~~~brief~~~.", grades=False,
        )  # fmt: skip
        for name in ("anna Secret", "ben Secret", "cleo Secret"):
            who = store.add_annotator(project.id, name)[0].id
            while (given := store.next_assignment(who)) is not None:
                verdict = "second" if name[0] == "b" and given.first.id == "p1" else "first"
                store.record(who, given.id, verdict, request=f"{name}{given.id}", note="a secret note", seconds=4.0)
            if name[0] == "a":
                first = who
        idle = store.add_annotator(project.id, "dora Secret")[0].id
        store.discard(idle)
        assert first
    return path


def test_the_card_says_what_was_exported_without_names(
    labelled: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "set"
    command = ["label", "export", "--db", labelled, "--as", "dataset", "--out", str(out)]
    assert main([*command, "--licence", "CC BY"]) == 2 and "cc-by-4.0" in capsys.readouterr().err
    assert main([*command, "--public"]) == 2 and not out.exists()
    assert main([*command, "--licence", "cc-by-4.0"]) == 0
    text = (out / "README.md").read_text(encoding="utf-8")
    head, _, body = text.removeprefix("---\n").partition("---\n")
    assert yaml.safe_load(head) == {
        "license": "cc-by-4.0", "pretty_name": "study | one", "tags": ["preference", "popmargin"],
        "size_categories": ["n<1K"],
    }  # fmt: skip
    assert "Secret" not in text and "secret" not in text
    for said in (
        "- labels of which of two responses is better: 8",
        "- annotators: 2 people, 0 models",
        "| which of two responses is better | 4 | 4 | ",
        "75.0% [",
        "those of 1 discarded annotator and 0 others; labels that count less: those of 0 annotators",
        "~~~~markdown\nBe ~~~brief~~~.\n~~~~",
        "| person 1 | 4 | 4.0 |",
        "| `soft_label` | double | ",
        "`cc-by-4.0`",
    ):
        assert said in body, (said, body)
    assert len(load_from_disk(str(out))) == len(pq.read_table(_parquet(labelled, tmp_path)))


def _parquet(labelled: str, folder: Path) -> Path:
    out = folder / "preferences.parquet"
    assert main(["label", "export", "--db", labelled, "--as", "preferences", "--out", str(out)]) == 0
    return out


class Hub(ThreadingHTTPServer):
    """As much of the hub as a push needs; everything it is asked is kept."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, bytes]] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                hub.asked.append((self.path, self.headers.get("Authorization", ""), body))
                if self.headers.get("Authorization") != "Bearer hf_right":
                    return self.say(401, {"error": "Invalid credentials"})
                if self.path == "/api/repos/create":
                    return self.say(200, {"url": f"{hub.url}/datasets/ann/set", "name": "ann/set"})
                if self.path.endswith("/preupload/main"):
                    files = [{"path": one["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None}
                             for one in json.loads(body)["files"]]  # fmt: skip
                    return self.say(200, {"files": files})
                return self.say(200, {"commitUrl": f"{hub.url}/datasets/ann/set/commit/1", "commitOid": "1" * 40,
                                      "hookOutput": "", "success": True})  # fmt: skip

            def do_GET(self) -> None:
                self.say(200, {"id": "ann/set", "siblings": [], "sha": "0" * 40})

            def say(self, status: int, value: Any) -> None:
                content = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *args: Any) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()


@pytest.fixture
def hub() -> Iterator[Hub]:
    made = Hub()
    yield made
    made.shutdown()
    made.server_close()


@pytest.mark.slow
def test_a_push_is_one_commit_of_data_and_card(labelled: str, tmp_path: Path, hub: Hub) -> None:
    """In processes of their own, since the hub's address is read once; private unless --public is given."""
    environment = os.environ | {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1",
                                "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_TELEMETRY": "1"}  # fmt: skip

    def export(out: str, token: str, *more: str) -> subprocess.CompletedProcess[str]:
        words = ["-m", "popmargin", "label", "export", "--db", labelled, "--as", "dataset", "--out", out]
        return subprocess.run([sys.executable, *words, "--push-to-hub", "ann/set", *more], capture_output=True,
                              text=True, cwd=tmp_path, env=environment | {"HF_TOKEN": token})  # fmt: skip

    refused = export("refused", "hf_wrong")
    assert refused.returncode == 2, refused.stderr
    assert "hf auth login" in refused.stderr and (tmp_path / "refused/README.md").is_file()
    hub.asked.clear()
    done = export("set", "hf_right", "--licence", "mit")
    assert done.returncode == 0, done.stderr
    assert f"pushed to {hub.url}/datasets/ann/set" in done.stdout
    asked = {path: json.loads(body) if "create" in path else body for path, _, body in hub.asked}
    new = asked["/api/repos/create"]
    assert new["type"] == "dataset" and (new.get("visibility") or new["private"]) in (True, "private")
    assert "/api/datasets/ann/set/commit/main" in asked, asked.keys()
    lines = [json.loads(line) for line in asked["/api/datasets/ann/set/commit/main"].decode().splitlines()]
    files = {
        line["value"]["path"]: base64.b64decode(line["value"]["content"]) for line in lines if line["key"] == "file"
    }
    assert files.pop("README.md") == (tmp_path / "set" / "README.md").read_bytes()
    ((name, content),) = files.items()
    assert name == "data/train-00000-of-00001.parquet"
    assert pq.read_table(io.BytesIO(content)).num_rows == len(load_from_disk(str(tmp_path / "set")))
