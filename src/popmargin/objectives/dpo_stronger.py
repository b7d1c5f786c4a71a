"""The control for DPO-PoP: the same edges, no margin."""

from jaxtyping import Float
from torch import Tensor

from popmargin.objectives.base import Golden, Needs, Rows, objective
from popmargin.objectives.dpo import DPOOptions, dpo


@objective(
    "dpo_stronger",
    options=DPOOptions,
    score="log_ratio",
    origin="control",
    takes_margin="yes",
    needs=Needs(edges=True),
    golden=(Golden(rows={"chosen": [3.0], "rejected": [-7.0]}, expected=[0.31326168751822286]),),
)
def dpo_stronger(rows: Rows, options: DPOOptions) -> Float[Tensor, "B"]:
    """Control: plain DPO on the stronger sides of PoP edges, to separate resampling from the margin.

    L(s, u) = −log σ(β·Δ(s))

    Golden value: as for `dpo`.

    Use:
        The control for `pop`: report it with every PoP result, since it separates the effect of training on stronger
        preferences from that of the margin.

    Watch:
        Random edges oversample strong preferences; iterative edges do not.

    Noise:
        wrong edges only change which preferences are trained on

    Args:
        rows: scores of the stronger sides are log-ratios (B,), nats.
        options: see `DPOOptions`.

    Returns:
        The loss of every row (B,).
    """
    return dpo(rows, options)
