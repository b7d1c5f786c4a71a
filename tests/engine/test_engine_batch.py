"""Batches of distinct preferences, and the rows that point into them."""

from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from popmargin.data.tokenize import TokenizedPreferences
from popmargin.engine.batch import TokenInputs
from popmargin.engine.reference import ReferenceLogps
from popmargin.engine.sequences import pad_sequences
from popmargin.training.batches import Collator, TrainingRows, clustered_order

STRONGER, WEAKER = np.array([4, 0, 4, 7, 2]), np.array([0, 5, 9, -1, 4])


def collate(
    tokenized: TokenizedPreferences,
    weaker: Literal["none", "target", "gradient"],
    target_forward: Literal["all", "others", "none"] = "none",
    **more: Any,
) -> dict[str, Any]:
    rows = TrainingRows.of_edges(STRONGER, WEAKER, len(tokenized), everyone=False)
    reference = more.pop("reference", None)
    cached = {} if reference is None else {"reference": reference}
    layout = more.pop("layout", "padded")
    inputs = TokenInputs(tokenized, 0, layout, cached=cached)
    options: dict[str, Any] = {"columns": {}} | more
    collator = Collator(rows=rows, inputs=inputs, weaker=weaker, target_forward=target_forward, **options)
    return collator.part([0, 1, 2, 3, 4])


def responses(sequences: dict[str, torch.Tensor]) -> list[list[int]]:
    """The completions of a batch, read back through `label_positions`: the token after each position."""
    ids = sequences["input_ids"]
    assert torch.equal(ids.flatten()[sequences["label_positions"] + 1], sequences["labels"])
    return [part.tolist() for part in sequences["labels"].split(sequences["lengths"].tolist())]


def expected(tokenized: TokenizedPreferences, preferences: list[int]) -> list[list[int]]:
    return [side[i].tolist() for side in (tokenized.chosen, tokenized.rejected) for i in preferences]


def test_right_padding_and_positions() -> None:
    sequences = pad_sequences([np.array([5, 6]), np.array([7])], [np.array([8]), np.array([9, 10, 11])], pad_id=1)
    assert sequences["input_ids"].tolist() == [[5, 6, 8, 1], [7, 9, 10, 11]]
    assert sequences["attention_mask"].tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]
    assert sequences["label_positions"].tolist() == [1, 4, 5, 6]
    assert sequences["labels"].tolist() == [8, 9, 10, 11]
    assert sequences["lengths"].tolist() == [1, 3]


def test_only_stronger_sides_without_a_weaker_need(tokenized: TokenizedPreferences) -> None:
    batch = collate(tokenized, "none")
    assert batch["preferences"].tolist() == [0, 2, 4, 7]
    assert responses(batch["policy"]["sequences"]) == expected(tokenized, [0, 2, 4, 7])
    assert batch["stronger"].tolist() == [2, 0, 2, 3, 1]
    assert not batch["has_weaker"].any() and "target" not in batch and batch["row_count"] == 5


def test_no_preference_is_forwarded_twice_with_gradients(tokenized: TokenizedPreferences) -> None:
    batch = collate(tokenized, "gradient")
    assert batch["preferences"].tolist() == [0, 2, 4, 5, 7, 9]
    assert responses(batch["policy"]["sequences"]) == expected(tokenized, [0, 2, 4, 5, 7, 9])
    numbers = batch["preferences"]
    assert numbers[batch["stronger"]].tolist() == STRONGER.tolist()
    assert numbers[batch["weaker"]][batch["has_weaker"]].tolist() == WEAKER[WEAKER >= 0].tolist()
    assert batch["has_weaker"].tolist() == [True, True, True, False, True]
    assert "target" not in batch


@pytest.mark.parametrize(("forward", "scored"), [("all", [0, 4, 5, 9]), ("others", [5, 9]), ("none", [])])
def test_what_a_target_forwards(
    tokenized: TokenizedPreferences, forward: Literal["all", "others", "none"], scored: list[int]
) -> None:
    batch = collate(tokenized, "target", forward)
    assert batch["preferences"].tolist() == [0, 2, 4, 7, 5, 9]  # those with a gradient first
    assert responses(batch["policy"]["sequences"]) == expected(tokenized, [0, 2, 4, 7])
    numbers = batch["preferences"]
    assert numbers[batch["stronger"]].tolist() == STRONGER.tolist()
    assert numbers[batch["weaker"]][batch["has_weaker"]].tolist() == WEAKER[WEAKER >= 0].tolist()
    if scored:
        assert responses(batch["target"]["sequences"]) == expected(tokenized, scored)
        assert numbers[batch["target_place"]].tolist() == scored
    else:
        assert "target" not in batch


def test_columns_and_reference_ride_along(tokenized: TokenizedPreferences) -> None:
    count = len(tokenized)
    chosen = [np.full(len(tokenized.chosen[i]), i, dtype=np.float32) for i in range(count)]
    rejected = [np.full(len(tokenized.rejected[i]), -i, dtype=np.float32) for i in range(count)]
    batch = collate(
        tokenized,
        "target",
        "others",
        columns={"margin": np.arange(count, dtype=np.float32)},
        reference=ReferenceLogps(chosen, rejected),
    )
    assert batch["columns"]["margin"].tolist() == STRONGER.tolist()
    preferences = [0, 2, 4, 7]
    wanted = [chosen[i] for i in preferences] + [rejected[i] for i in preferences]
    assert batch["policy"]["reference"].tolist() == np.concatenate(wanted).tolist()
    assert len(batch["target"]["reference"]) == len(batch["target"]["sequences"]["labels"])


def test_tokens_are_counted_once_a_preference(tokenized: TokenizedPreferences) -> None:
    batch = collate(tokenized, "none")
    assert batch["policy_tokens"] == int(batch["policy"]["sequences"]["attention_mask"].sum())


def test_rows_of_preferences() -> None:
    rows = TrainingRows.of_preferences(3)
    assert len(rows) == 3 and rows.stronger.tolist() == [0, 1, 2] and rows.weaker.tolist() == [-1, -1, -1]
    assert rows.stronger_share.tolist() == [1, 1, 1] and rows.weaker_share.tolist() == [0, 0, 0]


EDGES = st.lists(st.tuples(st.integers(0, 9), st.integers(-1, 9)).filter(lambda e: e[0] != e[1]), min_size=1)


@settings(max_examples=200)
@given(edges=EDGES, everyone=st.booleans())
def test_shares_give_every_preference_the_same_total(edges: list[tuple[int, int]], everyone: bool) -> None:
    stronger, weaker = (np.array(side) for side in zip(*edges, strict=True))
    rows = TrainingRows.of_edges(stronger, weaker, 10, everyone=everyone)
    totals = np.zeros(10)
    np.add.at(totals, rows.stronger, rows.stronger_share)
    matched = rows.weaker >= 0
    np.add.at(totals, rows.weaker[matched], rows.weaker_share[matched])
    present = totals > 0
    assert present.all() or not everyone
    # The mean over rows of the shared losses is the mean over preferences.
    np.testing.assert_allclose(totals[present], len(rows) / present.sum(), rtol=1e-5)
    assert (rows.weaker_share[~matched] == 0).all()
    assert list(zip(rows.stronger, rows.weaker, strict=True))[: len(edges)] == edges


def random_rows(count: int = 60, seed: int = 0) -> TrainingRows:
    random = np.random.default_rng(seed)
    stronger = np.arange(count)
    weaker = (stronger + random.integers(1, count, size=count)) % count
    return TrainingRows.of_edges(stronger, weaker, count, everyone=False)


def scored(rows: TrainingRows, order: list[int], size: int) -> int:
    batches = [order[start : start + size] for start in range(0, len(order), size)]
    return sum(len(np.union1d(rows.stronger[batch], rows.weaker[batch])) for batch in batches)


def test_clustered_batches_score_fewer_preferences() -> None:
    rows = random_rows()
    order = clustered_order(rows, 8, seed=0)
    assert sorted(order) == list(range(60))
    shuffled = np.random.default_rng(0).permutation(60).tolist()
    assert scored(rows, order, 8) < 0.85 * scored(rows, shuffled, 8)


@settings(max_examples=50)
@given(edges=EDGES, size=st.integers(1, 7), seed=st.integers(0, 5))
def test_clustered_order_is_a_permutation(edges: list[tuple[int, int]], size: int, seed: int) -> None:
    stronger, weaker = (np.array(side) for side in zip(*edges, strict=True))
    rows = TrainingRows.of_edges(stronger, weaker, 10, everyone=False)
    order = clustered_order(rows, size, seed)
    assert sorted(order) == list(range(len(rows))) and order == clustered_order(rows, size, seed)


def test_clustered_order_differs_by_seed() -> None:
    rows = random_rows()
    assert clustered_order(rows, 8, 0) != clustered_order(rows, 8, 1)
