"""What a chat template does to texts: how it ends turns, what it drops, and what it writes only for sampling."""

import re
from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from popmargin.data.conversation import Message

_OPEN_TAG = re.compile(r"<[^<>\s]*$")
_OPENING_TAG = re.compile(r"(<(\w+)>|\[([A-Z_]+)\])(\s*)$")


def content_of(turn: Message) -> str:
    """The text of a message; empty if it has none, as beside tool calls."""
    return turn.get("content") or ""


def join_turns(prompt: list[Message], completion: list[Message]) -> list[Message]:
    """One conversation; a completion that continues the prompt's last assistant message is joined to that message."""
    goes_on = prompt and completion and prompt[-1]["role"] == completion[0]["role"] == "assistant"
    if goes_on and "tool_calls" not in prompt[-1]:
        content = content_of(prompt[-1]) + content_of(completion[0])
        return [*prompt[:-1], {**completion[0], "content": content}, *completion[1:]]
    return [*prompt, *completion]


def end_strings(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """Texts of the added tokens that can end a turn: all but BOS and UNK, EOS first."""
    added = {str(token) for token in tokenizer.added_tokens_decoder.values()}
    added |= {str(token) for token in tokenizer.all_special_tokens}
    added -= {str(tokenizer.bos_token), str(tokenizer.unk_token)}
    eos = [str(tokenizer.eos_token)] if tokenizer.eos_token is not None else []
    return (*eos, *sorted(added - set(eos)))


def template_ends(tokenizer: Any) -> list[int]:
    """Ids of the tokens with which the chat template closes an assistant's turn; empty if it has none."""
    if tokenizer.chat_template is None:
        return []
    question, answer = {"role": "user", "content": "Are you there?"}, {"role": "assistant", "content": "Yes, I am."}
    for turns in ([question, answer], [{"role": "system", "content": "Be brief."}, question, answer]):
        try:
            written = tokenizer.apply_chat_template(turns, tokenize=False)
        except Exception:  # templates may raise anything; refusals become errors when data is formatted
            continue
        whole, terminated = cut_after_end(written, answer["content"], end_strings(tokenizer))
        return tokenizer(whole, add_special_tokens=False)["input_ids"][-1:] if terminated else []
    return []


def cut_after_end(written: str, content: str, ends: Sequence[str]) -> tuple[str, bool]:
    """Cut what a template writes after the last end-of-turn token, and return whether there is such a token.

    Only what follows the last message's content is searched, so the content itself is never cut.

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


def holds(written: str, content: str) -> bool:
    """Whether a template wrote all of a text, ignoring white space.

    Example:
        >>> holds("<assistant>\\n4<end>", "4 "), holds("<assistant>4<end>", "<think>2 + 2</think>4")
        (True, False)
    """
    return content.strip() in written or "".join(content.split()) in "".join(written.split())


def shared_start(text: str, other: str) -> str:
    """The common prefix of two texts."""
    if other.startswith(text):
        return text
    pairs = enumerate(zip(text, other, strict=False))
    return text[: next((at for at, (left, right) in pairs if left != right), len(other))]


def only_sampled(sampled: str, written: str) -> str:
    """The end of a sampling prompt that the whole conversation lacks there; tags are not split.

    Example:
        >>> only_sampled("<user>Hi<assistant><think>", "<user>Hi<assistant><end>")
        '<think>'
    """
    common = shared_start(sampled, written)
    return "" if common == sampled else sampled[len(_OPEN_TAG.sub("", common)) :]


def opened_block(prompt: str) -> tuple[str, str]:
    """The tag of a block that a sampling prompt opens at its end, such as <think>, and the one that closes it.

    Example:
        >>> opened_block("<|im_start|>assistant\\n<think>\\n"), opened_block("<|im_start|>assistant\\n")
        (('<think>', '</think>'), ('', ''))
    """
    found = _OPENING_TAG.search(prompt)
    if found is None:
        return "", ""
    name = found[2] or found[3]
    return found[1], f"</{name}>" if found[2] else f"[/{name}]"


def continue_block(prompt: str, content: str) -> str:
    """A text to follow a sampling prompt, without an opening tag with which the prompt already ends.

    Example:
        >>> continue_block("<assistant>\\n<think>\\n", "<think>\\n2 + 2</think>4")
        '2 + 2</think>4'
    """
    tag, _ = opened_block(prompt)
    if not tag or not content.lstrip().startswith(tag):
        return content
    space = prompt[len(prompt.rstrip()) :]
    return content.lstrip()[len(tag) :].removeprefix(space)
