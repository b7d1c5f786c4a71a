"""Pairs from rated responses."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from popmargin.data.pairs import PAIRINGS, make_pairs
from popmargin.errors import ConfigError

RATINGS = st.lists(st.integers(1, 5).map(float), min_size=2, max_size=6)


@given(RATINGS, st.sampled_from(PAIRINGS), st.sampled_from([0.0, 1.5]), st.integers(0, 9))
def test_pairs_are_ordered_and_complete(ratings, pairs, min_gap, seed):
    made = make_pairs(ratings, pairs=pairs, min_gap=min_gap, seed=seed, key="k")
    count = len(ratings)
    assert len(made) == {"all": count * (count - 1) // 2, "best_vs_rest": count - 1}.get(pairs, 1)
    assert len({frozenset((pair.chosen, pair.rejected)) for pair in made}) == len(made)
    for pair in made:
        assert pair.gap == ratings[pair.chosen] - ratings[pair.rejected] >= 0
        assert pair.skipped == ("tie" if pair.gap == 0 else "below_min_gap" if pair.gap < min_gap else None)
    if pairs != "all":
        assert ratings[made[0].chosen] == max(ratings)
    if pairs == "best_vs_worst":
        assert made[0].gap == max(ratings) - min(ratings)
    if pairs == "best_vs_random":  # skipped only if no partner is far enough below
        assert (made[0].skipped is None) == (max(ratings) - min(ratings) >= max(min_gap, 1.0))


def test_random_partner_is_drawn_from_all_lower_ones():
    drawn = {make_pairs([1.0, 2.0, 3.0, 3.0], pairs="best_vs_random", seed=seed)[0].rejected for seed in range(60)}
    assert drawn == {0, 1}


def test_unknown_pairing_names_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean 'best_vs_worst'"):
        make_pairs([1.0, 2.0], pairs="best_vs_wrst")
    with pytest.raises(ConfigError, match="min_gap=nan"):
        make_pairs([1.0, 2.0], min_gap=float("nan"))
