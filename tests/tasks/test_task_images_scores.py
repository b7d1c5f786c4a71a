"""Scores of images: the authors' loss and gradient, the same draw for all models, no adapter in the reference."""

import copy
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from image_runs import Configure
from torch.nn.functional import logsigmoid

from popmargin.objectives.base import Rows
from popmargin.objectives.dpo import DPOOptions, dpo
from popmargin.tasks.image_inputs import as_model_sees
from popmargin.tasks.image_scores import ImageScorer
from popmargin.tasks.images import ImageTask
from popmargin.training.build import Run
from popmargin.training.prepared import PreparedData


def loss_of(errors: list[torch.Tensor], beta: float) -> torch.Tensor:
    """The loss of errors (e_θw, e_refw, e_θl, e_refl) through the task's scores and `dpo`."""
    winner, winner_ref, loser, loser_ref = errors
    rows = Rows(chosen=-(winner - winner_ref) / 2, rejected=-(loser - loser_ref) / 2)
    return dpo(rows, DPOOptions(beta=beta))


def test_golden_loss_and_gradient() -> None:
    errors = [torch.tensor([value], dtype=torch.float64, requires_grad=True) for value in (0.30, 0.29, 0.31, 0.33)]
    loss = loss_of(errors, 100.0)
    assert loss.item() == pytest.approx(1.7014132780, abs=1e-9)
    assert torch.autograd.grad(loss, errors[0])[0].item() == pytest.approx(40.8787238, abs=1e-6)


def test_equal_errors() -> None:
    errors = [torch.tensor([0.3], dtype=torch.float64, requires_grad=True) for _ in range(4)]
    loss = loss_of(errors, 5000.0)
    assert loss.item() == pytest.approx(math.log(2))
    assert [grad.item() for grad in torch.autograd.grad(loss, (errors[0], errors[2]))] == pytest.approx([1250, -1250])


@pytest.fixture(scope="module")
def opened() -> dict[str, tuple[ImageTask, PreparedData]]:
    return {}


@pytest.fixture
def ready(configure: Configure, opened: dict[str, Any]) -> Any:
    """Task, training data and a policy that differs from the reference; opened once a kind."""

    def make(kind: str = "pixels") -> tuple[ImageTask, PreparedData, Any]:
        if kind not in opened:
            workspace = Run.read(configure(kind=kind)).workspace()
            task: Any = workspace.task
            torch.manual_seed(1)
            policy = task.make_model(task.settings.model)
            with torch.no_grad():
                for parameter in policy.parameters():
                    parameter.add_(0.03 * torch.randn_like(parameter))
            opened[kind] = task, workspace.train, policy
        return opened[kind]

    return make


def scorer_of(task: ImageTask, model: Any, wide: bool = False, kind: Any = "log_ratio", **options: Any) -> ImageScorer:
    scorer = task.scorer(model, kind, precision="fp32", wide=wide)
    return replace(scorer, options=replace(task.options, **options))


def scored(scorer: ImageScorer, task: ImageTask, data: PreparedData, model: Any, rows: Any, seed: int = 3) -> Any:
    inputs = task.inputs(data.encoded, scorer, reference=data.reference)
    with torch.no_grad():
        return scorer.score(model, inputs.collate(np.array(rows)), torch.Generator().manual_seed(seed), log=True)


def test_the_loss_is_that_of_the_authors(ready: Any) -> None:
    """Written again from the published algorithm, with the noise that our draws give."""
    task, data, policy = ready()
    scorer, beta = scorer_of(task, policy), 2000.0
    scorer = replace(scorer, reference=copy.deepcopy(scorer.reference).double())
    policy = copy.deepcopy(policy).double()
    batch = in_double(task.inputs(data.encoded, scorer, reference=data.reference).collate(np.arange(6)))
    draws, _ = scorer._draws(batch, 3)
    a, s = (level.view(-1, 1, 1, 1) for level in task.pipeline.schedule.levels(draws.times))
    noise, errors = draws.chosen.double(), list[torch.Tensor]()
    for model in (policy, scorer.reference):
        for images in (batch["chosen"], batch["rejected"]):
            with torch.no_grad():
                predicted = model(a * images + s * noise, draws.times, **batch["text"]).sample
            velocity = a * noise - s * images
            errors.append(a.flatten().square() * (velocity - predicted).square().mean((1, 2, 3)))
    inside = -0.5 * beta * ((errors[0] - errors[2]) - (errors[1] - errors[3]))
    scores = scorer.score(policy, batch, torch.Generator().manual_seed(3))
    ours = dpo(Rows(chosen=scores.chosen, rejected=scores.rejected), DPOOptions(beta=beta)).detach()
    torch.testing.assert_close(ours, -logsigmoid(inside), rtol=0, atol=1e-6)
    assert (inside.abs() > 0.1).all()
    wrong = -logsigmoid(inside.mean())  # a trap of the public code: the mean inside log σ
    assert abs(ours.mean() - wrong) > 1e-3


def in_double(batch: Any) -> Any:
    if isinstance(batch, dict):
        return {name: in_double(values) for name, values in batch.items()}
    return batch.double() if isinstance(batch, torch.Tensor) and batch.is_floating_point() else batch


@pytest.mark.parametrize("source", ["shared", "independent", "inversion"])
def test_a_pairs_score_does_not_depend_on_the_batch(ready: Any, source: Any) -> None:
    task, data, policy = ready()
    noise = replace(task.options.noise, source=source, steps=2)
    scorer = scorer_of(task, policy, noise=noise, prompt_dropout=0.5)
    whole = scored(scorer, task, data, policy, range(8))
    alone = torch.cat([scored(scorer, task, data, policy, [row]).gap for row in range(8)])
    torch.testing.assert_close(whole.gap, alone, rtol=1e-3, atol=1e-6)
    other = scored(scorer, task, data, policy, range(8), seed=4)
    assert (other.gap != whole.gap).all()


def test_policy_reference_and_target_see_the_same_draw(ready: Any) -> None:
    """The reference as policy has log-ratios of exactly 0, whatever the noise; empty prompts are those of both."""
    task, data, _ = ready()
    for source in ("shared", "independent", "inversion"):
        noise = replace(task.options.noise, source=source, steps=2)
        scorer = scorer_of(task, None, noise=noise, prompt_dropout=0.5)
        scores = scored(scorer, task, data, task.reference_model, range(8))
        assert not scores.chosen.any() and not scores.rejected.any()


def test_the_empty_prompt_is_drawn_per_pair(ready: Any) -> None:
    task, data, policy = ready()
    scorer = scorer_of(task, policy, prompt_dropout=0.5)
    batch = task.inputs(data.encoded, scorer, reference=data.reference).collate(np.arange(8))
    draws, _ = scorer._draws(batch, 3)
    text = scorer._noised(batch, draws).text["encoder_hidden_states"]
    empty = batch["empty"]["encoder_hidden_states"][0]
    found = [bool(torch.equal(row, empty)) for row in text]
    assert found[:8] == found[8:] == draws.empty.tolist() and 0 < sum(found[:8]) < 8
    wide = replace(scorer, wide=True)
    assert not any(torch.equal(row, empty) for row in wide._noised(batch, wide._draws(batch, 3)[0]).text[
        "encoder_hidden_states"])  # fmt: skip


def test_errors_are_logged_on_random_noise(ready: Any) -> None:
    """Whatever the loss is of: under inversion errors look better by construction."""
    task, data, policy = ready()
    plain = scored(scorer_of(task, policy), task, data, policy, range(8))
    noise = replace(task.options.noise, source="inversion", steps=2)
    inverted = scored(scorer_of(task, policy, noise=noise), task, data, policy, range(8))
    assert (plain.gap != inverted.gap).all() and plain.logged.keys() == inverted.logged.keys()
    for name, values in plain.logged.items():
        torch.testing.assert_close(values, inverted.logged[name], equal_nan=True)
    d = plain.logged["d_mean"]
    parts = torch.stack([plain.logged[f"d_time_{part}"] for part in range(1, 5)])
    assert (parts.isfinite().sum(0) == 1).all() and torch.equal(parts.nansum(0), d)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_with_fixed_draws_the_reference_is_known(ready: Any, dropout: float, monkeypatch: pytest.MonkeyPatch) -> None:
    task, data, policy = ready()
    scorer = scorer_of(task, policy, draws=3, prompt_dropout=dropout)
    inputs = task.inputs(data.encoded, scorer, reference=data.reference)
    assert inputs.errors is not None and inputs.errors.shape == (len(data), 3, 2) and not inputs.live
    rows = np.arange(6)
    known = [scorer.score(policy, inputs.collate(rows), torch.Generator().manual_seed(seed)).gap for seed in range(4)]
    live = replace(inputs, errors=None, live=True)
    asked = [scorer.score(policy, live.collate(rows), torch.Generator().manual_seed(seed)).gap for seed in range(4)]
    torch.testing.assert_close(known, asked, rtol=1e-4, atol=1e-6)
    assert (known[0] != known[1]).any()
    monkeypatch.setattr(ImageTask, "_errors", {}, raising=False)
    task._errors.clear()
    monkeypatch.setattr(ImageScorer, "fixed_errors", lambda *_: pytest.fail("the cache is on disk"))
    assert np.array_equal(task.inputs(data.encoded, scorer, reference=data.reference).errors, inputs.errors)


def test_evaluation_averages_over_draws_that_cover_all_times(ready: Any) -> None:
    task, data, policy = ready()
    scores = {count: scored(scorer_of(task, policy, wide=True, evaluation_draws=count), task, data, policy, range(8))
              for count in (1, 8)}  # fmt: skip
    assert scores[8].gap.dtype == torch.float64 and (scores[8].gap != scores[1].gap).any()
    again = scored(scorer_of(task, policy, wide=True, evaluation_draws=8), task, data, policy, range(8), seed=9)
    assert torch.equal(again.gap, scores[8].gap)


def test_the_reference_has_no_adapter_and_no_training_mode(ready: Any) -> None:
    task, _, _ = ready()
    adapted = task.make_model(replace(task.settings.model, lora_rank=2))
    reference: Any = task.reference_model
    assert not reference.training and not any("lora" in name for name, _ in reference.named_parameters())
    assert not any(parameter.requires_grad for parameter in reference.parameters())
    trained = [name for name, parameter in adapted.named_parameters() if parameter.requires_grad]
    assert trained and all("lora_" in name for name in trained)
    before = copy.deepcopy(reference.state_dict())
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:  # the others are the reference's own
                parameter.add_(1.0)
    assert all(torch.equal(value, before[name]) for name, value in reference.state_dict().items())


def test_mean_log_probs_are_minus_half_an_error(ready: Any) -> None:
    """What `amapo` and `simpo` take: the policy's error alone, which is already a mean over elements."""
    task, data, policy = ready()
    scores = {kind: scored(scorer_of(task, policy, kind=kind), task, data, policy, range(4))
              for kind in ("logp", "mean_logp", "log_ratio", "mean_log_ratio")}  # fmt: skip
    assert torch.equal(scores["logp"].gap, scores["mean_logp"].gap) and (scores["logp"].chosen < 0).all()
    assert torch.equal(scores["log_ratio"].gap, scores["mean_log_ratio"].gap)
    logps = scores["log_ratio"].logps
    torch.testing.assert_close(scores["log_ratio"].chosen, logps.chosen - logps.chosen_reference)


@pytest.mark.parametrize("kind", ["sd", "sd3"])
def test_latents_are_shifted_and_scaled_alike(ready: Any, kind: str) -> None:
    """Both images of a pair, and as diffusers' own pipelines decode them; the shift is that of Stable Diffusion 3."""
    pipeline = ready(kind)[0].pipeline
    pixels = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    vae, shift = pipeline.vae, 0.1 if kind == "sd3" else 0.0
    with torch.no_grad():
        wanted = (vae.encode(pixels).latent_dist.mode() - shift) * 0.7
        torch.testing.assert_close(pipeline.encode_images(pixels), wanted)
        torch.testing.assert_close(pipeline.decode(wanted), vae.decode(wanted / 0.7 + shift).sample)
    encoded = ready(kind)[1].encoded
    assert encoded.latents.shape[1:] == (4, 8, 8) and set(encoded.chosen).isdisjoint(encoded.rejected)


def test_images_of_any_size_are_brought_to_one(ready: Any) -> None:
    """Images of different sizes could not share noise; the account says how many were scaled."""
    wide = np.zeros((4, 12, 3), np.uint8)
    wide[:, 4:8] = 255
    assert (as_model_sees(wide, 4) == 1).all() and as_model_sees(wide, 8).shape == (3, 8, 8)
    assert ready("sd")[1].encoded.report.notes() == ["images scaled and cut to 16 × 16 pixels: 16"]
    assert ready("pixels")[1].encoded.report.notes() == []
