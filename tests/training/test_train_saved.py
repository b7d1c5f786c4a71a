"""What a run saves is what it has trained, whatever it started from, and nothing else counts as finished."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
)

from few_fast import few_fast
from popmargin.config import RunConfig
from popmargin.errors import ConfigError, RunError
from popmargin.evaluation.run import HeldOutMargins, evaluate_run, held_out_margins
from popmargin.models.policies import load_model
from popmargin.models.saved import dtype_to_save, write_model
from popmargin.training.build import Run
from popmargin.training.run import train

Configure = Callable[..., RunConfig]
TOKENS = torch.tensor([[5, 60, 7, 180, 9, 33]])
AUTO = {"policy": AutoModelForCausalLM, "reward": AutoModelForSequenceClassification}


@pytest.fixture(scope="session", params=["fp32", pytest.param("bf16", marks=pytest.mark.slow)])
def start_path(request: Any, tmp_path_factory: pytest.TempPathFactory, make_model: Any, tiny_tokenizer: Any) -> str:
    """A LoRA folder as supervised fine-tuning leaves it, on a base in fp32 or bf16."""
    folder = tmp_path_factory.mktemp("sft")
    base = make_model(dtype={"fp32": torch.float32, "bf16": torch.bfloat16}[request.param])
    base.save_pretrained(folder / "base")
    options = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "down_proj"], "task_type": "CAUSAL_LM"}
    policy = get_peft_model(base, LoraConfig(**options))
    policy.peft_config["default"].base_model_name_or_path = str(folder / "base")
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in policy.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn_like(parameter)
    policy.save_pretrained(folder / "sft", save_embedding_layers=False)
    tiny_tokenizer.save_pretrained(folder / "sft")
    return str(folder / "sft")


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval().float()(input_ids=TOKENS).logits


@pytest.mark.parametrize("task", ["policy", "reward"])
@pytest.mark.parametrize("rank", few_fast([0, 2], (1,)))
def test_a_start_adapter_is_trained_on_and_saved(
    tmp_path: Path, configure: Configure, start_path: str, rank: int, task: str
) -> None:
    """transformers alone, our evaluation and the policy in memory agree; the first log-ratios are 0."""
    change = {"task": task, "model": {"path": start_path, "lora_rank": rank}, "train": {"learning_rate": 1e-2}}
    config = configure(change)
    workspace = Run.read(config).workspace()
    run, policy = train(config, workspace=workspace, keep_model=True)
    alone = AUTO[task].from_pretrained(run.model, dtype=torch.float32)
    torch.testing.assert_close(logits(alone), logits(policy), rtol=1e-4, atol=1e-4)
    changed = (logits(policy) - logits(workspace.task.start_model)).abs().max()
    assert changed > 0.01 and not (run.model / "adapter_config.json").exists()
    evaluate_run(run.path)
    found = HeldOutMargins.load(run.evaluation / "margins.parquet").reward_margin
    np.testing.assert_allclose(
        found, held_out_margins(policy, Run.read(config), workspace).reward_margin, rtol=1e-4, atol=1e-4
    )
    assert np.ptp(found) > 0.01
    if task == "policy":
        first = json.loads((run.path / "metrics.jsonl").read_text().splitlines()[0])
        assert first["loss"] == pytest.approx(np.log(2), abs=1e-6) and abs(first["chosen_logratio"]) < 1e-5


@pytest.mark.parametrize("last_layers", [None, 1])
def test_a_start_adapter_is_kept_by_choice(configure: Configure, start_path: str, last_layers: int | None) -> None:
    """Both adapters are saved as one on the same base, which peft, transformers and our evaluation read alike."""
    settings = {"path": start_path, "lora_rank": 2, "start_adapter": "stack", "lora_last_layers": last_layers}
    config = configure({"model": settings, "train": {"learning_rate": 1e-2, "save_steps": 2, "max_steps": 3}})
    workspace = Run.read(config).workspace()
    run, policy = train(config, workspace=workspace, keep_model=True)
    torch.testing.assert_close(
        logits(workspace.task.start_model), logits(load_model(start_path, torch.float32)), rtol=1e-4, atol=1e-4
    )
    first = json.loads((run.path / "metrics.jsonl").read_text().splitlines()[0])
    assert first["loss"] == pytest.approx(np.log(2), abs=1e-6) and abs(first["chosen_logratio"]) < 1e-5
    trained = {name for name, value in policy.named_parameters() if value.requires_grad}
    assert trained and all(".default." in name for name in trained)
    before = logits(policy)
    assert (before - logits(workspace.task.start_model)).abs().max() > 0.01
    named = json.loads((run.model / "adapter_config.json").read_text())
    assert named["base_model_name_or_path"] == f"{Path(start_path).parent}/base" and named["r"] == 6
    alone = AutoModelForCausalLM.from_pretrained(run.model, dtype=torch.float32)
    base = AutoModelForCausalLM.from_pretrained(named["base_model_name_or_path"], dtype=torch.float32)
    for other in (alone, PeftModel.from_pretrained(base, run.model), workspace.task.load(run.model),
                  load_model(str(run.model), torch.float32)):  # fmt: skip
        torch.testing.assert_close(logits(other), before, rtol=1e-4, atol=1e-4)
    (run.path / "run.json").unlink()
    (run.model / "adapter_model.safetensors").unlink()
    _, again = train(config, resume=True, keep_model=True)
    assert torch.equal(logits(again), before)


def test_where_there_is_nothing_to_stack(configure: Configure) -> None:
    for change, message in (
        ({}, "start_adapter: stack is only for policies with model.lora_rank above 0"),
        ({"lora_rank": 2}, "start_adapter is stack, but '.*' is a whole model"),
    ):
        with pytest.raises(ConfigError, match=message):
            train(configure({"model": {"start_adapter": "stack"} | change}))


def test_an_adapter_whose_base_has_changed_since(
    tmp_path: Path, configure: Configure, make_model: Any, tiny_tokenizer: Any
) -> None:
    """Trained again in place, say: the policy of the run is no more."""
    path = tmp_path / "start"
    make_model().save_pretrained(path)
    tiny_tokenizer.save_pretrained(path)
    run, _ = train(configure({"model": {"path": str(path), "lora_rank": 2}, "train": {"max_steps": 1}}))
    evaluate_run(run.path)
    make_model(seed=1).save_pretrained(path)
    with pytest.raises(RunError, match=r"was trained with different inputs\. Changed: start model"):
        evaluate_run(run.path)


def test_an_adapter_is_merged_as_the_page_says(tmp_path: Path, configure: Configure, model_path: str) -> None:
    """With transformers and peft alone, onto the base that it names as the user did."""
    run, policy = train(configure({"model": {"lora_rank": 2}, "train": {"learning_rate": 1e-2}}), keep_model=True)
    base = json.loads((run.model / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert base == model_path
    page = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    code = page.split("```python\n")[1].split("```")[0]
    for word, value in {"BASE": base, "RUN/model": run.model, "MERGED": tmp_path / "merged"}.items():
        code = code.replace(f'"{word}"', repr(str(value)))
    exec(code, {})
    alone = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(logits(alone), logits(policy), rtol=1e-4, atol=1e-4)


def test_a_start_adapter_resumes(tmp_path: Path, configure: Configure, start_path: str) -> None:
    change = {"model": {"path": start_path, "lora_rank": 2}, "train": {"save_steps": 2, "max_steps": 4}}
    config = configure(change)
    run, policy = train(config, keep_model=True)
    before = logits(policy)
    (run.path / "run.json").unlink()
    _, again = train(config, resume=True, keep_model=True)
    assert torch.equal(logits(again), before)


@pytest.fixture(scope="session")
def rough_path(tmp_path_factory: pytest.TempPathFactory, make_model: Any, tiny_tokenizer: Any) -> str:
    """A start model that is stored in bf16."""
    folder = tmp_path_factory.mktemp("rough")
    make_model(dtype=torch.bfloat16).save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("task", ["policy", "reward"])
def test_weights_keep_the_dtype_of_the_start_model(configure: Configure, rough_path: str, task: str) -> None:
    """And what is in memory, and measured, is what was rounded to be saved."""
    config = configure({"task": task, "model": {"path": rough_path}, "train": {"learning_rate": 1e-2}})
    workspace = Run.read(config).workspace()
    run, policy = train(config, workspace=workspace, keep_model=True)
    stored = load_file(run.model / "model.safetensors")
    assert {value.dtype for value in stored.values()} == {torch.bfloat16}
    assert AUTO[task].from_pretrained(run.model).dtype == torch.bfloat16  # of its own accord
    assert policy.dtype == torch.float32
    facts = run.facts()["saved_weights"]
    assert facts["dtype"] == "bfloat16" and 0.9 < facts["kept"] < 1.1
    loaded = workspace.task.load(run.model)
    assert torch.equal(logits(loaded), logits(policy))


def test_training_that_bf16_would_round_away_is_saved_in_fp32(
    tmp_path: Path, configure: Configure, rough_path: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Weights near 0.1 that moved by 1e-5 are the start model's again in bf16."""
    still = {"model": {"path": rough_path}, "train": {"learning_rate": 3e-6}}
    run, _ = train(configure(still))
    assert {value.dtype for value in load_file(run.model / "model.safetensors").values()} == {torch.float32}
    assert run.facts()["saved_weights"]["dtype"] == "float32"
    assert "saved in fp32: bfloat16, the start model's dtype, would round much" in caplog.text
    forced, _ = train(configure(still, {"model": {"save_dtype": "bf16"}, "output": str(tmp_path / "bf16")}))
    kept = forced.facts()["saved_weights"]["kept"]
    assert kept < 0.5 and f"keeps {100 * kept:.0f}% of the training" in caplog.text
    whole, _ = train(configure({"model": {"path": rough_path, "save_dtype": "fp32"}, "output": str(tmp_path / "fp32")}))
    assert whole.facts()["saved_weights"] == {"dtype": "float32", "kept": 1.0}


@pytest.fixture
def broken_saves(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Path], None]], None]:
    """Damages what safetensors has written, before it is read back."""

    def install(damage: Callable[[Path], None]) -> None:
        from peft import peft_model
        from transformers import modeling_utils

        for module in (modeling_utils, peft_model):
            write = module.safe_save_file

            def spoiled(tensors: Any, filename: Any, *args: Any, _write: Any = write, **options: Any) -> None:
                _write(tensors, filename, *args, **options)
                damage(Path(filename))

            monkeypatch.setattr(module, "safe_save_file", spoiled)

    return install


def lose_one(file: Path) -> None:
    tensors = load_file(file)
    del tensors[max(tensors)]
    save_file(tensors, file, metadata={"format": "pt"})


def change_one(file: Path) -> None:
    tensors = load_file(file)
    tensors[max(tensors)].flatten()[0] += 1e-3
    save_file(tensors, file, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("task", "rank", "damage", "what"),
    [
        ("policy", 0, lose_one, "is missing in the file"),
        ("policy", 2, change_one, "has a different value in the file"),
        ("reward", 0, change_one, "has a different value in the file"),
        ("reward", 2, lose_one, "is missing in the file"),
    ],
)
def test_a_save_that_lost_something_is_no_success(
    configure: Configure, broken_saves: Any, rank: int, task: str, damage: Any, what: str
) -> None:
    broken_saves(damage)
    config = configure({"task": task, "model": {"lora_rank": rank}, "train": {"max_steps": 1}})
    with pytest.raises(RunError, match=f"differs from the weights in memory: .*{what}.*does not count as finished"):
        train(config)
    assert not (Path(config.output) / "run.json").exists()


def test_a_checkpoint_that_lost_something_is_not_resumed(
    configure: Configure, caplog: pytest.LogCaptureFixture
) -> None:
    config = configure({"train": {"save_steps": 1, "max_steps": 2}})
    run, _ = train(config)
    (run.path / "run.json").unlink()
    lose_one(run.checkpoints / "checkpoint-2" / "model.safetensors")
    assert train(config, resume=True)[0].facts()["resumed"]  # from the one before
    assert "checkpoint-2 is not used: model.safetensors has" in caplog.text


def test_weights_trained_outside_the_adapter_are_missed(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    """An adapter's file holds the adapter alone."""
    from popmargin.tasks import language

    make = language.make_policy

    def with_norms(start: Any, config: Any, **options: Any) -> Any:
        policy = make(start, config, **options)
        policy.get_submodule("base_model.model.model.norm").requires_grad_(True)
        return policy

    monkeypatch.setattr(language, "make_policy", with_norms)
    with pytest.raises(RunError, match=r"model\.norm\.weight' is missing in the file"):
        train(configure({"model": {"lora_rank": 2}, "train": {"max_steps": 1}}))


def test_a_model_published_under_other_names_resumes(
    tmp_path: Path, configure: Configure, tiny_tokenizer: Any, weights: Any
) -> None:
    """Experts are one tensor in memory and many in the files: a checkpoint in those names would be passed over."""
    config = MixtralConfig(vocab_size=len(tiny_tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1,
                           num_attention_heads=2, num_key_value_heads=2, num_local_experts=2)  # fmt: skip
    torch.manual_seed(0)
    MixtralForCausalLM(config).save_pretrained(tmp_path / "experts")
    tiny_tokenizer.save_pretrained(tmp_path / "experts")
    settings = {"model": {"path": str(tmp_path / "experts")}, "train": {"save_steps": 2, "max_steps": 4}}
    run, policy = train(configure(settings), keep_model=True)
    before, saved = logits(policy), weights(run.model)
    assert any("experts.1.w1" in name for name in saved)  # as others expect them
    (run.path / "run.json").unlink()
    _, again = train(configure(settings), resume=True, keep_model=True)
    assert torch.equal(logits(again), before)


def test_every_model_of_a_run_may_be_an_adapter(
    tmp_path: Path, configure: Configure, model_path: str, start_path: str
) -> None:
    """The reference and a token selector's own one are the merged models too."""
    tokens = {"name": "selective", "share": 0.5, "reference": start_path}
    config = configure({"reference": {"model": start_path}, "tokens": tokens, "train": {"max_steps": 1}})
    workspace = Run.read(config).workspace()
    train(config, workspace=workspace)
    merged = load_model(start_path, torch.float32)
    assert torch.equal(logits(workspace.task.reference_model), logits(merged))
    assert (
        workspace.task.reference(workspace.train.encoded, start_path).sums()[0].tolist()
        == workspace.train.reference.sums()[0].tolist()
    )


@pytest.mark.parametrize("use_cache", [True, False])
def test_the_saved_configuration_has_the_start_models_cache(
    tmp_path: Path, configure: Configure, make_model: Any, tiny_tokenizer: Any, use_cache: bool
) -> None:
    """Training switches it off for itself alone."""
    model = make_model()
    model.config.use_cache = use_cache
    model.save_pretrained(tmp_path)
    tiny_tokenizer.save_pretrained(tmp_path)
    run, _ = train(configure({"model": {"path": str(tmp_path)}, "train": {"max_steps": 1}}))
    assert json.loads((run.model / "config.json").read_text())["use_cache"] is use_cache


def with_dense_and_expert_layers(vocabulary: int) -> Any:
    sizes = dict.fromkeys(("num_attention_heads", "num_key_value_heads", "n_group"), 2) | {"n_routed_experts": 4}
    small = dict.fromkeys(("qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim", "kv_lora_rank", "q_lora_rank"), 8)
    config = DeepseekV3Config(
        vocab_size=vocabulary, hidden_size=16, intermediate_size=16, moe_intermediate_size=16, num_hidden_layers=2,
        first_k_dense_replace=1, num_experts_per_tok=1, topk_group=1, **sizes, **small,
    )  # fmt: skip
    return DeepseekV3ForCausalLM(config)


@pytest.mark.parametrize("own_names", [False, True])
def test_weights_that_a_model_keeps_in_fp32_are_not_rounded(tmp_path: Path, own_names: bool) -> None:
    """A router's correction, say, which decides between experts by its last digits."""
    model = with_dense_and_expert_layers(64)
    bias = dict(model.named_buffers())["model.layers.1.mlp.gate.e_score_correction_bias"].fill_(0.1001)
    write_model(model, tmp_path, dtype=torch.bfloat16, own_names=own_names)
    again = DeepseekV3ForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert torch.equal(dict(again.named_buffers())["model.layers.1.mlp.gate.e_score_correction_bias"], bias)
    assert again.lm_head.weight.dtype == torch.bfloat16
    assert dtype_to_save(model.state_dict(), model, torch.bfloat16, None) == (torch.bfloat16, 1.0)


@pytest.mark.filterwarnings(
    "ignore:.*rank_pattern.*", "ignore:.*alpha_pattern.*"
)  # of peft, which renames the experts' matrices
def test_an_adapter_around_packed_experts_is_saved(tmp_path: Path, configure: Configure, tiny_tokenizer: Any) -> None:
    """peft wraps these once for each of their matrices, by the names of the dense layers' ones."""
    with_dense_and_expert_layers(len(tiny_tokenizer)).save_pretrained(tmp_path)
    tiny_tokenizer.save_pretrained(tmp_path)
    settings = {"path": str(tmp_path), "lora_rank": 2}
    config = configure({"model": settings, "train": {"max_steps": 2, "learning_rate": 1e-2}})
    run, policy = train(config, keep_model=True)
    assert any(".experts.base_layer.base_layer." in name for name, _ in policy.named_parameters())
    base = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    torch.testing.assert_close(logits(PeftModel.from_pretrained(base, run.model)), logits(policy), rtol=1e-4, atol=1e-4)
