"""Any file that a user can name, and anything that it can be: an answer in a sentence, in bounded memory."""

import gzip
import json
import os
import signal
import socket
import tracemalloc
import zipfile
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from popmargin.config import read_yaml
from popmargin.data import load_preferences
from popmargin.data import sources as data_sources
from popmargin.data.images import ImageError, image_bytes
from popmargin.data.read_prompts import load_prompts
from popmargin.data.responses import Responses
from popmargin.data.sources import FILE_READERS, SUFFIXES
from popmargin.errors import PopmarginError
from popmargin.judges.prompts import load_prompt
from popmargin.models.adapter_files import find_adapter
from popmargin.pop.edges import PopEdges
from popmargin.pop.scale import StrengthScale
from popmargin.recommend.item_sequences import Catalogue
from popmargin.recommend.item_vectors import load_item_vectors
from popmargin.recommend.read_sequences import load_sequences
from popmargin.rewards.rating_judge import check_options
from popmargin.rounds.manifest import Manifest
from popmargin.safe_reading import MOST_LINE, read_json
from popmargin.study.config import StudyConfig
from popmargin.training.run_directory import RunDirectory

ROW = {"prompt": "2+2?", "chosen": "4", "rejected": "5", "rating_chosen": 2}
LIMIT = 2**16
"""Of a line and of a file that is read whole, in these tests."""


def in_folder(name: str, read: Callable[[Path], Any]) -> Callable[[Path], Any]:
    """A reader of a folder, which is given the one file of that name in it."""

    def moved(file: Path) -> Any:
        file.rename(file.parent / name)
        return read(file.parent)

    return moved


def run_facts(folder: Path) -> dict[str, Any]:
    return RunDirectory(folder).facts()


def vectors(file: Path) -> Any:
    return load_item_vectors(file, Catalogue.of(["2"]))


VERBS: dict[str, Callable[[Path], Any]] = {
    "preferences": load_preferences,
    "responses": Responses.load,
    "prompts": load_prompts,
    "sequences": load_sequences,
    "edges": PopEdges.load,
}
"""What reads data in any of the formats of `FILE_READERS`."""
SUFFIX = {container: suffix for suffix, container in reversed(SUFFIXES.items())}
READERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    f"{verb} {container}": (SUFFIX[container], read) for verb, read in VERBS.items() for container in FILE_READERS
} | {
    "prompts .txt": (".txt", load_prompts),
    "scale": (".parquet", StrengthScale.load),
    "vectors .npz": (".npz", vectors),
    "vectors .parquet": (".parquet", vectors),
    "vectors .safetensors": (".safetensors", vectors),
    "configuration": (".yaml", read_yaml),
    "judge's prompt": (".txt", lambda file: load_prompt("preference", file)),
    "judge's template": (".txt", lambda file: check_options({"template": str(file)})),
    "stage's manifest": (".json", Manifest.load),
    "run.json": (".json", in_folder("run.json", run_facts)),
    "config.yaml of a run": (".yaml", in_folder("config.yaml", lambda folder: RunDirectory(folder).config())),
    "adapter_config.json": (".json", in_folder("adapter_config.json", lambda folder: find_adapter(str(folder)))),
    "an image": (".png", image_bytes),
}  # fmt: skip


def pipe(file: Path) -> None:
    os.mkfifo(file)


def a_socket(file: Path) -> None:
    """Bound by a relative name: a socket's name may have about a hundred letters."""
    here = Path.cwd()
    os.chdir(file.parent)
    try:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(file.name)
    finally:
        os.chdir(here)


NO_FILES: dict[str, Callable[[Path], Any]] = {
    "a pipe": pipe,
    "a socket": a_socket,
    "an endless device": lambda file: file.symlink_to("/dev/zero"),
    "a link to nothing": lambda file: file.symlink_to("nowhere"),
    "a link to itself": lambda file: file.symlink_to(file.name),
}
CONTENTS: dict[str, bytes] = {
    "nothing": b"",
    "NUL bytes": b"\0" * 99,
    "an image": b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 4,
    "a pickle": b"\x80\x04\x95\x1a\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94.",
    "Latin-1": '{"prompt": "déjà"}\n'.encode("latin-1"),
    "UTF-16": (json.dumps(ROW) + "\n").encode("utf-16"),
    "UTF-32": (json.dumps(ROW) + "\n").encode("utf-32"),
    "deep lists": b"[" * 100_000,
    "deep, closed lists": b"[" * 100_000 + b"]" * 100_000,
    "deep objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "a deep cell": b'{"prompt": "p", "chosen": "a", "rejected": "b", "more": ' + b"[" * 900 + b"]" * 900 + b"}\n",
    "a long number": b'{"prompt": ' + b"1" * 10_000 + b"}\n",
    "one long line": b"x" * (8 * LIMIT),
    "no numbers": b'{"prompt": "p", "chosen": "a", "rejected": "b", "chosen_rating": NaN, "margin": -Infinity}\n',
    "a key twice": b'{"prompt": "p", "chosen": "a", "chosen": "c", "rejected": "b"}\n',
    "half a gzip file": gzip.compress(b"{}" * 999)[:40],
    "a zip file": b"PK\x03\x04" + b"\0" * 60,
}  # fmt: skip


@pytest.fixture(autouse=True)
def bounded(monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    """Small limits, and an end to whatever blocks."""
    for name in ("MOST_LINE", "MOST_WHOLE"):
        monkeypatch.setattr(data_sources, name, LIMIT)

    def stuck(*_: object) -> None:
        raise AssertionError("it blocks")

    before = signal.signal(signal.SIGALRM, stuck)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def answer(read: Callable[[Path], Any], file: Path) -> str | None:
    """The message that a reader gives for a file; None if it could read it."""
    try:
        read(file)
    except (PopmarginError, ImageError) as error:
        return str(error)
    return None


@pytest.mark.parametrize("reader", READERS)
def test_every_reader_answers(reader: str, tmp_path: Path) -> None:
    """A message that names the file, for whatever is no file; the same or a reading for odd contents."""
    suffix, read = READERS[reader]
    wrong: list[str] = []
    for number, (kind, make) in enumerate({**NO_FILES, **CONTENTS}.items()):
        file = tmp_path / str(number) / f"given{suffix}"
        file.parent.mkdir()
        make(file) if callable(make) else file.write_bytes(make)
        try:
            said = answer(read, file)
        except Exception as error:
            wrong.append(f"{kind}: {type(error).__name__}: {str(error)[:200]}")
            continue
        if said is None and kind in NO_FILES and reader not in ("stage's manifest", "adapter_config.json"):
            wrong.append(f"{kind}: it was read")
        if said is not None and str(number) not in said and file.name not in said:
            wrong.append(f"{kind}: no name of the file: {said}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("container", FILE_READERS)
def test_a_bomb_is_refused_in_bounded_memory(container: str, tmp_path: Path) -> None:
    """16 MiB of zeros in 16 kB; a new format is covered by being in `FILE_READERS`."""
    file = tmp_path / f"bomb{SUFFIX[container]}.gz"
    with gzip.open(file, "wb") as packed:
        for _ in range(16):
            packed.write(b"0" * 2**20)
    tracemalloc.start()
    said = answer(load_preferences, file)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert said is not None and "bomb" in said and "bytes" in said
    assert peak < 2**22


def test_rows_are_yielded_by_size_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows within the limit of a line do not add up: a batch ends with its bytes."""
    monkeypatch.setattr(data_sources, "_BATCH_BYTES", 2**12)
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(ROW | {"prompt": "p" * 2000, "id": str(n)}) + "\n" for n in range(9)))
    batches = list(data_sources.read_file(file, FILE_READERS["jsonl"]))
    assert len(batches) > 3 and sum(map(len, batches)) == 9
    assert max(map(len, batches)) <= 3


def test_a_parquet_file_of_any_number_of_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal rows take no space, so the file's size says nothing."""
    file = tmp_path / "many.parquet"
    column = pa.DictionaryArray.from_arrays(pa.array(np.zeros(100_000, np.int8)), pa.array(["x"]))
    pq.write_table(pa.table(dict.fromkeys(("prompt", "chosen", "rejected"), column)), file)
    assert file.stat().st_size < 10_000
    monkeypatch.setattr(data_sources, "MOST_ROWS", 99_999)
    said = answer(load_preferences, file)
    assert said is not None and "100,000 rows; at most 99,999" in said and "Remedy" in said


def test_packed_vectors_say_how_large_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "vectors.npz"
    np.savez_compressed(file, ids=np.array(["2"]), vectors=np.zeros((1, 2**16), np.float32))
    with zipfile.ZipFile(file) as parts:
        assert sum(part.compress_size for part in parts.infolist()) < 2**11
    monkeypatch.setattr("popmargin.recommend.item_vectors._MOST_UNPACKED", 2**16)
    said = answer(READERS["vectors .npz"][1], file)
    assert said is not None and "vectors.npz unpacks to" in said and "Remedy" in said


YAMLS = {
    "aliases that multiply": "a: &a [x, x, x, x, x, x, x, x, x]\n"
    + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)),
    "an alias of itself": "a: &a [*a]\n",
    "a key twice": "train: 1\ntrain: 2\n",
    "a key twice, deeper": "train: {epochs: 1, epochs: 2}\n",
    "no such day": "day: 2023-13-45\n",
    "a long number": "n: " + "1" * 10_000 + "\n",
    "a tag of Python": "a: !!python/object/apply:os.system [touch ran]\n",
    "a document after another": "a: 1\n---\nb: 2\n",
    "a list as a key": "? [1]\n: 2\n",
    "NUL": "a: \0\n",
    "deep": "[" * 50_000,
    "deep blocks": "- " * 50_000,
    "long": "a: " + "x" * (5 * 2**20),
}


@pytest.mark.parametrize("kind", YAMLS)
def test_yaml_that_is_refused(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "run.yaml"
    file.write_text(YAMLS[kind])
    said = answer(read_yaml, file)
    assert said is not None and str(file) in said and len(said) < 1000
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("arm", ["../out", "/out", "a/b", "..", ".hidden", "a\nb", "", "a\\b"])
def test_the_name_of_an_arm_leads_nowhere_else(arm: str) -> None:
    """Its runs lie in a folder of this name."""
    with pytest.raises(PopmarginError, match=r"cannot be the name of a folder\. Rename it"):
        StudyConfig(arms={arm: {}, "dpo": {}})


def test_limits_are_far_above_what_is_usual() -> None:
    """The largest line is that of an image of 190 MB in base64; JSON of that size is still read."""
    assert MOST_LINE == 2**28


def test_json_of_a_run_is_read(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_bytes(b'\xef\xbb\xbf{"a": [1, 2.5, null]}')
    assert read_json(tmp_path / "run.json") == {"a": [1, 2.5, None]}
