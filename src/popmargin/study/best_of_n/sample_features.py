"""Features of samples: hidden states of a model that is not trained, or from a file.

Axis suffixes: U distinct samples, D features.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float64

from popmargin.data.conversation import Text
from popmargin.data.load import load_preferences
from popmargin.errors import DataError, counted
from popmargin.study.budget.budget_config import FeaturesConfig
from popmargin.study.budget.head_features import features_of_file


def sample_features(
    texts: Sequence[tuple[str, str]],
    raw: Mapping[tuple[str, str], tuple[Text, Text]],
    config: FeaturesConfig,
    cache: str,
) -> Float64[np.ndarray, "U D"]:
    """Features of each distinct sample (U, D), not whitened yet.

    Args:
        texts: prompt and response of each, as plain texts.
        raw: the same as they were read.
        config: a file, or a model and its layers.
        cache: folder that keeps what the model computed, if the configuration names none.

    Raises:
        DataError: a sample has no features, since nothing of it is left after the cut.
    """
    if config.file is not None:
        return features_of_file(config.file, texts)
    from popmargin.tasks.response_features import response_features

    by_prompt: dict[str, list[int]] = {}
    for row, (prompt, _) in enumerate(texts):
        by_prompt.setdefault(prompt, []).append(row)
    # A model reads preferences: two samples of a prompt each; the last of an odd number is with the first again.
    pairs: list[tuple[int, int]] = []
    for rows in by_prompt.values():
        if len(rows) < 2:
            raise DataError(
                f"All samples of the prompt {texts[rows[0]][0][:40]!r} are the same: nothing to choose from. Leave it "
                "out, or sample at a higher temperature."
            )
        pairs += list(zip(rows[0::2], rows[1::2], strict=False))
        pairs += [(rows[-1], rows[0])] if len(rows) % 2 else []
    asked = [
        {"id": str(number), "prompt": raw[texts[one]][0], "chosen": raw[texts[one]][1], "rejected": raw[texts[two]][1]}
        for number, (one, two) in enumerate(pairs)
    ]
    found = response_features(
        load_preferences(asked, contradictions="keep"), model=config.model, pool="mean", layers=config.layers,
        max_length=config.max_length, cache=config.cache or cache, progress=True,
    )  # fmt: skip
    states = found.array()
    features = np.full((len(texts), states.shape[1]), np.nan)
    for number, chosen, rejected in zip(found.tokenized.ids, found.chosen, found.rejected, strict=True):
        one, two = pairs[int(number)]
        features[one], features[two] = states[chosen], states[rejected]
    without = int(np.isnan(features[:, 0]).sum())
    if without:
        raise DataError(
            f"{counted(without, 'sample has', 'samples have')} no features: nothing of them, or nothing that tells "
            f"them apart, is left of {config.max_length} tokens. Raise features.max_length."
        )
    return np.column_stack([features, np.log([1 + len(text) for _, text in texts])])
