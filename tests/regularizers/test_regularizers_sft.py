"""The supervised term."""

import torch

from popmargin.objectives.base import Logps
from popmargin.regularizers.base import REGULARIZERS


def test_sft_is_the_nll_of_the_chosen_response() -> None:
    logps = Logps(
        chosen=torch.tensor([-6.0, -2.0]),
        rejected=torch.tensor([-50.0, -50.0]),
        chosen_reference=None,
        rejected_reference=None,
        chosen_tokens=torch.tensor([3.0, 4.0]),
        rejected_tokens=torch.tensor([1.0, 1.0]),
    )
    sft = REGULARIZERS.get("sft")
    assert sft.function(logps, sft.options()).tolist() == [2.0, 0.5]
    assert sft.function(logps, sft.options(length_normalized=False)).tolist() == [6.0, 2.0]
    assert sft.summary.startswith("SFT") and "sft" in REGULARIZERS.names() and not sft.reference
