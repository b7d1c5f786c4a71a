"""The Markdown tables of best-of-n.md from finished best-of-n studies.

    python docs/studies/best_of_n_tables.py runs/best-of-n-{vader,classifier} --into docs/studies/best-of-n.md

95% intervals over prompts and draws; * marks a difference whose interval does not include 0.
"""

import argparse
import json
from pathlib import Path
from typing import Any

TABLES = "<!-- tables: made by docs/studies/best_of_n_tables.py -->"
Numbers = dict[str, float | None]


def shown(value: Numbers, digits: int, *, factor: float = 1.0, sign: bool = False) -> str:
    """A number with its interval."""
    form = f"{{:{'+' if sign else ''}.{digits}f}}"
    known = {name: None if number is None else form.format(factor * number) for name, number in value.items()}
    ends = "" if known["low"] is None else f" [{known['low']}, {known['high']}]"
    return f"{known['estimate']}{ends}".replace("-", "−")


def difference(value: Numbers, digits: int, *, factor: float = 1.0) -> str:
    """A difference, with * where its interval excludes 0."""
    low, high = value["low"], value["high"]
    clear = low is not None and high is not None and (low > 0 or high < 0)
    return shown(value, digits, factor=factor, sign=True) + ("*" if clear else "")


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    """Lines of a table."""
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def tables(study: dict[str, Any]) -> list[str]:
    """All tables of one study."""
    ns = study["ns"]
    measured = (
        f"{study['draws']} draws; {study['prompts']} measured prompts, first used {study['measured_first']}; "
        f"{study['cpu_seconds']:.0f} processor seconds"
    )
    lines = [
        f"## {study['title']}",
        "",
        measured,
        "",
        *(f"- {name}: {value}" for name, value in study["facts"].items()),
        "",
    ]
    divergences = ", ".join(f"{value:.2f} (n = {n})" for n, value in zip(ns, study["divergences"], strict=True))
    lines += [f"Divergences, nats: {divergences}.", ""]
    for cell in study["cells"]:
        head = [
            f"{cell['size']} first labels",
            "accuracy, %",
            *(f"best of {n}" for n in ns[1:]),
            "of what can be gained",
        ]
        rows = [
            [arm["label"], shown(arm["accuracy"], 1, factor=100), *(shown(value, 3) for value in arm["curve"][1:]),
             f"{arm['share_of_possible']:.0%}".replace("-", "−")]
            for arm in cell["arms"].values()
        ]  # fmt: skip
        lines += [f"One sample: {cell['start']:.3f}.".replace("-", "−"), "", *table(head, rows), ""]
    accuracy, gold = f"{100 * study['difference']:g} points", f"{100 * study['gain_difference']:g}% of it"
    head = ["first labels", "comparison", "accuracy, points", f"power for {accuracy}", f"gold, best of {ns[-1]}",
            f"power for {gold}"]  # fmt: skip
    rows = [
        [str(cell["size"]), f"{cell['arms'][one['name']]['label']} − {cell['arms'][one['against']]['label']}",
         difference(one["accuracy"], 1, factor=100), f"{one['accuracy_power']:.0%}",
         difference(one["curve"][-1], 3), f"{one['gold_power']:.0%}"]
        for cell in study["cells"]
        for one in cell["differences"]
    ]  # fmt: skip
    return [*lines, *table(head, rows), ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", type=Path, nargs="+")
    parser.add_argument("--into", type=Path, help="a page whose end, from its line of tables on, is replaced")
    args = parser.parse_args()
    made = "\n".join(
        line
        for folder in args.studies
        for line in tables(json.loads((folder / "best-of-n.json").read_text(encoding="utf-8")))
    )
    if args.into is None:
        print(made)
        return
    before, found, _ = args.into.read_text(encoding="utf-8").partition(TABLES)
    if not found:
        raise SystemExit(f"{args.into} lacks the line {TABLES!r}.")
    args.into.write_text(f"{before}{TABLES}\n\n{made.rstrip()}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
