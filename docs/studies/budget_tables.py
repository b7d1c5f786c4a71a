"""The Markdown tables of budget.md from finished budget studies.

    python docs/studies/budget_tables.py runs/budget-ukp runs/budget-hanna --into docs/studies/budget.md

Gains are points of accuracy above nothing more, with 95% intervals over held-out clusters and draws; * marks an
interval that does not include 0.
"""

import argparse
import json
from pathlib import Path
from typing import Any

TABLES = "<!-- tables: made by docs/studies/budget_tables.py -->"


def points(value: dict[str, float | None] | None) -> str:
    """A difference in points with its interval, and * where that excludes 0."""
    if value is None or value["estimate"] is None:
        return "–"
    shown = [f"{100 * (value[name] or 0.0):+.1f}".replace("-", "−") for name in ("estimate", "low", "high")]
    low, high = value["low"], value["high"]
    clear = low is not None and high is not None and (low > 0 or high < 0)
    return f"{shown[0]} [{shown[1]}, {shown[2]}]" + ("*" if clear else "")


def share(value: dict[str, float | None]) -> str:
    """An accuracy with its interval."""
    return "{:.1f}% [{:.1f}, {:.1f}]".format(*(100 * (value[name] or 0.0) for name in ("estimate", "low", "high")))


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    """Lines of a table."""
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def tables(study: dict[str, Any]) -> list[str]:
    """All tables of one study."""
    labels = {kind["name"]: kind["label"] for kind in study["kinds"]}
    controls = [kind["name"] for kind in study["kinds"] if kind["control"]]
    cells = study["cells"]
    budgets = list(dict.fromkeys(cell["budget"] for cell in cells))
    measured = (
        f"{study['draws']} draws; {study['preferences']} held-out preferences of {study['clusters']} clusters, first "
        f"used {study['held_out_used']}; {study['cpu_seconds']:.0f} processor seconds"
    )
    lines = [
        f"## {study['title']}",
        "",
        measured,
        "",
        *(f"- {name}: {value}" for name, value in study["facts"].items()),
    ]
    lines.append("")
    prices = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in study["prices"].items())
    lines += [f"Prices: {prices}.", ""]
    first = [cell for cell in cells if cell["budget"] == budgets[0]]
    head = ["accuracy", *(f"N = {cell['size']}" for cell in first)]
    rows = [[labels[name], *(share(cell["arms"][name]["accuracy"]) for cell in first)] for name in ("base", *controls)]
    lines += [*table(head, rows), ""]
    for budget in budgets:
        own = [cell for cell in cells if cell["budget"] == budget]
        head = [f"gain, {budget:g} × the minutes again", *(f"N = {cell['size']}" for cell in own)]
        rows = [
            [label, *(points(cell["arms"].get(name, {}).get("gain")) for cell in own)]
            for name, label in labels.items()
            if name != "base" and name not in controls
        ]
        lines += [*table(head, rows), ""]
    rows = [
        [f"{cell['size']} × {cell['budget']:g}", *(said(cell, cell[name], labels) for name in ("advice", "advice_old"))]
        for cell in cells
    ]
    lines += [*table(["N × budget", "take", "without new preferences"], rows), ""]
    rows = [
        [f"{cell['size']} × {cell['budget']:g}", f"{labels[one['name']]} − {labels[one['against']]}",
         points(one["difference"]), f"{one['power']:.0%}", f"{100 * one['detectable']:.1f}"]
        for cell in cells
        for one in cell["main"]
    ]  # fmt: skip
    power = f"power for {100 * study['difference']:g} points"
    return [*lines, *table(["N × budget", "comparison", "difference", power, "found in 80%"], rows), ""]


def said(cell: dict[str, Any], advice: dict[str, Any], labels: dict[str, str]) -> str:
    """What to take, what is highest, and how many cannot be told apart from that."""
    take, best = (f"{labels[advice[name]]} {points(cell['arms'][advice[name]]['gain'])}" for name in ("take", "best"))
    more = len(advice["ties"]) - 1
    highest = "" if advice["take"] == advice["best"] else f"; highest {best}"
    return f"{take}{highest}; {more} more not told apart" if more else take


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", type=Path, nargs="+")
    parser.add_argument("--into", type=Path, help="a page; sections of these studies below its line of tables are new")
    args = parser.parse_args()
    studies = [json.loads((folder / "budget.json").read_text(encoding="utf-8")) for folder in args.studies]
    made = {study["title"]: "\n".join(tables(study)).strip() for study in studies}
    if args.into is None:
        print("\n\n".join(made.values()))
        return
    before, found, after = args.into.read_text(encoding="utf-8").partition(TABLES)
    if not found:
        raise SystemExit(f"{args.into} lacks the line {TABLES!r}.")
    held = {part.partition("\n")[0]: f"## {part}".strip() for part in after.split("\n## ")[1:]}
    sections = "\n\n".join({**held, **made}.values())
    args.into.write_text(f"{before}{TABLES}\n\n{sections}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
