"""Streaming data sets: written to disk once, whole or not at all."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest

from popmargin.data import load_preferences
from popmargin.errors import DataError


def drawn(count: int, log: str) -> Iterator[dict[str, Any]]:
    for number in range(count):
        with Path(log).open("a") as file:
            file.write(f"{number}\n")
        yield {"prompt": f"What is {number}?", "chosen": f" {number}.", "rejected": " I do not know."}


def stream(count: int, log: Path) -> datasets.IterableDataset:
    return datasets.IterableDataset.from_generator(drawn, gen_kwargs={"count": count, "log": str(log)})


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("POPMARGIN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_stream_is_read_once(tmp_path: Path, own_cache: Path) -> None:
    log = tmp_path / "log"
    first = load_preferences(stream(12, log))
    assert (len(first), first.report.rows_in, first.report.rows_kept) == (12, 12, 12)
    assert log.read_text().split() == [str(number) for number in range(12)]
    again = load_preferences(datasets.IterableDatasetDict({"train": stream(12, log)}))
    assert again.fingerprint() == first.fingerprint()
    assert len(log.read_text().split()) == 12
    assert len(load_preferences(stream(5, log))) == 5
    assert list((own_cache / "streams").iterdir())


def test_a_stream_that_fails_is_not_taken_for_its_beginning(tmp_path: Path, own_cache: Path) -> None:
    def ends() -> Iterator[dict[str, Any]]:
        yield {"prompt": "a", "chosen": "b", "rejected": "c"}
        raise OSError("the connection is lost")

    for _ in range(2):
        with pytest.raises(DataError, match="the connection is lost"):
            load_preferences(datasets.IterableDataset.from_generator(ends))
    shutil.rmtree(own_cache)
