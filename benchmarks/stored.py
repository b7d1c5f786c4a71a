"""Results as lines of JSON with a name each."""

import json
from pathlib import Path
from typing import Any


def read_results(path: Path) -> dict[str, Any]:
    """What was measured, by name."""
    if not path.is_file():
        return {}
    return {row["name"]: row["result"] for row in map(json.loads, path.read_text(encoding="utf-8").splitlines())}


def measure_missing(path: Path, plan: dict[str, Any], only: str | None = None) -> None:
    """Run what is not in the file yet, one after the other, and add a line for each."""
    for name, run in plan.items():
        if name in read_results(path) or (only and only not in name):
            continue
        print(f"{name} …", flush=True)
        result = run()
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"name": name, "result": result}) + "\n")
