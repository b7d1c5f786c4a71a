"""`dpo_rating_margin`: its formula in NumPy."""

from objective_cases import Contract, gaps, nls

CONTRACT = Contract(
    formula=lambda rows, o: nls(o.beta * gaps(rows)[0] - o.margin_scale * rows["margin"]),
    options=({"margin_scale": 0.25},),
)
