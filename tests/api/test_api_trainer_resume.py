"""The trainer goes on from a checkpoint with what it was trained on, and with nothing else."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig

from popmargin import PreferenceTrainer, load_preferences, sample_edges
from popmargin.data.schema import Preferences
from popmargin.errors import RunError
from popmargin.training.checkpoints import MANIFEST, UNFINISHED, publish

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
Make = Callable[..., PreferenceTrainer]


@pytest.fixture
def make(arguments: Callable[..., Any], sides: tuple[Preferences, Preferences], model_path: str) -> Make:
    """A trainer that saves after its second step; with other arguments of TRL's, and of the trainer."""

    def made(args: dict[str, Any] | None = None, **changes: Any) -> PreferenceTrainer:
        saving: dict[str, Any] = {"max_steps": 3, "save_strategy": "steps", "save_steps": 2}
        values: dict[str, Any] = {"model": model_path, "train_dataset": sides[0], "objective": "pop"}
        return PreferenceTrainer(args=arguments(**(saving | (args or {}))), **(values | changes))

    return made


def edited(data: Preferences) -> Preferences:
    first = {**data[0], "chosen": "something else."}
    return load_preferences([{name: value for name, value in row.items() if value is not None}
                             for row in (first, *(data[row] for row in range(1, len(data))))])  # fmt: skip


def other_weights(model: Any) -> Any:
    with torch.no_grad():
        next(model.parameters())[0, 0] += 1e-3
    return model


def changed(sides: tuple[Preferences, Preferences], make_model: Callable[..., Any], tokenizer: Any) -> dict[str, Any]:
    """What is said -> other arguments of TRL's, and of the trainer, that it is said of."""
    data = sides[0]
    edges = sample_edges(data.ids, data.strength, sampling="random", k=1)
    return {
        r"of 32 training preferences: 1 edited": ({}, {"train_dataset": edited(data)}),
        "seed: 0 → 1": ({"seed": 1}, {}),
        r"objective\.name: pop → pop_rank": ({}, {"objective": "pop_rank"}),
        r"of 32 training preferences: 2 gone": ({}, {"train_dataset": data.select(range(30))}),
        "they are in a different order": ({}, {"train_dataset": data.select(range(31, -1, -1))}),
        r"args\.data_seed: None → 5": ({"data_seed": 5}, {}),
        r"train\.batch_size: 8 → 4": ({"per_device_train_batch_size": 4}, {}),
        r"train\.edge_batching: random → clustered": ({}, {"config": {"train": {"edge_batching": "clustered"}}}),
        r"objective\.beta: not set → 0\.3": ({"beta": 0.3}, {}),
        r"regularizers: \[\] → \[\{'name': 'sft'": ({}, {"config": {"regularizers": [{"name": "sft"}]}}),
        r"model\.precision: fp32 → bf16": ({"bf16": True}, {}),
        "PoP edges: was not used before": ({}, {"edges": edges}),
        "reference model: was not used before": ({}, {"ref_model": make_model(seed=1)}),
        "start model: changed": ({}, {"model": other_weights(make_model()), "processing_class": tokenizer}),
        r"peft_config\.r: not set → 4": ({}, {"peft_config": LoraConfig(r=4, target_modules=["q_proj"])}),
    }


@pytest.mark.parametrize("cases", [slice(3), pytest.param(slice(3, None), marks=pytest.mark.slow)])
def test_a_checkpoint_is_gone_on_with_by_the_same_training_alone(
    make: Make,
    sides: tuple[Preferences, Preferences],
    tmp_path: Path,
    make_model: Callable[..., Any],
    tiny_tokenizer: Any,
    cases: slice,
) -> None:
    make().train()
    checkpoint = tmp_path / "trl" / "checkpoint-2"
    for words, (args, changes) in list(changed(sides, make_model, tiny_tokenizer).items())[cases]:
        trainer = make(args, **changes)
        before = [parameter.detach().clone() for parameter in trainer.model.parameters()]  # pyright: ignore[reportOptionalMemberAccess]
        with pytest.raises(RunError, match=words) as caught:
            trainer.train(resume_from_checkpoint=str(checkpoint))
        assert str(caught.value).startswith(f"{checkpoint} was trained on different inputs:\n  ")
        after = trainer.model.parameters()  # pyright: ignore[reportOptionalMemberAccess]
        assert all(torch.equal(*pair) for pair in zip(before, after, strict=True)) and trainer.state.global_step == 0
    longer = make({"learning_rate": 1e-4, "max_steps": 4, "output_dir": str(tmp_path / "other")})
    assert longer.train(resume_from_checkpoint=str(checkpoint)).global_step == 4  # these may change, as in transformers


@pytest.mark.slow
def test_what_chooses_the_best_checkpoint_stays_too(
    make: Make, sides: tuple[Preferences, Preferences], tmp_path: Path
) -> None:
    best: dict[str, Any] = {"load_best_model_at_end": True, "eval_strategy": "steps", "eval_steps": 2}
    make(best, eval_dataset=sides[1]).train()
    checkpoint = str(tmp_path / "trl" / "checkpoint-2")
    other = make(best, eval_dataset=sides[1].select(range(4)))
    with pytest.raises(RunError, match="held-out preferences, which choose the best checkpoint: changed"):
        other.train(resume_from_checkpoint=checkpoint)
    assert make(best, eval_dataset=sides[1]).train(resume_from_checkpoint=checkpoint).global_step == 3


def test_a_checkpoint_without_a_record_is_warned_of(
    make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Such as one of `popmargin train`, whose record lies in the run directory; a lost record is another matter."""
    make().train()
    checkpoint, going_on = tmp_path / "trl" / "checkpoint-2", make({"save_strategy": "no"})
    (checkpoint / "popmargin" / "settings.json").unlink()
    with pytest.raises(RunError, match=r"checkpoint-2 cannot be resumed from: popmargin/settings\.json is missing"):
        going_on.train(resume_from_checkpoint=str(checkpoint))
    shutil.rmtree(checkpoint / "popmargin")
    (checkpoint / MANIFEST).unlink()
    (tmp_path / UNFINISHED).mkdir()
    publish(checkpoint.rename(tmp_path / UNFINISHED / "checkpoint-2"), checkpoint)
    assert going_on.train(resume_from_checkpoint=str(checkpoint)).global_step == 3
    assert "has no record of what it was trained on" in caplog.text


def test_a_checkpoint_that_does_not_exist_is_said_to(make: Make, tmp_path: Path) -> None:
    """It was said to have no record and no state, and to be deleted."""
    with pytest.raises(RunError, match=r"^There is no checkpoint .*checkpoint-99\. "):
        make().train(resume_from_checkpoint=str(tmp_path / "trl" / "checkpoint-99"))
