"""Item vectors: from files, whitened, from co-occurrence."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file

from popmargin.data.ragged import Ragged
from popmargin.errors import ConfigError, DataError
from popmargin.recommend.cooccurrence import cooccurrence_vectors, positive_pmi
from popmargin.recommend.item_sequences import Catalogue
from popmargin.recommend.item_vectors import load_item_vectors, whiten

CATALOGUE = Catalogue.of(["a", "b", "c"])
IDS, VECTORS = ["c", "x", "a", "b"], np.array([[3.0, 1.0], [9.0, 9.0], [1.0, 1.0], [2.0, 4.0]], dtype=np.float32)


def write(folder: Path, kind: str, ids: list[Any] = IDS, vectors: np.ndarray = VECTORS) -> Path:
    path = folder / f"vectors.{kind}"
    if kind == "npz":
        np.savez(path, ids=np.array(ids), vectors=vectors)
    elif kind == "safetensors":
        save_file({"vectors": vectors}, path, {"ids": json.dumps(ids)})
    else:
        pq.write_table(pa.table({"item": ids, "vector": vectors.tolist()}), path)
    return path


@pytest.mark.parametrize("kind", ["npz", "safetensors", "parquet"])
def test_vectors_are_mapped_by_id(tmp_path: Path, kind: str) -> None:
    vectors, missing = load_item_vectors(write(tmp_path, kind), CATALOGUE)
    assert vectors.tolist() == [[1, 1], [2, 4], [3, 1]] and vectors.dtype == np.float32 and missing == ()


def test_integer_ids_of_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "vectors.safetensors"
    save_file({"vectors": VECTORS[:2], "ids": np.array([7, 5])}, path)
    assert load_item_vectors(path, Catalogue.of([5, 7]))[0].tolist() == [[9, 9], [3, 1]]


def test_missing_vectors_are_refused_or_get_the_mean(tmp_path: Path) -> None:
    path = write(tmp_path, "npz", IDS[:3], VECTORS[:3])
    with pytest.raises(DataError, match=r"1 of 3 items have no vector: b\. Remedy: add them, or give them the mean"):
        load_item_vectors(path, CATALOGUE)
    vectors, missing = load_item_vectors(path, CATALOGUE, missing="mean")
    assert missing == ("b",) and vectors.tolist() == [[1, 1], [2, 1], [3, 1]]


@pytest.mark.parametrize(
    ("ids", "vectors", "message"),
    [
        (["a", "b", "a"], VECTORS[:3], "rows 0 and 2 are both 'a'"),
        (["a", "b", "c"], np.full((3, 2), np.nan, np.float32), "3 vectors with a number that is not finite"),
        (["a", "b"], VECTORS[:3], "2 ids and vectors of shape"),
    ],
)
def test_bad_vectors_are_named(tmp_path: Path, ids: list[str], vectors: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_item_vectors(write(tmp_path, "npz", ids, vectors), CATALOGUE)


def test_files_that_hold_something_else(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", vectors=VECTORS)
    with pytest.raises(DataError, match="lacks"):
        load_item_vectors(tmp_path / "other.npz", CATALOGUE)
    (tmp_path / "broken.npz").write_bytes(b"PK nonsense")
    with pytest.raises(DataError, match="cannot be read as vectors"):
        load_item_vectors(tmp_path / "broken.npz", CATALOGUE)
    pq.write_table(pa.table({"item": ["a", "b"], "vector": [[1.0], [1.0, 2.0]]}), tmp_path / "uneven.parquet")
    with pytest.raises(DataError, match=r"row 1 .*column 'vector': 2 numbers, the first row has 1"):
        load_item_vectors(tmp_path / "uneven.parquet", CATALOGUE)
    with pytest.raises(DataError, match=r"must end in \.npz, \.safetensors, \.parquet"):
        (tmp_path / "vectors.txt").write_text("1")
        load_item_vectors(tmp_path / "vectors.txt", CATALOGUE)


@pytest.mark.parametrize("times", [1, 2])
def test_whitened_vectors_are_uncorrelated(times: int) -> None:
    random = np.random.default_rng(0)
    white = whiten(random.normal(size=(300, 5)) @ random.normal(size=(5, 5)) + 7, times=times)
    np.testing.assert_allclose(white.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(np.cov(white.T, bias=True), np.eye(5), atol=1e-4)


def test_whitening_drops_directions_without_variance() -> None:
    random = np.random.default_rng(0)
    flat = np.concatenate([random.normal(size=(50, 2)), np.ones((50, 1))], axis=1)
    assert whiten(flat).shape == (50, 2)
    assert whiten(flat, times=0).shape == (50, 3)
    with pytest.raises(DataError, match="All vectors are the same"):
        whiten(np.ones((5, 2)))


def test_positive_pmi_by_hand() -> None:
    """Three users: n_12 = 2, n_13 = 1, and the same other way round: n = 6, n_1 = 3, n_2 = 2, n_3 = 1."""
    pmi = positive_pmi(Ragged.of([[1, 2, 1], [2, 1], [1, 3]]), 4).toarray()
    expected = np.zeros((4, 4))
    expected[0, 1] = expected[1, 0] = np.log(2 * 6 / (3 * 2))
    expected[0, 2] = expected[2, 0] = np.log(1 * 6 / (3 * 1))
    np.testing.assert_allclose(pmi, expected, atol=1e-12)


def test_vectors_of_cooccurrence() -> None:
    """They repeat the matrix's products, the same each time, with the largest entry of each direction positive."""
    random = np.random.default_rng(1)
    sequences = Ragged.of([random.integers(1, 31, size=6).tolist() for _ in range(80)])
    vectors, again = (cooccurrence_vectors(sequences, 31, 12) for _ in range(2))
    np.testing.assert_array_equal(vectors, again)
    dense = positive_pmi(sequences, 31).toarray()
    left, size, _ = np.linalg.svd(dense)
    np.testing.assert_allclose(np.abs(vectors), np.abs(left[:, :12] * np.sqrt(size[:12])), atol=1e-3)
    assert (vectors.max(axis=0) >= 0.999 * np.abs(vectors).max(axis=0)).all()
    assert not vectors[30].any()  # item 31 never occurs
    with pytest.raises(ConfigError, match="31 items allow 1 to 30"):
        cooccurrence_vectors(sequences, 31, 31)
