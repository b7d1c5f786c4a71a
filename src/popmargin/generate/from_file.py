"""Responses that are in a file already, such as the outputs of AlpacaEval: matched to prompts by content."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from popmargin.account import Step
from popmargin.data.conversation import Text, prompt_key
from popmargin.data.formats.base import as_turns
from popmargin.data.read_prompts import Prompts
from popmargin.data.responses import Responses
from popmargin.errors import DataError, first_few
from popmargin.generate.produced import Produced


def file_responses(
    prompts: Prompts,
    answers: str | Path | list[dict[str, Any]],
    *,
    samples: int | None = None,
    source: str | None = None,
    round: int | None = None,
    split: str | None = None,
    columns: Mapping[str, str] | None = None,
    missing: str = "error",
) -> Produced:
    """Take the responses to prompts from a file; a prompt as text and as a user's only message are the same.

    Args:
        prompts: see `load_prompts`.
        answers: a file of responses that `Responses.load` reads, or several with commas between, of several models.
        samples: take so many responses to each prompt, the first ones; all when None.
        source: what they are said to be from; None leaves it as the file has it.
        round: of an iteration, if there is one.
        split, columns: as in `Responses.load`.
        missing: "error" raises where a prompt has fewer responses, "keep" counts the prompts.

    Raises:
        DataError: unreadable, or prompts have too few responses.

    Example:
        >>> asked = Prompts(["2+2?"])
        >>> made = file_responses(asked, [{"instruction": "2+2?", "output": "4", "generator": "my-model"}])
        >>> made.responses.texts, made.responses.field("source")
        (['4'], ['my-model'])
    """
    loaded = Responses.concat([Responses.load(answers, split=split, columns=columns)])
    rows = {_key(prompt): row for row, prompt in enumerate(loaded.prompts)}
    counts = loaded.counts.tolist()
    wanted = 1 if samples is None else samples
    found = [rows.get(_key(prompt)) for prompt in prompts.prompts]
    few = [number for number, row in enumerate(found) if row is None or counts[row] < wanted]
    if few and missing == "error":
        shown = first_few([repr(prompts.prompts[number])[:60] for number in few], 3)
        where = answers if isinstance(answers, str | Path) else "the answers"
        raise DataError(
            f"{where}: {len(few)} of {len(prompts)} prompts have fewer than {wanted} responses there ({shown}). "
            "Remedy: add them, ask for fewer, or do without (--missing keep)."
        )
    asked = {row for row in found if row is not None}
    unasked = sum(count for row, count in enumerate(counts) if row not in asked)
    step = Step(
        name="the responses of the file",
        rows_in=sum(counts),
        kept={"taken": sum(min(counts[row], samples or counts[row]) for row in asked)},
        left_out={
            "to prompts that were not asked for": unasked,
            f"beyond {samples} to a prompt": sum(max(counts[row] - (samples or counts[row]), 0) for row in asked),
        },
        unit="responses",
    )
    unused = len(loaded) - len(asked)
    notes = (f"{step.name}: {step.arithmetic}",)
    notes += (f"prompts of the file that were not asked for: {unused}",) if unused else ()
    made = _taken(prompts, loaded, found, samples)
    made = made if source is None else made.with_fields(source=source)
    made = made if round is None else made.with_fields(round=round)
    reasons = {f"prompts with fewer than {wanted} responses in the file": len(few)} if few else {}
    return Produced(made, new=len(made.texts), new_tokens=0, seconds=0.0, notes=notes, missing=reasons)


def _key(prompt: Text) -> str:
    return prompt_key(as_turns(prompt, "user"))


def _taken(prompts: Prompts, loaded: Responses, rows: list[int | None], samples: int | None) -> Responses:
    """The first responses of each prompt, with the prompts as they were asked."""
    ends = [0, *loaded.counts.cumsum().tolist()]
    places = [[] if row is None else list(range(ends[row], ends[row + 1]))[:samples] for row in rows]

    def of(values: Any) -> list[list[Any]]:
        return [[values[place] for place in of_prompt] for of_prompt in places]

    return Responses(
        prompts.prompts,
        of(loaded.texts),
        {name: of(loaded.score(name)) for name in loaded.score_names},
        fields={name: of(loaded.field(name)) for name in loaded.field_names},
        columns={
            **prompts.columns,
            **{
                name: [None if row is None else loaded.column(name)[row] for row in rows]
                for name in loaded.column_names
                if name not in prompts.columns
            },
        },
    )
