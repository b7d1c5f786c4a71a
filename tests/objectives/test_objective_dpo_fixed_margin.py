"""`dpo_fixed_margin`: its formula in NumPy."""

from objective_cases import Contract, gaps, nls

CONTRACT = Contract(
    formula=lambda rows, o: nls(o.beta * gaps(rows)[0] - o.margin), options=({"beta": 0.25, "margin": -0.5},)
)
