"""Checks before training: whether the models know the tokens of all rows, and take rows of that length."""

import logging
from typing import Any

import numpy as np

from popmargin.data.tokenize import TokenizedPreferences
from popmargin.engine.limits import context_limit, token_count, too_long
from popmargin.errors import ConfigError, DataError, RunError, counted

_LOG = logging.getLogger(__name__)
_SHOWN = 3  # maximum rows named in a message


def check_rows(tokenized: TokenizedPreferences, model: Any, path: str) -> None:
    """Check that a model can score all rows.

    Args:
        tokenized: the rows.
        model: a policy, reference or reward model, with or without an adapter.
        path: of the model, for messages.

    Raises:
        DataError: rows have tokens unknown to the model, or more tokens than it takes.
    """
    if not len(tokenized):
        return
    _check_tokens(tokenized, model, path)
    lengths = tokenized.prompt.lengths + np.maximum(tokenized.chosen.lengths, tokenized.rejected.lengths)
    longest = int(lengths.max())
    limit = context_limit(model)
    if limit is not None and longest > limit.tokens:
        raise DataError(
            f"{_rows(tokenized, lengths > limit.tokens, lengths)} more than the {limit.tokens:,} tokens that "
            f"'{path}' takes: {limit.reason}. Set data.max_length to {limit.tokens} (data.truncation says what is cut)."
        )
    reason = too_long(model, longest)
    positions = _positions(model)
    if reason is not None:
        longer = lengths > positions if longest > positions else lengths == longest
        raise DataError(
            f"{_rows(tokenized, longer, lengths)} more tokens than '{path}' takes: {reason}. Set data.max_length to "
            f"{positions} or less (data.truncation says what is cut)."
        )
    if longest > positions:
        _LOG.warning(
            "%s more than the %s tokens that '%s' was trained for, so quality may suffer.",
            _rows(tokenized, lengths > positions, lengths),
            f"{positions:,}",
            path,
        )


def check_sampling(model: Any, path: str, prompt: int, new_tokens: int, most: int) -> None:
    """Check that a model takes the longest prompt with the longest completion.

    Args:
        model: the one that samples.
        path: of the model.
        prompt: tokens of the longest prompt.
        new_tokens: tokens of the longest completion.
        most: maximum tokens of both together.

    Raises:
        ConfigError: it does not.
    """
    tokens = min(prompt + new_tokens, most)
    limit = context_limit(model)
    reason = limit.reason if limit is not None and tokens > limit.tokens else too_long(model, tokens)
    if reason is not None:
        raise ConfigError(
            f"evaluation.max_new_tokens {new_tokens} makes sequences of up to {tokens:,} tokens, too many for "
            f"'{path}': {reason}. Lower it, or data.max_length."
        )


def check_padding(tokenizer: Any, model: Any, path: str) -> None:
    """Check that a model knows the padding token.

    Raises:
        RunError: it does not.
    """
    known, pad_id = token_count(model), tokenizer.pad_token_id
    if pad_id is not None and pad_id >= known:
        raise RunError(
            f"The tokenizer of '{path}' has the padding token '{tokenizer.pad_token}' with the id {pad_id}, but the "
            f"model only covers ids below {known}. Choose another padding token (pad_token in "
            "tokenizer_config.json; the end token will do), or resize the model's embeddings."
        )


def _check_tokens(tokenized: TokenizedPreferences, model: Any, path: str) -> None:
    known = token_count(model)
    unknown = np.zeros(len(tokenized), dtype=bool)
    example = -1
    for side in (tokenized.prompt, tokenized.chosen, tokenized.rejected):
        places = np.flatnonzero(side.values >= known)
        if len(places):
            example = int(side.values[places[0]])
            unknown[np.searchsorted(side.offsets, places, side="right") - 1] = True
    if unknown.any():
        raise DataError(
            f"{_rows(tokenized, unknown)} tokens outside the vocabulary of '{path}', such as {example}: it covers "
            f"ids below {known}, so its tokenizer belongs to a larger model. Use the model that belongs to the "
            "tokenizer, or resize the embeddings (transformers' resize_token_embeddings) and save both."
        )


def _positions(model: Any) -> float:
    found = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return float("inf") if found is None else int(found)


def _rows(tokenized: TokenizedPreferences, chosen: np.ndarray, lengths: np.ndarray | None = None) -> str:
    """“3 of 40 rows ('a', 'b', …) have”, with their tokens if given."""
    places = np.flatnonzero(chosen)
    tokens = ["" if lengths is None else f" with {lengths[place]:,}" for place in places[:_SHOWN]]
    named = [f"'{tokenized.ids[place]}'{more}" for place, more in zip(places[:_SHOWN], tokens, strict=True)]
    rest = ", …" if len(places) > _SHOWN else ""
    verb = "has" if len(places) == 1 else "have"
    return f"{len(places)} of {counted(len(tokenized), 'row')} ({', '.join(named)}{rest}) {verb}"
