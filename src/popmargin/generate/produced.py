"""What every producer of responses gives back: one table, out of what was finished one by one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from popmargin.data.read_prompts import Prompts
from popmargin.data.responses import Responses
from popmargin.errors import counted

_OWN = ("prompt", "number", "text")


@dataclass(frozen=True)
class Produced:
    """Responses, and what it took to make them.

    Attributes:
        responses: prompts in their order, responses by their number.
        new: responses that this call has made; the others were there before.
        new_tokens: their tokens.
        seconds: that it took.
        notes: what else is to be known, in sentences.
        missing: reason -> responses that were asked for and are not there.
    """

    responses: Responses
    new: int
    new_tokens: int
    seconds: float
    notes: tuple[str, ...] = ()
    missing: Mapping[str, int] | None = None

    def lines(self) -> list[str]:
        """The account for a person."""
        responses = self.responses
        if "image" in responses.field_names:
            return self._of_images()
        speed = f", {self.new_tokens / self.seconds:,.0f} tokens/s" if self.seconds > 0 and self.new_tokens else ""
        said = [f"{self.new} responses made, {self.new_tokens:,} tokens{speed}"]
        total = len(responses.texts)
        if total > self.new:
            said.append(f"responses that were there before: {total - self.new}")
        if "finished" in responses.field_names:
            cut = sum(ended is False for ended in responses.field("finished"))
            said += [f"responses cut at the token limit: {cut} of {total}"] if cut else []
        empty = sum(not str(text).strip() for text in responses.texts)
        said += [f"empty responses: {empty} of {total}"] if empty else []
        said += [f"missing responses ({reason}): {count}" for reason, count in (self.missing or {}).items()]
        return [*said, *self.notes]

    def _of_images(self) -> list[str]:
        speed = f", {self.new / self.seconds:,.1f} images/s" if self.seconds > 0 and self.new else ""
        before = len(self.responses.texts) - self.new
        told = [f"images that were there before: {before}"] if before else []
        return [f"{counted(self.new, 'image')} made{speed}", *told, *self.notes]


def as_responses(
    prompts: Prompts,
    done: Mapping[tuple[int, int], Mapping[str, Any]],
    *,
    source: str,
    round: int | None,
    scores: Sequence[str] = (),
    columns: Mapping[str, Sequence[Any]] | None = None,
) -> Responses:
    """The table of what was finished.

    Args:
        prompts: that were asked.
        done: (number of the prompt, number of the response) -> `text` and what else is known of the response.
        source: where the responses are from.
        round: of an iteration, if there is one.
        scores: which of what is known are scores.
        columns: more columns of the prompts.
    """
    by_prompt: list[list[Mapping[str, Any]]] = [[] for _ in prompts.prompts]
    for (prompt, _), entry in sorted(done.items()):
        by_prompt[prompt].append(entry)
    names = dict.fromkeys(name for entry in done.values() for name in entry if name not in _OWN)
    known = {name: [[entry.get(name) for entry in of_prompt] for of_prompt in by_prompt] for name in sorted(names)}
    return Responses(
        prompts.prompts,
        [[entry["text"] for entry in of_prompt] for of_prompt in by_prompt],
        {name: values for name, values in known.items() if name in scores},
        source=source,
        round=round,
        fields={name: values for name, values in known.items() if name not in scores},
        columns={**prompts.columns, **(columns or {})},
    )
