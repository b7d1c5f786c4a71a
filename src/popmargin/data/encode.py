"""Prompts and whole sequences as token ids: plain texts, and conversations by the tokenizer's chat template."""

from collections.abc import Sequence
from typing import Any, cast

from transformers import PreTrainedTokenizerBase

from popmargin.data.schema import Message
from popmargin.errors import DataError

Tokens = list[int]


class Encoder:
    """What text and chat encoding share: batches of token ids without special tokens, and the tokenizer's own ones."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self.bos = cast("int | None", tokenizer.bos_token_id)
        self.eos = cast("int | None", tokenizer.eos_token_id)
        self.unterminated: list[int] = []

    def encode(self, texts: list[str]) -> list[Tokens]:
        """Ids of the texts as they stand."""
        encoded = self.tokenizer(texts, add_special_tokens=False, return_attention_mask=False, verbose=False)
        return cast("list[Tokens]", encoded["input_ids"])

    def never_empty(self, prompt: Tokens) -> Tokens:
        """The prompt, or BOS (else EOS) in place of an empty one: the first completion token needs a predecessor."""
        if prompt:
            return prompt
        first = self.bos if self.bos is not None else self.eos
        if first is None:
            raise DataError("A prompt has no tokens, and the tokenizer has no BOS or EOS token to stand for it.")
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


class TextEncoder(Encoder):
    """Plain texts: the tokenizer's default beginning, the text, one EOS."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__(tokenizer)
        if self.eos is None:
            raise DataError(
                "The tokenizer has no EOS token, so a completion would have no end. Remedy: set tokenizer.eos_token."
            )
        self._beginning = self._default_beginning()

    def _default_beginning(self) -> Tokens:
        """What the tokenizer puts before a text by default (BOS, mostly); what it puts after is ours to add."""
        plain = self.encode(["a"])[0]
        whole = cast(Tokens, self.tokenizer("a", return_attention_mask=False)["input_ids"])
        start = next((i for i in range(len(whole)) if whole[i : i + len(plain)] == plain), 0)
        return whole[:start]

    def prompts(self, prompts: Sequence[Any], start: int) -> list[Tokens]:
        begin = self._beginning
        # A text that begins with the BOS token's own text has it already.
        return [ids if ids[: len(begin)] == begin else begin + ids for ids in self.encode(list(prompts))]

    def _ended(self, ids: Tokens) -> Tokens:
        return ids if ids[-1:] == [self.eos] else [*ids, cast(int, self.eos)]

    def wholes(self, prompts: Sequence[Any], completions: Sequence[Any], start: int) -> list[Tokens]:
        texts = [prompt + completion for prompt, completion in zip(prompts, completions, strict=True)]
        return [self._ended(ids) for ids in self.prompts(texts, start)]


class ChatEncoder(Encoder):
    """Conversations, written by the tokenizer's chat template (which also writes BOS, if the model wants one)."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__(tokenizer)
        if tokenizer.chat_template is None:
            raise DataError(
                "The preferences are conversations, but the tokenizer has no chat template. Remedy: use an instruct "
                "model's tokenizer, set tokenizer.chat_template, or give preferences as plain text."
            )
        self._ends = _end_strings(tokenizer)

    def _write(self, turns: list[Message], row: int, **options: bool) -> str:
        try:
            return cast(Any, self.tokenizer).apply_chat_template(turns, tokenize=False, **options)
        except Exception as error:  # templates raise what they like
            roles = ", ".join(turn["role"] for turn in turns)
            raise DataError(
                f"The chat template refuses the conversation of row {row} (roles: {roles}): {error} "
                "Remedy: change its roles, or the tokenizer's chat template."
            ) from error

    def _prompt(self, turns: list[Message], row: int) -> str:
        if turns and turns[-1]["role"] == "assistant":
            return self._write(turns, row, continue_final_message=True)
        return self._write(turns, row, add_generation_prompt=True)

    def prompts(self, prompts: Sequence[Any], start: int) -> list[Tokens]:
        return self.encode([self._prompt(turns, row) for row, turns in enumerate(prompts, start)])

    def wholes(self, prompts: Sequence[Any], completions: Sequence[Any], start: int) -> list[Tokens]:
        texts: list[str] = []
        for row, (prompt, completion) in enumerate(zip(prompts, completions, strict=True), start):
            turns = join_turns(prompt, completion)
            text, terminated = cut_after_end(self._write(turns, row), turns[-1]["content"], self._ends)
            if not terminated:
                self.unterminated.append(row)
            texts.append(text)
        return self.encode(texts)


def make_encoder(tokenizer: PreTrainedTokenizerBase, *, conversational: bool) -> Encoder:
    return ChatEncoder(tokenizer) if conversational else TextEncoder(tokenizer)


def join_turns(prompt: list[Message], completion: list[Message]) -> list[Message]:
    """One conversation; a completion that continues the prompt's last assistant message is joined to that message."""
    if prompt and completion and prompt[-1]["role"] == completion[0]["role"] == "assistant":
        content = prompt[-1]["content"] + completion[0]["content"]
        return [*prompt[:-1], {"role": "assistant", "content": content}, *completion[1:]]
    return [*prompt, *completion]


def _end_strings(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """Texts of the special tokens that can end a turn: all but BOS and UNK, EOS first."""
    special = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    special |= {str(token) for token in tokenizer.all_special_tokens}
    special -= {str(tokenizer.bos_token), str(tokenizer.unk_token)}
    eos = [str(tokenizer.eos_token)] if tokenizer.eos_token is not None else []
    return (*eos, *sorted(special - set(eos)))


def cut_after_end(written: str, content: str, ends: Sequence[str]) -> tuple[str, bool]:
    """Cut what a template writes after the last end-of-turn token, and tell whether there is such a token.

    Only what follows the last message's content is searched, so that the content itself is never cut.

    Example:
        >>> cut_after_end("<user>Hi<assistant>Hello<end>\\n", "Hello", ["<end>"])
        ('<user>Hi<assistant>Hello<end>', True)
    """
    at = written.rfind(content.strip()) if content.strip() else -1
    start = at + len(content.strip()) if at >= 0 else len(written)
    stops = [written.rfind(end, start) + len(end) for end in ends if written.rfind(end, start) >= 0]
    if stops:
        return written[: max(stops)], True
    stripped = written.rstrip()  # the template changed the content, or a short content was found inside the token
    if stripped.endswith(tuple(ends)):
        return stripped, True
    return written, False
