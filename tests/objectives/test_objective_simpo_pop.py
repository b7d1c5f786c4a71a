"""`simpo_pop`: its formula in NumPy."""

from objective_cases import Contract, pop_formula

CONTRACT = Contract(formula=pop_formula)
