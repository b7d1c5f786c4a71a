"""Train and test preferences without a common prompt."""

import hashlib
import json
from collections import defaultdict

from popmargin.data.goals import body_keys
from popmargin.data.schema import Preferences
from popmargin.errors import ConfigError, DataError, counted


def normalised_key(key: str) -> str:
    """A prompt key, ignoring case and white space.

    Example:
        >>> normalised_key("What  is\\nPoP? ")
        'what is pop?'
    """
    # In the keys of conversations, line breaks and tabs are JSON escapes.
    plain = key.replace("\\n", " ").replace("\\t", " ").replace("\\r", " ")
    return " ".join(plain.replace('"', ' " ').casefold().split())


def leak_keys(prefs: Preferences) -> list[str]:
    """Keys by which two prompts are the same for evaluation: their text, ignoring case and white space.

    System messages and goals do not count, nor whether the text is plain or a user message.

    Returns:
        One key per row, comparable across layouts.
    """
    if not prefs.conversational:
        return [normalised_key(key) for key in body_keys(prefs)]
    turns = [json.loads(key) for key in body_keys(prefs)]
    texts = ("\n".join(content for role, content, *_ in prompt if role != "system") for prompt in turns)
    return [normalised_key(text) for text in texts]


def split_preferences(prefs: Preferences, *, test_size: float | int, seed: int) -> tuple[Preferences, Preferences]:
    """Split by prompt: all preferences of one prompt (see `leak_keys`) land on one side.

    Which prompts are test prompts depends only on their text and the seed, not on the order of the rows.

    Args:
        test_size: share of the prompts (float between 0 and 1) or number of prompts (int ≥ 1) to hold out.
        seed: seed of the choice.

    Returns:
        (train, test), rows in their given order.

    Raises:
        ConfigError: a size that leaves one side empty.
    """
    groups: defaultdict[str, list[int]] = defaultdict(list)
    names: dict[str, str] = {}
    for index, (key, name) in enumerate(zip(leak_keys(prefs), map(normalised_key, body_keys(prefs)), strict=True)):
        groups[key].append(index)
        names[key] = min(name, names.get(key, name))
    total = len(groups)
    if isinstance(test_size, bool) or not (0 < test_size < 1 or (isinstance(test_size, int) and test_size >= 1)):
        raise ConfigError(
            f"test_size={test_size} is neither a share between 0 and 1 nor a number of prompts (int ≥ 1)."
        )
    count = test_size if isinstance(test_size, int) else max(1, round(test_size * total))
    if not 1 <= count < total:
        raise ConfigError(
            f"test_size={test_size} holds out {count} of {counted(total, 'distinct prompt')}, so one side is empty. "
            "Remedy: choose another size, or use data with more prompts."
        )
    order = sorted(groups, key=lambda key: hashlib.sha256(f"{seed}\x1f{names[key]}".encode()).digest())
    held_out = {index for key in order[:count] for index in groups[key]}
    train = [index for index in range(len(prefs)) if index not in held_out]
    return prefs.select(train), prefs.select(sorted(held_out))


def check_leak(train: Preferences, test: Preferences, *, limit: int = 5) -> None:
    """Check that no test prompt is also a training prompt, whatever the layout (see `leak_keys`).

    Raises:
        DataError: names rows and ids on both sides.
    """
    first: dict[str, int] = {}
    for index, key in enumerate(leak_keys(train)):
        first.setdefault(key, index)
    keys = leak_keys(test)
    leaks = [(index, first[key]) for index, key in enumerate(keys) if key in first]
    if not leaks:
        return
    train_ids, test_ids = train.ids, test.ids
    shown = "\n".join(
        f"  test row {i} (id {test_ids[i]}) has the prompt of train row {j} (id {train_ids[j]})"
        for i, j in leaks[:limit]
    )
    more = f"\n  … and {len(leaks) - limit} more" if len(leaks) > limit else ""
    raise DataError(
        f"In {len(leaks)} of {counted(len(test), 'test row')}, the prompt is also in the training data:\n"
        f"{shown}{more}\n"
        "Remedy: split by prompt with popmargin.data.split_preferences (popmargin data split)."
    )
