"""`cpo`: its formula in NumPy and what is special about it."""

import torch
from objective_cases import Contract, gaps, loss, nls, refused

from popmargin.objectives.base import Logps, Rows


def sums(chosen: torch.Tensor, rejected: torch.Tensor, tokens: float) -> Logps:
    count = torch.full_like(chosen, tokens)
    return Logps(
        chosen=chosen,
        rejected=rejected,
        chosen_reference=None,
        rejected_reference=None,
        chosen_tokens=count,
        rejected_tokens=count,
    )


CONTRACT = Contract(
    formula=lambda rows, o: nls(o.beta * gaps(rows)[0]) - o.sft_weight * rows["chosen"] / rows["chosen_tokens"],
    options=(
        {"sft_weight": 0.0},
        {"sft_weight": 0.5, "beta": 0.5},
    ),
)


def test_cpo_is_dpo_without_reference_plus_the_sft_regularizer() -> None:
    from popmargin.regularizers.base import REGULARIZERS

    chosen, rejected = torch.tensor([-8.0, -1.0]), torch.tensor([-3.0, -20.0])
    rows = Rows(chosen=chosen, rejected=rejected, logps=sums(chosen, rejected, 4.0))
    assert torch.equal(loss("cpo", rows, sft_weight=0.0), loss("dpo", rows))
    sft = REGULARIZERS.get("sft")
    assert rows.logps is not None
    expected = loss("dpo", rows) + 0.5 * sft.function(rows.logps, sft.options())
    torch.testing.assert_close(loss("cpo", rows, sft_weight=0.5), expected)
    refused("cpo", "sft_weight must be", sft_weight=-1.0)
