"""`dpo`: its formula in NumPy."""

from objective_cases import Contract, gaps, nls

CONTRACT = Contract(formula=lambda rows, o: nls(o.beta * gaps(rows)[0]), options=({"beta": 0.5},))
