"""Signed strengths: what sampled edges compare, chains, and the zero of the strength scale."""

import numpy as np
import pytest
from scipy.special import ndtri

from popmargin.config import PopConfig, ZeroConfig, from_dict
from popmargin.data.load import load_preferences
from popmargin.data.schema import Preferences
from popmargin.errors import ConfigError, DataError
from popmargin.pop.chains import chain_pairs
from popmargin.pop.sampling import sample_edges
from popmargin.pop.scale import StrengthScale
from popmargin.pop.strengths import normal_strengths, soft_labels, with_strengths
from popmargin.pop.zero import right_share


def rows(**more: object) -> list[dict[str, object]]:
    return [{"prompt": "2+2?", "chosen": "four", "rejected": "5", "id": "a"} | more]


@pytest.mark.parametrize(
    ("numbers", "strength"),
    [
        ({"strength": -1.5}, -1.5),
        ({"margin": -1.5}, -1.5),
        ({"chosen_rating": 1.0, "rejected_rating": 3.0}, -2.0),
        ({"soft_label": 0.2, "strength": -1.0}, -1.0),
    ],
)
def test_a_label_that_the_numbers_contradict_is_kept_only_when_told_to(
    numbers: dict[str, float], strength: float
) -> None:
    kept = load_preferences(rows(**numbers), contradictions="keep")
    assert kept[0]["chosen"] == "four" and kept.strength.tolist() == [strength]
    assert kept.report.rows_kept == 1 and any("says that rejected" in n or "say that" in n for n in kept.report.notes)
    if "soft_label" in numbers:
        assert kept.soft_label.tolist() == [0.2]
        assert load_preferences(rows(**numbers))[0]["chosen"] == "5"  # swapped
    elif "margin" in numbers:
        assert np.isnan(load_preferences(rows(**numbers)).strength).all()
    else:
        with pytest.raises(DataError, match="contradictions='keep'"):
            load_preferences(rows(**numbers))


def test_what_agrees_with_the_label_is_read_the_same_either_way() -> None:
    given = rows(chosen_rating=3.0, rejected_rating=1.0, soft_label=0.9)
    first, second = load_preferences(given), load_preferences(given, contradictions="keep")
    assert first.fingerprint() == second.fingerprint() and first.report.notes == second.report.notes


def test_an_unknown_way_with_contradictions_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'keep'"):
        load_preferences(rows(), contradictions="kep")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(("count", "k"), [(2, 1), (3, 1), (5, 2), (9, 3), (200, 3), (1000, 8)])
def test_chains_meet_every_preference_equally_often_and_share_one_with_the_comparison_before(
    count: int, k: int
) -> None:
    first, second = chain_pairs(count, k, np.random.default_rng(count))
    assert (first != second).all() and len(first) == (1 if count == 2 else k * count)
    assert len({frozenset(pair) for pair in zip(first.tolist(), second.tolist(), strict=True)}) == len(first)
    if count > 2:
        assert (np.bincount(np.concatenate([first, second]), minlength=count) == 2 * k).all()
    assert all({first[row], second[row]} & {first[row + 1], second[row + 1]} for row in range(len(first) - 1)), (
        "the chain breaks"
    )


def test_chains_differ_by_seed_and_say_when_there_is_no_room() -> None:
    one, other = (chain_pairs(50, 1, np.random.default_rng(seed))[0].tolist() for seed in (0, 1))
    assert one != other
    with pytest.raises(ConfigError, match="Use k <= 1"):
        chain_pairs(4, 2, np.random.default_rng(0))


def test_edges_of_chains_are_labelled_like_random_ones() -> None:
    strength = np.random.default_rng(0).normal(size=40)
    ids = [f"p{row}" for row in range(40)]
    edges = sample_edges(ids, strength, sampling="chain", k=2, seed=1)
    stronger, weaker = edges.resolve(ids)
    assert len(edges) == 80 and edges.parameters["comparisons"] == 80
    assert (strength[stronger] > strength[weaker]).all()
    assert (strength[stronger] < 0).any()  # a negative strength wins against a more negative one
    with pytest.raises(ConfigError, match="chain sampling makes k comparisons"):
        sample_edges(ids, strength, sampling="chain", budget=3)


def test_normal_strengths_have_the_share_above_zero_and_the_unit_of_the_half_normal_ones() -> None:
    strength = np.random.default_rng(0).normal(size=2000)
    z = normal_strengths(strength, 0.8)
    assert (z > 0).mean() == pytest.approx(0.8, abs=0.001) and np.abs(z).mean() == pytest.approx(1)
    assert (np.argsort(z) == np.argsort(strength)).all()
    spread = z.std()
    assert z.mean() / spread == pytest.approx(ndtri(0.8), abs=0.01)
    p = soft_labels(strength, right=0.8)
    assert (p < 0.5).mean() == pytest.approx(0.2, abs=0.001) and (soft_labels(strength) > 0.5).all()
    assert normal_strengths([], 0.8).tolist() == []
    with pytest.raises(ConfigError, match="above 0 and below 1"):
        normal_strengths(strength, 1.0)


def test_each_way_to_the_zero_recovers_the_share_of_right_labels() -> None:
    rng = np.random.default_rng(0)
    strength = rng.normal(1.0, 2.0, size=4000)
    right = rng.random(4000) < 1 / (1 + np.exp(-strength))  # zero is at 0
    wrong = np.where(rng.random(4000) < 0.5, 1.0 - right, np.nan)
    truth = (strength > 0).mean()
    assert right_share(strength, wrong=wrong) == pytest.approx(truth, abs=0.02)
    # Answers about the weakest half alone place it as well: the share among the asked would be far too low.
    weak = np.where(strength < np.median(strength), 1.0 - right, np.nan)
    assert np.nanmean(1 - weak) < truth - 0.1 and right_share(strength, wrong=weak) == pytest.approx(truth, abs=0.03)
    # The same after a shift of the scale, which comparisons cannot tell.
    assert right_share(strength - 1.0, wrong=wrong) == pytest.approx(truth, abs=0.02)
    assert right_share(strength, right=0.8) == 0.8 and right_share(strength) is None
    first, second = rng.random(100_000) < 0.8, rng.random(100_000) < 0.8
    assert right_share(strength, agreement=float((first == second).mean())) == pytest.approx(0.8, abs=0.01)
    for answers in (np.full(4000, np.nan), np.where(right, 2.0, 0.0)):
        with pytest.raises(DataError, match="must be 1 where the label is wrong"):
            right_share(strength, wrong=answers)


def test_the_zero_in_a_configuration() -> None:
    assert from_dict(PopConfig, {"zero": {"right": 0.8}}).zero == ZeroConfig(right=0.8)
    with pytest.raises(ConfigError, match=r"pop\.zero has right and wrong; give one of them"):
        ZeroConfig(right=0.8, wrong="w")
    with pytest.raises(ConfigError, match=r"pop\.zero\.right must be above 0\.5"):
        ZeroConfig(right=0.4)


def test_a_scale_with_a_zero_in_the_data_turns_preferences_round() -> None:
    data: Preferences = load_preferences(
        [{"prompt": f"q{row}", "chosen": "x", "rejected": "y", "id": f"p{row}"} for row in range(10)]
    )
    count = np.ones(10, dtype=np.int64)
    scale = StrengthScale(
        ids=data.ids, strength=np.arange(10.0), standard_error=np.ones(10), comparisons=count, component=count
    )
    soft = with_strengths(data, scale, right=0.7).soft_label
    assert (soft < 0.5).tolist() == [True] * 3 + [False] * 7
    assert (with_strengths(data, scale).soft_label > 0.5).all()
