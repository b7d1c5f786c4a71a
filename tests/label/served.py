"""A judge server in a process of its own."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

SERVER = Path(__file__).with_name("judge_server.py")


class Served:
    """A running judge server and its count of calls."""

    def __init__(self, folder: Path, mode: str) -> None:
        folder.mkdir()
        self.folder = folder
        self.process = subprocess.Popen([sys.executable, str(SERVER), str(folder), mode])
        deadline = time.monotonic() + 60
        while not (folder / "port").exists():
            assert time.monotonic() < deadline and self.process.poll() is None
            time.sleep(0.02)
        self.spec = f"openai:grader@http://127.0.0.1:{(folder / 'port').read_text()}/v1"

    @property
    def calls(self) -> list[dict[str, Any]]:
        file = self.folder / "calls"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    @property
    def batches(self) -> list[list[str]]:
        """The ids of the requests in each batch."""
        file = self.folder / "batches"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()

    def mend(self) -> None:
        """Let it answer what it did not."""
        (self.folder / "mended").touch()
