"""Reward models: transformers' classifier and TRL's trainer as oracles, what is saved, and what is refused."""

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import logsigmoid
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from few_fast import few_fast
from popmargin.config import RunConfig
from popmargin.data.load import load_preferences
from popmargin.engine.sequences import pad_sequences
from popmargin.errors import ConfigError, RunError
from popmargin.evaluation.run import HeldOutMargins, evaluate_run
from popmargin.models.reward_models import padding_apart
from popmargin.objectives.base import OBJECTIVES
from popmargin.rewards.load import load_reward
from popmargin.tasks.reward import RewardTask
from popmargin.training.arguments import training_arguments
from popmargin.training.build import Run, make_loss, make_parts, make_trainer
from popmargin.training.run import train
from popmargin.training.run_directory import RunDirectory
from popmargin.training.workspace import Workspace
from rounding import rounding

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
Configure = Callable[..., RunConfig]
Metrics = Callable[[RunDirectory], list[dict[str, Any]]]
REWARD: dict[str, Any] = {"task": "reward"}
ROWS = [0, 3, 4, 9, 17]


def to(output: Path, **train_settings: Any) -> dict[str, Any]:
    return {"output": str(output), "train": train_settings}


def padded(workspace: Workspace, rows: list[int]) -> dict[str, torch.Tensor]:
    """Chosen, then rejected responses as any classifier takes them."""
    tokens = workspace.train.encoded
    sides = [side[row] for side in (tokens.chosen, tokens.rejected) for row in rows]
    inputs = pad_sequences([tokens.prompt[row] for row in rows] * 2, sides, 0)
    return {name: inputs[name] for name in ("input_ids", "attention_mask")}


def ours(config: RunConfig, workspace: Workspace, rows: list[int]) -> tuple[float, Any, Any]:
    """Loss, model with its gradients, and an equal model without."""
    parts = make_parts(Run.read(config), workspace)
    assert parts.scorer.plan.layout == "packed"
    twin = copy.deepcopy(parts.policy)
    trainer = make_trainer(training_arguments(config.train, config.seed, Path(config.output) / "checkpoints"), parts)
    value = trainer.compute_loss(parts.policy, parts.collator.part(rows))
    value.backward()
    return float(value.detach()), parts.policy, twin


def assert_same_gradients(model: Any, twin: Any) -> None:
    trained = dict(model.named_parameters())
    assert trained["score.weight"].grad.abs().sum() > 0
    for name, parameter in twin.named_parameters():
        torch.testing.assert_close(trained[name].grad, parameter.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("center", [None, 0.3])
@pytest.mark.parametrize("margin", [False, True])
def test_loss_and_gradient_are_trls(configure: Configure, center: float | None, margin: bool) -> None:
    from trl.trainer.reward_trainer import RewardTrainer

    terms = [] if center is None else [{"name": "center", "weight": center}]
    name = "dpo_rating_margin" if margin else "dpo"
    config = configure(REWARD, {"objective": {"name": name}, "regularizers": terms})
    workspace = Run.read(config).workspace()
    value, model, twin = ours(config, workspace, ROWS)
    inputs: dict[str, Any] = padded(workspace, ROWS)
    if margin:
        inputs["margin"] = torch.from_numpy(workspace.train.column("margin")[ROWS])
    stub: Any = SimpleNamespace(
        model=twin,
        args=SimpleNamespace(center_rewards_coefficient=center),
        accelerator=SimpleNamespace(gather=lambda x: x, gather_for_metrics=lambda x: x),
        _metrics={mode: {k: [] for k in ("num_tokens", "min_reward", "mean_reward", "max_reward", "accuracy",
                                         "margin")} for mode in ("train", "eval")},
        _total_train_tokens=0,
        _tp_size=1,
    )  # fmt: skip
    expected: torch.Tensor = RewardTrainer.compute_loss(stub, twin, inputs)
    expected.backward()
    assert value == pytest.approx(float(expected), abs=1e-6)
    assert_same_gradients(model, twin)


def test_pop_margins_are_the_weaker_sides_reward_gaps(configure: Configure) -> None:
    """The first step of `pop`: the averaged model is the start model, its gaps are clipped at 0."""
    config = configure(REWARD, {"objective": {"name": "pop"}, "pop": {"sampling": "random", "k": 2}})
    workspace = Run.read(config).workspace()
    rows = list(range(12))
    parts = make_parts(Run.read(config), workspace)
    value, model, twin = ours(config, workspace, rows)
    stronger, weaker = parts.collator.rows.stronger[rows].tolist(), parts.collator.rows.weaker[rows].tolist()

    def gap(preferences: list[int]) -> torch.Tensor:
        logits = twin(**padded(workspace, preferences)).logits[:, 0]
        return logits[: len(preferences)] - logits[len(preferences) :]

    with torch.no_grad():
        target = gap(weaker).clamp(0, 10)
    assert 0 < (target > 0).sum() < len(rows)
    expected = -logsigmoid(gap(stronger) - target).mean()
    expected.backward()
    assert value == pytest.approx(float(expected.detach()), abs=1e-6)
    assert_same_gradients(model, twin)


@pytest.mark.parametrize("objective", few_fast(["dpo", "pop", "pop_rank", "aps"], (1,)))
def test_micro_batches_are_one_batch(tmp_path: Path, configure: Configure, metrics: Metrics, objective: str) -> None:
    change = REWARD | {"objective": {"name": objective}, "target": {"tau": 0.5}, "train": {"learning_rate": 3e-4}}
    whole, _ = train(configure(change, to(tmp_path / "whole")))
    parts, _ = train(configure(change, to(tmp_path / "parts", micro_batch_size=1)))
    for one, many in zip(metrics(whole), metrics(parts), strict=True):
        for name in ("loss", "accuracy", "reward_margin", "chosen_reward", "target_margin_mean"):
            assert one.get(name, 0.0) == pytest.approx(many.get(name, 0.0), abs=1e-4), name


# Other tests may have registered a user's own.
OF_GAPS = [
    name
    for name, kind in ((name, OBJECTIVES.get(name)) for name in OBJECTIVES.names())
    if kind.function.__module__.startswith("popmargin.") and kind.requires(kind.options()) <= RewardTask.provides
]


@pytest.mark.parametrize(
    ("objective", "kind"), [*((name, "ema") for name in OF_GAPS), ("pop", "policy"), ("pop", "bank")]
)
def test_every_objective_of_score_gaps_trains(
    configure: Configure, metrics: Metrics, soft_path: str, objective: str, kind: str
) -> None:
    change = {"objective": {"name": objective}, "target": {"kind": kind}, "data": {"train": soft_path}}
    run, _ = train(configure(REWARD, change))
    lines = metrics(run)
    assert len(lines) == 3 and all(np.isfinite(line["loss"]) and line["grad_norm"] > 0 for line in lines)
    assert {"chosen_reward", "rejected_reward"} <= lines[0].keys() and "chosen_logps" not in lines[0]
    assert run.facts()["task"] == "reward"


def test_beta_is_1_unless_it_is_set(configure: Configure) -> None:
    assert make_loss(configure(REWARD)).beta == 1.0
    assert make_loss(configure(REWARD, {"objective": {"beta": 0.5}})).beta == 0.5
    assert make_loss(configure()).beta == 0.1


def test_no_reference_is_cached(tmp_path: Path, configure: Configure) -> None:
    train(configure(REWARD, {"reference": {"cache": str(tmp_path / "cache")}}))
    assert not (tmp_path / "cache").exists()


def test_centring_makes_the_rewards_of_a_preference_cancel(
    tmp_path: Path, configure: Configure, metrics: Metrics
) -> None:
    squares: list[float] = []
    for weight in (0.0, 1.0):
        term = {"regularizers": [{"name": "center", "weight": weight}], "train": {"max_steps": 20, "batch_size": 32}}
        config = configure(REWARD, term, {"output": str(tmp_path / str(weight))})
        workspace = Run.read(config).workspace()
        run, model = train(config, workspace=workspace, keep_model=True)
        with torch.no_grad():
            rewards = model.eval()(**padded(workspace, list(range(32)))).logits[:, 0]
        squares.append(float((rewards[:32] + rewards[32:]).square().mean()))
        assert metrics(run)[-1]["accuracy"] > 0.8
    assert squares[1] < 0.3 * squares[0]


def test_the_head_comes_from_the_seed(tmp_path: Path, configure: Configure, weights: Any) -> None:
    """And a head that is trained already is kept."""
    still = {"train": {"learning_rate": 0.0, "max_steps": 1}}
    runs = [
        train(configure(REWARD, still, {"seed": seed}, to(tmp_path / str(n))))[0] for n, seed in enumerate((1, 1, 2))
    ]
    one, same, other = (weights(run.model) for run in runs)
    assert torch.equal(one["score.weight"], same["score.weight"]) and one["score.weight"].abs().sum() > 0
    assert not torch.equal(one["score.weight"], other["score.weight"])
    assert torch.equal(one["model.embed_tokens.weight"], other["model.embed_tokens.weight"])
    on, _ = train(configure(REWARD, still, {"seed": 9, "model": {"path": str(runs[2].model)}}, to(tmp_path / "on")))
    assert torch.equal(weights(on.model)["score.weight"], other["score.weight"])


LORA = {"lora_rank": 2, "lora_alpha": 64.0}  # large enough that the adapter matters


@pytest.mark.parametrize(
    "model",
    few_fast([{}, LORA, {"precision": "bf16"}, LORA | {"precision": "bf16"}], (1,)),
    ids=["full", "lora", "bf16", "lora-bf16"],
)
def test_the_saved_model_is_a_classifier_with_the_same_rewards(
    configure: Configure, data_path: str, model: dict[str, Any]
) -> None:
    """transformers, our own reward and the evaluation of the run agree on every held-out preference."""
    config = configure(REWARD, {"model": model, "train": {"max_steps": 8, "learning_rate": 3e-3}})
    run, policy = train(config, keep_model=True)
    loaded, info = AutoModelForSequenceClassification.from_pretrained(run.model, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and loaded.config.num_labels == 1
    assert loaded.dtype == torch.float32 and not (run.model / "adapter_config.json").exists()
    evaluate_run(run.path)
    margins = HeldOutMargins.load(run.evaluation / "margins.parquet")
    tokenizer = AutoTokenizer.from_pretrained(run.model)
    rows = {row["id"]: row for row in load_preferences(data_path).dataset}
    texts = [(rows[name]["prompt"], rows[name][side]) for side in ("chosen", "rejected") for name in margins.ids]
    ids = [tokenizer(prompt + text + tokenizer.eos_token)["input_ids"] for prompt, text in texts]
    batch = tokenizer.pad({"input_ids": ids}, return_tensors="pt")
    with torch.no_grad():
        rewards = loaded.eval()(**batch).logits[:, 0].numpy()
    ours = load_reward(f"model:{run.model}").score([p for p, _ in texts], [t for _, t in texts])
    np.testing.assert_allclose(ours, rewards, atol=1e-5)
    gaps = rewards[: len(margins.ids)] - rewards[len(margins.ids) :]
    dtype, roundings = (torch.bfloat16, 20) if "precision" in model else (torch.float32, 20 * 48)  # two layers
    allowed = rounding(dtype, float(np.abs(gaps).max()), roundings)
    np.testing.assert_allclose(margins.reward_margin, gaps, rtol=0, atol=allowed)
    assert np.ptp(gaps) > 10 * allowed
    with torch.no_grad():  # as it was at the end of the training
        kept = policy.eval()(**batch).logits[:, 0] if "precision" not in model else torch.from_numpy(rewards)
    np.testing.assert_allclose(kept.numpy(), rewards, atol=1e-4)


@pytest.mark.parametrize("truncation", ["keep_prompt_end", "keep_prompt_start"])
@pytest.mark.filterwarnings("ignore:.*they were truncated as in training:UserWarning")
def test_what_is_too_long_is_scored_as_in_training(configure: Configure, truncation: str) -> None:
    """The gaps of the evaluation, where both responses are as long, so that the prompt they share is cut for both."""
    data = {"max_length": 16, "truncation": truncation}
    config = configure(REWARD, {"data": data, "train": {"max_steps": 8, "learning_rate": 3e-3}})
    workspace = Run.read(config).workspace()
    run, _ = train(config, workspace=workspace)
    evaluate_run(run.path)
    margins = HeldOutMargins.load(run.evaluation / "margins.parquet")
    gaps = dict(zip(margins.ids, margins.reward_margin, strict=True))
    tokens = workspace.test.encoded
    same = [n for n in range(len(tokens)) if len(tokens.chosen[n]) == len(tokens.rejected[n])]
    held_out = [workspace.test.preferences[int(tokens.index[n])] for n in same]
    reward = load_reward(f"model:{run.model}")
    prompts = [row["prompt"] for row in held_out]
    better, worse = (reward.score(prompts, [row[side] for row in held_out]) for side in ("chosen", "rejected"))
    found = np.array(better) - np.array(worse)
    np.testing.assert_allclose(found, [gaps[row["id"]] for row in held_out], atol=1e-4)
    assert len(same) > 1 and tokens.report.prompts_cut and np.ptp(found) > 1e-2


def test_evaluation_of_a_reward_model(configure: Configure, reward_path: str) -> None:
    run, _ = train(configure(REWARD, {"data": {"test_size": 12}}))
    metrics = evaluate_run(run.path)
    for name in ("accuracy", "accuracy_weak", "accuracy_longer", "pearson", "spearman", "pop_accuracy", "ece"):
        assert metrics["intervals"][name]["estimate"] is not None, name
    assert "mean_reward" not in metrics["intervals"] and not (run.evaluation / "generations.parquet").exists()
    with pytest.raises(ConfigError, match="is a reward model: it generates nothing"):
        evaluate_run(run.path, reward=load_reward(reward_path))
    (run.model / "popmargin_reward.json").unlink()
    with pytest.raises(RunError, match=r"popmargin_reward\.json is missing\. Delete .*run\.json and continue"):
        evaluate_run(run.path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"objective": {"name": "simpo"}}, "'simpo' takes mean log-probs of responses, which a reward model does not"),
        ({"objective": {"name": "amapo"}}, "'amapo' takes mean log-probs"),
        ({"objective": {"name": "orpo"}}, "'orpo' takes mean log-probs"),
        ({"objective": {"name": "simpo_pop"}}, "'simpo_pop' takes mean log-probs"),
        ({"objective": {"name": "cpo"}}, "'cpo' takes log-probs of responses"),
        ({"objective": {"name": "ipo", "length_normalized": True}}, "'ipo' takes means over tokens"),
        ({"objective": {"name": "dpop"}}, "'dpop' compares single scores with the zero of a reference"),
        ({"regularizers": [{"name": "sft"}]}, "'sft' is a term of log-probs.*use center"),
        ({"regularizers": [{"name": "budget"}]}, "'budget' is a term of log-probs"),
        ({"tokens": {"name": "selective"}}, "tokens has no meaning for a reward model: it scores whole responses"),
        ({"train": {"token_statistics": True}}, "it does not predict tokens"),
        ({"reference": {"model": "other"}}, "its rewards need no reference"),
        ({"evaluation": {"reward": "a:b"}}, "it generates nothing"),
    ],
)
def test_refused_with_the_reason(configure: Configure, change: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        make_loss(configure(REWARD, change))


def test_a_term_of_rewards_sees_no_margin(tmp_path: Path, configure: Configure, metrics: Metrics) -> None:
    """The margin is the objective's: what is centred are the rewards themselves."""
    lines: list[dict[str, Any]] = []
    for margin in (None, {"source": "fixed", "value": 3.0}):
        for terms in ([], [{"name": "center", "weight": 1.0}]):
            changes = {"margin": margin, "regularizers": terms, "train": {"max_steps": 1}}
            run, _ = train(configure(REWARD, changes, to(tmp_path / str(len(lines)))))
            lines += metrics(run)
    without, centred, with_margin, both = lines
    assert both["reward_center"] == centred["reward_center"]
    assert both["loss"] - with_margin["loss"] == pytest.approx(centred["loss"] - without["loss"], abs=1e-5)
    assert centred["loss"] > without["loss"] and with_margin["loss"] != pytest.approx(without["loss"], abs=0.1)


def test_center_is_for_reward_models(configure: Configure) -> None:
    with pytest.raises(ConfigError, match=r"'center' is a term of rewards.*task: reward"):
        make_loss(configure({"regularizers": [{"name": "center"}]}))


def test_start_models_that_cannot_be_rewards(tmp_path: Path, configure: Configure, tiny_tokenizer: Any) -> None:
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=300, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    BertModel(config).save_pretrained(tmp_path / "bert")
    tiny_tokenizer.save_pretrained(tmp_path / "bert")
    with pytest.raises(RunError, match=r"BertForSequenceClassification has no linear head 'score'\. Use a decoder"):
        train(configure(REWARD, {"model": {"path": str(tmp_path / "bert")}}))
    with pytest.raises(RunError, match="No such folder or model"):
        train(configure(REWARD, {"model": {"path": str(tmp_path / "nothing")}}))


def test_the_padding_token_ends_no_response(tiny_tokenizer: Any) -> None:
    """Where it is the end token, as in many instruct models, another special token takes its place."""
    tokenizer = copy.deepcopy(tiny_tokenizer)
    assert padding_apart(tokenizer).pad_token == "<pad>"
    tokenizer.pad_token = tokenizer.eos_token
    assert padding_apart(tokenizer).pad_token == "<pad>"
    alone = SimpleNamespace(
        eos_token="</s>", bos_token="</s>", unk_token="</s>", pad_token="</s>", added_tokens_decoder={}
    )
    assert padding_apart(alone).pad_token == "</s>"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch compiles C++ on the CPU")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # torch's own, while it compiles
def test_compiled_parts_train_the_same(tmp_path: Path, configure: Configure, metrics: Metrics) -> None:
    plain, _ = train(configure(REWARD, to(tmp_path / "plain")))
    compiled, _ = train(configure(REWARD, to(tmp_path / "compiled", compile=True)))
    for one, other in zip(metrics(plain), metrics(compiled), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)
