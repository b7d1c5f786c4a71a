"""Rewards of images: functions, models with a text and an image tower, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from popmargin.data.images import encode_png, image_name
from popmargin.data.response_parts import Flat
from popmargin.data.responses import Responses
from popmargin.errors import ConfigError, DataError, RunError
from popmargin.rewards.image_text import ImageTextReward
from popmargin.rewards.load import check_reward, load_image_reward, load_reward
from popmargin.rewards.rate_responses import rate_responses

CODE = """
import numpy as np

def ink(prompts, images):
    return [float(1 - np.asarray(image).mean() / 255) for image in images]

def length(prompts, completions):
    return [len(text) for text in completions]

def broken(prompts, images):
    return [images[0].nonsense for _ in images]

def infinite(prompts, images):
    return [float("nan") for _ in images]

class Red:
    def score_images(self, prompts, images):
        return [image.getpixel((0, 0))[0] / 255 for image in images]

red = Red()
"""


def picture(seed: int, size: tuple[int, int] = (8, 8)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture
def code(tmp_path: Path) -> str:
    (tmp_path / "looks.py").write_text(CODE)
    return str(tmp_path / "looks.py")


def test_a_function_of_images_and_an_object_are_rewards(code: str) -> None:
    white, black = Image.new("RGB", (2, 2), "white"), Image.new("RGB", (2, 2), "black")
    assert load_image_reward(f"{code}:ink").score_images(["a", "b"], [white, black]) == [0.0, 1.0]
    assert load_image_reward(f"{code}:red").score_images(["a"], [white]) == [1.0]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("length", r"cannot be called with prompts= and images= .*The responses here are images"),
        ("inc", "Did you mean 'ink'"),
        ("np", "does not score images; give a function of"),
    ],
)
def test_what_does_not_score_images_is_refused(code: str, name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_image_reward(f"{code}:{name}")
    with pytest.raises(ConfigError, match=message):
        check_reward(f"{code}:{name}", {}, images=True)


@pytest.mark.parametrize("spec", ["judge:m@http://localhost:1/v1", "implicit:runs/x", "ratings", "local:models/x"])
def test_rewards_of_texts_by_name_are_refused_for_images(spec: str) -> None:
    with pytest.raises(ConfigError, match="scores texts, and the responses here are images"):
        load_image_reward(spec)


@pytest.mark.parametrize("name", ["ink", "red"])
def test_a_reward_of_images_is_refused_for_texts(code: str, name: str) -> None:
    with pytest.raises(ConfigError, match="scores images, and the responses here are texts"):
        load_reward(f"{code}:{name}")
    with pytest.raises(ConfigError, match="scores images, and the responses here are texts"):
        check_reward(f"{code}:{name}", {})


def test_answers_are_checked(code: str) -> None:
    with pytest.raises(RunError, match=r"looks.py, line 11: AttributeError"):
        load_image_reward(f"{code}:broken").score_images(["a"], [picture(0)])
    with pytest.raises(RunError, match=r"returned nan for image 0 .*finite number for every image"):
        load_image_reward(f"{code}:infinite").score_images(["a"], [picture(0)])
    with pytest.raises(RunError, match="1 prompt but 2 images"):
        load_image_reward(f"{code}:ink").score_images(["a"], [picture(0), picture(1)])
    with pytest.raises(ConfigError, match="takes no options"):
        load_image_reward(f"{code}:ink", scale=2)


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random CLIP with a tokenizer of letters and an image processor."""
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

    folder = tmp_path_factory.mktemp("clip")
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: place for place, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=12)
    tower = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(0)
    config = CLIPConfig(
        text_config={**tower, "vocab_size": len(words), "max_position_embeddings": 12,
                     "eos_token_id": len(words) - 1, "bos_token_id": len(words) - 2, "pad_token_id": len(words) - 1},
        vision_config={**tower, "image_size": 8, "patch_size": 4},
        projection_dim=8,
    )  # fmt: skip
    CLIPModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": 8}, crop_size={"height": 8, "width": 8}).save_pretrained(folder)
    return folder


def by_hand(folder: Path, prompt: str, image: Image.Image) -> float:
    """The model's own logit, from pixels that are resized, cropped and normalised here."""
    from transformers import AutoTokenizer, CLIPModel

    settings: dict[str, Any] = json.loads((folder / "preprocessor_config.json").read_text())
    short = min(image.size)
    width, height = (side * 8 // short for side in image.size)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - 8) // 2, (height - 8) // 2
    pixels = np.asarray(image.crop((left, top, left + 8, top + 8)), dtype=np.float64) / 255
    pixels = (pixels - settings["image_mean"]) / settings["image_std"]
    tokens = AutoTokenizer.from_pretrained(folder)(prompt, return_tensors="pt", truncation=True, max_length=12)
    with torch.no_grad():
        output = CLIPModel.from_pretrained(folder)(
            **tokens, pixel_values=torch.tensor(pixels, dtype=torch.float32).permute(2, 0, 1)[None]
        )
    return float(output.logits_per_image)


def test_a_two_tower_model_gives_its_own_logit(clip_folder: Path) -> None:
    """exp(logit scale) · cosine, here against pixels that are prepared by hand, for any batch size."""
    prompts = ["red 3", "blue dog", "red 3", "a"]
    images = [picture(0), picture(1, (16, 24)), picture(2, (32, 8)), picture(3, (9, 9))]
    expected = [by_hand(clip_folder, prompt, image) for prompt, image in zip(prompts, images, strict=True)]
    found = load_image_reward(f"model:{clip_folder}").score_images(list(prompts), images)
    assert found == pytest.approx(expected, abs=1e-4)
    assert np.ptp(found) > 0.1
    alone = ImageTextReward(str(clip_folder), batch_size=1).score_images(list(prompts), images)
    assert alone == pytest.approx(found, abs=1e-5)


def test_prompts_that_are_too_long_are_cut_and_counted(clip_folder: Path) -> None:
    reward = ImageTextReward(str(clip_folder))
    reward.score_images(["abcdefghijklmnopqrstuvwxyz", "red", "red"], [picture(0)] * 3)
    assert reward.take_notes() == [f"prompts cut to the 12 tokens of the image model {clip_folder}: 1 of 3"]
    assert reward.take_notes() == []


def test_models_that_cannot_score_images_are_refused(clip_folder: Path, tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2Model

    GPT2Model(GPT2Config(n_layer=1, n_head=1, n_embd=8, vocab_size=10, n_positions=8)).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"GPT2Model without get_text_features, get_image_features, logit_scale"):
        load_image_reward(f"model:{tmp_path}")
    with pytest.raises(ConfigError, match=r"has no option 'batchsize'. Did you mean 'batch_size'"):
        load_image_reward(f"model:{clip_folder}", batchsize=3)
    with pytest.raises(ConfigError, match=r"no such folder|No such"):
        load_image_reward("model:./not_here")
    (without := tmp_path / "without").mkdir()
    for file in clip_folder.iterdir():
        if file.name != "preprocessor_config.json":
            (without / file.name).write_bytes(file.read_bytes())
    with pytest.raises(ConfigError, match="has no image processor that loads"):
        load_image_reward(f"model:{without}")


def responses_of_images() -> Responses:
    files = [[encode_png(np.asarray(picture(3 * row + number))) for number in range(3)] for row in range(2)]
    names = [[image_name(file) for file in of_prompt] for of_prompt in files]
    return Responses(["red 3", "blue 7"], names, fields={"image": Flat(file for group in files for file in group)})


def ink(prompts: list[str], images: list[Image.Image]) -> list[float | None]:
    return [None if image.getpixel((0, 0)) == (0, 0, 0) else float(np.asarray(image).mean()) for image in images]


def test_responses_that_are_images_get_a_score() -> None:
    responses = responses_of_images()
    rated = rate_responses(responses, ink, name="ink")
    assert rated.responses.score("ink").tolist() == [np.asarray(picture(number)).mean() for number in range(6)]
    assert rated.missing == 0


def test_images_without_a_score_are_counted() -> None:
    black = encode_png(np.zeros((2, 2, 3), np.uint8))
    white = encode_png(np.full((2, 2, 3), 255, np.uint8))
    responses = Responses(["a"], [[image_name(black), image_name(white)]], fields={"image": Flat([black, white])})
    rated = rate_responses(responses, ink, name="ink")
    assert rated.missing == 1
    assert np.isnan(rated.responses.score("ink")[0])


def test_texts_and_images_are_not_mixed_up(code: str) -> None:
    with pytest.raises(ConfigError, match="The responses here are images"):
        rate_responses(responses_of_images(), f"{code}:length", name="length")
    with pytest.raises(ConfigError, match="the responses here are texts"):
        rate_responses(Responses(["a"], [["b"]]), f"{code}:ink", name="ink")


def test_a_broken_image_is_named() -> None:
    responses = Responses(["a"], [["image:" + "0" * 32]], fields={"image": Flat([b"<html>"])})
    with pytest.raises(DataError, match="response 0: the file is a web page, not an image"):
        rate_responses(responses, ink, name="ink")


@pytest.fixture(scope="module", params=[3, 1], ids=["labels", "one-output"])
def classifier(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

    folder = tmp_path_factory.mktemp("classifier")
    names = {} if request.param == 1 else {"id2label": {0: "Red", 1: "green", 2: "blue"}}
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = ViTConfig(image_size=8, patch_size=4, **sizes, **(names or {"num_labels": 1}))
    ViTForImageClassification(config).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 8, "width": 8}).save_pretrained(folder)
    return folder, request.param


def test_a_classifier_gives_a_probability_or_its_one_output(classifier: tuple[Path, int]) -> None:
    """Of 8 × 8 images, which need no resizing: pixels from -1 to 1, softmax over labels."""
    from transformers import ViTForImageClassification

    folder, outputs = classifier
    images, prompts = [picture(0), picture(1), picture(2)], ["red", "Blue", "red"]
    pixels = torch.stack([torch.tensor(np.asarray(one) / 127.5 - 1).permute(2, 0, 1) for one in images]).float()
    with torch.no_grad():
        logits = ViTForImageClassification.from_pretrained(folder)(pixel_values=pixels).logits
    expected = logits[:, 0] if outputs == 1 else logits.softmax(-1)[torch.arange(3), torch.tensor([0, 2, 0])]
    reward = load_image_reward(f"model:{folder}", batch_size=2)
    assert reward.score_images(list(prompts), images) == pytest.approx(expected.tolist(), abs=1e-5)
    if outputs == 3:
        green = load_image_reward(f"model:{folder}", label="green").score_images(list(prompts), images)
        assert green == pytest.approx(logits.softmax(-1)[:, 1].tolist(), abs=1e-5)
        with pytest.raises(RunError, match=r"no label for the prompt 'gren'. Did you mean 'green'"):
            reward.score_images(["gren"], images[:1])
    with pytest.raises(ConfigError, match="has no label 'gren'"):
        load_image_reward(f"model:{folder}", label="gren")


def test_options_of_models_of_images_are_checked_before_they_are_loaded(clip_folder: Path) -> None:
    check_reward(f"model:{clip_folder}", {"batch_size": 4}, images=True)
    with pytest.raises(ConfigError, match="has no option 'max_length'"):
        check_reward(f"model:{clip_folder}", {"max_length": 4}, images=True)
