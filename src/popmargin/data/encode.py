"""Prompts and whole sequences as token ids: plain texts, and conversations by the tokenizer's chat template."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from transformers import PreTrainedTokenizerBase

from popmargin.config import check_writing
from popmargin.data.conversation import Message, holds_tools
from popmargin.data.template import (
    content_of,
    continue_block,
    cut_after_end,
    end_strings,
    holds,
    join_turns,
    only_sampled,
    opened_block,
    shared_start,
)
from popmargin.data.tools import for_template, without
from popmargin.errors import DataError, counted

Tokens = list[int]
_ANCHORS = ("\n", "0", "a", ".")


@dataclass(frozen=True)
class Writing:
    """How conversations and texts become prompt and completion.

    Attributes:
        prompt: `template` trains on the prompt as the template writes it in the whole conversation; `sampling` on what
            sampling starts from, so that the two cannot differ.
        reasoning: `template` trains on a completion as the template writes it; `keep` on the completion's full text if
            the template drops some of it, and needs `sampling`.

    Raises:
        ConfigError: `keep` without `sampling`.
    """

    prompt: Literal["template", "sampling"] = "template"
    reasoning: Literal["template", "keep"] = "template"

    def __post_init__(self) -> None:
        check_writing(self.prompt, self.reasoning)


AS_TEMPLATE = Writing()


class Encoder:
    """Shared by text and chat encoding: batches of token ids, without special tokens except the tokenizer's own.

    Attributes:
        ids: row number -> id, to name rows in errors; empty if they have none.
        ends: ids of the last tokens of completions that have an end.
        found: observations: kind -> row numbers, once for each completion concerned.
        only_sampled: what the template writes only at the end of the sampling prompt, from the first row with such
            text.
        preamble: what the template writes before conversations without a system message, excluding tokens and role;
            None until there is one.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, writing: Writing) -> None:
        self.tokenizer = tokenizer
        self.writing = writing
        self.bos = cast("int | None", tokenizer.bos_token_id)
        self.eos = cast("int | None", tokenizer.eos_token_id)
        self.ids: Mapping[int, str] = {}
        self.ends: set[int] = set()
        self.found: dict[str, list[int]] = defaultdict(list)
        self.only_sampled = ""
        self.preamble: str | None = None

    def named(self, row: int) -> str:
        """How messages name a row: its number and id."""
        return f"row {row} ('{self.ids[row]}')" if self.ids else f"row {row}"

    def encode(self, texts: list[str]) -> list[Tokens]:
        """Ids of the texts, unchanged."""
        if not texts:
            return []
        encoded = self.tokenizer(texts, add_special_tokens=False, return_attention_mask=False, verbose=False)
        return cast("list[Tokens]", encoded["input_ids"])

    def never_empty(self, prompt: Tokens) -> Tokens:
        """The prompt, or BOS (or else EOS) in place of an empty one: the first completion token needs a predecessor."""
        if prompt:
            return prompt
        first = self.bos if self.bos is not None else self.eos
        if first is None:
            raise DataError(
                "A prompt has no tokens, and the tokenizer has no BOS or EOS token to use instead. Remedy: give every "
                "row a prompt, or set bos_token in tokenizer_config.json."
            )
        return [first]

    def preferences(
        self, prompts: list[Any], chosen: list[Any], rejected: list[Any], start: int
    ) -> tuple[list[Tokens], list[Tokens], list[Tokens]]:
        """Ids of the prompts, of prompt + chosen and of prompt + rejected; `start` is the first row's number."""
        wholes = [self.wholes(prompts, completions, start) for completions in (chosen, rejected)]
        return self.prompts(prompts, start), wholes[0], wholes[1]

    def wholes(self, prompts: Sequence[Any], completions: Sequence[Any], start: int) -> list[Tokens]:
        """Ids of prompt + completion to its end; a conversation's completion is a list of messages."""
        raise NotImplementedError

    def prompts(self, prompts: Sequence[Any], start: int) -> list[Tokens]:
        """Ids of the prompts, for sampling."""
        raise NotImplementedError

    def _after(self, prompt: Tokens, whole: Tokens, rest: str) -> Tokens:
        """A whole sequence that begins with the prompt's own tokens: no token of `rest` reaches across the boundary."""
        if whole[: len(prompt)] == prompt:
            return whole
        for anchor in _ANCHORS:  # many tokenizers put a space before a text of its own
            alone, together = self.encode([anchor, anchor + rest])
            if together[: len(alone)] == alone:
                return prompt + together[len(alone) :]
        return prompt + self.encode([rest])[0]


class TextEncoder(Encoder):
    """Plain texts: the tokenizer's default prefix, the text, one EOS."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, writing: Writing) -> None:
        super().__init__(tokenizer, writing)
        if self.eos is None:
            raise DataError(
                "The tokenizer has no EOS token, so a completion would have no end. Remedy: set eos_token in "
                "tokenizer_config.json (tokenizer.eos_token), to a token in the model's vocabulary."
            )
        self.ends.add(self.eos)
        self._beginning = self._default_beginning()

    def _default_beginning(self) -> Tokens:
        """What the tokenizer puts before a text by default (usually BOS); what comes after is added by us."""
        plain = self.encode(["a"])[0]
        whole = cast(Tokens, self.tokenizer("a", return_attention_mask=False)["input_ids"])
        start = next((i for i in range(len(whole)) if whole[i : i + len(plain)] == plain), 0)
        return whole[:start]

    def prompts(self, prompts: Sequence[Any], start: int) -> list[Tokens]:
        begin = self._beginning
        # A text that begins with the BOS token's text already has it.
        return [ids if ids[: len(begin)] == begin else begin + ids for ids in self.encode(list(prompts))]

    def _ended(self, ids: Tokens) -> Tokens:
        return ids if ids[-1:] == [self.eos] else [*ids, cast(int, self.eos)]

    def wholes(self, prompts: Sequence[Any], completions: Sequence[Any], start: int) -> list[Tokens]:
        texts = [prompt + completion for prompt, completion in zip(prompts, completions, strict=True)]
        written = self.prompts(texts, start)
        if self.writing.prompt == "sampling":
            alone = self.prompts(prompts, start)
            written = [self._after(*parts) for parts in zip(alone, written, completions, strict=True)]
        return [self._ended(ids) for ids in written]


class ChatEncoder(Encoder):
    """Conversations, written by the tokenizer's chat template (which also writes BOS, if the model needs it)."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, writing: Writing) -> None:
        super().__init__(tokenizer, writing)
        if tokenizer.chat_template is None:
            raise DataError(
                "The preferences are conversations, but the tokenizer has no chat template. Remedy: use an instruct "
                "model's tokenizer, set tokenizer.chat_template, or use plain-text preferences."
            )
        self._ends = end_strings(tokenizer)

    def _write(self, turns: list[Message], row: int, **options: bool) -> str:
        try:
            written = write_chat(self.tokenizer, turns, **options)
        except Exception as error:  # templates may raise anything
            roles = ", ".join(turn["role"] for turn in turns)
            raise DataError(
                f"The chat template rejects the conversation of {self.named(row)} (roles: {roles}): {error} "
                "Remedy: change its roles, or the tokenizer's chat template."
            ) from error
        if holds_tools([turns]):
            self._refuse_unwritten(turns, written, row, **options)
        return written

    def _refuse_unwritten(self, turns: list[Message], written: str, row: int, **options: bool) -> None:
        """Refuse a template that writes the same text with and without tools or tool calls."""
        for name, told in (("tools", "the offered tools"), ("tool_calls", "the tool calls")):
            bare = without(turns, name)
            try:
                ignored = bare != turns and write_chat(self.tokenizer, bare, **options) == written
            except Exception:  # if a template refuses to write without them, it does not ignore them
                ignored = False
            if ignored:
                raise DataError(
                    f"The chat template omits {told} of {self.named(row)}, so training would not see them. Remedy: "
                    "use a tokenizer whose template includes them, or remove these rows."
                )

    def _prompt(self, turns: list[Message], row: int) -> str:
        if turns and turns[-1]["role"] == "assistant":
            return self._write(turns, row, continue_final_message=True)
        return self._write(turns, row, add_generation_prompt=True)

    def prompts(self, prompts: Sequence[Any], start: int) -> list[Tokens]:
        return self.encode([self._prompt(turns, row) for row, turns in enumerate(prompts, start)])

    def preferences(
        self, prompts: list[Any], chosen: list[Any], rejected: list[Any], start: int
    ) -> tuple[list[Tokens], list[Tokens], list[Tokens]]:
        sampled = [self._prompt(turns, row) for row, turns in enumerate(prompts, start)]
        alone = self.encode(sampled)
        sides = [self._wholes(prompts, completions, sampled, alone, start) for completions in (chosen, rejected)]
        return alone, sides[0], sides[1]

    def wholes(self, prompts: Sequence[Any], completions: Sequence[Any], start: int) -> list[Tokens]:
        sampled = [self._prompt(turns, row) for row, turns in enumerate(prompts, start)]
        return self._wholes(prompts, completions, sampled, self.encode(sampled), start)

    def _wholes(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        sampled: Sequence[str],
        alone: Sequence[Tokens],
        start: int,
    ) -> list[Tokens]:
        """Ids of prompt + completion; `sampled` and `alone` are text and ids of the prompts for sampling."""
        texts: list[str] = []
        rests: list[str] = []
        ended: list[bool] = []
        for row, (prompt, completion, before) in enumerate(zip(prompts, completions, sampled, strict=True), start):
            written, terminated = self._conversation(prompt, completion, before, row)
            texts.append(written)
            ended.append(terminated)
            rests.append(written[len(before) :])
        ids = self.encode(texts)
        if self.writing.prompt == "sampling":
            ids = [self._after(*of_row) for of_row in zip(alone, ids, rests, strict=True)]
        self.ends.update(row[-1] for row, terminated in zip(ids, ended, strict=True) if terminated and row)
        return ids

    def _conversation(
        self, prompt: list[Message], completion: list[Message], sampled: str, row: int
    ) -> tuple[str, bool]:
        """Text of prompt and completion, and whether an end-of-turn token ends it; records what the template does."""
        turns = join_turns(prompt, completion)
        last = content_of(turns[-1])
        written, terminated = cut_after_end(self._write(turns, row), last, self._ends)
        if not terminated:
            self.found["unterminated"].append(row)
        if self.preamble is None and turns[0]["role"] != "system" and not holds_tools([turns]):
            self.preamble = self._preamble(turns, written)
        shifted = only_sampled(sampled, written)
        self.only_sampled = self.only_sampled or shifted
        common = sampled[: len(sampled) - len(shifted)]
        answer = written[len(common) :]
        texts = [content_of(turn) for turn in completion]
        # An opening tag may be in the sampling prompt, or in the common part.
        whole = all(
            any(holds(answer, left) for left in (text, continue_block(sampled, text), continue_block(common, text)))
            for text in texts
        )
        keep = self.writing.reasoning == "keep" and not whole
        if not (whole or keep):
            self._note_loss(prompt, completion, written, row)
        if self.writing.prompt == "template":
            if shifted:
                self.found["shifted"].append(row)
            return written, terminated
        if not (keep or shifted):
            return written, terminated
        before, after = self._frame(prompt, completion, row)
        rest = written[len(shared_start(before, written)) :]
        if keep:
            self.found["kept"].append(row)
            rest = continue_block(sampled, texts[-1]) + after
        if opened_block(shifted)[1] not in rest:
            self.found["unclosed"].append(row)
        return sampled + rest, terminated

    def _note_loss(self, prompt: list[Message], completion: list[Message], written: str, row: int) -> None:
        """Record a completion of which the template drops a part, or everything."""
        self.found["altered"].append(row)
        if len(completion) == 1 and "".join(self._frame(prompt, completion, row)).split() == written.split():
            self.found["emptied"].append(row)

    def _frame(self, prompt: list[Message], completion: list[Message], row: int) -> tuple[str, str]:
        """What the template writes before and after the text of a single-message completion."""
        if len(completion) > 1:
            raise DataError(
                f"data.prompt: sampling cannot tell where the completion of {self.named(row)} begins: it has "
                f"{counted(len(completion), 'message')}, and the chat template formats the prompt differently before "
                "them. Remedy: use data.prompt: template, or single-message completions."
            )
        one, other = (self._with_text(prompt, completion[0], text, row) for text in ("0", "1"))
        before = shared_start(one, other)
        return before, one[len(before) + 1 :]

    def _with_text(self, prompt: list[Message], turn: Message, text: str, row: int) -> str:
        """The conversation with a different text in its last turn."""
        written = self._write(join_turns(prompt, [{**turn, "content": text}]), row)
        return cut_after_end(written, text, self._ends)[0]

    def _preamble(self, turns: list[Message], written: str) -> str:
        """The text before the first message, without names of tokens and of its role."""
        text = written[: max(written.find(content_of(turns[0]).strip()), 0)]
        for token in (*self._ends, str(self.tokenizer.bos_token), turns[0]["role"]):
            text = text.replace(token, " ")
        return " ".join(text.split())


def write_chat(tokenizer: Any, turns: Sequence[Message], **options: bool) -> str:
    """The conversation, with its tools, as the chat template writes it."""
    messages, tools = for_template(turns)
    return cast(str, tokenizer.apply_chat_template(messages, tokenize=False, tools=tools, **options))


def make_encoder(
    tokenizer: PreTrainedTokenizerBase, *, conversational: bool, writing: Writing = AS_TEMPLATE
) -> Encoder:
    return (ChatEncoder if conversational else TextEncoder)(tokenizer, writing)
