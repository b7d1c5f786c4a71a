"""A run on images is trained, evaluated, compared and sampled like any other."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from popmargin.cli.main import main
from popmargin.config import RunConfig, from_dict
from popmargin.data.images import encode_png, image_name
from popmargin.data.response_parts import Flat
from popmargin.data.responses import Responses
from popmargin.errors import ConfigError
from popmargin.evaluation.generations import Generations
from popmargin.evaluation.run import evaluate_run
from popmargin.generate.drawn import DrawnImages
from popmargin.models.pipelines import load_pipeline
from popmargin.training.run import train

CODE = """
import numpy as np

def ink(prompts, images):
    return [1 - float(np.asarray(image).mean()) / 255 for image in images]

def red(prompts, images):
    return [float(np.asarray(image)[..., 0].mean()) / 255 for image in images]

def length(prompts, completions):
    return [len(text) for text in completions]
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny pipeline, preferences between random images, and rewards."""
    from tiny_pipelines import saved  # diffusers takes seconds to import

    folder = tmp_path_factory.mktemp("images")
    saved(folder / "base")
    random = np.random.default_rng(0)
    files = [encode_png(random.integers(0, 256, (8, 8, 3), dtype=np.uint8)) for _ in range(24)]
    names = [image_name(file) for file in files]
    responses = Responses(
        [f"red {number}" for number in range(12)],
        [names[start : start + 2] for start in range(0, 24, 2)],
        {"ink": random.random(24)},
        fields={"image": Flat(files)},
    )
    responses.pairs("best_vs_worst", by="ink").save(folder / "pairs.parquet")
    (folder / "looks.py").write_text(CODE)
    return folder


def config(place: Path, output: Path, **evaluation: Any) -> RunConfig:
    evaluation = {"reward": f"{place / 'looks.py'}:ink", "also": [f"{place / 'looks.py'}:red"], "denoising_steps": 2,
                  "samples": 2, "seed": 3} | evaluation  # fmt: skip
    values = {
        "task": "images", "objective": {"name": "dpo"}, "output": str(output), "model": {"path": str(place / "base")},
        "data": {"train": str(place / "pairs.parquet"), "test_size": 4}, "evaluation": evaluation,
        "train": {"max_steps": 2, "batch_size": 4, "learning_rate": 1e-3},
        "reference": {"cache": str(place / "cache")},
    }  # fmt: skip
    return from_dict(RunConfig, values)


@pytest.fixture(scope="module")
def run(place: Path) -> Path:
    return train(config(place, place / "run"))[0].path


def test_a_run_is_evaluated_and_its_images_are_kept(run: Path) -> None:
    """From the same noise as the reference's, twice the same bytes; no length, no KL, nothing that only texts have."""
    metrics = evaluate_run(run)
    generated = Generations.load(run / "evaluation" / "generations.parquet")
    reference = Generations.load(run / "evaluation" / "reference_generations.parquet")
    assert generated.drawn == DrawnImages(2, 1.0)
    assert generated.responses.counts.tolist() == [2] * 4
    measured = {name for name, interval in metrics["intervals"].items() if interval["estimate"] is not None}
    assert {"accuracy", "mean_reward", "mean_red", "win_rate_reference"} <= measured
    of_texts = ("length", "kl", "log_ratio", "distinct", "finished", "win_rate_equal_length", "accuracy_longer")
    assert not [name for name in measured if name.startswith(of_texts)]
    assert metrics["sampling"]["drawn"] == "2 steps of DDIM, no guidance"
    files, theirs = (np.frombuffer(b"".join(one.responses.field("image")), np.uint8) for one in (generated, reference))
    assert len(files) and len(theirs)
    first = (run / "evaluation" / "generations.parquet").read_bytes()
    evaluate_run(run)
    assert (run / "evaluation" / "generations.parquet").read_bytes() == first


def test_untrained_weights_give_the_images_of_the_reference(place: Path, tmp_path: Path) -> None:
    """Common random numbers: with learning rate 0 only the noise could differ, and it does not."""
    still = config(place, tmp_path / "still")
    still = replace(still, train=replace(still.train, learning_rate=0.0, max_steps=1))
    run = train(still)[0].path
    metrics = evaluate_run(run)
    ours, theirs = (
        Generations.load(run / "evaluation" / name).responses.field("image")
        for name in ("generations.parquet", "reference_generations.parquet")
    )
    assert ours == theirs
    assert metrics["intervals"]["win_rate_reference"]["estimate"] == 0.5


def test_a_reward_of_texts_is_refused_before_sampling(run: Path, place: Path) -> None:
    with pytest.raises(ConfigError, match="The responses here are images"):
        evaluate_run(run, reward=f"{place / 'looks.py'}:length")


def test_the_report_shows_the_pictures(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate_run(run)
    assert main(["report", str(run), "--out", str(tmp_path / "report.html")]) == 0
    page = (tmp_path / "report.html").read_text()
    assert page.count("<img") == 2 * 8  # reference and arm, 4 prompts with 2 samples each
    assert 'alt="red ' in page
    assert "Denoising errors of chosen and rejected images" in page
    assert "Images per second" in page
    assert "KL per token" not in page


def test_a_run_generates(run: Path, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the evaluation's seed and steps, exactly the images of its evaluation."""
    evaluate_run(run)
    expected = Generations.load(run / "evaluation" / "generations.parquet").responses
    (tmp_path / "prompts.txt").write_text("".join(f"{prompt}\n" for prompt in expected.prompts))
    words = ["--n", "2", "--denoising-steps", "2", "--seed", "3", "--out", str(tmp_path / "i.parquet")]
    assert main(["generate", str(tmp_path / "prompts.txt"), "--model", str(run), *words]) == 0
    made = Responses.load(tmp_path / "i.parquet")
    assert made.texts == expected.texts
    assert "8 images made" in capsys.readouterr().out


@pytest.mark.slow
def test_a_lora_run_generates_with_its_adapter(place: Path, tmp_path: Path) -> None:
    adapted = config(place, tmp_path / "lora")
    adapted = replace(
        adapted, model=replace(adapted.model, lora_rank=2), train=replace(adapted.train, learning_rate=0.1)
    )
    run = train(adapted)[0].path
    evaluate_run(run)
    expected = Generations.load(run / "evaluation" / "generations.parquet").responses
    reference = Generations.load(run / "evaluation" / "reference_generations.parquet").responses
    assert expected.texts != reference.texts
    (tmp_path / "prompts.txt").write_text("".join(f"{prompt}\n" for prompt in expected.prompts))
    words = ["--n", "2", "--denoising-steps", "2", "--seed", "3", "--out", str(tmp_path / "i.parquet")]
    assert main(["generate", str(tmp_path / "prompts.txt"), "--model", str(run), *words]) == 0
    assert Responses.load(tmp_path / "i.parquet").texts == expected.texts


def test_the_fingerprint_of_a_tokenizer_does_not_know_its_last_use(place: Path) -> None:
    pipeline = load_pipeline(str(place / "base"), torch.float32)
    before = pipeline.fingerprint()
    pipeline.encode_prompts(["red 3"])
    assert pipeline.fingerprint() == before


def test_prompts_that_the_text_encoder_cuts_are_counted(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of two prompts, one has more tokens (its words) than the 8 that the encoder takes."""
    pipeline = load_pipeline(str(place / "base"), torch.float32)
    told = "prompts cut to the 8 tokens that the text encoder takes: 1 of 2"
    assert pipeline.cut_prompts(["red 3", "a very long prompt about a red digit"]) == [told]
    assert pipeline.cut_prompts(["red 3"]) == []
    (tmp_path / "prompts.txt").write_text("red 3\na very long prompt about a red digit\n")
    words = ["--model", str(place / "base"), "--denoising-steps", "1", "--out", str(tmp_path / "i.parquet")]
    assert main(["generate", str(tmp_path / "prompts.txt"), *words]) == 0
    assert told in capsys.readouterr().out
