"""`pop`: its formula in NumPy."""

from objective_cases import Contract, pop_formula

CONTRACT = Contract(formula=pop_formula, options=({"margin_min": -2.0, "margin_max": 3.0},))
