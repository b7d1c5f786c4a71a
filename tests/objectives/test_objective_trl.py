"""TRL's own trainers as oracles: the same batch through their code and ours, loss and gradient.

Every loss type of TRL's DPO trainer stands in the table: those that we ship, and the others as a user would write them.
The reward trainer, with and without margins, is in tests/training/test_train_rewards.py. KTO has no pairs, and no
counterpart here.
"""

import copy
import inspect
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from objective_cases import loss
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus
from transformers import TrainingArguments

from popmargin.config import RunConfig
from popmargin.engine.batch import preference_sequences
from popmargin.objectives.base import OBJECTIVES, Rows, objective
from popmargin.training.batches import Collator, TrainingRows
from popmargin.training.build import Run, make_loss
from popmargin.training.trainer import PreferenceTrainer
from popmargin.training.workspace import Workspace

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
ROWS = [0, 3, 4, 9, 17]
BETA, SMOOTHING = 0.3, 0.2

OURS: dict[str, dict[str, Any]] = {
    "sigmoid": {"name": "dpo", "beta": BETA},
    "ipo": {"name": "ipo", "beta": BETA, "length_normalized": True},
    "hinge": {"name": "hinge", "beta": BETA},
    "robust": {"name": "robust_dpo", "beta": BETA, "flip_rate": SMOOTHING},
}


@dataclass(frozen=True, kw_only=True)
class OwnOptions:
    """β is not an option: what TRL is given."""


def exo(rows: Rows) -> Tensor:
    """The divergence of σ(h) from a label that is wrong with probability ε, which is not the one of `cdpo`."""
    h = BETA * rows.gap
    right, wrong = logsigmoid(h), logsigmoid(-h)
    return right.exp() * (right - math.log(1 - SMOOTHING)) + wrong.exp() * (wrong - math.log(SMOOTHING))


def discopop(rows: Rows) -> Tensor:
    h = BETA * rows.gap
    mixed = torch.sigmoid(h / 0.05)
    return softplus(-h) * (1 - mixed) + (-h).exp() * mixed


def smoothed(h: Tensor) -> Tensor:
    return (1 - SMOOTHING) * softplus(-h) + SMOOTHING * softplus(h)


def aot(rows: Rows) -> Tensor:
    """Sorted gaps of the policy against sorted gaps of the reference: rows are no longer compared with themselves."""
    logps = rows.logps
    assert logps is not None and logps.chosen_reference is not None and logps.rejected_reference is not None
    own, reference = logps.chosen - logps.rejected, logps.chosen_reference - logps.rejected_reference
    return smoothed(BETA * (own.sort().values - reference.sort().values))


AS_A_USER: dict[str, tuple[Any, Callable[[Rows], Tensor]]] = {
    "exo_pair": ("log_ratio", exo),
    "nca_pair": (
        "log_ratio",
        lambda rows: (
            softplus(-BETA * rows.chosen) + softplus(BETA * rows.chosen) / 2 + softplus(BETA * rows.rejected) / 2
        ),
    ),
    "bco_pair": ("log_ratio", lambda rows: softplus(-BETA * rows.chosen) + softplus(BETA * rows.rejected)),
    "sppo_hard": (
        "log_ratio",
        lambda rows: (rows.chosen - 0.5 / BETA).square() + (rows.rejected + 0.5 / BETA).square(),
    ),
    "aot": ("log_ratio", aot),
    "aot_unpaired": ("log_ratio", lambda rows: smoothed(BETA * (rows.chosen.sort()[0] - rows.rejected.sort()[0]))),
    "apo_zero": (
        "log_ratio",
        lambda rows: torch.sigmoid(-BETA * rows.chosen) + torch.sigmoid(BETA * rows.rejected),
    ),
    "apo_down": ("log_ratio", lambda rows: torch.sigmoid(BETA * rows.chosen) + torch.sigmoid(-BETA * rows.gap)),
    "discopop": ("log_ratio", discopop),
    "sigmoid_norm": ("mean_log_ratio", lambda rows: softplus(-BETA * rows.gap)),
}
TERMS = ("sft",)
"""Loss types that are a regularizer here."""


@pytest.fixture(scope="module", autouse=True)
def written_by_a_user() -> Iterator[None]:
    """The other losses of TRL, registered as a user's own are."""
    before = {name: OBJECTIVES.get(name) for name in OBJECTIVES.names()}
    for name, (score, formula) in AS_A_USER.items():

        def loss(rows: Rows, options: OwnOptions, formula: Callable[[Rows], Tensor] = formula) -> Tensor:
            return formula(rows)

        loss.__qualname__ = name
        objective(f"trl_{name}", options=OwnOptions, score=score, origin="baseline")(loss)
    yield
    OBJECTIVES._entries = before


@pytest.fixture
def workspace(configure: Callable[..., RunConfig]) -> Iterator[Workspace]:
    yield Run.read(configure()).workspace()


@pytest.fixture
def policy(workspace: Workspace) -> Any:
    """A policy that has moved away from the reference."""
    model = copy.deepcopy(workspace.task.start_model).requires_grad_(True)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    return model.train()


def gradients(model: Any) -> dict[str, torch.Tensor]:
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def ours(
    config: RunConfig, workspace: Workspace, policy: Any, folder: Path, rows: list[int] = ROWS
) -> tuple[float, dict[str, torch.Tensor]]:
    loss = make_loss(config)
    model = copy.deepcopy(policy)
    scorer = workspace.task.scorer(model, loss.kind, precision="fp32")
    collator = Collator(
        rows=TrainingRows.of_preferences(len(workspace.train)),
        inputs=workspace.task.inputs(
            workspace.train.encoded, scorer, reference=workspace.train.reference if loss.uses_reference else None
        ),
        columns={},
        weaker="none",
        target_forward="none",
    )
    trainer = PreferenceTrainer(
        model=model,
        args=TrainingArguments(output_dir=str(folder), report_to="none", use_cpu=True),
        loss=loss,
        collator=collator,
        scorer=scorer,
        write=workspace.task.checkpoint,
    )
    value = trainer.compute_loss(model, collator.part(rows))
    value.backward()
    return float(value.detach()), gradients(model)


def examples(workspace: Workspace, rows: list[int]) -> list[dict[str, Any]]:
    tokens, reference = workspace.train.encoded, workspace.train.reference
    return [
        {
            "prompt_ids": tokens.prompt[row].tolist(),
            "chosen_ids": tokens.chosen[row].tolist(),
            "rejected_ids": tokens.rejected[row].tolist(),
            "ref_chosen_logps": float(reference.chosen[row].sum()),
            "ref_rejected_logps": float(reference.rejected[row].sum()),
        }
        for row in rows
    ]


def assert_same(mine: tuple[float, dict[str, torch.Tensor]], value: Any, model: Any, steepness: float = 1.0) -> None:
    """Equal up to the rounding of log-probs, which a steep loss makes larger."""
    value.backward()
    assert mine[0] == pytest.approx(float(value.detach()), rel=1e-5)
    largest = max(float(gradient.abs().max()) for gradient in gradients(model).values())
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(
            mine[1][name], gradient, rtol=1e-3, atol=1e-5 * steepness * max(1.0, largest), msg=name
        )
    assert max(float(gradient.abs().max()) for gradient in mine[1].values()) > 1e-4


def trl_loss(workspace: Workspace, model: Any, folder: Path, rows: list[int], **settings: Any) -> torch.Tensor:
    """The loss of TRL's DPO trainer on a batch."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    trainer = DPOTrainer(
        model=model,
        ref_model=copy.deepcopy(workspace.task.start_model),
        args=DPOConfig(
            output_dir=str(folder),
            beta=BETA,
            report_to="none",
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            max_length=None,
            **settings,
        ),
        processing_class=workspace.task.tokenizer,
        train_dataset=Dataset.from_list([{"prompt": "a", "chosen": "b", "rejected": "c"}]),
    )
    batch = trainer.data_collator(examples(workspace, rows))
    return trainer.compute_loss(model, {k: v for k, v in batch.items() if not k.startswith("ref_")})


def test_every_loss_type_of_trl_is_in_the_table() -> None:
    """A loss type that a newer TRL has would otherwise not be looked at."""
    from trl.trainer import dpo_trainer

    known = set(re.findall(r'loss_type == "(\w+)"', inspect.getsource(dpo_trainer)))
    assert known == {*OURS, *AS_A_USER, *TERMS}


@pytest.mark.parametrize("loss_type", [*OURS, *AS_A_USER])
def test_dpo_trainer(
    tmp_path: Path, configure: Callable[..., RunConfig], workspace: Workspace, policy: Any, loss_type: str
) -> None:
    model = copy.deepcopy(policy)
    smoothing = SMOOTHING if loss_type in ("robust", "exo_pair", "aot", "aot_unpaired") else 0.0
    value = trl_loss(workspace, model, tmp_path / "trl", ROWS, loss_type=[loss_type], label_smoothing=smoothing)
    chosen = OURS.get(loss_type, {"name": f"trl_{loss_type}"})
    assert_same(
        ours(configure({"objective": chosen}), workspace, policy, tmp_path / "ours"),
        value,
        model,
        20.0 if loss_type == "discopop" else 1.0,
    )  # its temperature is 1/20


def test_sft_is_a_mean_over_rows_and_trls_over_tokens(
    tmp_path: Path, configure: Callable[..., RunConfig], workspace: Workspace, policy: Any
) -> None:
    """On one row they are the same; on rows of different lengths TRL's longer responses count more."""
    config = configure({"objective": OURS["sigmoid"], "regularizers": [{"name": "sft", "weight": 0.5}]})
    both: dict[str, Any] = {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.5]}
    model = copy.deepcopy(policy)
    value = trl_loss(workspace, model, tmp_path / "trl", ROWS[:1], **both)
    assert_same(ours(config, workspace, policy, tmp_path / "ours", ROWS[:1]), value, model)
    several = float(trl_loss(workspace, copy.deepcopy(policy), tmp_path / "more", ROWS, **both).detach())
    mine, gradient = ours(config, workspace, policy, tmp_path / "mine")
    assert mine != pytest.approx(several, rel=1e-4) and gradient


def test_ipo_of_the_paper_is_not_trls(
    tmp_path: Path, configure: Callable[..., RunConfig], workspace: Workspace, policy: Any
) -> None:
    """TRL divides log-ratios by token counts; the formula of the paper, our default, does not."""
    paper = ours(configure({"objective": {"name": "ipo"}}), workspace, policy, tmp_path)[0]
    normalized = {"name": "ipo", "length_normalized": True}
    assert paper != pytest.approx(ours(configure({"objective": normalized}), workspace, policy, tmp_path)[0], rel=0.01)


def trl_logps(workspace: Workspace, model: Any, rows: list[int], *, average: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probs of both sides by TRL's own sums, and the cross-entropy of chosen over the tokens of the batch."""
    from trl.experimental.cpo import CPOTrainer

    sequences = preference_sequences(workspace.train.encoded, rows, 0, "padded")
    labels = torch.full_like(sequences["input_ids"], -100)
    labels.flatten()[sequences["label_positions"] + 1] = sequences["labels"]
    logits = model(input_ids=sequences["input_ids"], attention_mask=sequences["attention_mask"]).logits
    logps = CPOTrainer.get_batch_logps(logits, labels, average_log_prob=average, is_encoder_decoder=False)
    chosen, rejected = logps[: len(rows)], logps[len(rows) :]
    flat = logits[: len(rows), :-1].flatten(0, 1), labels[: len(rows), 1:].flatten()
    return chosen, rejected, torch.nn.functional.cross_entropy(*flat)


CPU: Any = SimpleNamespace(device=torch.device("cpu"))


@pytest.mark.parametrize(
    ("loss_type", "objective", "places"),
    [
        ("simpo", {"name": "simpo", "beta": 1.5, "gamma": 0.7}, ROWS),
        ("sigmoid", {"name": "cpo", "beta": 1.5, "sft_weight": 0.0}, ROWS),
        ("sigmoid", {"name": "cpo", "beta": 1.5, "sft_weight": 0.8}, ROWS[:1]),
    ],
)
def test_cpo_trainer(
    tmp_path: Path,
    configure: Callable[..., RunConfig],
    workspace: Workspace,
    policy: Any,
    loss_type: str,
    objective: dict[str, Any],
    places: list[int],
) -> None:
    """From log-probs to loss. The supervised term of `cpo` is a mean over rows, TRL's over tokens: one row here."""
    from trl.experimental.cpo import CPOTrainer

    stub: Any = SimpleNamespace(
        beta=1.5, simpo_gamma=0.7, loss_type=loss_type, label_smoothing=0.0, alpha=0.0, accelerator=CPU
    )
    model = copy.deepcopy(policy)
    chosen, rejected, supervised = trl_logps(workspace, model, places, average=loss_type == "simpo")
    value = CPOTrainer.cpo_loss(stub, chosen, rejected)[0].mean() + objective.get("sft_weight", 0.0) * supervised
    assert_same(ours(configure({"objective": objective}), workspace, policy, tmp_path / "ours", places), value, model)


def test_orpo_trainer(tmp_path: Path, configure: Callable[..., RunConfig], workspace: Workspace, policy: Any) -> None:
    """Its odds ratio. Its supervised term is over prompt and completion, ours over the completion, a mean a row."""
    from trl.experimental.orpo import ORPOTrainer

    model = copy.deepcopy(policy)
    chosen, rejected, _ = trl_logps(workspace, model, ROWS, average=True)
    stub: Any = SimpleNamespace(beta=0.7, accelerator=CPU)
    value = -chosen.mean() - ORPOTrainer.odds_ratio_loss(stub, chosen, rejected)[0].mean()
    config = configure({"objective": {"name": "orpo", "beta": 0.7}})
    assert_same(ours(config, workspace, policy, tmp_path / "ours"), value, model)


def in_trl(trainer: Any, **settings: Any) -> Any:
    """A trainer of TRL without its constructor: only its loss function is wanted."""

    class Accelerator:
        device = torch.device("cpu")

    made = trainer.__new__(trainer)
    vars(made).update(settings, accelerator=Accelerator())
    return made


def test_orpo_and_cpo_agree_with_trl() -> None:
    from trl.experimental.cpo import CPOTrainer
    from trl.experimental.orpo import ORPOTrainer

    torch.manual_seed(0)
    chosen, rejected = (-torch.rand(200, dtype=torch.float64) * 6 - 0.01 for _ in range(2))
    theirs = -in_trl(ORPOTrainer, beta=0.7).odds_ratio_loss(chosen.float(), rejected.float())[0]
    ours = loss("orpo", Rows(chosen=chosen.float(), rejected=rejected.float()), beta=0.7) + chosen.float()
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)

    settings = {"beta": 0.7, "alpha": 0.0, "loss_type": "sigmoid", "label_smoothing": 0.0}
    theirs = in_trl(CPOTrainer, **settings).cpo_loss(chosen, rejected)[0]
    ours = loss("cpo", Rows(chosen=chosen, rejected=rejected), beta=0.7, sft_weight=0.0)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)
