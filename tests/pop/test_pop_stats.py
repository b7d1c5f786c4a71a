"""Edge statistics on graphs whose numbers can be counted by hand."""

import json

import numpy as np
import pytest

from popmargin.errors import DataError
from popmargin.pop.edges import PopEdges
from popmargin.pop.sampling import sample_edges
from popmargin.pop.stats import edge_statistics

IDS = ["a", "b", "c", "d", "e", "f", "g"]
STRENGTH = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, float("nan")]


def test_numbers_of_a_small_graph() -> None:
    """b>a and a>b contradict (2 rows on a cycle), c>d>e>c is a cycle of 3 rows, f is tied with e, g is unmatched.

    Strengths rise from a to f (g unknown), so right are b>a, e>c; wrong are a>b, c>d, d>e: 2 of 5. Terciles of the six
    known: ab weak, cd medium, ef strong; the known stronger sides b, a, c, d, e: 2, 2, 1 of 5.
    """
    edges = PopEdges.from_columns(
        ["b", "a", "c", "d", "e", "f", "g"],
        ["a", "b", "d", "e", "c", "e", None],
        tie=[False] * 5 + [True, False],
    )
    facts = edge_statistics(edges, IDS, STRENGTH)
    assert (facts.edges, facts.training_rows, facts.ties, facts.unmatched) == (7, 6, 1, 1)
    assert facts.agreement == pytest.approx(2 / 5)
    assert (facts.contradicting_pairs, facts.edges_on_cycles, facts.repeated_edges) == (1, 5, 0)
    assert (facts.components, facts.largest_component, facts.isolated) == (2, 4, 1)
    assert facts.training_share == pytest.approx({"weak": 0.4, "medium": 0.4, "strong": 0.2})
    assert facts.as_stronger.histogram == {0: 1, 1: 6}
    assert (facts.as_weaker.never, facts.as_weaker.maximum) == (2, 1)
    assert facts.comparisons is None


def test_repeated_rows_are_counted_once_each() -> None:
    facts = edge_statistics(PopEdges.from_columns(["a"] * 300, ["b"] * 300), ["a", "b"], [1.0, 0.0])
    assert (facts.repeated_edges, facts.contradicting_pairs, facts.edges_on_cycles) == (299, 0, 0)
    assert facts.as_stronger.maximum == 300


def test_exact_labels_agree_and_have_no_cycles() -> None:
    strength = np.random.default_rng(0).random(300)
    ids = [f"p{i}" for i in range(300)]
    facts = edge_statistics(sample_edges(ids, strength, k=3, sampling="iterative"), ids, strength)
    assert (facts.agreement, facts.edges_on_cycles, facts.unmatched) == (1.0, 0, 1)
    assert facts.training_share["weak"] == pytest.approx(1 / 3, abs=0.01)
    noisy = edge_statistics(sample_edges(ids, strength, sampling="random", k=3, flip=0.3), ids, strength)
    assert noisy.agreement == pytest.approx(0.7, abs=0.06)
    assert noisy.edges_on_cycles > 0


def test_no_edges_and_unknown_strengths_give_undefined_numbers_and_valid_json() -> None:
    facts = edge_statistics(PopEdges.from_columns([], []), ["a", "b"], [float("nan")] * 2)
    assert json.loads(json.dumps(facts.to_dict(), allow_nan=False))["agreement"] is None
    assert (facts.components, facts.isolated) == (0, 2)


def test_strengths_must_fit_the_ids() -> None:
    with pytest.raises(DataError, match="one per id"):
        edge_statistics(PopEdges.from_columns(["a"], ["b"]), ["a", "b"], [1.0])
