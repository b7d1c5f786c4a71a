"""A gold reward of controlled sentiment: log-odds that a text is positive, by TF-IDF and logistic regression.

    python docs/studies/best_of_n_gold.py runs/best-of-n/reviews.jsonl runs/best-of-n/gold.npz

trains it on film reviews, and prints its accuracy in five folds. `docs/studies/best_of_n_gold.py:positive` is the
reward; it reads `runs/best-of-n/gold.npz`. Words and pairs of neighbours count, those of at least three reviews.
"""

import argparse
import functools
import itertools
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.sparse import csr_matrix
from scipy.special import expit

FITTED = Path("runs/best-of-n/gold.npz")
RIDGE = 1.0  # as C = 1 of the usual implementation: |w|²/2 against the sum of the log-losses
_WORD = re.compile(r"[a-z0-9']+")


def terms(text: str) -> list[str]:
    """Words, and pairs of neighbours."""
    words = _WORD.findall(text.lower())
    return [*words, *map(" ".join, itertools.pairwise(words))]


def matrix(texts: list[str], place: dict[str, int], idf: np.ndarray) -> csr_matrix:
    """TF-IDF of unit length: (1 + log count)·idf of each known term."""
    values: list[float] = []
    columns: list[int] = []
    ends = [0]
    for text in texts:
        counts = Counter(place[term] for term in terms(text) if term in place)
        own = np.array([(1 + np.log(count)) * idf[column] for column, count in counts.items()])
        values += (own / (np.sqrt((own**2).sum()) or 1.0)).tolist()
        columns += list(counts)
        ends.append(len(columns))
    return csr_matrix((values, columns, ends), shape=(len(texts), len(place)))


def fit(texts: list[str], positive: np.ndarray) -> tuple[dict[str, int], np.ndarray, np.ndarray]:
    """Places of the terms, their idf, and weights with the bias last."""
    seen = Counter(term for text in texts for term in set(terms(text)))
    known = sorted(term for term, count in seen.items() if count >= 3)
    idf = np.log((1 + len(texts)) / (1 + np.array([seen[term] for term in known]))) + 1
    place = {term: column for column, term in enumerate(known)}
    x, sign = matrix(texts, place, idf), np.where(positive, 1.0, -1.0)

    def value(at: np.ndarray) -> tuple[float, np.ndarray]:
        reach = sign * (x @ at[:-1] + at[-1])
        pull = -sign * expit(-reach)
        slope = np.append(x.T @ pull + RIDGE * at[:-1], pull.sum())
        return float(np.logaddexp(0.0, -reach).sum() + RIDGE / 2 * (at[:-1] ** 2).sum()), slope

    found: Any = minimize(value, np.zeros(len(known) + 1), jac=True, method="L-BFGS-B", options={"maxiter": 300})
    return place, idf, np.asarray(found.x)


def log_odds(texts: list[str], fitted: tuple[dict[str, int], np.ndarray, np.ndarray]) -> np.ndarray:
    """That the texts are positive."""
    place, idf, weights = fitted
    return matrix(texts, place, idf) @ weights[:-1] + weights[-1]


@functools.cache
def _kept() -> tuple[dict[str, int], np.ndarray, np.ndarray]:
    with np.load(FITTED) as held:
        return {term: column for column, term in enumerate(held["terms"].tolist())}, held["idf"], held["weights"]


def positive(prompts: list[Any], completions: list[str]) -> list[float]:
    """The gold reward: log-odds that each completion is positive, whatever its prompt."""
    return log_odds(list(completions), _kept()).tolist()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reviews", type=Path)
    parser.add_argument("target", type=Path)
    args = parser.parse_args()
    rows = [json.loads(line) for line in args.reviews.read_text(encoding="utf-8").splitlines()]
    texts, positives = [row["text"] for row in rows], np.array([row["stars"] > 5 for row in rows])
    fold = np.random.default_rng(0).permutation(len(rows)) % 5
    right = np.zeros(len(rows), dtype=bool)
    for number in range(5):
        inside = np.flatnonzero(fold != number)
        held = np.flatnonzero(fold == number)
        fitted = fit([texts[row] for row in inside], positives[inside])
        right[held] = (log_odds([texts[row] for row in held], fitted) > 0) == positives[held]
    place, idf, weights = fit(texts, positives)
    np.savez(args.target, terms=np.array(list(place)), idf=idf, weights=weights)
    print(f"{args.target}: {len(place)} terms of {len(rows)} reviews; accuracy in five folds {right.mean():.1%}")


if __name__ == "__main__":
    main()
