"""Adds a finished demo to demo.json, from which the README's paragraph about the demo is made.

    popmargin demo --seeds '[0,1,2,3,4]' --output runs/demo
    python docs/studies/demo.py runs/demo --machine "bf16, one thread"
    python docs/generate.py

One demo is one machine and one seed; another machine adds up floating-point numbers in another order, which twenty
steps at a large learning rate turn into another policy. So the file keeps every machine apart, and every seed.
"""

import argparse
import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
FILE = HERE / "demo.json"
METRICS = ("accuracy", "win_rate_reference", "kl_per_token")


def measured(folder: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Arm -> seed -> metric -> value, of every evaluated run of a study's folder."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for file in sorted(folder.glob("runs/*/seed-*/evaluation/metrics.json")):
        arm, seed = file.parts[-4], file.parts[-3].removeprefix("seed-")
        intervals = json.loads(file.read_text(encoding="utf-8"))["intervals"]
        found.setdefault(arm, {})[seed] = {name: round(intervals[name]["estimate"], 6) for name in METRICS}
    if not found:
        raise SystemExit(f"{folder} holds no evaluated run: is it the folder of a finished demo?")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of a finished demo")
    parser.add_argument("--machine", required=True, help="what to call the machine; replaces what it gave before")
    args = parser.parse_args()
    known: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8")) if FILE.is_file() else {}
    known[args.machine] = measured(args.folder)
    FILE.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    print(f"{FILE.name}: {', '.join(known)}")


if __name__ == "__main__":
    main()
