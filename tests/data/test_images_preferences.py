"""Preferences whose responses are images: every layout, every place, and every fault reported by row."""

import base64
import io
import json
import sys
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from popmargin import Preferences, Responses, load_preferences
from popmargin.cli.main import main
from popmargin.config import DataConfig
from popmargin.data import scan_preferences
from popmargin.data.embed_images import with_embedded_images
from popmargin.data.images import MAX_PIXELS, encode_png, image_bytes, image_name
from popmargin.data.sources import RawBatch
from popmargin.errors import ConfigError, DataError, MissingExtraError
from popmargin.training.sides import load_split


def png(value: int, width: int = 4, height: int = 4) -> bytes:
    return encode_png(np.full((height, width, 3), value, np.uint8))


A, B, C = png(1), png(2), png(3)


def sides(data: Preferences) -> list[tuple[bytes, bytes]]:
    """The bytes of chosen and rejected of each row, which must be those of the names."""
    return [
        (
            image_bytes(row["chosen_image"], name=row["chosen"]),
            image_bytes(row["rejected_image"], name=row["rejected"]),
        )
        for row in data
    ]


def folder(path: Path, rows: list[dict[str, Any]], **files: bytes) -> Path:
    """A JSONL file beside a folder `im` with images."""
    (path / "im").mkdir()
    for name, data in files.items():
        (path / "im" / f"{name}.png").write_bytes(data)
    (path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path / "rows.jsonl"


PAIR: dict[str, Any] = {"prompt": "a cat", "chosen": A, "rejected": B}
STRUCTS = {"chosen": {"bytes": A, "path": None}, "rejected": {"bytes": B, "path": "b.png"}}
PILLOW = {
    name: Image.fromarray(np.full((4, 4, 3), value, np.uint8)) for name, value in (("chosen", 1), ("rejected", 2))
}
PIXELS = {name: np.full((4, 4, 3), value, np.uint8) for name, value in (("chosen", 1), ("rejected", 2))}
URIS = {name: f"data:image/png;base64,{base64.b64encode(PAIR[name]).decode()}" for name in ("chosen", "rejected")}
SCORES = (("chosen", 2), ("rejected", 1))
PICK = {"caption": "a cat", "jpg_0": B, "jpg_1": A, "label_0": 0.0, "label_1": 1.0, "has_label": True}
HPD = {"prompt": "a cat", "image": [{"bytes": data, "path": None} for data in (C, A, B)]}


@pytest.mark.parametrize(
    ("rows", "layout"),
    [
        ([PAIR], "preference"),
        ([PAIR | STRUCTS], "preference"),
        ([PAIR | PILLOW], "preference"),
        ([PAIR | PIXELS], "preference"),
        ([PAIR | URIS], "preference"),
        ([{"prompt": "a cat", "responses": [{"image": PIXELS[side], "score": score} for side, score in SCORES]}],
         "responses"),
        ([PAIR | {"chosen": B, "rejected": A, "soft_label": 0.2}], "preference"),
        ([{"prompt": "a cat", "response_a": B, "response_b": A, "winner": "b"}], "winner"),
        ([{"prompt": "a cat", "response_a": B, "response_b": A, "votes_a": 1, "votes_b": 4}], "votes"),
        ([{"prompt": "a cat", "response_a": B, "response_b": A, "preference_strength": 3}] * 2, "signed_strength"),
        ([{"prompt": "a cat", "responses": [B, C, A], "ratings": [1.0, 2.0, 4.5]}], "responses"),
        ([{"prompt": "a cat", "responses": [{"text": B, "score": 1}, {"image": A, "score": 2}]}], "responses"),
        ([{"prompt": "a cat", "response": data, "score": score} for data, score in ((A, 3.0), (B, 0.5))],
         "single_responses"),
        ([PICK], "pick_a_pic"),
        ([PICK | {"label_0": 0.25, "label_1": 0.75}], "pick_a_pic"),
        ([HPD | {"human_preference": [1, 2, 0]}], "hpd"),
        ([HPD | {"rank": [2, 1, 3], "human_preference": []}], "hpd"),
    ],
)  # fmt: skip
def test_every_layout_takes_images(rows: list[dict[str, Any]], layout: str) -> None:
    if layout == "signed_strength":
        rows = [rows[0], rows[1] | {"preference_strength": -3, "response_a": A, "response_b": B}]
    data = load_preferences(rows)
    assert data.report.format == layout
    assert set(sides(data)) == {(A, B)}
    assert data[0]["prompt"] == "a cat"


def test_paths_start_at_the_files_folder_and_may_lead_out_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    (tmp_path / "c.png").write_bytes(C)
    rows = [
        {"prompt": "1", "chosen": "im/a.png", "rejected": "im/b.png", "chosen_score": 0.9, "rejected_score": 0.4},
        {"prompt": "2", "chosen": "../c.png", "rejected": str(here / "im" / "b.png")},
    ]
    file = folder(here, rows, a=A, b=B)
    monkeypatch.chdir(tmp_path)
    data = load_preferences("here/rows.jsonl")
    assert sides(data) == [(A, B), (C, B)]
    assert data.rating_gap[0] == 0.5
    assert data[0]["chosen_image"] == {"bytes": None, "path": str(here / "im" / "a.png")}
    assert sides(load_preferences(here)) == sides(data)  # a folder with a JSONL and images
    assert load_preferences(file).fingerprint() == data.fingerprint()


def test_saved_preferences_are_the_same_when_read_again(tmp_path: Path) -> None:
    rows = [{"prompt": str(n), "chosen": "im/a.png", "rejected": "im/b.png", "topic": "x"} for n in range(3)]
    by_path = load_preferences(folder(tmp_path, rows, a=A, b=B))
    embedded = load_preferences([PAIR | {"prompt": str(n), "topic": "x"} for n in range(3)])
    assert by_path.ids == embedded.ids
    assert by_path.fingerprint() == embedded.fingerprint()
    for data in (by_path, embedded):
        data.save(tmp_path / "saved.parquet")
        again = load_preferences(tmp_path / "saved.parquet")
        assert (again.ids, again.columns, list(again)) == (data.ids, data.columns, list(data))
        assert isinstance(again.dataset.features["chosen_image"], datasets.Image)
    by_path.save(tmp_path / "saved.jsonl")
    assert sides(load_preferences(tmp_path / "saved.jsonl")) == sides(by_path)
    with pytest.raises(DataError, match=r"contains bytes, which JSON cannot hold.*\.parquet"):
        embedded.save(tmp_path / "saved.jsonl")


def test_images_follow_their_names_when_rows_are_swapped_and_flipped() -> None:
    data = load_preferences([PAIR, PAIR | {"prompt": "a dog"}])
    assert sides(data.swap([True, False])) == [(B, A), (A, B)]
    assert sides(data.flip(0.999, seed=0)) == [(B, A)] * 2
    assert sides(data.select([1])) == [(A, B)]


def test_pairs_of_sampled_images() -> None:
    texts = [image_name(data) for data in (A, B, C)]
    sampled = Responses(["a cat"], [texts], {"reward": [1.0, 0.0, 0.5]}, fields={"image": [A, B, C]})
    pairs = sampled.pairs("best_vs_rest", by="reward")
    assert sides(pairs) == [(A, B), (A, C)] or sides(pairs) == [(A, C), (A, B)]


FAULTS: dict[str, tuple[object, str, str]] = {
    "missing": ("im/none.png", "missing_image", "none.png cannot be read (No such file or directory)"),
    "none": (None, "missing_image", "missing"),
    "empty": ("im/empty.png", "empty_image", "no bytes"),
    "page": ("im/page.png", "not_an_image", "a web page"),
    "cut": ("im/cut.png", "broken_image", "broken or truncated"),
    "large": ("im/large.png", "large_image", "5 × 4 pixels; the limit is 16"),
    "folder": ("im", "missing_image", "cannot be read"),
}


def test_every_fault_is_reported_by_row_and_column(tmp_path: Path) -> None:
    good = {"prompt": "good", "chosen": "im/a.png", "rejected": "im/b.png"}
    rows = [good, *(good | {"prompt": name, "rejected": fault[0]} for name, fault in FAULTS.items())]
    rows.append(good | {"prompt": "same", "rejected": "im/again.png"})
    pixels = np.random.default_rng(0).integers(0, 256, (4, 4, 3), np.uint8)
    files = {"a": A, "b": B, "again": A, "empty": b"", "page": b"<!doctype html>", "cut": encode_png(pixels)[:60]}
    file = folder(tmp_path, rows, **files, large=png(9, 5))
    data, report = scan_preferences(file, max_image_pixels=16)
    assert data is not None
    assert (report.rows_in, report.rows_kept, report.rows_reported) == (9, 1, 8)
    found = {problem.position: problem for problem in report.problems}
    for line, (_, kind, message) in enumerate(FAULTS.values(), 2):
        assert (found[line].kind, found[line].column) == (kind, "rejected")
        assert message in found[line].message
        assert found[line].remedy
    assert found[9].kind == "identical"
    with pytest.raises(DataError, match=r"8 of 9 rows cannot be used.\n  rows.jsonl:2, column 'rejected': the image"):
        load_preferences(file, max_image_pixels=16)
    assert len(load_preferences(file, max_image_pixels=16, bad_rows="drop")) == 1


def test_nothing_above_the_limit_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, decoded = [PAIR | {"chosen": png(1, 9, 9)}, PAIR], list[tuple[int, int]]()
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda image: decoded.append(image.size))
    data, report = scan_preferences(rows, max_image_pixels=80)
    assert data is not None
    assert [problem.kind for problem in report.problems] == ["large_image"]
    assert decoded and (9, 9) not in decoded


def test_sizes_and_animations_are_told() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    rows = [PAIR, PAIR | {"chosen": png(5, 6, 2), "prompt": "x"}, PAIR | {"chosen": file.getvalue(), "prompt": "y"}]
    notes = "\n".join(load_preferences(rows).report.notes)
    assert "4 distinct images, width × height in pixels: 4 × 4 (3), 6 × 2 (1)" in notes
    assert "pairs whose two images differ in size: 1; they cannot share noise" in notes
    assert "animated images, of which the first frame is used: 1" in notes


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (np.zeros((4, 4, 3)), r"is an array of float64 of shape \(4, 4, 3\)\. Remedy: give RGB pixels from 0 to 255"),
        (np.zeros((4, 4), np.uint8), r"is an array of uint8 of shape \(4, 4\)"),
        ("data:image/png,abc", r"the data URI 'data:image/png' is not in base64\. Remedy: write base64"),
        ("data:image/png;base64,ab*c", r"the data URI 'data:image/png;base64' is broken"),
        ("data:image/png;base64,YWJj", r"the 3 bytes are no image that Pillow can read"),
    ],
)
def test_pixels_and_data_uris_that_are_no_images_say_so(cell: object, message: str) -> None:
    with pytest.raises(DataError, match=rf"row 0 .*column 'chosen': .*{message}"):
        load_preferences([PAIR | {"chosen": cell}])


def test_ties_and_unlabelled_pairs_are_reported() -> None:
    rows = [PICK | {"label_0": 0.5, "label_1": 0.5}, PICK | {"has_label": False, "label_0": None}, PICK]
    data = load_preferences(rows)
    assert data.report.problem_counts == {"tie": 1, "no_label": 1}
    assert load_preferences(rows, ties="keep").soft_label[0] == 0.5
    votes = load_preferences([PICK | {"label_0": 0.25, "label_1": 0.75}])
    assert (votes.soft_label[0], votes.strength[0]) == (0.75, 0.5)
    with pytest.raises(DataError, match="name neither image"):
        load_preferences([PICK | {"label_1": 0.0}])
    with pytest.raises(DataError, match="neither as many preferences nor as many ranks"):
        load_preferences([HPD | {"human_preference": [1, 0]}])


def test_labels_without_images_say_what_is_missing() -> None:
    row = {name: value for name, value in PICK.items() if not name.startswith("jpg")} | {"image_0_url": "https://x"}
    with pytest.raises(DataError, match="labels but no images"):
        load_preferences([row])


def test_texts_that_look_like_files_are_asked_about(tmp_path: Path) -> None:
    row = {"prompt": "Name a file.", "chosen": "a.png", "rejected": "b.png"}
    with pytest.raises(DataError, match=r"names image files, and none of the first ones is there \('a.png'"):
        load_preferences([row])
    assert load_preferences([row, row | {"chosen": "a text", "id": "2"}])[0]["chosen"] == "a.png"


def test_images_without_a_prompt_and_addresses_are_reported(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no prompt column, and images hold no prompt"):
        load_preferences([{"chosen": A, "rejected": B}])
    path = folder(tmp_path, [PAIR | {"chosen": "https://host/a.png", "rejected": "im/a.png"}], a=A)
    with pytest.raises(DataError, match=r"'https://host/a\.png' is an address"):
        load_preferences(path)
    with pytest.raises(DataError, match="chosen and rejected are the same"):
        load_preferences([PAIR | {name: np.zeros((2, 2, 3), np.uint8) for name in ("chosen", "rejected")}])


def test_nothing_is_said_of_columns_where_no_row_is_kept(tmp_path: Path) -> None:
    _, report = scan_preferences(folder(tmp_path, [PAIR | {"chosen": "im/a.png", "rejected": "no.png"}], a=A))
    assert report.rows_kept == 0 and not any("several types" in note for note in report.notes)


def test_preferences_say_that_they_are_images() -> None:
    assert "images" in repr(load_preferences([PAIR])) and "images" not in repr(load_preferences([PAIR])[:0])


def test_a_prompt_of_messages_is_refused() -> None:
    with pytest.raises(DataError, match="the prompt of images is messages"):
        load_preferences([PAIR | {"prompt": [{"role": "user", "content": "a cat"}]}])


def test_other_columns_with_images_stay_as_they_are() -> None:
    row = {"prompt": "What is this?", "chosen": "a cat", "rejected": "a dog", "image": {"bytes": A, "path": None}}
    data = load_preferences([row | {"chosen_image": A}])
    assert data[0]["image"]["bytes"] == data[0]["chosen_image"] == A
    names = {"chosen": image_name(A), "rejected": image_name(B)}
    assert load_preferences([row | names])[0]["chosen"] == image_name(A)  # names alone, as from a label store


def test_large_rows_are_read_a_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_preferences([PAIR | {"prompt": str(n)} for n in range(6)]).save(tmp_path / "x.parquet")
    size = pq.ParquetFile(tmp_path / "x.parquet").metadata.row_group(0).total_byte_size
    monkeypatch.setattr("popmargin.data.sources._BATCH_BYTES", size // 3)
    read: list[int] = []
    made = RawBatch.read
    monkeypatch.setattr(RawBatch, "read", lambda batch, columns=None: read.append(len(batch)) or made(batch, columns))
    assert sides(load_preferences(tmp_path / "x.parquet")) == [(A, B)] * 6
    assert max(read) <= 2


def test_runs_read_the_limit(tmp_path: Path) -> None:
    assert DataConfig().max_image_pixels == MAX_PIXELS
    load_preferences([PAIR | {"prompt": str(n)} for n in range(4)]).save(tmp_path / "x.parquet")
    train, test = load_split(DataConfig(train=str(tmp_path / "x.parquet"), test_size=1))
    assert (len(train), len(test)) == (3, 1)
    with pytest.raises(DataError, match="the limit is 15"):
        load_split(DataConfig(train=str(tmp_path / "x.parquet"), max_image_pixels=15))
    with pytest.raises(ConfigError, match="max_image_pixels"):
        load_preferences([PAIR], max_image_pixels=0)
    with pytest.raises(ConfigError, match="max_image_pixels"):
        DataConfig(max_image_pixels=10**9)


def test_images_can_be_embedded_and_a_changed_file_is_found(tmp_path: Path) -> None:
    rows = [{"prompt": str(n), "chosen": "im/a.png", "rejected": "im/b.png"} for n in range(3)]
    by_path = load_preferences(folder(tmp_path, rows, a=A, b=B))
    held = with_embedded_images(by_path)
    (tmp_path / "im" / "a.png").write_bytes(C)
    assert sides(held) == [(A, B)] * 3
    assert (held.ids, held.fingerprint()) == (by_path.ids, by_path.fingerprint())
    held.save(tmp_path / "x.parquet")
    assert sides(load_preferences(tmp_path / "x.parquet")) == [(A, B)] * 3
    with pytest.raises(DataError, match=r"column 'chosen_image': the image .*a\.png has changed since it was read"):
        with_embedded_images(by_path)


def test_the_verbs_show_images_without_their_bytes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = folder(tmp_path, [{"prompt": "a cat", "chosen": "im/a.png", "rejected": "im/b.png"}], a=A, b=png(2, 5, 4))
    assert main(["data", "convert", str(file), str(tmp_path / "x.parquet"), "--images", "embed"]) == 0
    assert main(["data", "inspect", str(tmp_path / "x.parquet")]) == 0
    shown = capsys.readouterr().out
    assert "1 preference on 1 prompt, images" in shown
    assert "4 × 4 (1), 5 × 4 (1)" in shown
    assert "longer completion" not in shown
    for verb in ("inspect", "check"):
        assert main(["data", verb, str(tmp_path / "x.parquet"), "--json"]) == 0
        assert f'"bytes": "{len(A)} bytes"' in capsys.readouterr().out
    assert main(["data", "check", str(file), "--max-image-pixels", "16"]) == 1
    assert "5 × 4 pixels; the limit is 16" in capsys.readouterr().out


def test_without_pillow_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'popmargin\[images\]'"):
        load_preferences([PAIR])
