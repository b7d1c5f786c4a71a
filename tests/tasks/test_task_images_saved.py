"""Trained text-to-image models in diffusers' format: every kind of pipeline, whole and as LoRA weights."""

import copy
import json
import math
import shutil
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from image_runs import Configure, Folder, metrics
from safetensors.torch import load_file

from popmargin.errors import ConfigError, RunError
from popmargin.models.pipelines import INDEX, load_pipeline
from popmargin.models.saved_pipelines import LORA_WEIGHTS, WEIGHTS, load_trained
from popmargin.training.build import Run
from popmargin.training.run import train

KINDS = ["pixels", "sd", "sdxl", "sd3", "pixart"]
NOISY: dict[str, Any] = {"task": {"prompt_dropout": 0.3}}


def classes() -> dict[str, Any]:
    import diffusers

    return {
        "pixels": diffusers.StableDiffusionPipeline,
        "sd": diffusers.StableDiffusionPipeline,
        "sdxl": diffusers.StableDiffusionXLPipeline,
        "sd3": diffusers.StableDiffusion3Pipeline,
        "pixart": diffusers.PixArtAlphaPipeline,
    }


def in_diffusers(folder: Path, kind: str) -> Any:
    """The pipeline as a user of diffusers loads it."""
    return classes()[kind].from_pretrained(folder, **({"vae": None} if kind == "pixels" else {}))


def trained_part(pipeline: Any) -> Any:
    return pipeline.unet if getattr(pipeline, "unet", None) is not None else pipeline.transformer


def image(pipeline: Any, kind: str) -> torch.Tensor:
    """One image, or latents where there is no VAE."""
    options: dict[str, Any] = {"num_inference_steps": 2, "guidance_scale": 1.0, "height": 16, "width": 16}
    if kind == "pixart":
        options |= {"use_resolution_binning": False, "clean_caption": False}
    pipeline.set_progress_bar_config(disable=True)
    random = torch.Generator().manual_seed(0)
    return torch.as_tensor(pipeline("red square", generator=random, output_type="pt", **options).images[0])


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_model_loads_in_diffusers(configure: Configure, pipeline_folder: Folder, kind: str) -> None:
    run, model = train(configure(NOISY, kind=kind), keep_model=True)
    assert metrics(run)[0]["grad_norm"] > 0
    start, again = pipeline_folder(kind), in_diffusers(run.model, kind)
    ours, theirs = model.state_dict(), trained_part(again).state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    before = in_diffusers(start, kind)
    changed = trained_part(before).state_dict()
    assert any(not torch.equal(changed[name], ours[name]) for name in ours)
    assert json.loads((run.model / INDEX).read_text()) == json.loads((start / INDEX).read_text())
    for name in again.components.keys() - {"unet", "transformer", "safety_checker", "feature_extractor"}:
        one, other = getattr(again, name), getattr(before, name)
        if isinstance(one, torch.nn.Module):
            values = other.state_dict()
            assert all(torch.equal(value, values[key]) for key, value in one.state_dict().items()), name
    if kind != "pixels":
        first, second = image(again, kind), image(before, kind)
        assert first.shape == (3, 16, 16) and not torch.equal(first, second)
    loaded = load_trained(run.model, load_pipeline(str(start), torch.float32))
    assert all(torch.equal(value, ours[name]) for name, value in loaded.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sd", "sd3"])
def test_lora_weights_load_in_diffusers(configure: Configure, pipeline_folder: Folder, kind: str) -> None:
    run, model = train(configure({"model": {"lora_rank": 2}}, kind=kind), keep_model=True)
    assert [file.name for file in run.model.glob("*.safetensors")] == [LORA_WEIGHTS]
    pipeline = load_pipeline(str(pipeline_folder(kind)), torch.float32)
    text, noisy = pipeline.encode_prompts(["red square"]), torch.randn(1, *pipeline.shape)
    times = torch.tensor([300.0])

    def predicted(one: Any) -> torch.Tensor:
        with torch.no_grad():
            return pipeline.kind.predict(one.eval(), noisy, times, text, pipeline.size)

    ours, start = predicted(model), predicted(pipeline.model)
    assert not torch.allclose(ours, start, atol=1e-6)
    assert torch.equal(predicted(load_trained(run.model, pipeline)), ours)
    again = in_diffusers(pipeline_folder(kind), kind)
    again.load_lora_weights(str(run.model))
    torch.testing.assert_close(predicted(trained_part(again)), ours)


@pytest.mark.slow
def test_lora_weights_of_another_start_model_are_refused(
    configure: Configure, pipeline_folder: Folder, tmp_path: Path
) -> None:
    run, _ = train(configure({"model": {"lora_rank": 2}}))
    pipeline = load_pipeline(str(pipeline_folder("pixels")), torch.float32)
    with torch.no_grad():
        next(pipeline.model.parameters()).add_(1.0)
    with pytest.raises(RunError, match="was trained on a start model whose weights have since changed"):
        load_trained(run.model, pipeline)
    with pytest.raises(RunError, match="has no trained model"):
        load_trained(tmp_path, pipeline)


@pytest.mark.slow
@pytest.mark.parametrize("change", [
    {"model": {"precision": "bf16"}},
    {"model": {"precision": "bf16", "lora_rank": 2}},
    {"train": {"gradient_checkpointing": True}},
    {"model": {"save_dtype": "bf16"}},
], ids=["bf16", "bf16-lora", "checkpointing", "saved-bf16"])  # fmt: skip
def test_precision_and_memory(configure: Configure, change: dict[str, Any]) -> None:
    run, model = train(configure(change, kind="sd"), keep_model=True)
    first, second = (line["loss"] for line in metrics(run))
    assert first == pytest.approx(math.log(2), abs=1e-6) and math.isfinite(second) and second != first
    if change.get("model", {}).get("save_dtype"):
        saved = load_file(run.model / "unet" / WEIGHTS)
        assert {value.dtype for value in saved.values()} == {torch.bfloat16}
        ours = model.state_dict()
        assert all(torch.equal(value.float(), ours[name]) for name, value in saved.items())


def broken(folder: Path, start: Path, change: Any) -> str:
    shutil.copytree(start, folder)
    change(folder)
    return str(folder)


def without_index(folder: Path) -> None:
    (folder / INDEX).unlink()


def with_class(name: str, value: list[str]) -> Any:
    def change(folder: Path) -> None:
        index = json.loads((folder / INDEX).read_text())
        index[name] = value
        (folder / INDEX).write_text(json.dumps(index))

    return change


def with_pickle(folder: Path) -> None:
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_name("diffusion_pytorch_model.bin"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without_index, "is no text-to-image model: it has no model_index.json"),
        (with_class("unet", ["mine", "UNet"]), "code next to a model never runs here"),
        (with_class("unet", ["diffusers", "NoSuchModel"]), "which neither diffusers nor transformers has"),
        (with_class("unet", ["transformers", "AutoModel"]), "is no model, tokenizer, processor or scheduler"),
        (with_class("unet", ["diffusers", "AutoModel"]), "is no model, tokenizer, processor or scheduler"),
        (with_class("scheduler", ["transformers", "AutoConfig"]), "is no model, tokenizer, processor or scheduler"),
        (with_class("unet", ["transformers", "pipeline"]), "is no model, tokenizer, processor or scheduler"),
        (with_pickle, "pickle"),
        (
            with_class("unet", ["diffusers", "FluxTransformer2DModel"]),
            "of the class FluxTransformer2DModel, whose inputs",
        ),
    ],
)
def test_folders_that_are_no_pipeline(pipeline_folder: Folder, tmp_path: Path, change: Any, message: str) -> None:
    path = broken(tmp_path / "broken", pipeline_folder("pixels"), change)
    (Path(path) / "config.json").touch()
    with pytest.raises((RunError, ConfigError), match=message):
        load_pipeline(path, torch.float32)


def test_kinds_that_are_not_known_are_named(pipeline_folder: Folder) -> None:
    from popmargin.models.denoisers import kind_of_denoiser

    model: Any = load_pipeline(str(pipeline_folder("pixels")), torch.float32).model
    conditioned = copy.copy(model)
    conditioned._internal_dict = {**model.config, "class_embed_type": "timestep"}
    with pytest.raises(ConfigError, match=r"with class_embed_type, whose inputs are not known here. Known are"):
        kind_of_denoiser(conditioned, "x")
    with pytest.raises(ConfigError, match="of the class Linear"):
        other: Any = torch.nn.Linear(1, 1)
        other.config = {}
        kind_of_denoiser(other, "x")


def test_a_transformer_that_is_told_the_size_is_refused_with_a_remedy() -> None:
    from popmargin.models.denoisers import kind_of_denoiser

    class PixArtTransformer2DModel:
        config: ClassVar[dict[str, Any]] = {"use_additional_conditions": True}

    with pytest.raises(ConfigError, match=r"PixArt that is also told the size .* at one size: start from one of these"):
        kind_of_denoiser(PixArtTransformer2DModel(), "x")


def test_a_lora_run_is_no_start_model(tmp_path: Path) -> None:
    """Neither the folder of the weights nor its run has the model; the message says how to make one."""
    (tmp_path / "run" / "model").mkdir(parents=True)
    (tmp_path / "run" / "model" / "pytorch_lora_weights.safetensors").touch()
    for path in (tmp_path / "run", tmp_path / "run" / "model"):
        with pytest.raises(
            RunError, match=r"LoRA weights of a text-to-image model, without the model\. Merge them .*fuse"
        ):
            load_pipeline(str(path), torch.float32)


def test_sizes_that_do_not_fit_are_refused(configure: Configure, pipeline_folder: Folder) -> None:
    with pytest.raises(ConfigError, match=r"task.size 9 is not a multiple of 2, by which the VAE"):
        Run.read(configure({"task": {"size": 9}}, kind="sd")).workspace().task.pipeline  # noqa: B018  # pyright: ignore
    named = configure({"reference": {"model": str(pipeline_folder("pixels"))}}, kind="sd")
    with pytest.raises(ConfigError, match=r"has another vae"):
        train(named)
