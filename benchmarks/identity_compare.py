"""Two results of `identity.py` beside each other, as tables in Markdown."""

import fnmatch
import json
from pathlib import Path
from typing import Any

SHOWN = 4  # names in a cell

Cases = dict[str, Any]


def compare(old_path: Path, new_path: Path, only: str = "*") -> int:
    """Print the tables and what is beside them; 1 where any number differs or is missing, else 0.

    A new result of a selection (`--quick`, `--only`) is compared in the cases that it has.
    """
    old, new = (json.loads(path.read_text(encoding="utf-8")) for path in (old_path, new_path))
    if old["machine"] != new["machine"]:
        print(f"**Not comparable to the bit**: {old['machine']} and {new['machine']}.\n")
    before: Cases = {name: case for name, case in old["cases"].items() if fnmatch.fnmatch(name, only)}
    after: Cases = new["cases"]
    verdicts = {name: verdict(case, after[name]) for name, case in before.items() if name in after}
    print_table(verdicts)
    print_specials(verdicts)
    missing = sorted(set(before) - set(after)) if new["whole"] else []  # a selection lacks most of them
    wrong = {name: text for name, text in verdicts.items() if text.startswith(("differs", "was "))}
    print(f"\n{len(verdicts)} entries compared, {len(wrong)} differ, {len(missing)} are missing.")
    for name in missing[:20]:
        print(f"- missing: {name}")
    for name in sorted(wrong):
        print(f"- {name}: {details(before[name], after[name])}")
    for name, text in sorted(verdicts.items()):
        if text.endswith("*"):
            print(f"- {name}: refused in other words: “{before[name]['words']}” → “{after[name]['words']}”")
    added = sorted({key for name in verdicts for key in set(hashes(after[name])) - set(hashes(before[name]))})
    if added:
        print(f"- new numbers, with nothing to compare: {', '.join(added)}")
    unlike = [name for name in before if name.endswith("| resumed") and not resumed_is_straight(after, name)]
    print(
        f"- resumed is not straight: {', '.join(unlike)}" if unlike else "- Every resumed run equals the straight one."
    )
    return int(bool(wrong or unlike or missing))


def hashes(entry: dict[str, Any]) -> dict[str, str]:
    """Those of an entry; none of a refusal."""
    return entry.get("hashes", {})


def verdict(old: dict[str, Any], new: dict[str, Any]) -> str:
    """What a cell of the table says."""
    if old["outcome"] != new["outcome"]:
        return f"was {old['outcome']}, now {new['outcome']}"
    if old["outcome"] != "done":
        return old["outcome"] + ("" if old["words"] == new["words"] else " *")
    names = changed(old, new)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"differs in {', '.join(names[:SHOWN])}{more}" if names else "same"


def changed(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """The numbers that differ or are gone."""
    return [name for name, value in hashes(old).items() if hashes(new).get(name) != value]


def details(old: dict[str, Any], new: dict[str, Any]) -> str:
    """All that differs, and from which step on the loss does."""
    if old["outcome"] != new["outcome"]:
        return f"{verdict(old, new)}: {new.get('words', old.get('words', ''))}"
    gone = [f"{name} (gone)" if name not in hashes(new) else name for name in changed(old, new)]
    pairs = enumerate(zip(old.get("losses", []), new.get("losses", []), strict=False), start=1)
    first = next((f"; loss from step {step}: {a!r} → {b!r}" for step, (a, b) in pairs if a != b), "")
    return ", ".join(gone) + first


def resumed_is_straight(cases: Cases, name: str) -> bool:
    """Whether a run that went on from a checkpoint ended as the one that was not stopped."""
    resumed, straight = cases.get(name), cases.get(name.replace("| resumed", "| straight"))
    return resumed is None or straight is None or resumed.get("hashes") == straight.get("hashes")


def print_table(verdicts: dict[str, str]) -> None:
    """Objectives in rows; weights, task and way in columns."""
    table: dict[str, dict[tuple[str, str, str], str]] = {}
    for name, text in verdicts.items():
        case, _, way = name.partition(" | ")
        if case.count("/") == 2:
            objective, weights, task = case.split("/")
            table.setdefault(objective, {})[task, weights, way] = text
    if not table:
        return
    columns = [(task, weights) for task in ("policy", "reward") for weights in ("full", "lora")]
    print(f"| objective | {' | '.join(f'{task}, {weights}' for task, weights in columns)} |")
    print("|---" * (len(columns) + 1) + "|")
    for objective, cells in sorted(table.items()):
        print(f"| {objective} | {' | '.join(cell(cells, *column) for column in columns)} |")
    print("\nEach cell: trained straight, killed and resumed, evaluated.")


def cell(cells: dict[tuple[str, str, str], str], task: str, weights: str) -> str:
    """One word where all ways say the same, else every way by name."""
    found = {way: cells[task, weights, way] for way in ("straight", "resumed", "eval") if (task, weights, way) in cells}
    if len(set(found.values())) == 1:
        return next(iter(found.values()))
    return "; ".join(f"{way}: {text}" for way, text in found.items()) or "–"


def print_specials(verdicts: dict[str, str]) -> None:
    """The other cases, one a line, by group."""
    lines: dict[str, dict[tuple[str, str, str], str]] = {}
    for name, text in verdicts.items():
        case, _, way = name.partition(" | ")
        if case.count("/") != 2:
            lines.setdefault(case, {})["", "", way] = text
    if lines:
        print("\n| case | |\n|---|---|")
    for case, cells in sorted(lines.items()):
        print(f"| {case} | {cell(cells, '', '')} |")
