"""Where the prompt of a token sequence ends, and how prompt and completions are cut to a length."""

from collections.abc import Sequence

from popmargin.data.encode import Encoder, Tokens


def split_sequences(prompt: Tokens, wholes: Sequence[Tokens], encoder: Encoder) -> tuple[Tokens, list[Tokens], bool]:
    """Split sequences into their shared prompt and their completions.

    Args:
        prompt: ids of the prompt by itself.
        wholes: ids of the prompt with each completion.
        encoder: the one that wrote them.

    Returns:
        The prompt's ids, at least one; the ids of each completion; whether the prompt's own ids are not a prefix of
        all wholes, so that their common prefix is the prompt.
    """
    count = len(prompt)
    shifted = any(whole[:count] != prompt for whole in wholes)
    if shifted:
        count = _common_prefix(prompt, *wholes)
    return encoder.never_empty(prompt[:count]), [whole[count:] for whole in wholes], shifted


def cut_to_length(
    prompt: Tokens, completions: Sequence[Tokens], limit: int, keep_end: bool, bos: int | None
) -> tuple[Tokens, list[Tokens]]:
    """Fit a prompt and its completions into `limit` tokens: the prompt is cut first, then the completions' ends.

    Args:
        prompt: loses tokens until the longest completion has room, but keeps up to half of the limit.
        completions: of that prompt, which they share.
        limit: maximum tokens of the prompt with any completion.
        keep_end: whether the prompt is cut at its start, where a leading BOS token stays, or at its end.
        bos: the BOS token's id, if there is one.

    Example:
        >>> cut_to_length([0, 1, 2, 3, 4, 5], [[6, 7, 8], [9]], limit=6, keep_end=True, bos=0)
        ([0, 4, 5], [[6, 7, 8], [9]])
        >>> cut_to_length([0, 1, 2, 3], [[4, 5, 6, 7]], limit=4, keep_end=False, bos=0)
        ([0, 1], [[4, 5]])
    """
    longest = max(map(len, completions))
    if len(prompt) + longest > limit:
        prompt = cut_prompt(prompt, max(limit - longest, min(len(prompt), limit // 2)), keep_end, bos)
    room = limit - len(prompt)
    return prompt, [completion[:room] for completion in completions]


def cut_prompt(prompt: Tokens, keep: int | None, keep_end: bool, bos: int | None) -> Tokens:
    """At most `keep` tokens of a prompt; a leading BOS token stays, since models attend to it throughout."""
    if keep is None or len(prompt) <= keep:
        return prompt
    if not keep_end:
        return prompt[:keep]
    if prompt[0] == bos and keep > 1:
        return [prompt[0], *prompt[len(prompt) - keep + 1 :]]
    return prompt[len(prompt) - keep :]


def _common_prefix(*sequences: Tokens) -> int:
    count = 0
    for tokens in zip(*sequences, strict=False):
        if len(set(tokens)) > 1:
            break
        count += 1
    return count
