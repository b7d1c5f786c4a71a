"""Dawid–Skene: the data of the paper, an independent computation, and recovery of what was simulated."""

import math

import numpy as np
import pytest

from popmargin.statistics.dawid_skene import dawid_skene

PATIENTS = """1111111 3334334 1122122 2223121 2223222 2223322 1222111 3333433 2222223 2322223 4444444 2223343 1111111
2223212 1211111 1112111 1111111 1111111 2222221 2221322 2222222 2222221 2223222 2212222 1111111 1111111
2322222 1111111 1111111 1121121 1111111 3333233 1111111 2222222 2223232 4334343 2212232 2323233 3333432
1111111 1111111 1212111 2322222 1211111 2222222"""
"""Dawid and Skene (1979), table 1: how fit 45 patients are, by anaesthetist 1 (three times), 2, 3, 4 and 5."""


def patients() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    votes = [
        (n, max(0, at - 2), int(said) - 1) for n, row in enumerate(PATIENTS.split()) for at, said in enumerate(row)
    ]
    item, who, vote = (np.array(column) for column in zip(*votes, strict=True))
    return item, who, vote


def by_loops(item: list[int], who: list[int], vote: list[int], classes: int, steps: int) -> list[list[float]]:
    """The equations of the paper, one by one: (2.3) and (2.4), then (2.5)."""
    items, labellers = max(item) + 1, max(who) + 1
    votes = list(zip(item, who, vote, strict=True))
    share = [[0.0] * classes for _ in range(items)]
    for i, _, v in votes:
        share[i][v] += 1 / sum(1 for j, _, _ in votes if j == i)
    for _ in range(steps):
        prior = [sum(share[i][k] for i in range(items)) / items for k in range(classes)]
        table = [[[0.0] * classes for _ in range(classes)] for _ in range(labellers)]
        for i, r, v in votes:
            for k in range(classes):
                table[r][k][v] += share[i][k]
        for rows in table:
            for k in range(classes):
                rows[k] = [value / sum(rows[k]) for value in rows[k]]
        for i in range(items):
            chance = [prior[k] * math.prod(table[r][k][v] for j, r, v in votes if j == i) for k in range(classes)]
            share[i] = [value / sum(chance) for value in chance]
    return share


def test_the_data_of_the_paper() -> None:
    """Table 4 gives the shares of classes as .40, .42, .11 and .07."""
    item, who, vote = patients()
    found = dawid_skene(item, who, vote, classes=4, prior=(0.0, 0.0))
    assert found.prior.round(2).tolist() == [0.40, 0.42, 0.11, 0.07]
    assert found.shares.argmax(axis=1)[[0, 10, 31, 44]].tolist() == [0, 3, 2, 1]
    assert found.confusion.sum(axis=2) == pytest.approx(1.0) and found.shares.sum(axis=1) == pytest.approx(1.0)


def test_every_step_is_that_of_the_equations() -> None:
    item, who, vote = patients()
    for steps in (1, 7):
        found = dawid_skene(item, who, vote, classes=4, prior=(0.0, 0.0), most_steps=steps)
        expected = by_loops(item.tolist(), who.tolist(), vote.tolist(), 4, steps)
        assert found.steps == steps and found.shares == pytest.approx(np.array(expected), abs=1e-9)


def simulated(right: list[float], items: int = 600) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    truth = rng.random(items) < 0.6
    said = [np.where(rng.random(items) < share, truth, ~truth) for share in right]
    item, who = np.tile(np.arange(items), len(right)), np.repeat(np.arange(len(right)), items)
    return item, who, np.concatenate(said).astype(int), truth.astype(int)


def test_reliabilities_are_recovered_and_beat_the_majority() -> None:
    right = [0.95, 0.8, 0.6, 0.55, 0.3]  # the last one is mostly wrong, which is as good as 0.7
    item, who, vote, truth = simulated(right, 4000)
    found = dawid_skene(item, who, vote, classes=2)
    diagonal = np.einsum("rkk,k->r", found.confusion, found.prior)
    assert diagonal == pytest.approx(right, abs=0.04) and found.prior[1] == pytest.approx(0.6, abs=0.05)
    majority = (vote.reshape(len(right), -1).mean(axis=0) > 0.5).astype(int)
    assert (found.shares.argmax(axis=1) == truth).mean() > (majority == truth).mean() + 0.15
    sure = found.shares.max(axis=1)
    assert sure.mean() == pytest.approx((found.shares.argmax(axis=1) == truth).mean(), abs=0.03)


def test_held_items_stay_and_teach() -> None:
    """A judge that says the opposite is believed to, from 60 known items alone."""
    item, who, vote, truth = simulated([0.1])
    held = np.arange(600) < 60
    known = np.eye(2)[truth] * held[:, None]
    found = dawid_skene(item, who, vote, classes=2, held_N=held, held_NK=known)
    assert (found.shares[held] == known[held]).all()
    assert (found.shares.argmax(axis=1) == truth)[~held].mean() > 0.85
    alone = dawid_skene(item, who, vote, classes=2)
    assert (alone.shares.argmax(axis=1) == truth).mean() < 0.2  # nothing else tells


def test_few_votes_stay_near_the_prior() -> None:
    one = np.zeros(1, dtype=int)
    found = dawid_skene(one, one, one, classes=2)
    assert 0.5 < found.shares[0, 0] < 0.95 and found.confusion.min() > 0.05
