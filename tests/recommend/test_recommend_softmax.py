"""The softmax over the catalogue: PyTorch's cross-entropy, a chunk at a time; and the estimate from a sample of it."""

import pytest
import torch

from popmargin.recommend.item_softmax import sampled_softmax, whole_softmax


def case(rows: int = 300, items: int = 40) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rows of more than two chunks."""
    drawn = torch.Generator().manual_seed(0)
    states, table = (torch.randn(count, 6, generator=drawn, dtype=torch.float64) for count in (rows, items))
    targets = torch.randint(items, (rows,), generator=drawn)
    return states.requires_grad_(), table.requires_grad_(), targets


def test_it_is_cross_entropy_with_its_gradients() -> None:
    states, table, targets = case()
    found = whole_softmax(states, table, targets)
    expected = torch.nn.functional.cross_entropy(states @ table.T, targets)
    torch.testing.assert_close(found, expected)
    for one, other in zip(*(torch.autograd.grad(3 * loss, [states, table]) for loss in (found, expected)), strict=True):
        torch.testing.assert_close(one, other)


def test_large_logits_and_a_table_without_gradient() -> None:
    states, table, targets = case(5)
    found = whole_softmax(1e3 * states, table.detach(), targets)
    found.backward()
    assert torch.isfinite(found) and states.grad is not None and torch.isfinite(states.grad).all()
    assert table.grad is None


def test_a_sample_of_every_item_once_is_the_whole() -> None:
    states, table, targets = case()
    found = sampled_softmax(states, table, targets, torch.arange(40), torch.full((40,), 1 / 40, dtype=torch.float64))
    expected = whole_softmax(states, table, targets)
    for one, other in zip(*(torch.autograd.grad(loss, [states, table]) for loss in (found, expected)), strict=True):
        torch.testing.assert_close(one, other)
    assert found.item() == pytest.approx(expected.item(), abs=1e-12)


def test_the_correction_makes_the_sum_right_in_the_mean() -> None:
    """Σ over others, from exp(loss)·e^(o_y) − e^(o_y), averaged over samples drawn with very unequal chances."""
    states, table, targets = (each.detach() for each in case(1))
    chances = torch.arange(1.0, 41.0, dtype=torch.float64).square()
    chances /= chances.sum()
    whole = whole_softmax(states, table, targets).exp().item() - 1
    drawn = torch.multinomial(chances, 400_000, replacement=True, generator=torch.Generator().manual_seed(1))
    found = sampled_softmax(states, table, targets, drawn, chances).exp().item() - 1
    assert found == pytest.approx(whole, rel=0.05)
    assert sampled_softmax(states, table, targets, targets, chances).item() == 0  # the target stands for no other item
