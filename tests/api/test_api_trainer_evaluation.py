"""What the trainer measures: the loss on held-out preferences, the checkpoint chosen by it, and predictions."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict
from safetensors.torch import load_file
from transformers import TrainerCallback

from popmargin import PreferenceTrainer, sample_edges
from popmargin.data.schema import Preferences
from popmargin.errors import ConfigError, DataError

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
Sides = tuple[Preferences, Preferences]

CASES: dict[str, dict[str, Any]] = {
    "dpo": {"objective": "dpo"},
    "weights, a margin and a regularizer": {
        "objective": "dpo",
        "config": {
            "margin": {"source": "ratings"},
            "regularizers": [{"name": "budget"}],
            "signals": {"weight": {"column": "chosen_rating"}},
        },
    },
    "selected tokens": {"objective": "dpo", "config": {"tokens": {"name": "selective"}}},
    "statistics of all rows": {"objective": "amapo"},
    "an averaged target": {"objective": "pop"},
    "the policy as target": {"objective": "pop", "config": {"target": {"kind": "policy"}}},
    "a gradient to both sides of edges": {"objective": "pop_rank"},
    "stronger sides alone": {"objective": "dpo_stronger"},
}


@pytest.mark.parametrize(
    "case",
    [pytest.param(name, marks=[] if name in ("dpo", "an averaged target") else [pytest.mark.slow]) for name in CASES],
)
def test_the_held_out_loss_is_what_a_step_of_training_logs(
    arguments: Callable[..., Any], sides: Sides, model_path: str, make_model: Callable[..., Any], case: str
) -> None:
    """On the same rows, all in one batch, by a policy that differs from its reference and does not move."""
    data = sides[1]
    settings = CASES[case]
    if settings["objective"] in ("pop", "pop_rank", "dpo_stronger"):
        settings = settings | {"edges": sample_edges(data.ids, data.strength, sampling="random", k=2, seed=0)}
    args = arguments(learning_rate=0.0, max_steps=1, per_device_train_batch_size=64)
    trainer = PreferenceTrainer(model_path, make_model(seed=1), args, None, data, data, **settings)
    measured = trainer.evaluate()["eval_loss"]
    trainer.train()
    (logged,) = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    assert measured == pytest.approx(logged, rel=1e-5) and abs(measured - np.log(2)) > 1e-3


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"objective": "pop", "config": {"target": {"kind": "bank"}}}, "a bank of gaps"),
        pytest.param({"objective": "pop_scale"}, "fitted to training preferences", marks=pytest.mark.slow),
        pytest.param(
            {"objective": "pop", "config": {"evaluation": {"pop_k": 0}}}, "needs PoP edges", marks=pytest.mark.slow
        ),
    ],
)
def test_where_there_is_no_loss_it_is_said_and_nothing_is_chosen_by_it(
    arguments: Callable[..., Any],
    sides: Sides,
    model_path: str,
    caplog: pytest.LogCaptureFixture,
    changes: dict[str, Any],
    words: str,
) -> None:
    trainer = PreferenceTrainer(model_path, args=arguments(), train_dataset=sides[0], eval_dataset=sides[1], **changes)
    found = [trainer.evaluate() for _ in range(2)]
    assert all("eval_loss" not in metrics and "eval_accuracy" in metrics for metrics in found)
    (said,) = [record.getMessage() for record in caplog.records if "There is no eval_loss" in record.getMessage()]
    assert words in said
    best = arguments(
        load_best_model_at_end=True, eval_strategy="steps", save_strategy="steps", save_steps=2, eval_steps=2
    )
    with pytest.raises(ConfigError, match=f"'loss', which is not measured: .*{words}.*eval_accuracy"):
        PreferenceTrainer(model_path, args=best, train_dataset=sides[0], eval_dataset=sides[1], **changes)


@pytest.mark.parametrize("adapter", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_best_checkpoint_is_loaded_at_the_end(
    arguments: Callable[..., Any], sides: Sides, model_path: str, adapter: bool
) -> None:
    """Held-out labels are turned round, so that training makes their loss worse; the target is the checkpoint's too."""
    from peft import LoraConfig

    args = arguments(
        load_best_model_at_end=True, eval_strategy="steps", save_strategy="steps", save_steps=1, eval_steps=1
    )
    peft = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM") if adapter else None
    trainer = PreferenceTrainer(
        model_path,
        args=args,
        train_dataset=sides[0],
        eval_dataset=sides[1].swap(np.ones(len(sides[1]), dtype=bool)),
        peft_config=peft,
        objective="pop",
    )
    trainer.train()
    losses = [line["eval_loss"] for line in trainer.state.log_history if "eval_loss" in line]
    assert len(losses) == 3 and losses.index(min(losses)) == 0 and trainer.state.best_metric == losses[0]
    best = Path(str(trainer.state.best_model_checkpoint))
    assert best.name == "checkpoint-1" and trainer.evaluate()["eval_loss"] == pytest.approx(losses[0], rel=1e-6)
    saved = load_file(best / ("adapter_model.safetensors" if adapter else "model.safetensors"))
    own: Any = trainer.model
    for name, value in own.state_dict().items():
        kept = saved.get(name.replace(".default", ""))
        assert kept is None or torch.equal(kept, value), name


class Told(TrainerCallback):
    """Notes what callbacks are told of predictions."""

    def on_predict(self, args: Any, state: Any, control: Any, metrics: Any, **kwargs: Any) -> None:
        self.metrics = metrics


def test_predictions_are_margins_of_what_is_passed(
    arguments: Callable[..., Any],
    sides: Sides,
    model_path: str,
    make_model: Callable[..., Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    told = Told()
    args = arguments(max_length=40)
    trainer = PreferenceTrainer(
        model_path, make_model(seed=1), args, None, sides[0], sides[1], callbacks=[told], objective="dpo",
        config={"data": {"truncation": "drop"}},
    )  # fmt: skip
    passed = sides[0].select(range(12))
    output = trainer.predict(passed)
    table = trainer.margins(passed)
    left_out = [name for name, _ in table.left_out]
    assert left_out and len(output.predictions) == 12 and output.label_ids is None
    place = {name: row for row, name in enumerate(passed.ids)}
    assert np.isnan(output.predictions[[place[name] for name in left_out]]).all()
    np.testing.assert_array_equal(output.predictions[[place[name] for name in table.ids]], table["reward_margin"])
    measured = trainer.evaluate(passed, metric_key_prefix="test")
    assert output.metrics == measured == told.metrics and output.metrics["test_rows"] == 12 - len(left_out)
    kept = output.predictions[~np.isnan(output.predictions)]
    assert output.metrics["test_loss"] == pytest.approx(np.logaddexp(0, -kept).mean())
    assert (
        f"preferences passed: 12 in = {12 - len(left_out)} kept" in capsys.readouterr().err
    )  # and why the rest are not
    with pytest.raises(ConfigError, match="There are several held-out data sets"):
        trainer.predict({"a": passed, "b": passed})
    with pytest.raises(ConfigError, match="no held-out preferences"):
        trainer.predict(None)


def test_a_data_set_of_several_splits_is_no_training_data(
    arguments: Callable[..., Any], sides: Sides, model_path: str
) -> None:
    rows = [{name: sides[0][row][name] for name in ("prompt", "chosen", "rejected")} for row in range(4)]
    both = DatasetDict(train=Dataset.from_list(rows), test=Dataset.from_list(rows))
    with pytest.raises(DataError, match=r"has the splits train, test\. Remedy: pass one of them, as data\['train'\]"):
        PreferenceTrainer(model_path, args=arguments(), train_dataset=both)
    with pytest.raises(DataError, match="it is an empty DatasetDict"):
        PreferenceTrainer(model_path, args=arguments(), train_dataset=DatasetDict())
    trainer = PreferenceTrainer(model_path, args=arguments(), train_dataset=both["train"], eval_dataset=both)
    assert {"eval_train_accuracy", "eval_test_loss"} <= trainer.evaluate().keys()
