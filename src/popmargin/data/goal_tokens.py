"""Goals among tokens: a prompt that is cut, or written without its system message, must not lose the goal."""

from typing import Any

import numpy as np

from popmargin.data.goals import goal_facts, goal_in
from popmargin.data.schema import Preferences
from popmargin.data.tokenize import TokenizedPreferences
from popmargin.errors import DataError

_SHOWN = 3


def refuse_lost_goals(preferences: Preferences, encoded: TokenizedPreferences, tokenizer: Any) -> None:
    """See that the goal of every row is among its prompt's tokens.

    Args:
        preferences: with goals, or without any.
        encoded: their tokens.
        tokenizer: that made them.

    Raises:
        DataError: rows have lost it; the message names them, and why.
    """
    facts = goal_facts(preferences)
    if facts is None:
        return
    prompts = [prompt for rows in preferences.batches("prompt") for prompt in rows["prompt"]]
    goals: dict[str, str] = {}
    lost: list[str] = []
    written = tokenizer.batch_decode([encoded.prompt[row].tolist() for row in range(len(encoded))])
    for name, place, text in zip(encoded.ids, encoded.index, written, strict=True):
        goal = goal_in(prompts[place], facts)
        if goal not in goals:  # as the tokenizer writes it, which may change letters
            goals[goal] = _squeezed(tokenizer.decode(tokenizer(goal, add_special_tokens=False)["input_ids"]))
        if goals[goal] not in _squeezed(text):
            lost.append(name)
    if lost:
        cut = encoded.report.prompts_cut
        why = (
            f"{cut} prompts were cut to data.max_length {encoded.report.max_length}: raise it, drop long rows with "
            "data.truncation drop, or keep the beginning with keep_prompt_start."
            if cut
            else "the chat template leaves out the system message. Augment again for this model with popmargin data "
            "augment --model PATH, which puts the goal before the first user turn."
        )
        names = ", ".join(lost[:_SHOWN]) + (", …" if len(lost) > _SHOWN else "")
        raise DataError(f"{len(lost)} of {len(encoded)} rows lose the goal in their prompt ({names}): {why}")


def _squeezed(text: str) -> str:
    return "".join(text.split())


def refuse_cut_prompts(lengths: np.ndarray, room: int) -> None:
    """See that no prompt with a goal has to be cut at its start, where the goal stands, to be answered.

    Args:
        lengths: tokens of the prompts (P,).
        room: most tokens of a prompt beside its answer.

    Raises:
        DataError: some have to be.

    Example:
        >>> refuse_cut_prompts(np.array([3, 9]), room=12)
    """
    over = int((lengths > room).sum())
    if over:
        raise DataError(
            f"Held-out prompts that are longer than the {room} tokens that fit beside the answer, and would lose the "
            f"goal at their start: {over} of {len(lengths)} (the longest has {int(lengths.max())}). Raise "
            "data.max_length, or lower evaluation.max_new_tokens."
        )
