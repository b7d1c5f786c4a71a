"""SimPO-PoP: DPO-PoP on length-averaged log-probs, without a reference."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from popmargin.objectives.base import Figure, Golden, Needs, Rows, objective
from popmargin.objectives.pop import PopOptions, pop, target_diagnostics


@dataclass(frozen=True, kw_only=True)
class SimPOPopOptions(PopOptions):
    """Options of `simpo_pop`: those of `pop`, in nats per token; β = 1 as in the authors' code."""

    beta: float = 1.0


@objective(
    "simpo_pop",
    options=SimPOPopOptions,
    score="mean_logp",
    origin="published",
    takes_margin="own",
    needs=Needs(edges=True, weaker="target"),
    diagnostics=target_diagnostics,
    figure=Figure(vary="target", values=(0.0, 0.5, 1.0, 2.0), rows={"has_weaker": 1}, score=-2.0),
    golden=(
        Golden(
            rows={"chosen": [-1.0, -1.0], "rejected": [-2.0, -2.0], "target": [1.0, -1.0], "has_weaker": [1, 1]},
            expected=[0.6931471805599453, 0.31326168751822286],
        ),
    ),
)
def simpo_pop(rows: Rows, options: SimPOPopOptions) -> Float[Tensor, "B"]:
    """SimPO-PoP: DPO-PoP with the gap of length-averaged log-probs and no reference.

    L(s, u) = −log σ(β·[g(s) − clip(sg[g_target(u)], m_min, m_max)]),  g = mean_logp(y_w) − mean_logp(y_l)

    A variant in the authors' code (Chittepu et al. 2025). The start model's gaps are not 0 here, so margins act from
    the first step. Besides the difference in tokens described for `pop`, their code divides by the number of tokens
    after the responses diverge; here each sum is divided by all tokens of its response, as in SimPO. On the random
    model and the pairs used for `pop` the gap differs by 0.32 nats per token on average, more than its standard
    deviation of 0.18: margins and β do not carry over (`tests/objectives/test_objective_authors.py`).

    Golden values: a gap of 1 with the target 1 gives log 2; a target of −1 is clipped to 0 and gives log(1 + e⁻¹).

    Use:
        As `pop`, without a reference and without an effect of length.

    Watch:
        Margins are in nats per token and hardly ever reach the upper clip of 10. They act from the first step on.

    Noise:
        ordinal, as `pop`

    Args:
        rows: scores of the stronger sides are mean log-probs (B,), nats per token; `target` likewise.
        options: see `SimPOPopOptions`.

    Returns:
        The loss of every row (B,).
    """
    return pop(rows, options)
