"""How often weights are in memory: once, also under an adapter, where nothing else needs the start model."""

import copy
import gc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from torch import nn
from transformers import LlamaForCausalLM, LlamaForSequenceClassification, PreTrainedModel

from popmargin.config import ModelConfig, RunConfig
from popmargin.engine.logps import forward_plan
from popmargin.errors import RunError
from popmargin.models.policies import load_model, load_policy, make_policy, merged
from popmargin.models.reward_models import make_reward_model
from popmargin.models.shared_weights import weight_bytes
from popmargin.tasks import language
from popmargin.training.build import Parts, Run, make_parts
from popmargin.training.memory import TensorPeak
from popmargin.training.run import train

Configure = Callable[..., RunConfig]
TOKENS = torch.tensor([[5, 6, 7, 8]])


def trained_bytes(model: nn.Module) -> int:
    return sum(parameter.nbytes for parameter in model.parameters() if parameter.requires_grad)


def bytes_in_memory() -> tuple[int, list[PreTrainedModel]]:
    """Bytes of the weights of all models that are in memory, and these."""
    gc.collect()
    kinds = (LlamaForCausalLM, LlamaForSequenceClassification)
    found = [model for model in gc.get_objects() if isinstance(model, kinds) and model.device.type != "meta"]
    return weight_bytes(found), found


def made(config: RunConfig) -> Parts:
    run = Run.read(config)
    return make_parts(run, run.workspace())


@pytest.fixture
def whole(model_path: str) -> int:
    """Bytes of the start model."""
    return weight_bytes([LlamaForCausalLM.from_pretrained(model_path)])


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
def test_loading_makes_no_second_copy(tmp_path: Path, make_model: Any, stored: torch.dtype) -> None:
    """Weights are read, and cast, one after the other."""
    make_model(dtype=stored).save_pretrained(tmp_path)
    with TensorPeak() as peak:
        model = load_model(str(tmp_path), torch.float32)
    assert peak.bytes - peak.before < 1.5 * weight_bytes([model])


@pytest.mark.parametrize("objective", ["dpo", "simpo", "spa"])
@pytest.mark.parametrize("rank", [0, 2])
def test_weights_of_a_run(configure: Configure, whole: int, objective: str, rank: int) -> None:
    """Only SPA, which forwards the reference in training, keeps a second copy, and under an adapter none."""
    before, others = bytes_in_memory()
    parts = made(configure({"objective": {"name": objective}, "model": {"lora_rank": rank}}))
    del others
    copies = 2 if objective == "spa" and not rank else 1
    adapter = trained_bytes(parts.policy) if rank else 0
    assert bytes_in_memory()[0] - before == copies * whole + adapter


@pytest.mark.parametrize("rank", [0, 2])
def test_weights_of_a_reward_model(configure: Configure, whole: int, rank: int) -> None:
    before, others = bytes_in_memory()
    parts = made(configure({"task": "reward", "model": {"lora_rank": rank}}))
    del others
    heads = 4 * 32 * (3 if rank else 1)  # the start model's, the policy's, and peft's copy of that
    own = sum(p.nbytes for name, p in parts.policy.named_parameters() if "lora_" in name)
    vocabulary = 4 * 32 * parts.policy.config.vocab_size  # a classifier has no LM head
    assert bytes_in_memory()[0] - before == whole - vocabulary + heads + own


def test_adapters_leave_the_weights_around_which_they_are(tiny_model: Any) -> None:
    start = tiny_model.requires_grad_(False)
    before, expected = copy.deepcopy(start.state_dict()), start(input_ids=TOKENS).logits
    policies = [make_policy(start, ModelConfig(lora_rank=2)) for _ in range(2)]
    own = sum(trained_bytes(policy) for policy in policies)
    assert weight_bytes([start, *policies]) == weight_bytes([start]) + own
    with torch.no_grad():
        for parameter in policies[0].parameters():
            parameter.add_(0.1 * parameter.requires_grad)
    changed = policies[0].eval()(input_ids=TOKENS).logits
    with policies[0].disable_adapter():
        assert torch.equal(policies[0](input_ids=TOKENS).logits, expected)
    torch.testing.assert_close(merged(policies[0])(input_ids=TOKENS).logits, changed, rtol=1e-4, atol=1e-4)
    assert (changed - expected).abs().max() > 0.01
    for other in (start, policies[1].eval()):
        assert torch.equal(other(input_ids=TOKENS).logits, expected)
    assert all(torch.equal(value, before[name]) for name, value in start.state_dict().items())
    assert not any(parameter.requires_grad for parameter in start.parameters())


def test_an_untrained_head_stays_untrained_in_the_start_model(tmp_path: Path, tiny_model: Any) -> None:
    tiny_model.save_pretrained(tmp_path)
    start = LlamaForSequenceClassification.from_pretrained(tmp_path, num_labels=1, pad_token_id=0)
    start.requires_grad_(False).score.weight.zero_()
    assert make_reward_model(start, ModelConfig(lora_rank=2)).get_submodule("base_model.model.score").weight.any()
    assert not start.score.weight.any()


def test_a_saved_adapter_comes_back_around_the_same_weights(tmp_path: Path, tiny_model: Any) -> None:
    policy = make_policy(tiny_model.requires_grad_(False), ModelConfig(lora_rank=2))
    policy.save_pretrained(tmp_path)
    again = load_policy(tmp_path, tiny_model)
    assert weight_bytes([tiny_model, policy, again]) == weight_bytes([tiny_model]) + 2 * trained_bytes(policy)


def test_a_released_reference_goes_with_its_head(configure: Configure, make_model: Any, tmp_path: Path) -> None:
    """What was found for a model is not what keeps it: a head that FSDP divides refers to the whole model."""
    make_model().save_pretrained(tmp_path / "other")
    workspace = Run.read(configure({"reference": {"model": str(tmp_path / "other")}})).workspace()
    task = workspace.task
    assert isinstance(task, language.LanguageTask)
    assert workspace.train.reference is not None
    plan = task.plan(task.reference_model)
    plan.head.whole = (task.reference_model,)  # as FSDP's state does
    parts = [weakref.ref(task.reference_model), weakref.ref(plan.head)]
    assert parts[1]() is not None
    del plan
    task.release()
    gc.collect()
    assert [part() for part in parts] == [None, None]


def test_a_complete_cache_needs_no_model(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    """After training the start model is not loaded again, where its scores are known."""
    config = configure({"train": {"max_steps": 1}})
    workspace = Run.read(config).workspace()
    _ = workspace.train.reference, workspace.test.reference
    monkeypatch.setattr(language, "token_logps", pytest.fail)
    loads: list[str] = []
    load = language.load_model
    monkeypatch.setattr(
        language, "load_model", lambda path, *rest, **more: loads.append(path) or load(path, *rest, **more)
    )
    monkeypatch.setattr(language.LanguageTask, "prepare", lambda self, model, scorer, training: scorer)
    train(config, workspace=workspace)
    assert len(workspace.task.reference(workspace.train.encoded).chosen) == len(workspace.train) and not loads


def test_runs_that_share_a_start_model(configure: Configure, model_path: str) -> None:
    """Full training changes neither the start model of the next run, nor the weights under an adapter."""
    workspace = Run.read(configure({})).workspace()
    start = LlamaForCausalLM.from_pretrained(model_path)(input_ids=TOKENS).logits
    outputs = {
        rank: configure({"output": f"{configure({}).output}-{rank}", "model": {"lora_rank": rank}}) for rank in (2, 0)
    }
    _, adapted = train(outputs[2], workspace=workspace, keep_model=True)
    expected = adapted.eval()(input_ids=TOKENS).logits
    _, full = train(outputs[0], workspace=workspace, keep_model=True)
    assert (full.eval()(input_ids=TOKENS).logits - start).abs().max() > 1e-3
    assert torch.equal(adapted(input_ids=TOKENS).logits, expected)
    assert torch.equal(workspace.task.reference_model(input_ids=TOKENS).logits, start)


def test_a_start_model_that_changes_on_disk(
    tmp_path: Path, configure: Configure, make_model: Any, tiny_tokenizer: Any
) -> None:
    """It is loaded again, so the second time it might be another."""
    make_model().save_pretrained(tmp_path / "start")
    tiny_tokenizer.save_pretrained(tmp_path / "start")
    run = Run.read(configure({"model": {"path": str(tmp_path / "start")}}))
    workspace = run.workspace()
    run.record(workspace)
    make_parts(run, workspace)
    make_model(seed=4).save_pretrained(tmp_path / "start")
    with pytest.raises(RunError, match=r"has changed since it was first loaded\. Restore its files"):
        _ = workspace.task.reference_model


@pytest.mark.parametrize("settings", [{}, {"bias": "all"}, {"init_lora_weights": "pissa"}])
def test_models_in_memory(configure: Configure, tiny_model: Any, tiny_tokenizer: Any, settings: dict[str, Any]) -> None:
    """Adapters that change the weights under them get a model of their own."""
    expected = tiny_model(input_ids=TOKENS).logits
    task = language.LanguageTask(Run.read(configure({"model": {"lora_rank": 2}})).task)
    task.adapter = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM", **settings)  # pyright: ignore[reportArgumentType]
    task.take(tiny_model, tiny_tokenizer)
    policy = task.make_model(task.settings.model)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.1 * parameter.requires_grad)
    assert torch.equal(task.reference_model(input_ids=TOKENS).logits, expected)
    base = sum(parameter.nbytes for parameter in task.start_model.parameters())
    both = weight_bytes([task.start_model, policy])
    assert (both < 1.5 * base) == (not settings), forward_plan(policy)
