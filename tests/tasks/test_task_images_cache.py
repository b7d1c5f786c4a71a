"""The cache of a task of images: what is damaged in it is computed again."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from popmargin.tasks.image_inputs import stored_errors

ERRORS = np.arange(12, dtype=np.float32).reshape(3, 4)


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("damage", [flip, Path.unlink, lambda file: file.write_bytes(b"")])
def test_damaged_errors_of_the_reference_are_computed_again(
    tmp_path: Path, damage: Callable[[Path], Any], caplog: pytest.LogCaptureFixture
) -> None:
    computed: list[int] = []

    def compute() -> np.ndarray:
        computed.append(1)
        return ERRORS

    folder = tmp_path / "errors"
    assert np.array_equal(stored_errors(folder, compute), stored_errors(folder, compute)) and len(computed) == 1
    damage(folder / "errors.npy")
    np.testing.assert_array_equal(stored_errors(folder, compute), ERRORS)
    assert len(computed) == 2 and "errors.npy" in caplog.text and "It is made again" in caplog.text
    stored_errors(folder, compute)
    assert len(computed) == 2
