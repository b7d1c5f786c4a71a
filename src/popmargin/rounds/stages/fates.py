"""What became of every original preference over the rounds, in a file to read."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from popmargin.data.conversation import prompt_key
from popmargin.data.load import load_preferences
from popmargin.data.tokenize import prompt_text
from popmargin.files import whole_file
from popmargin.rounds.plan import Output, Plan, Stage, Work
from popmargin.rounds.stages.split_data import known_flips


def add_fates(
    plan: Plan,
    name: str,
    *,
    rows: Output,
    ranks: Sequence[Output],
    replaced: Sequence[Output],
    known: str | None = None,
) -> Stage:
    """Append the table of all original rows: losses, kept or dropped, and replacement, by round.

    With `known`, a column that is not 0 where a label is known to be wrong, also whether it is.
    """
    inputs: dict[str, Output | Path] = {"rows": rows}
    inputs |= {f"ranks-{number}": output for number, output in enumerate(ranks, 1)}
    settings = {"rounds": len(ranks)} | ({} if known is None else {"known": known})
    inputs |= {f"replacements-{number}": output for number, output in enumerate(replaced, 1)}
    return plan.add(name, fates_stage, inputs=inputs, settings=settings, outputs={"rows": "rows.jsonl"})


def fates_stage(work: Work) -> dict[str, Any]:
    """One line a row, the largest loss of the last round first."""
    rows = load_preferences(work.inputs["rows"])
    rounds = range(1, work.settings["rounds"] + 1)
    ranks = {number: pq.read_table(work.inputs[f"ranks-{number}"]).to_pylist() for number in rounds}
    replacements = {
        number: _by_prompt(path) for number in rounds if (path := work.inputs.get(f"replacements-{number}")) is not None
    }
    known = work.settings.get("known")
    wrong = None if known is None else known_flips(rows, known)
    lines: list[dict[str, Any]] = []
    for place, name in enumerate(rows.ids):
        row = rows[place]
        line: dict[str, Any] = {
            "id": name,
            "prompt": prompt_text(row["prompt"]),
            "chosen": _text(row["chosen"]),
            "rejected": _text(row["rejected"]),
        }
        if wrong is not None:
            line["flipped"] = bool(wrong[place])
        for number in rounds:
            rank = ranks[number][place]
            line[f"loss_{number}"], line[f"reward_margin_{number}"] = rank["loss"], rank["reward_margin"]
            line[f"kept_{number}"] = rank["kept"]
            new = None if rank["kept"] else replacements.get(number, {}).get(prompt_key(row["prompt"]))
            if new is not None:
                line[f"replaced_by_{number}"] = {side: _text(new[side]) for side in ("chosen", "rejected")}
        lines.append(line)
    last = f"loss_{work.settings['rounds']}"
    lines.sort(key=lambda line: (line[last] is None, -(line[last] or 0.0), line["id"]))
    with whole_file(work.outputs["rows"]) as partial:
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        partial.write_text(text, encoding="utf-8")
    return {"rows": len(lines)}


def _by_prompt(path: Path) -> dict[str, dict[str, Any]]:
    table = pq.read_table(path)
    if not table.num_rows:
        return {}
    preferences = load_preferences(path)
    return {prompt_key(row["prompt"]): row for row in (preferences[place] for place in range(len(preferences)))}


def _text(response: Any) -> str:
    return response if isinstance(response, str) else "\n".join(str(turn["content"]) for turn in response)
