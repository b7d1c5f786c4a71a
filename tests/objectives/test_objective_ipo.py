"""`ipo`: its formula in NumPy."""

from objective_cases import Contract, gaps

CONTRACT = Contract(
    formula=lambda rows, o: (gaps(rows)[0] - 1 / (2 * o.beta)) ** 2,
    options=(
        {"beta": 0.5},
        {"length_normalized": True},
    ),
    finite_target=True,
)
