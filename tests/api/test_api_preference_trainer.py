"""The trainer with TRL's calling convention: the same numbers as `popmargin train`, and as TRL where it has a twin."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback, TrainingArguments

from popmargin import PreferenceTrainer, losses, margins, sample_edges, target_margins
from popmargin.config import RunConfig
from popmargin.data.schema import Preferences
from popmargin.errors import ConfigError, RunError
from popmargin.listed_files import fault_of
from popmargin.models.policies import load_model
from popmargin.training.run import train

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
Weights = dict[str, torch.Tensor]


def loaded(path: str) -> tuple[Any, Any]:
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32), AutoTokenizer.from_pretrained(path)


def trained(model: Any) -> Weights:
    return {name: value.detach().cpu() for name, value in model.named_parameters()}


def assert_close(mine: Weights, theirs: Weights, atol: float = 1e-6) -> None:
    assert mine.keys() == theirs.keys()
    for name, value in theirs.items():
        torch.testing.assert_close(mine[name], value, rtol=0, atol=atol, msg=name)


def optimizer(config: RunConfig) -> dict[str, Any]:
    """A run's settings that TRL names otherwise, or has other defaults for."""
    first, second = config.train.betas
    same = {name: getattr(config.train, name) for name in ("weight_decay", "max_grad_norm")}
    return same | {"adam_beta1": first, "adam_beta2": second}


@pytest.mark.parametrize(
    ("name", "form", "precision"),
    [
        ("dpo", "path", "fp32"),
        ("pop", "object", "fp32"),
        pytest.param("simpo", "object", "fp32", marks=pytest.mark.slow),
        pytest.param("dpo", "object", "bf16", marks=pytest.mark.slow),
    ],
)
def test_the_weights_are_those_of_popmargin_train(
    configure: Callable[..., RunConfig],
    arguments: Callable[..., Any],
    sides: tuple[Preferences, Preferences],
    model_path: str,
    name: str,
    form: str,
    precision: str,
) -> None:
    changes = {"objective": {"name": name}, "train": {"logging_steps": 1}, "model": {"precision": precision}}
    config = configure(changes)
    directory, expected = train(config, keep_model=True)
    model, tokenizer = loaded(model_path)
    trainer = PreferenceTrainer(
        model=model if form == "object" else model_path,
        args=arguments(**optimizer(config), bf16=precision == "bf16"),
        train_dataset=sides[0],
        eval_dataset=sides[1],
        processing_class=tokenizer,
        objective=name,
    )
    trainer.train()
    assert_close(trained(trainer.model), trained(expected))
    if form == "object":  # as TRL does, the user's own model is trained
        assert_close(trained(model), trained(expected))
    logged = [line for line in trainer.state.log_history if "accuracy" in line]
    assert [line["loss"] for line in logged] == pytest.approx([line["loss"] for line in directory.metrics()], abs=1e-6)


def test_an_adapter_is_that_of_popmargin_train_and_is_saved_alike(
    tmp_path: Path,
    configure: Callable[..., RunConfig],
    arguments: Callable[..., Any],
    sides: tuple[Preferences, Preferences],
    model_path: str,
) -> None:
    from peft import LoraConfig, PeftModel

    config = configure({"model": {"lora_rank": 4}})
    directory, _ = train(config)
    model, tokenizer = loaded(model_path)
    trainer = PreferenceTrainer(
        model=model,
        args=arguments(**optimizer(config)),
        train_dataset=sides[0],
        processing_class=tokenizer,
        peft_config=LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    trainer.train()
    trainer.save_model(str(tmp_path / "saved"))
    assert_close(*(load_file(folder / "adapter_model.safetensors") for folder in (tmp_path / "saved", directory.model)))
    base, _ = loaded(model_path)
    again: Any = PeftModel.from_pretrained(base, str(tmp_path / "saved"))
    ids = torch.arange(3, 13)[None]
    torch.testing.assert_close(again(input_ids=ids).logits, trainer.model(input_ids=ids).logits)  # pyright: ignore[reportOptionalCall]
    assert AutoTokenizer.from_pretrained(str(tmp_path / "saved")).get_vocab() == tokenizer.get_vocab()


@pytest.mark.parametrize(
    ("loss_type", "smoothing"),
    [
        ("sigmoid", 0.0),
        pytest.param("hinge", 0.0, marks=pytest.mark.slow),
        ("ipo", 0.0),
        pytest.param("robust", 0.2, marks=pytest.mark.slow),
    ],
)
def test_the_first_step_is_trls(
    tmp_path: Path,
    arguments: Callable[..., Any],
    sides: tuple[Preferences, Preferences],
    model_path: str,
    make_model: Callable[..., Any],
    loss_type: str,
    smoothing: float,
) -> None:
    """Plain gradient descent with the rate 1: what a weight loses is its gradient."""
    from trl import DPOTrainer

    rows = [{name: sides[0][row][name] for name in ("prompt", "chosen", "rejected")} for row in range(8)]
    args: dict[str, Any] = {"optim": "sgd", "learning_rate": 1.0, "max_steps": 1, "max_grad_norm": 0.0, "beta": 0.3,
                            "loss_type": loss_type, "label_smoothing": smoothing, "max_length": None}  # fmt: skip
    start, tokenizer = loaded(model_path)
    model, reference = copy.deepcopy(start), make_model(seed=1)
    common: dict[str, Any] = {"ref_model": reference, "train_dataset": Dataset.from_list(rows),
                              "processing_class": tokenizer}  # fmt: skip
    theirs = DPOTrainer(model=model, args=arguments(**args, output_dir=str(tmp_path / "theirs")), **common)
    theirs.train()
    own = copy.deepcopy(start)
    ours = PreferenceTrainer(model=own, args=arguments(**args), **common)
    ours.train()
    loss = [next(line["loss"] for line in each.state.log_history if "loss" in line) for each in (ours, theirs)]
    assert loss[0] == pytest.approx(loss[1], rel=1e-4)
    before = trained(start)
    largest = max(float((value - before[name]).abs().max()) for name, value in trained(model).items())
    assert largest > 1e-3
    for name, value in trained(model).items():
        torch.testing.assert_close(
            trained(own)[name] - before[name], value - before[name], rtol=1e-3, atol=1e-4 * largest, msg=name
        )


def test_log_probs_and_losses_are_trls(
    tmp_path: Path,
    arguments: Callable[..., Any],
    sides: tuple[Preferences, Preferences],
    model_path: str,
    make_model: Callable[..., Any],
) -> None:
    """What a user computes with `margins` and `losses` is what TRL's trainer computes on the same rows."""
    from trl import DPOTrainer

    rows = [{name: sides[0][row][name] for name in ("prompt", "chosen", "rejected")} for row in range(8)]
    model, tokenizer = loaded(model_path)
    reference = make_model(seed=1)
    table = margins(model, reference, rows, tokenizer=tokenizer)
    args = arguments(beta=0.3, max_length=None)
    theirs = DPOTrainer(model=model, ref_model=reference, args=args, processing_class=tokenizer,
                        train_dataset=Dataset.from_list(rows))  # fmt: skip
    batch: Any = theirs.data_collator([theirs.train_dataset[row] for row in range(8)])  # pyright: ignore[reportIndexIssue]
    value = theirs.compute_loss(theirs.model, batch)
    sums = {name: torch.from_numpy(table[f"{name}_logps"]) for name in ("chosen", "rejected")}
    sums |= {f"reference_{name}": torch.from_numpy(table[f"reference_{name}_logps"]) for name in ("chosen", "rejected")}
    assert float(losses.dpo(**sums, beta=0.3, reduction="mean")) == pytest.approx(float(value), rel=1e-4)
    noted = [value for mode in theirs._metrics.values() for value in mode["rewards/margins"]]
    assert noted == pytest.approx([0.3 * table["margin"].mean()], rel=1e-4)


def test_pop_targets_in_trls_trainer_are_the_loss_of_pop(
    tmp_path: Path,
    arguments: Callable[..., Any],
    sides: tuple[Preferences, Preferences],
    model_path: str,
    make_model: Callable[..., Any],
) -> None:
    """Raising the reference's log-prob of the chosen responses by the target lowers Δ by it, as docs/trl.md does."""
    from trl import DPOTrainer

    train_side = sides[0]
    model, tokenizer = loaded(model_path)
    reference = make_model(seed=1)
    gaps = margins(model, reference, train_side, tokenizer=tokenizer)
    edges = sample_edges(train_side.ids, train_side.strength, sampling="iterative", k=1)
    targets = target_margins(edges, gaps)
    place = {name: row for row, name in enumerate(train_side.ids)}
    stronger = [place[name] for name in targets["stronger"]][:8]
    data = train_side.dataset.select(stronger).select_columns(["id", "prompt", "chosen", "rejected"])
    target = targets["target_margin"][:8].tolist()
    args = arguments(beta=0.3, max_length=None, precompute_ref_log_probs=True)
    theirs = DPOTrainer(model=model, ref_model=reference, args=args, processing_class=tokenizer,
                        train_dataset=data.add_column("target_margin", target))  # fmt: skip
    theirs.train_dataset = theirs.train_dataset.map(  # pyright: ignore[reportAttributeAccessIssue]
        lambda row: {"ref_chosen_logps": row["ref_chosen_logps"] + row["target_margin"]}
    )
    batch = theirs.data_collator([theirs.train_dataset[row] for row in range(8)])  # pyright: ignore[reportIndexIssue]
    value = theirs.compute_loss(theirs.model, batch)
    own = torch.tensor([gaps["margin"][row] for row in stronger])
    expected = losses.pop(own, torch.zeros_like(own), target=torch.tensor(target), beta=0.3, reduction="mean")
    assert max(target) > 0 and float(value) == pytest.approx(float(expected), rel=1e-4)


class Seen(TrainerCallback):
    """Notes what callbacks are told."""

    def __init__(self) -> None:
        self.evaluated: list[dict[str, float]] = []
        self.steps = 0

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any) -> None:
        self.evaluated.append(dict(metrics))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.steps += 1


def test_evaluation_in_training_and_by_name(
    arguments: Callable[..., Any], sides: tuple[Preferences, Preferences], model_path: str
) -> None:
    seen = Seen()
    trainer = PreferenceTrainer(
        model=model_path,
        args=arguments(eval_strategy="steps", eval_steps=2, max_steps=4),
        train_dataset=sides[0],
        eval_dataset=sides[1],
        callbacks=[seen],
        objective={"name": "dpo", "beta": 0.2},
    )
    trainer.train()
    assert seen.steps == 4 and [entry["eval_rows"] for entry in seen.evaluated] == [8.0, 8.0]
    result = trainer.evaluate()
    table = trainer.margins()
    assert result["eval_accuracy"] == pytest.approx((table["margin"] > 0).mean())
    assert result["eval_reward_margin"] == pytest.approx(table["reward_margin"].mean())
    np.testing.assert_allclose(table["reward_margin"], 0.2 * table["margin"])
    again = margins(trainer.model, model_path, sides[1], tokenizer=AutoTokenizer.from_pretrained(model_path))
    np.testing.assert_allclose(table["margin"], again["margin"], atol=1e-4)
    named = trainer.evaluate({"first": sides[1].select([0, 1, 2]), "rest": sides[1].select([3, 4, 5, 6, 7])})
    assert named["eval_first_rows"] == 3 and named["eval_rest_rows"] == 5
    whole = (3 * named["eval_first_accuracy"] + 5 * named["eval_rest_accuracy"]) / 8
    assert whole == pytest.approx(result["eval_accuracy"])  # a mean over rows, whatever the batches


@pytest.mark.slow
def test_training_goes_on_from_a_checkpoint(
    tmp_path: Path, arguments: Callable[..., Any], sides: tuple[Preferences, Preferences], model_path: str
) -> None:
    def make(name: str, **changes: Any) -> PreferenceTrainer:
        args = arguments(max_steps=4, output_dir=str(tmp_path / name), **changes)
        return PreferenceTrainer(model=model_path, args=args, train_dataset=sides[0], objective="pop")

    whole = make("whole")
    whole.train()
    saving: dict[str, Any] = {"save_strategy": "steps", "save_steps": 2}
    make("parts", **saving).train()
    again = make("parts", **saving)
    again.train(resume_from_checkpoint=str(tmp_path / "parts" / "checkpoint-2"))
    assert_close(trained(again.model), trained(whole.model))
    with pytest.raises(RunError, match="is from the last step"):
        make("parts", **saving).train(resume_from_checkpoint=True)
    with pytest.raises(RunError, match="has no checkpoint to resume from"):
        make("none").train(resume_from_checkpoint=True)


def test_edges_choose_pop_and_files_of_them_do_too(
    tmp_path: Path, arguments: Callable[..., Any], sides: tuple[Preferences, Preferences], model_path: str
) -> None:
    edges = sample_edges(sides[0].ids, sides[0].strength, sampling="random", k=1)
    edges.save(tmp_path / "edges.parquet")
    made = [
        PreferenceTrainer(model=model_path, args=arguments(beta=0.4), train_dataset=sides[0], edges=given)
        for given in (edges, tmp_path / "edges.parquet")
    ]
    for trainer in made:
        assert (trainer.loss.objective.name, trainer.loss.beta) == ("pop", 0.4)
        assert len(trainer.collator.rows) == len(made[0].collator.rows)


def test_transformers_arguments_do_too(tmp_path: Path, sides: tuple[Preferences, Preferences], model_path: str) -> None:
    args = TrainingArguments(str(tmp_path / "out"), max_steps=1, report_to="none", use_cpu=True, save_strategy="no")
    trainer = PreferenceTrainer(model_path, args=args, train_dataset=sides[0], config={"target": {"kind": "bank"}},
                                objective="pop")  # fmt: skip
    assert trainer.train().global_step == 1
    assert type(trainer.loss.target).__name__ == "MarginBank" and trainer.loss.beta == 0.1
    assert args.bf16 is False and args.remove_unused_columns  # the user's own are left as they are


REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "ld_alpha": ({"ld_alpha": 0.5}, {}, r"args\.ld_alpha is 0\.5, which PreferenceTrainer does not take"),
    "divergence": ({"f_divergence_type": "forward_kl"}, {}, r"args\.f_divergence_type"),
    "sync": ({"sync_ref_model": True}, {}, r"args\.sync_ref_model"),
    "wpo": ({"use_weighting": True}, {}, r"args\.use_weighting is True.*own probabilities"),
    "loss_type": (
        {"loss_type": "apo_zero"},
        {},
        r"args\.loss_type \['apo_zero'\] is not supported \(only sigmoid, hinge",
    ),
    "several": ({"loss_type": ["sigmoid", "sft"]}, {}, "regularizers are"),
    "both": ({"loss_type": "hinge"}, {"objective": "pop"}, "both choose the loss"),
    "smoothing": ({"label_smoothing": 0.1}, {}, "only works with the loss type `robust`"),
    "beta": ({"beta": 0.3}, {"objective": {"name": "dpo", "beta": 0.2}}, "omit one of them"),
    "collator": ({}, {"data_collator": object()}, "does not take data_collator"),
    "metrics": ({}, {"compute_metrics": print}, "does not take compute_metrics"),
    "quantization": ({}, {"quantization_config": object()}, "does not take quantization_config"),
    "peft": ({}, {"peft_config": object()}, "adapters are trained with a LoraConfig"),
    "precision": ({}, {"config": {"model": {"precision": "bf16"}}}, r"model\.precision, but args\.bf16"),
    "dropout": (
        {},
        {"config": {"model": {"dropout": True}}},
        r"model\.dropout, but args\.disable_dropout",
    ),
    "reward": ({}, {"config": {"evaluation": {"reward": "a:b"}}}, r"evaluation\.reward, but .* generates nothing"),
    "task": ({}, {"config": {"task": "reward"}}, "trains policies"),
    "length": ({}, {"config": {"data": {"max_length": 5}}}, r"data\.max_length, but args\.max_length"),
    "average": ({}, {"config": {"train": {"average": 0.9}}}, r"train\.average, but PreferenceTrainer keeps the last"),
    "rate": ({}, {"config": {"train": {"learning_rate": 1.0}}}, r"train\.learning_rate, but args"),
    "flip": ({}, {"config": {"data": {"flip": 0.5}}}, r"data\.flip, but the data is already read and split"),
    "pairs": ({}, {"config": {"data": {"pairs": "all"}}}, r"data\.pairs, but the data is already read"),
    "path": ({}, {"config": {"model": {"path": "other"}}}, r"model\.path, and so does another argument"),
    "ref": ({}, {"ref_model": "x", "config": {"reference": {"model": "y"}}}, r"reference\.model, and so does"),
    "truncation": ({"truncation_mode": "keep_end"}, {}, r"args\.truncation_mode is 'keep_end'"),
    "loss_weights": ({"loss_weights": [0.5]}, {}, r"args\.loss_weights is \[0\.5\]"),
    "data": ({}, {"train_dataset": None}, "train_dataset is missing"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_meaning_here_is_refused_in_words(
    arguments: Callable[..., Any], sides: tuple[Preferences, Preferences], model_path: str, case: str
) -> None:
    changes, keywords, words = REFUSED[case]
    with pytest.raises(ConfigError, match=words):
        PreferenceTrainer(model_path, **({"args": arguments(**changes), "train_dataset": sides[0]} | keywords))


def test_models_that_cannot_be_trained_are_refused(
    arguments: Callable[..., Any], sides: tuple[Preferences, Preferences], model_path: str
) -> None:
    from peft import LoraConfig, get_peft_model

    model, tokenizer = loaded(model_path)
    common: dict[str, Any] = {"args": arguments(), "train_dataset": sides[0]}
    with pytest.raises(ConfigError, match="comes without its tokenizer"):
        PreferenceTrainer(model, **common)
    with pytest.raises(ConfigError, match="the same object"):
        PreferenceTrainer(model, model, processing_class=tokenizer, **common)
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"]))
    with pytest.raises(ConfigError, match="already has an adapter"):
        PreferenceTrainer(adapted, processing_class=tokenizer, **common)


def test_an_adapter_names_a_base_that_was_named_by_a_relative_path(
    tmp_path: Path,
    arguments: Callable[..., Any],
    sides: tuple[Preferences, Preferences],
    model_path: str,
    tiny_model: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from peft import LoraConfig

    monkeypatch.chdir(Path(model_path).parent)
    model, tokenizer = loaded(Path(model_path).name)
    common: dict[str, Any] = {"args": arguments(max_steps=1), "train_dataset": sides[0], "processing_class": tokenizer,
                              "peft_config": LoraConfig(r=2, target_modules=["q_proj"])}  # fmt: skip
    trainer = PreferenceTrainer(model, **common)
    trainer.train()
    trainer.save_model(str(tmp_path / "saved"))
    named = json.loads((tmp_path / "saved" / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert named == model_path
    with pytest.raises(ConfigError, match="could not name a base"):  # built here, and on no disk
        PreferenceTrainer(tiny_model, **common)


def test_a_model_in_bf16_is_warned_of(
    arguments: Callable[..., Any],
    sides: tuple[Preferences, Preferences],
    model_path: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    model, tokenizer = loaded(model_path)
    PreferenceTrainer(model.bfloat16(), args=arguments(), train_dataset=sides[0], processing_class=tokenizer)
    assert "rounds small steps away" in caplog.text


def test_a_saved_model_is_whole(
    tmp_path: Path, arguments: Callable[..., Any], sides: tuple[Preferences, Preferences], model_path: str
) -> None:
    model, tokenizer = loaded(model_path)
    args = arguments(save_strategy="steps", save_steps=2)
    trainer = PreferenceTrainer(model, args=args, train_dataset=sides[0], processing_class=tokenizer)
    trainer.train()
    trainer.save_model()
    assert (Path(args.output_dir) / "checkpoint-2" / "model.safetensors").is_file()  # beside which the model is saved
    assert not list(Path(args.output_dir).glob(".*"))
    again, saved_tokenizer = loaded(str(trainer.args.output_dir))
    assert_close(trained(again), trained(model), atol=0)
    assert saved_tokenizer.get_vocab() == tokenizer.get_vocab()
    trainer.save_model(str(tmp_path / "twice"))
    assert_close(trained(loaded(str(tmp_path / "twice"))[0]), trained(model), atol=0)
    assert fault_of(Path(args.output_dir)) is None and fault_of(tmp_path / "twice") is None


def test_a_save_that_ends_half_way_is_refused(
    tmp_path: Path,
    arguments: Callable[..., Any],
    sides: tuple[Preferences, Preferences],
    model_path: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The list of files comes first: a folder without one is taken for one of an older version, and read."""
    model, tokenizer = loaded(model_path)
    trainer = PreferenceTrainer(model, args=arguments(), train_dataset=sides[0], processing_class=tokenizer)
    replace = Path.replace

    def stopped(self: Path, target: Path) -> Path:
        done = replace(self, target)
        if self.name == "model.safetensors" and Path(target).parent == tmp_path / "saved":
            raise KeyboardInterrupt
        return done

    monkeypatch.setattr(Path, "replace", stopped)
    with pytest.raises(KeyboardInterrupt):
        trainer.save_model(str(tmp_path / "saved"))
    with pytest.raises(RunError, match=r"\w+\.json is missing"):
        load_model(str(tmp_path / "saved"), torch.float32)
    monkeypatch.undo()
    trainer.save_model(str(tmp_path / "saved"))
    assert fault_of(tmp_path / "saved") is None
