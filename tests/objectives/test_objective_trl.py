"""TRL's own trainers as oracles: the same batch through their code and ours, loss and gradient."""

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainingArguments

from popmargin.config import RunConfig
from popmargin.engine.batch import Collator, TrainingRows
from popmargin.training.prepare import Workspace
from popmargin.training.run import make_loss
from popmargin.training.trainer import PreferenceTrainer

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
ROWS = [0, 3, 4, 9, 17]


@pytest.fixture
def workspace(configure: Callable[..., RunConfig]) -> Iterator[Workspace]:
    yield Workspace(configure())


@pytest.fixture
def policy(workspace: Workspace) -> Any:
    """A policy that has moved away from the reference."""
    model = copy.deepcopy(workspace.start_model).requires_grad_(True)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    return model.train()


def gradients(model: Any) -> dict[str, torch.Tensor]:
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def ours(config: RunConfig, workspace: Workspace, policy: Any, folder: Path) -> tuple[float, dict[str, torch.Tensor]]:
    loss = make_loss(config)
    collator = Collator(
        rows=TrainingRows.of_preferences(len(workspace.train)),
        tokenized=workspace.train.tokenized,
        pad_id=0,
        columns={},
        reference=workspace.train_reference if loss.uses_reference else None,
        weaker="none",
        target_forward="none",
    )
    model = copy.deepcopy(policy)
    trainer = PreferenceTrainer(
        model=model,
        args=TrainingArguments(output_dir=str(folder), report_to="none", use_cpu=True),
        loss=loss,
        collator=collator,
        precision="fp32",
    )
    value = trainer.compute_loss(model, collator.part(ROWS))
    value.backward()
    return float(value.detach()), gradients(model)


def examples(workspace: Workspace) -> list[dict[str, Any]]:
    tokens, reference = workspace.train.tokenized, workspace.train_reference
    return [
        {
            "prompt_ids": tokens.prompt[row].tolist(),
            "chosen_ids": tokens.chosen[row].tolist(),
            "rejected_ids": tokens.rejected[row].tolist(),
            "ref_chosen_logps": float(reference.chosen[row].sum()),
            "ref_rejected_logps": float(reference.rejected[row].sum()),
        }
        for row in ROWS
    ]


def assert_same(mine: tuple[float, dict[str, torch.Tensor]], value: Any, model: Any) -> None:
    value.backward()
    assert mine[0] == pytest.approx(float(value.detach()), rel=1e-5)
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(mine[1][name], gradient, rtol=1e-3, atol=1e-5, msg=name)
    assert max(float(gradient.abs().max()) for gradient in mine[1].values()) > 1e-4


@pytest.mark.parametrize(
    ("loss_type", "objective"),
    [
        ("sigmoid", {"name": "dpo", "beta": 0.3}),
        ("ipo", {"name": "ipo", "beta": 0.3, "length_normalized": True}),
        ("hinge", {"name": "hinge", "beta": 0.3}),
        ("robust", {"name": "robust_dpo", "beta": 0.3, "flip_rate": 0.2}),
    ],
)
def test_dpo_trainer(
    tmp_path: Path,
    configure: Callable[..., RunConfig],
    workspace: Workspace,
    policy: Any,
    loss_type: str,
    objective: dict[str, Any],
) -> None:
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    model = copy.deepcopy(policy)
    data = Dataset.from_list([{"prompt": "a", "chosen": "b", "rejected": "c"}])
    trainer = DPOTrainer(
        model=model,
        ref_model=copy.deepcopy(workspace.start_model),
        args=DPOConfig(
            output_dir=str(tmp_path / "trl"),
            loss_type=[loss_type],
            beta=0.3,
            label_smoothing=objective.get("flip_rate", 0.0),
            report_to="none",
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            max_length=None,
        ),
        processing_class=workspace.tokenizer,
        train_dataset=data,
    )
    batch = trainer.data_collator(examples(workspace))
    value = trainer.compute_loss(model, {k: v for k, v in batch.items() if not k.startswith("ref_")})
    mine = ours(configure({"objective": objective}), workspace, policy, tmp_path / "ours")
    assert_same(mine, value, model)


def test_ipo_of_the_paper_is_not_trls(
    tmp_path: Path, configure: Callable[..., RunConfig], workspace: Workspace, policy: Any
) -> None:
    """TRL divides log-ratios by token counts; the formula of the paper, our default, does not."""
    paper = ours(configure({"objective": {"name": "ipo"}}), workspace, policy, tmp_path)[0]
    normalized = {"name": "ipo", "length_normalized": True}
    assert paper != pytest.approx(ours(configure({"objective": normalized}), workspace, policy, tmp_path)[0], rel=0.01)


def test_simpo_of_the_cpo_trainer(
    tmp_path: Path, configure: Callable[..., RunConfig], workspace: Workspace, policy: Any
) -> None:
    """Their code from log-probs to loss; SimPO has no reference and no SFT term there (cpo_alpha = 0)."""
    from trl.experimental.cpo import CPOConfig, CPOTrainer

    settings = {"loss_type": "simpo", "simpo_gamma": 0.7, "cpo_alpha": 0.0, "beta": 1.5}
    config = CPOConfig(output_dir=str(tmp_path / "cpo"), report_to="none", use_cpu=True, bf16=False, **settings)
    trainer = CPOTrainer.__new__(CPOTrainer)  # its tokenization is not under test
    trainer.beta, trainer.simpo_gamma, trainer.loss_type = config.beta, config.simpo_gamma, config.loss_type
    trainer.label_smoothing, trainer.alpha = 0.0, 0.0
    from popmargin.engine.batch import preference_sequences

    model = copy.deepcopy(policy)
    sequences = preference_sequences(workspace.train.tokenized, ROWS, 0, "padded")
    labels = torch.full_like(sequences["input_ids"], -100)
    labels.flatten()[sequences["label_positions"] + 1] = sequences["labels"]
    logits = model(input_ids=sequences["input_ids"], attention_mask=sequences["attention_mask"]).logits
    logps = CPOTrainer.get_batch_logps(logits, labels, average_log_prob=True, is_encoder_decoder=False)

    class Accelerator:
        device = torch.device("cpu")

    trainer.accelerator = Accelerator()
    value = trainer.cpo_loss(logps[: len(ROWS)], logps[len(ROWS) :])[0].mean()
    objective = {"name": "simpo", "beta": 1.5, "gamma": 0.7}
    assert_same(ours(configure({"objective": objective}), workspace, policy, tmp_path / "ours"), value, model)
