"""A margin's unit and sign."""

from typing import Any

import jaxtyping
import pytest
import torch

from popmargin.errors import DataError
from popmargin.margin import Margin


def test_units_are_converted_by_beta() -> None:
    nats = Margin(values=torch.tensor([2.0, -4.0]), unit="nats")
    assert nats.nats(0.5).tolist() == [2.0, -4.0] and nats.reward(0.5).tolist() == [1.0, -2.0]
    reward = Margin(values=torch.tensor([1.0]), unit="reward")
    assert reward.reward(0.1).tolist() == [1.0] and reward.nats(0.1).tolist() == pytest.approx([10.0])


def test_clip_is_in_the_margins_own_unit() -> None:
    """10 nats at β = 0.1 are 1 reward unit: clipping at 10 leaves 12 reward units at 10, not at 1."""
    clipped = Margin(values=torch.tensor([12.0, -1.0, 3.0]), unit="reward").clip(0.0, 10.0)
    assert clipped.values.tolist() == [10.0, 0.0, 3.0] and clipped.unit == "reward"


def test_swap_is_its_own_inverse_and_only_sets_other_rows_to_0() -> None:
    margin = Margin(values=torch.tensor([1.0, -2.0]), unit="nats")
    assert margin.swap().values.tolist() == [-1.0, 2.0]
    assert margin.swap().swap().values.tolist() == [1.0, -2.0]
    assert margin.only(torch.tensor([True, False])).values.tolist() == [1.0, 0.0]


def test_an_unknown_unit_is_refused() -> None:
    unit: Any = "foo"
    jaxtyping.config.update("jaxtyping_disable", True)  # as users run it
    try:
        with pytest.raises(DataError, match="The unit of a margin must be nats or reward, not 'foo'"):
            Margin(values=torch.zeros(1), unit=unit)
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)
