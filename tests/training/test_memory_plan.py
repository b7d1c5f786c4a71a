"""The memory plan: it loads no weights, counts what a training has, and says what would make it fit."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import GPT2Config

from popmargin.cli.main import main
from popmargin.config import RunConfig, dump_yaml, to_dict
from popmargin.errors import ConfigError
from popmargin.models import policies
from popmargin.training import dry_run, memory_plan
from popmargin.training.arguments import training_arguments
from popmargin.training.build import Run, make_parts, make_trainer
from popmargin.training.dry_run import setting_of, shapes_of, sizes_of
from popmargin.training.launch_files import launch_file
from popmargin.training.memory import TensorPeak

Configure = Callable[..., RunConfig]
LARGE = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 128256, "hidden_size": 4096,
         "intermediate_size": 14336, "num_hidden_layers": 2, "num_attention_heads": 32, "num_key_value_heads": 8,
         "dtype": "bfloat16"}  # fmt: skip


@pytest.fixture
def no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policies, "load_pretrained", pytest.fail)


@pytest.fixture
def large(tmp_path: Path, tiny_tokenizer: Any) -> str:
    """A folder with the configuration of a model of 1.5 billion parameters, and without its weights."""
    folder = tmp_path / "large"
    tiny_tokenizer.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(LARGE))
    return str(folder)


@pytest.mark.usefixtures("no_weights")
def test_what_the_command_says(
    tmp_path: Path,
    configure: Configure,
    large: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(dump_yaml(to_dict(configure({"model": {"path": large}, "train": {"max_steps": None}}))))
    monkeypatch.setattr(dry_run, "device_bytes", lambda: (80 * 10**9, "a device"))
    assert main(["train", str(config), "--dry-run"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "32 rows an epoch, 4 steps of 8 rows (1 epochs)" in told and "weights 5.9 GB 1.49B parameters" in told
    assert "optimizer 11.9 GB" in told and told.endswith("It fits.")
    assert not Path(configure().output).exists()
    monkeypatch.setattr(dry_run, "device_bytes", lambda: (8 * 10**9, "a device"))
    assert main(["train", str(config), "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "It does not fit. What changes that:" in told and "model.lora_rank: 16, model.precision: bf16" in told
    assert told.strip().endswith(", which fits")


@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize("change", [{"name": "spa"}, {"name": "dpo"}])
@pytest.mark.parametrize("rank", [0, 4])
def test_a_reference_is_counted_where_it_is_forwarded(configure: Configure, rank: int, change: dict[str, Any]) -> None:
    run = Run.read(configure({"objective": change, "model": {"lora_rank": rank}}))
    workspace = run.workspace()
    shapes = shapes_of(run, workspace, run.model)
    assert shapes is not None
    found = memory_plan.plan(shapes, sizes_of(run, workspace), setting_of(run)).parts["reference"]
    assert (found[0] == shapes.weight_bytes) == (change["name"] == "spa" and not rank) and (found[0] > 0) == (
        change["name"] == "spa" and not rank
    )


@pytest.mark.parametrize("stage, weights, optimizer", [(0, 1.0, 8), (2, 1.0, 12 / 4), (3, 0.25, 12 / 4)])
def test_what_each_stage_of_zero_divides(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, stage: int, weights: float, optimizer: float
) -> None:
    """ZeRO-2 was planned as if it divided the weights."""
    monkeypatch.setattr(dry_run, "process_count", lambda: 4)
    asked = {"deepspeed": str(launch_file(f"zero{stage}.json"))} if stage else {}
    run = Run.read(configure({"train": {"trainer_arguments": asked}}))
    setting, shapes = setting_of(run), memory_plan.Shapes(parameters=1000, trained=1000, weight_bytes=4000)
    parts = memory_plan.plan(shapes, memory_plan.RowSizes(rows=32), setting).parts
    assert (parts["weights"][0], parts["optimizer"][0]) == (4000 * weights, 1000 * optimizer)
    assert parts["gradients"][0] == (1000 if stage else 8000)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"model": {"lora_rank": 4}},
        pytest.param({"model": {"lora_rank": 4, "lora_last_layers": 1}}, marks=pytest.mark.slow),
        pytest.param({"task": "reward"}, marks=pytest.mark.slow),
        pytest.param({"task": "reward", "model": {"lora_rank": 4}}, marks=pytest.mark.slow),
        pytest.param({"objective": {"name": "pop"}, "model": {"lora_rank": 4}}, marks=pytest.mark.slow),
        {"objective": {"name": "pop"}},
        {"train": {"gradient_checkpointing": True}},
        pytest.param({"train": {"tokens_per_batch": 64}}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_against_a_training(configure: Configure, change: dict[str, Any]) -> None:
    """Shapes are those of the model that is trained; the peak of its tensors is what was planned, within a quarter."""
    run = Run.read(configure({"train": {"max_steps": 2, "save_minutes": 0}}, change))
    workspace = run.workspace()
    shapes = shapes_of(run, workspace, run.model)
    assert shapes is not None
    planned = memory_plan.plan(shapes, sizes_of(run, workspace), setting_of(run))
    parts = make_parts(run, workspace)
    weights = dict(parts.policy.named_parameters())
    trained = sum(value.numel() for value in weights.values() if value.requires_grad)
    heads = 32 if change.get("task") and "model" in change else 0  # peft keeps the untrained one
    assert shapes.trained == trained and shapes.parameters == sum(v.numel() for v in weights.values()) - heads
    trainer = make_trainer(training_arguments(run.train, 0, run.directory.checkpoints), parts, run.train)
    with TensorPeak() as peak:
        trainer.train()
    assert 0.75 < planned.peak / peak.bytes < 1.25, {name: size for name, (size, _) in planned.parts.items()}


@pytest.mark.usefixtures("no_weights")
def test_layers_the_other_way_round(tmp_path: Path, configure: Configure, tiny_tokenizer: Any) -> None:
    """GPT-2's linear layers have weights (in, out)."""
    GPT2Config(vocab_size=300, n_embd=16, n_layer=2, n_head=2).save_pretrained(tmp_path / "gpt2")
    tiny_tokenizer.save_pretrained(tmp_path / "gpt2")
    run = Run.read(configure({"model": {"path": str(tmp_path / "gpt2"), "lora_rank": 2}}))
    shapes = shapes_of(run, run.workspace(), run.model)
    widths = [(16, 48), (16, 16), (16, 64), (64, 16)]
    assert shapes is not None and shapes.trained == 2 * sum(2 * (a + b) for a, b in widths)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, "cannot be trained. Set model.lora_rank above 0"),
        ({"lora_rank": 2}, "needs bitsandbytes, which is not installed. Run: pip install bitsandbytes"),
    ],
)
def test_four_bits_are_refused(
    configure: Configure, change: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "bitsandbytes" else find(name, *more)
    )
    with pytest.raises(ConfigError, match=words.replace(".", r"\.")):
        run = Run.read(configure({"model": {"quantization": "nf4", **change}}))
        run.record(run.workspace())


def test_four_bits_of_a_reward_model_are_refused(configure: Configure) -> None:
    with pytest.raises(ConfigError, match="a reward model is saved whole, with its adapter merged"):
        Run.read(configure({"task": "reward", "model": {"quantization": "nf4", "lora_rank": 2}}))
    with pytest.raises(ConfigError, match="the optimizer adamw_bnb_8bit is bitsandbytes', which is not installed"):
        settings = configure({"train": {"trainer_arguments": {"optim": "adamw_bnb_8bit"}}})
        training_arguments(settings.train, 0, Path("nowhere"))
