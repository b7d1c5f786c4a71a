"""Responses as other tools' files of answers: alpaca_eval outputs, Arena-Hard and MT-Bench answers.

The layouts are those that the tools' own code writes; Arena-Hard's is that of version 0.1.
"""

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from popmargin.data.conversation import Text
from popmargin.data.responses import Responses
from popmargin.data.tools import said
from popmargin.errors import DataError, counted
from popmargin.files import whole_file

_IDS = ("question_id", "uid", "id")


@dataclass(frozen=True)
class AnswerFile:
    """A layout of a file of answers.

    Attributes:
        suffix: of the file.
        several: whether it holds several answers to a prompt.
        rows: of responses by the name of the model.
    """

    suffix: str
    several: bool
    rows: Callable[[Responses, str], list[dict[str, Any]]]


def _alpaca_eval(responses: Responses, model: str) -> list[dict[str, Any]]:
    data_set = responses.column("dataset") if "dataset" in responses.column_names else None
    rows: list[dict[str, Any]] = []
    for number, row in enumerate(responses):
        found = {"instruction": _instruction(row["prompt"], number), "output": _turns(row["responses"][0]["text"])[-1]}
        more = {} if data_set is None else {"dataset": data_set[number]}
        rows.append({**more, **found, "generator": model})
    return rows


def _arena_hard(responses: Responses, model: str) -> list[dict[str, Any]]:
    rows = _answers(responses, model, lambda text: {"content": text})
    for row, given in zip(rows, responses, strict=True):
        tokens = given["responses"][0].get("tokens")
        if tokens is not None:
            row["conv_metadata"] = {"token_len": int(tokens)}
    return rows


def _mt_bench(responses: Responses, model: str) -> list[dict[str, Any]]:
    return _answers(responses, model, lambda text: text)


def _answers(responses: Responses, model: str, turn: Callable[[str], Any]) -> list[dict[str, Any]]:
    name = next((name for name in _IDS if name in responses.column_names), None)
    if name is None:
        raise DataError(
            "The responses have no column question_id, by which the answers are found. Generate them from the "
            "benchmark's own questions, whose columns are kept, or add the column."
        )
    now, rows = time.time(), list[dict[str, Any]]()
    for label, row in zip(responses.column(name), responses, strict=True):
        texts = [_turns(response["text"]) for response in row["responses"]]
        choices = [{"index": index, "turns": [turn(text) for text in turns]} for index, turns in enumerate(texts)]
        answer = hashlib.sha256(json.dumps([label, model, texts]).encode()).hexdigest()[:22]
        found = {"question_id": label, "answer_id": answer, "model_id": model, "choices": choices, "tstamp": now}
        rows.append(found)
    return rows


ANSWER_FILES: dict[str, AnswerFile] = {
    "alpaca_eval": AnswerFile(".json", several=False, rows=_alpaca_eval),
    "arena_hard": AnswerFile(".jsonl", several=True, rows=_arena_hard),
    "mt_bench": AnswerFile(".jsonl", several=True, rows=_mt_bench),
}


def answer_rows(responses: Responses, layout: str, model: str) -> list[dict[str, Any]]:
    """The rows of a file of answers, one for each prompt.

    Args:
        responses: to the tool's own questions. Arena-Hard and MT-Bench need their column question_id.
        layout: a key of `ANSWER_FILES`.
        model: the name under which the tool lists the answers.

    Raises:
        DataError: a prompt without a response, with several where the layout holds one, or that the layout cannot
            hold.

    Example:
        >>> answer_rows(Responses(["2+2?"], [["4"]]), "alpaca_eval", "mine")
        [{'instruction': '2+2?', 'output': '4', 'generator': 'mine'}]
    """
    file = ANSWER_FILES[layout]
    empty = [number for number, count in enumerate(responses.counts) if not count]
    several = [number for number, count in enumerate(responses.counts) if count > 1]
    if empty:
        raise DataError(
            f"Without a response: {counted(len(empty), 'prompt')}, the first in row {empty[0]} (from 0). Generate for "
            "each, or leave it out."
        )
    if several and not file.several:
        raise DataError(
            f"With several responses: {counted(len(several), 'prompt')}, where {layout} takes one. Choose with --best "
            "SCORE, or generate with --n 1."
        )
    return file.rows(responses, model)


def save_answers(rows: list[dict[str, Any]], layout: str, path: Path) -> None:
    """Write the file: a JSON list, or one object a line.

    Raises:
        RunError: it cannot be written.
    """
    one_a_line = ANSWER_FILES[layout].suffix == ".jsonl"
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    text = lines if one_a_line else json.dumps(rows, ensure_ascii=False, indent=2) + "\n"
    with whole_file(path) as partial:
        partial.write_bytes(text.encode("utf-8", errors="replace"))


def _instruction(prompt: Text, number: int) -> str:
    if isinstance(prompt, str):
        return prompt
    turns: list[Mapping[str, Any]] = [turn for turn in prompt if turn["role"] != "system"]
    if len(turns) != 1:
        raise DataError(
            f"The prompt in row {number} (from 0) is a conversation of {len(turns)} turns, and alpaca_eval takes an "
            "instruction. Use arena_hard or mt_bench."
        )
    return said(turns[0])  # type: ignore[arg-type]


def _turns(text: Text) -> list[str]:
    """What the model said, turn by turn."""
    return [text] if isinstance(text, str) else [said(turn) for turn in text if turn["role"] == "assistant"]
