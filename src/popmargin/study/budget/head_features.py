"""Features of the responses of a budget study: from a file, or from a model that is not trained; whitened.

Axis suffixes: U responses, D features.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64

from popmargin.errors import DataError, counted
from popmargin.study.budget.budget_config import FeaturesConfig
from popmargin.study.budget.human_strengths import HumanStrengths


def text_key(prompt: str, response: str) -> str:
    """The name of a response in a file of features: SHA-256 of prompt and response, in hex.

    Example:
        >>> text_key("2+2?", "4")[:8]
        '4f14ec17'
    """
    return hashlib.sha256(f"{prompt}\x1f{response}".encode()).hexdigest()


def features_of_file(path: str, texts: Sequence[tuple[str, str]]) -> Float64[np.ndarray, "U D"]:
    """Features of each response (U, D) from an .npz file with `features` and their `keys` (`text_key`).

    Raises:
        DataError: no such file, another layout, or a response that is not in it.
    """
    if not Path(path).is_file():
        raise DataError(f"{path}: no such file. features.file is an .npz file with the arrays features and keys.")
    try:
        with np.load(path, allow_pickle=False) as held:
            features, keys = np.asarray(held["features"], dtype=np.float64), held["keys"].tolist()
    except (KeyError, ValueError, OSError) as error:
        raise DataError(f"{path}: not an .npz file with the arrays features and keys ({error}).") from error
    if features.ndim != 2 or len(features) != len(keys):
        raise DataError(f"{path}: features of shape {features.shape} for {counted(len(keys), 'key')}; give a row each.")
    place = {key: row for row, key in enumerate(keys)}
    wanted = [text_key(*text) for text in texts]
    missing = [number for number, key in enumerate(wanted) if key not in place]
    if missing:
        raise DataError(
            f"{path}: no features of {len(missing)} of {counted(len(texts), 'response')}, such as that beginning "
            f"{texts[missing[0]][1][:40]!r}. Compute them from the same texts."
        )
    return features[[place[key] for key in wanted]]


def features_of_model(strengths: HumanStrengths, config: FeaturesConfig, cache: str) -> Float64[np.ndarray, "U D"]:
    """Hidden states of a model that is not trained, averaged over the tokens of each response, and its log length.

    Raises:
        DataError: a response has no features, since nothing of it is left after the cut.
    """
    from popmargin.tasks.response_features import response_features

    assert strengths.preferences is not None, "strengths that were read from data have their preferences"
    found = response_features(
        strengths.preferences, model=config.model, pool="mean", layers=config.layers, max_length=config.max_length,
        cache=config.cache or cache, progress=True,
    )  # fmt: skip
    place = {name: row for row, name in enumerate(strengths.preferences.ids)}
    rows = np.array([place[name] for name in found.tokenized.ids], dtype=np.int64)
    states = found.array()
    features = np.full((len(strengths.texts), states.shape[1]), np.nan)
    features[strengths.better[rows]] = states[found.chosen]
    features[strengths.worse[rows]] = states[found.rejected]
    without = int(np.isnan(features[:, 0]).sum())
    if without:
        raise DataError(
            f"{counted(without, 'response has', 'responses have')} no features: nothing of them, or nothing that tells "
            f"them apart, is left of {config.max_length} tokens. Raise features.max_length."
        )
    lengths = np.log([1 + len(text) for _, text in strengths.texts])
    return np.column_stack([features, lengths])


def whitened(
    features: Float64[np.ndarray, "U D"], fitted_on: Int64[np.ndarray, " u"], dimensions: int
) -> Float64[np.ndarray, "U K"]:
    """Principal components of unit variance, of standardized features.

    Args:
        features: of each response.
        fitted_on: the responses that say what is standard: those of the development part.
        dimensions: how many components; 0 returns the standardized features.

    Raises:
        DataError: features that are not finite.
    """
    if not np.isfinite(features).all():
        wrong = int((~np.isfinite(features).all(axis=1)).sum())
        raise DataError(f"The features of {counted(wrong, 'response')} are not finite. Use a model in fp32 or bf16.")
    known = features[fitted_on]
    spread = known.std(axis=0)
    standard = (features - known.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    if not dimensions:
        return standard
    _, lengths, axes = np.linalg.svd(standard[fitted_on], full_matrices=False)
    kept = min(dimensions, int((lengths > 1e-8 * lengths[0]).sum()))
    return standard @ axes[:kept].T / (lengths[:kept] / np.sqrt(len(fitted_on)))
