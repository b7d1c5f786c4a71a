"""The shape checks of the tests: each test has the first calls of a function checked, and the next test anew."""

import numpy as np
import pytest
from jaxtyping import TypeCheckError

import strict_types
from popmargin.pop.plackett_luce import choices

RIGHT, WRONG = np.zeros((2, 3)), np.zeros((2, 3), dtype=np.float32)


def test_a_wrong_dtype_is_found_in_the_first_calls_and_again_in_the_next_test() -> None:
    with pytest.raises(TypeCheckError, match="choices"):
        choices(WRONG)
    for _ in range(2 * strict_types.CALLS):
        choices(RIGHT)
    choices(WRONG)  # not looked at any more
    strict_types.check_anew()
    with pytest.raises(TypeCheckError, match="choices"):
        choices(WRONG)
