"""What the README says of the demo, from the numbers in studies/demo.json: ranges over seeds and machines."""

import json
import textwrap
from pathlib import Path
from typing import Any

from popmargin.errors import counted

HERE = Path(__file__).parent
START, END = "<!-- demo: made by docs/generate.py from docs/studies/demo.json -->", "<!-- end of demo -->"
Runs = dict[tuple[str, str], dict[str, float]]


def readme() -> str:
    """The README with its paragraph about the demo as the numbers have it."""
    text = (HERE.parent / "README.md").read_text(encoding="utf-8")
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    if not start or not end:
        raise SystemExit(f"README.md lacks the lines {START!r} and {END!r} around what it says of the demo.")
    numbers = json.loads((HERE / "studies" / "demo.json").read_text(encoding="utf-8"))
    return f"{before}{START}\n{paragraph(numbers)}\n{END}{after}"


def paragraph(machines: dict[str, Any]) -> str:
    """What held over all runs of the demo, and how far its numbers spread.

    Args:
        machines: machine -> arm -> seed -> metric -> value; an arm is compared where both it and the other were run.
    """
    arms = {arm: runs_of(machines, arm) for arm in dict.fromkeys(arm for of in machines.values() for arm in of)}
    dpo, pop, control = arms["dpo"], arms["pop_random"], arms["dpo_stronger"]
    each = [f"{counted(len(of['dpo']), 'seed')} ({machine})" for machine, of in machines.items()]
    settings = " and ".join([", ".join(each[:-1]), each[-1]] if len(each) > 1 else each)
    others = {"pop_random": "DPO-PoP on random edges", "pop_iterative": "on iterative edges", "pop_rank": "`pop_rank`"}
    accuracy = [f"{name} {change(arms[arm], dpo, 'accuracy')}" for arm, name in others.items() if arm in arms]
    wins = (
        f"- **Win rate against the reference**: {shares(dpo, 'win_rate_reference')} with DPO, "
        f"{shares(pop, 'win_rate_reference')} with DPO-PoP on random edges ({change(pop, dpo, 'win_rate_reference')}), "
        f"at {times(pop, dpo, 'kl_per_token')} times DPO's KL per token (T = 1, no cut)."
    )
    margin = (
        "- **What the margin adds**: the control, which trains on the same stronger preferences without a margin, "
        "reaches "
        f"{shares(control, 'win_rate_reference')}; DPO-PoP differs from it by "
        f"{change(pop, control, 'win_rate_reference')}."
    )
    ordering = f"- **Held-out accuracy**: {shares(dpo, 'accuracy')} with DPO; differences: {'; '.join(accuracy)}."
    first = f"Results with {settings}, as ranges over the runs; each seed is compared with the same seed of DPO:"
    lines = [first, "", wins, margin, ordering]
    return "\n".join(
        textwrap.fill(
            line,
            width=120,
            subsequent_indent="  " if line.startswith("- ") else "",
            break_long_words=False,
            break_on_hyphens=False,
        )
        for line in lines
    )


def runs_of(machines: dict[str, Any], arm: str) -> Runs:
    """The numbers of an arm by machine and seed, of the machines that ran it."""
    return {(machine, seed): values for machine, of in machines.items() for seed, values in of.get(arm, {}).items()}


def shares(runs: Runs, metric: str) -> str:
    """`50–61%`."""
    values = [100 * values[metric] for values in runs.values()]
    return f"{min(values):.0f}–{max(values):.0f}%"


def change(runs: Runs, base: Runs, metric: str) -> str:
    """`+22 to +33 points, higher in 10 of 10 runs`, paired by machine and seed."""
    values = [100 * (runs[key][metric] - base[key][metric]) for key in base if key in runs]
    low, high = (f"{value:+.0f}".replace("-", "−") for value in (min(values), max(values)))
    higher = sum(value > 0 for value in values)
    return f"{low} to {high} points, higher in {higher} of {len(values)} runs"


def times(runs: Runs, base: Runs, metric: str) -> str:
    """`3 to 7`."""
    values = [runs[key][metric] / base[key][metric] for key in base if key in runs]
    return f"{min(values):.0f} to {max(values):.0f}"
