"""`pop_rank`: its formula in NumPy."""

from typing import Any

import numpy as np
from objective_cases import Arrays, Contract, gaps, nls


def formula(rows: Arrays, o: Any) -> np.ndarray:
    stronger, weaker = gaps(rows)
    ranking = np.where(rows["has_weaker"] > 0, nls(o.beta * (stronger - weaker)), 0.0)
    own = rows["stronger_share"] * nls(o.beta * stronger) + rows["weaker_share"] * nls(o.beta * weaker)
    return own + o.rank_weight * ranking


CONTRACT = Contract(
    formula=formula,
    options=(
        {"rank_weight": 0.0},
        {"rank_weight": 2.5},
    ),
)
