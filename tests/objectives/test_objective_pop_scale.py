"""`pop_scale`: its formula in NumPy."""

from typing import Any

import numpy as np
from objective_cases import Arrays, Contract, gaps, nls


def formula(rows: Arrays, o: Any) -> np.ndarray:
    h, z = o.beta * gaps(rows)[0], rows["scale"]
    if o.use == "soft_label":
        p = 1 / (1 + np.exp(-o.slope * z))
        return p * nls(h) + (1 - p) * nls(-h)
    return nls(h - o.unit * z) if o.use == "margin" else (h - o.unit * z) ** 2


CONTRACT = Contract(
    formula=formula,
    options=(
        {"use": "margin", "unit": 0.5},
        {"use": "squared", "beta": 0.5},
        {"slope": 0.7},
    ),
    finite_target=True,
)
