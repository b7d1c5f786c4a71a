"""The image demo: its two sets of pictures, rewards with known values, the classifier, and the base model."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from popmargin.config import DataConfig, RunConfig, from_dict, merge, to_dict
from popmargin.data import load_preferences
from popmargin.data.images import decode, image_bytes
from popmargin.demo.images import digit_base, digit_preferences, emoji_base, emoji_preferences, emoji_rewards
from popmargin.demo.images.digit_base import train_base, untrained_pipeline
from popmargin.demo.images.digit_classifier import colour_of, confusion, digit_of, prompt_kept
from popmargin.demo.images.digit_preferences import digit_pairs
from popmargin.demo.images.digit_rewards import background, fidelity, ink, red_share, symmetry
from popmargin.demo.images.digits import (
    COLOURS,
    as_pictures,
    coloured,
    digit_prompts,
    load_digits,
    read_prompt,
)
from popmargin.demo.images.emoji import emoji_path, load_emoji
from popmargin.demo.images.small_base import draw as draw_digits
from popmargin.demo.images.small_base import token_ids
from popmargin.errors import DataError
from popmargin.evaluation.run import evaluate_run
from popmargin.models.path import check_models, resolve_path
from popmargin.models.saved_pipelines import WEIGHTS
from popmargin.study.config import load_study
from popmargin.training.build import Run
from popmargin.training.run import train
from popmargin.training.sides import load_side

CARD = (emoji_path().parent / "DATA_CARD.md").read_text(encoding="utf-8")


def pictures(pixels: np.ndarray) -> list[Image.Image]:
    return [Image.fromarray(picture) for picture in as_pictures(pixels)]


def held_out() -> tuple[list[str], list[Image.Image]]:
    """Real digits that neither classifier nor base have seen, with their prompts."""
    digits = load_digits(held_out=True)
    colours = [list(COLOURS)[number % 7] for number in range(len(digits))]
    prompts = [f"{colour} {digit}" for colour, digit in zip(colours, digits.labels, strict=True)]
    return prompts, pictures(coloured(digits.light, colours))


def test_the_digits_are_split_once() -> None:
    train, test = load_digits(), load_digits(held_out=True)
    assert (len(train), len(test)) == (1437, 360)
    assert set(train.labels) == set(test.labels) == set(range(10))
    assert train.light.min() == 0 and train.light.max() == 1
    assert not {light.tobytes() for light in train.light} & {light.tobytes() for light in test.light}


def test_prompts_name_a_colour_and_a_digit() -> None:
    assert len(set(digit_prompts())) == 70
    assert [read_prompt(prompt) for prompt in digit_prompts()][:2] == [("red", 0), ("red", 1)]
    for wrong in ("red", "3 red", "pink 3", "red 12", "", None, ["red 3"]):
        with pytest.raises(DataError, match="is not a colour and a digit"):
            read_prompt(wrong)


def test_the_classifier_knows_held_out_digits_and_their_colours() -> None:
    prompts, images = held_out()
    labels = load_digits(held_out=True).labels
    pixels = np.stack([np.asarray(image) / 255 for image in images])
    assert colour_of(pixels) == [prompt.split()[0] for prompt in prompts]
    found = confusion(labels, digit_of(pixels.max(-1)))
    assert found.sum() == 360 and np.trace(found) / 360 == pytest.approx(0.9889, abs=0.003)
    assert np.mean(prompt_kept(prompts, images)) == np.trace(found) / 360
    assert prompt_kept(["red 3"] * 360, images).count(1.0) < 20
    assert "98.9%" in CARD and f"{360} held-out" in CARD


def test_a_faint_digit_is_still_itself() -> None:
    digits = load_digits(held_out=True)
    assert digit_of(digits.light[:50] * 0.3) == digit_of(digits.light[:50])


def test_rewards_of_pictures_drawn_by_hand() -> None:
    half = np.zeros((1, 8, 8, 3))
    half[0, :, :4, 0] = 1.0  # the left half red
    half[0, 0, 4, 2] = 1.0  # and one blue pixel on the right
    image = pictures(half)
    assert ink(["red 1"], image) == [33 / 64]
    assert red_share(["red 1"], image) == [pytest.approx(32 / 33)]
    assert symmetry(["red 1"], image) == [pytest.approx(-62 / 64)]  # one pixel has its mirror image
    assert background(["red 1"], image) == [-0.5]
    assert ink([], []) == symmetry([], []) == prompt_kept([], []) == []


def test_real_digits_are_faithful_and_others_less() -> None:
    train = load_digits()
    shown = pictures(coloured(train.light[:3], ["red"] * 3))
    prompts = [f"red {digit}" for digit in train.labels[:3]]
    assert fidelity(prompts, shown) == pytest.approx([0, 0, 0], abs=0.002)  # 16 levels of light in 256
    assert max(fidelity([prompt.replace("red", "blue") for prompt in prompts], shown)) < -0.2
    prompts, images = held_out()
    assert -0.11 < np.mean(fidelity(prompts[:60], images[:60])) < -0.08
    assert np.mean(ink(prompts, images)) == pytest.approx(0.305, abs=0.002)


def test_pictures_of_another_size_are_refused() -> None:
    with pytest.raises(DataError, match="Picture 1 has 9 × 8 pixels, the digits 8 × 8"):
        ink(["red 1"] * 2, [Image.new("RGB", (8, 8)), Image.new("RGB", (9, 8))])


def test_the_emoji_are_those_that_may_be_shipped() -> None:
    table = pq.read_table(emoji_path())
    styles = {style: table["style"].to_pylist().count(style) for style in ("noto", "fluent")}
    assert set(table["style"].to_pylist()) == set(styles)
    licences = {"noto": "Apache-2.0", "fluent": "MIT"}
    assert all(licences[row["style"]] == row["license"] for row in table.select(["style", "license"]).to_pylist())
    assert f"{table.num_rows:,} pictures" in CARD and all(f"({count:,})" in CARD for count in styles.values())
    texts = (emoji_path().parent / "LICENSES.md").read_text(encoding="utf-8")
    assert "Copyright (c) Microsoft Corporation" in texts and "Apache License" in texts and "Google" in texts
    for row in table.select(["prompt", "image"]).slice(0, None).to_pylist()[::200]:
        assert decode(image_bytes(row["image"])).shape == (32, 32, 3)
    assert emoji_path().stat().st_size < 5 * 2**20


def test_rewards_of_emoji_drawn_by_hand() -> None:
    half = np.full((1, 32, 32, 3), 255, np.uint8)
    half[0, :, :16, 1:] = 0  # the left half red, the right one white
    image = [Image.fromarray(picture) for picture in half]
    assert emoji_rewards.redness(["x"], image) == [0.5]
    assert emoji_rewards.symmetry(["x"], image) == [pytest.approx(-2 / 3)]
    with pytest.raises(DataError, match=r"names none of the 340 emoji that demo-emoji draws\. Remedy: ask for one"):
        emoji_rewards.fidelity(["x"], image)
    with pytest.raises(DataError, match="Picture 0 has 8 × 8 pixels, the emoji 32 × 32"):
        emoji_rewards.redness(["x"], [Image.new("RGB", (8, 8))])


def test_the_emoji_that_the_base_draws_are_faithful_to_themselves() -> None:
    emoji = load_emoji()
    assert len(emoji) == len(set(emoji.prompts)) == 340
    shown = [Image.fromarray(pixels) for pixels in emoji.pixels[:2]]
    assert emoji_rewards.fidelity(emoji.prompts[:2], shown) == [0.0, 0.0]
    assert max(emoji_rewards.fidelity(emoji.prompts[:2][::-1], shown)) < -0.1
    assert f"{len(emoji)} of its pictures" in CARD


def test_names_of_embedded_models_and_data_lead_to_what_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_models("demo-digits")  # makes nothing
    monkeypatch.setattr(digit_base, "digits_base_path", lambda: tmp_path)
    assert resolve_path("demo-digits") == str(tmp_path)
    light = [np.full((8, 8, 3), value, np.uint8) for value in (1, 2)]
    rows = [{"prompt": prompt, "chosen": Image.fromarray(light[1]), "rejected": Image.fromarray(light[0])}
            for prompt in digit_prompts()[:3]]  # fmt: skip
    load_preferences(rows).save(tmp_path / "pairs.parquet")
    monkeypatch.setattr(digit_preferences, "digits_data_path", lambda: tmp_path / "pairs.parquet")
    assert len(load_side(DataConfig(train="demo-digits"), "train")) == 3


@pytest.fixture(scope="module")
def trained() -> tuple[Any, list[float]]:
    """A base that was trained for a few steps."""
    pipeline = untrained_pipeline()
    return pipeline, train_base(pipeline, steps=3)


@pytest.mark.slow
def test_the_base_is_a_small_pipeline_that_learns(trained: tuple[Any, list[float]]) -> None:
    pipeline, losses = trained
    assert 4.5e5 < sum(param.numel() for param in pipeline.unet.parameters()) < 6e5
    assert losses[-1] < losses[0] and 0.5 < losses[0] < 2  # v has about unit variance
    ids = token_ids(pipeline, ["red 3", "", "blue 3", "a red 3"])
    assert ids.shape == (4, 4)
    assert len({tuple(row) for row in ids.tolist()}) == 4


@pytest.mark.slow
def test_equal_seeds_give_equal_bases(trained: tuple[Any, list[float]]) -> None:
    again, other = untrained_pipeline(), untrained_pipeline()
    state = torch.random.get_rng_state()
    assert train_base(again, steps=3) == trained[1]
    assert train_base(other, steps=3, seed=1) != trained[1]
    assert torch.equal(torch.random.get_rng_state(), state)
    for part in ("unet", "text_encoder"):
        ours, theirs = getattr(trained[0], part).state_dict(), getattr(again, part).state_dict()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.slow
def test_base_and_pairs_are_made_once_and_load_in_diffusers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import diffusers

    monkeypatch.setenv("POPMARGIN_CACHE", str(tmp_path))
    monkeypatch.setattr(digit_base, "STEPS", 2)
    monkeypatch.setattr(digit_preferences, "PAIRS", 14)
    train, runs = digit_base.train_base, list[int]()

    def short(pipeline: Any, **_: Any) -> list[float]:
        runs.append(1)
        return train(pipeline, steps=2)

    monkeypatch.setattr(digit_base, "train_base", short)
    pairs = [load_side(DataConfig(train="demo-digits"), "train") for _ in range(2)]
    folder = Path(resolve_path("demo-digits"))
    assert runs == [1]
    assert list(pairs[0]) == list(pairs[1])
    assert pairs[0].report.rows_kept > 10 and (pairs[0].rating_gap > 0).all()
    assert {row["prompt"] for row in pairs[0]} <= set(digit_prompts())
    loaded = diffusers.DiffusionPipeline.from_pretrained(folder, vae=None)
    loaded.set_progress_bar_config(disable=True)
    drawn = loaded("red 3", guidance_scale=1.0, num_inference_steps=2, output_type="latent").images
    assert drawn.shape == (1, 3, 8, 8)
    rows = digit_pairs(loaded, pairs=14)
    found = [(row["id"], response["text"]) for row in rows for response in row["responses"]]
    kept = {(row["id"], row[side]) for row in pairs[0] for side in ("chosen", "rejected")}
    assert kept <= set(found)
    sampled = draw_digits(loaded, ["red 3", "blue 1"], seed=3, steps=2)
    np.testing.assert_array_equal(sampled, draw_digits(loaded, ["red 3", "blue 1"], seed=3, steps=2))


@pytest.mark.slow
def test_the_emoji_are_trained_on_in_one_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Model, pairs, training and pictures with their rewards, each for a few steps."""
    monkeypatch.setenv("POPMARGIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(emoji_base, "STEPS", 2)
    monkeypatch.setattr(emoji_preferences, "PAIRS", 6)
    train_base, draw = emoji_base.train_emoji, emoji_preferences.emoji_pairs
    monkeypatch.setattr(emoji_base, "train_emoji", lambda pipeline, **_: train_base(pipeline, steps=2))
    monkeypatch.setattr(emoji_preferences, "emoji_pairs", lambda pipeline, **_: draw(pipeline, pairs=6))
    study = load_study(Path(__file__).parents[2] / "docs" / "studies" / "images-emoji.yaml")
    values = to_dict(study.run_config("dpo", 0))
    few = {"train": {"max_steps": 1, "batch_size": 2}, "evaluation": {"prompts": 1, "denoising_steps": 2}}
    values = merge(values, few | {"output": str(tmp_path / "run"), "data": {"test_size": 2}})
    run, _ = train(from_dict(RunConfig, values))
    found = evaluate_run(Run.opened(run.path))["intervals"]
    assert 0 <= found["mean_reward"]["estimate"] <= 1 and found["mean_fidelity"]["estimate"] < 0
    folder = Path(resolve_path("demo-emoji"))
    assert 1e6 < sum(value.numel() for value in load_file(folder / "unet" / WEIGHTS).values()) < 3e6
