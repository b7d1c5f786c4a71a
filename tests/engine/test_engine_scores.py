"""Scores of the four kinds, by hand."""

import pytest
import torch

from popmargin.engine.scores import pair_scores, scores_of
from popmargin.objectives.base import ScoreKind

LOGPS = torch.tensor([-1.0, -2.0, -3.0, -4.0, -5.0])
REFERENCE = torch.tensor([-1.5, -2.0, -2.0, -4.5, -6.0])
LENGTHS = torch.tensor([2, 3])  # one preference: chosen has two tokens, rejected three


@pytest.mark.parametrize(
    ("kind", "chosen", "rejected"),
    [("logp", -3.0, -12.0), ("mean_logp", -1.5, -4.0), ("log_ratio", 0.5, 0.5), ("mean_log_ratio", 0.25, 0.5 / 3)],
)
def test_kinds(kind: ScoreKind, chosen: float, rejected: float) -> None:
    scores = pair_scores(kind, LOGPS, REFERENCE, LENGTHS)
    torch.testing.assert_close(scores.chosen, torch.tensor([chosen]))
    torch.testing.assert_close(scores.rejected, torch.tensor([rejected]))
    torch.testing.assert_close(scores.gap, torch.tensor([chosen - rejected]))
    assert scores.logps.chosen_tokens.tolist() == [2] and scores.logps.rejected_tokens.tolist() == [3]


def test_token_weights_leave_tokens_out_of_sums_and_counts() -> None:
    weights = torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0])
    scores = pair_scores("mean_log_ratio", LOGPS, REFERENCE, LENGTHS, weights)
    torch.testing.assert_close(scores.chosen, torch.tensor([0.5]))
    torch.testing.assert_close(scores.rejected, torch.tensor([(-1.0 + 0.5) / 2]))
    # What regularizers see is of whole responses.
    assert scores.logps.chosen.tolist() == [-3.0] and scores.logps.rejected_tokens.tolist() == [3]
    torch.testing.assert_close(scores_of("log_ratio", scores.logps), (torch.tensor([0.5]), torch.tensor([0.5])))


def test_a_response_without_any_kept_token_scores_0() -> None:
    scores = pair_scores("mean_logp", LOGPS, None, LENGTHS, torch.tensor([0.0, 0.0, 1.0, 1.0, 1.0]))
    assert scores.chosen.tolist() == [0.0] and scores.logps.chosen_reference is None


def test_without_reference() -> None:
    with pytest.raises(AssertionError, match="reference"):
        pair_scores("log_ratio", LOGPS, None, LENGTHS)
