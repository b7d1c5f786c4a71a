"""Images on the command line: generate, rate, pair; interrupted, refused, and as PNG files."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from popmargin.cli.main import main
from popmargin.data.images import image_name
from popmargin.data.load import load_preferences
from popmargin.data.responses import Responses

REWARD = """
import numpy as np

def ink(prompts, images):
    return [1 - float(np.asarray(image).mean()) / 255 for image in images]

def length(prompts, completions):
    return [len(text) for text in completions]
"""
PROMPTS = ["red 3", "blue 7", "green 1"]


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> str:
    from tiny_pipelines import saved  # diffusers takes seconds to import

    return str(saved(tmp_path_factory.mktemp("pipeline")))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "prompts.txt").write_text("".join(f"{prompt}\n" for prompt in PROMPTS))
    (tmp_path / "looks.py").write_text(REWARD)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def generate(model: str, *words: str) -> list[str]:
    return ["generate", "prompts.txt", "--model", model, "--n", "3", "--denoising-steps", "3", *words]


def test_from_prompts_to_preferences(here: Path, pipeline: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(generate(pipeline, "--out", "i.parquet", "--images", "png", "--round", "1", "--source", "me")) == 0
    said = capsys.readouterr()
    assert f"sampling images from {pipeline} with 3 steps of DDIM, no guidance" in said.err
    assert "9 images made, " in said.out and "images/s" in said.out
    assert "wrote 9 PNG files to png" in said.out
    made = Responses.load("i.parquet")
    assert made.prompts == PROMPTS
    assert made.texts == [image_name(file) for file in made.field("image")]
    assert made.field("source") == ["me"] * 9
    shapes = {np.asarray(Image.open(io.BytesIO(file))).shape for file in made.field("image")}
    assert shapes == {(8, 8, 3)}

    lines = [json.loads(line) for line in (here / "png" / "metadata.jsonl").read_text().splitlines()]
    assert [line["file_name"] for line in lines][:4] == [
        "00000-red-3-0.png", "00000-red-3-1.png", "00000-red-3-2.png", "00001-blue-7-0.png",
    ]  # fmt: skip
    assert [(here / "png" / line["file_name"]).read_bytes() for line in lines] == made.field("image")

    assert main(["data", "rate", "i.parquet", "--reward", "looks.py:ink", "--out", "r.parquet"]) == 0
    assert "9 responses in = 9 scored + 0 without a score" in capsys.readouterr().out
    assert main(["data", "pairs", "r.parquet", "--out", "p.parquet"]) == 0
    assert "mean length" not in capsys.readouterr().out
    rated, data = Responses.load("r.parquet"), load_preferences("p.parquet")
    ink = rated.score("ink").reshape(3, 3)
    assert data.strength.tolist() == pytest.approx((ink.max(1) - ink.min(1)).tolist())
    best = [rated.texts[3 * row + int(ink[row].argmax())] for row in range(3)]
    assert [row["chosen"] for row in data] == best
    files = dict(zip(rated.texts, rated.field("image"), strict=True))
    assert [row["chosen_image"]["bytes"] for row in data] == [files[name] for name in best]

    assert main(["data", "rate", "p.parquet", "--reward", "looks.py:ink", "--out", "q.parquet"]) == 0
    assert "the reward agrees with 3 of 3 labels" in capsys.readouterr().out
    again = load_preferences("q.parquet")
    assert again.strength.tolist() == pytest.approx(data.strength.tolist())


def test_an_interrupted_command_goes_on(
    here: Path, pipeline: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C says what is kept; the same command gives the same bytes; another seed is refused."""
    from popmargin.generate import from_denoiser

    assert main(generate(pipeline, "--batch-size", "2", "--out", "whole.parquet")) == 0
    draw, calls = from_denoiser.ImageSampler.draw, list[int]()

    def twice(self: Any, places: list[int]) -> object:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return draw(self, places)

    monkeypatch.setattr(from_denoiser.ImageSampler, "draw", twice)
    words = generate(pipeline, "--batch-size", "2", "--out", "i.parquet")
    assert main(words) == 130
    assert "interrupted: 4 responses are kept in i.parquet.part" in capsys.readouterr().err
    assert main([*words, "--seed", "1"]) == 2
    assert "i.parquet.part was begun with seed 0 (now 1)" in capsys.readouterr().err
    assert main(words) == 0
    assert "images that were there before: 4" in capsys.readouterr().out
    assert Path("i.parquet").read_bytes() == Path("whole.parquet").read_bytes()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--temperature", "0.5"], "--temperature has no effect: {model} makes images, which have no tokens"),
        (["--max-new-tokens", "5"], "--max-new-tokens has no effect: {model} makes images"),
        (["--chat"], "--chat has no effect: {model} makes images"),
        (["--goal", "7"], "--goal has no effect: {model} makes images"),
    ],
)
def test_flags_of_texts_are_refused(
    here: Path, pipeline: str, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(generate(pipeline, "--out", "i.parquet", *words)) == 2
    assert message.format(model=pipeline) in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--guidance-scale", "3"], ["--denoising-steps", "3"], ["--images", "png"]])
def test_flags_of_images_are_refused_for_texts(
    here: Path, model_path: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["generate", "prompts.txt", "--model", model_path, "--out", "r.parquet", *words]) == 2
    assert f"{words[0]} has no effect: {model_path} writes texts" in capsys.readouterr().err


def test_other_refusals(here: Path, pipeline: str, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "png").mkdir()
    assert main(generate(pipeline, "--out", "i.parquet", "--images", "png")) == 2
    assert "--images png exists. Choose another folder, or pass --overwrite" in capsys.readouterr().err
    assert main(generate(pipeline, "--out", "i.jsonl")) == 2
    assert "Images need a .parquet file" in capsys.readouterr().err
    assert not (here / "i.jsonl.part").exists()
    assert main(generate(pipeline, "--out", "i.parquet")) == 0
    assert main(["data", "rate", "i.parquet", "--reward", "looks.py:length", "--out", "r.parquet"]) == 2
    assert "The responses here are images" in capsys.readouterr().err
