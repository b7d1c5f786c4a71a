"""SASRec: its table gets gradients at both ends, it sees no future, and it learns."""

import numpy as np
import pytest
import torch

from popmargin.data.ragged import Ragged
from popmargin.errors import RunError
from popmargin.recommend.baselines.base import Observed
from popmargin.recommend.baselines.sasrec import SASRec, SASRecOptions, fit_sasrec
from popmargin.recommend.denoising.item_denoiser import padded
from popmargin.recommend.ranks import rank_cases
from popmargin.recommend.splitting import Cases


def ring(items: int) -> Observed:
    """Sequences that go round a ring of items; validation asks what follows each."""
    sequences = Ragged.of([[(start + step) % items + 1 for step in range(4)] for start in range(items)])
    names, histories = tuple(map(str, range(items))), Ragged.of([[start + 1] for start in range(items)])
    return Observed(sequences, sequences, items, Cases(names, histories, np.arange(1, items + 1) % items + 1))


@pytest.mark.parametrize("output_gradient", [True, False])
def test_the_table_gets_gradients_as_output(output_gradient: bool) -> None:
    """Item 5 is in no history: only the softmax reaches it; the public code lets nothing through."""
    torch.manual_seed(0)
    model = SASRec(5, SASRecOptions(dimension=4, output_gradient=output_gradient))
    model.loss(*padded(Ragged.of([[1, 2, 3], [4, 1]]), 10)).backward()
    assert model.table.grad is not None
    assert bool(model.table.grad[5].any()) == output_gradient and model.table.grad[1].any()


def test_the_loss_by_hand() -> None:
    """The mean over items with one before them: three here, in sequences of three and two items."""
    torch.manual_seed(0)
    model = SASRec(5, SASRecOptions(dimension=4)).eval()
    sequences = Ragged.of([[1, 2, 3], [4, 1]])
    expected = [
        -torch.log_softmax(torch.from_numpy(model.scores(Ragged.of([before]), ["u"]))[0], 0)[target - 1]
        for before, target in (([1], 2), ([1, 2], 3), ([4], 1))
    ]
    torch.testing.assert_close(model.loss(*padded(sequences, 10)), torch.stack(expected).mean())
    assert model.loss(*padded(Ragged.of([[1], [2]]), 10)).item() == 0.0


def test_it_sees_no_future() -> None:
    torch.manual_seed(0)
    model = SASRec(5, SASRecOptions(dimension=4)).eval()
    one, other = (model(torch.tensor([[1, 2, last]])) for last in (3, 4))
    torch.testing.assert_close(one[:, :2], other[:, :2])
    assert not torch.allclose(one[:, 2], other[:, 2])


@pytest.mark.parametrize("sampled", [None, 8])
def test_it_learns_the_ring_and_a_seed_fixes_it(sampled: int | None) -> None:
    options = SASRecOptions(
        dimension=16, epochs=12, batch_size=6, learning_rate=0.01, patience=12, sampled=sampled, dropout=0.2
    )
    before, observed = torch.get_rng_state(), ring(30)
    model, again = (fit_sasrec(observed, options) for _ in range(2))
    assert torch.equal(before, torch.get_rng_state()) and not model.training
    asked = observed.valid
    assert rank_cases(model, asked, items=30, count=1).ranks.mean() < 3  # at random: 14.5
    np.testing.assert_array_equal(*(each.scores(asked.histories, asked.users) for each in (model, again)))


def test_it_stops_when_validation_gets_no_better() -> None:
    """With ten of nine items every case is a hit from the first epoch on, whose weights are kept."""
    first, stopped = (fit_sasrec(ring(9), SASRecOptions(dimension=4, epochs=epochs, patience=1)) for epochs in (1, 50))
    assert torch.equal(first.table, stopped.table)


def test_a_diverged_loss_is_named() -> None:
    with pytest.raises(RunError, match="Lower learning_rate"):
        fit_sasrec(ring(9), SASRecOptions(dimension=4, learning_rate=1e30, epochs=5, batch_size=2))
