"""Schedules, errors in the noise for every kind of prediction, and the draws of pairs."""

import math
from typing import Any, get_args

import diffusers
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from popmargin.engine.diffusion.draws import Drawing, draw, one_of, pair_key
from popmargin.engine.diffusion.predictions import (
    Levels,
    denoising_errors,
    noise_weight,
    noised,
    predicted_noise,
    target,
)
from popmargin.engine.diffusion.schedules import CLEAN, Prediction, Schedule
from popmargin.errors import ConfigError

KINDS: list[Any] = list(get_args(Prediction))


def schedule_of(kind: Any, count: int = 1000) -> Schedule:
    if kind == "flow_prediction":
        return Schedule.of_scheduler(diffusers.FlowMatchEulerDiscreteScheduler(num_train_timesteps=count, shift=3.0))
    return Schedule.of_scheduler(diffusers.DDPMScheduler(num_train_timesteps=count, prediction_type=kind))


def some(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def levels_at(schedule: Schedule, *times: int) -> Levels:
    return Levels(*schedule.levels(torch.tensor(times)))


@pytest.mark.parametrize(
    ("scheduler", "prediction"),
    [
        (diffusers.DDPMScheduler(beta_schedule="scaled_linear"), "epsilon"),
        (diffusers.DDIMScheduler(prediction_type="v_prediction", rescale_betas_zero_snr=True), "v_prediction"),
        (diffusers.PNDMScheduler(), "epsilon"),
        (diffusers.EulerDiscreteScheduler(prediction_type="sample"), "sample"),
        (diffusers.DPMSolverMultistepScheduler(beta_schedule="squaredcos_cap_v2"), "epsilon"),
    ],
)
def test_the_schedule_is_that_of_the_scheduler(scheduler: Any, prediction: str) -> None:
    schedule = Schedule.of_scheduler(scheduler)
    assert schedule.prediction == prediction and len(schedule) == 1000
    torch.testing.assert_close(schedule.signal.square(), scheduler.alphas_cumprod.double())
    torch.testing.assert_close(schedule.signal.square() + schedule.noise.square(), torch.ones(1000).double())
    assert schedule.model_times(torch.tensor([CLEAN, 0, 999])).tolist() == [0, 0, 999]
    assert [value.tolist() for value in schedule.levels(torch.tensor([CLEAN]))] == [[1.0], [0.0]]


def test_noised_images_are_those_of_diffusers() -> None:
    images, noise, times = some(0, 3, 2, 4), some(1, 3, 2, 4), torch.tensor([0, 500, 999])
    scheduler = diffusers.DDPMScheduler()
    ours = noised(images, noise, Levels(*Schedule.of_scheduler(scheduler).levels(times)))
    torch.testing.assert_close(ours, scheduler.add_noise(images, noise, times), rtol=1e-6, atol=1e-6)
    flow = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    schedule = Schedule.of_scheduler(flow)
    assert schedule.noise[-1] == 1 and (schedule.noise.diff() > 0).all()
    ours = noised(images, noise, Levels(*schedule.levels(times)))
    theirs = flow.scale_noise(images, schedule.model_times(times).float(), noise)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


def test_schedulers_of_other_kinds_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"EDMEulerScheduler, has no alphas_cumprod. Known are"):
        Schedule.of_scheduler(diffusers.EDMEulerScheduler())
    with pytest.raises(ConfigError, match="has the prediction type 'flow_prediction'"):
        Schedule.of_scheduler(
            diffusers.DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True)
        )


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=20)
@given(times=st.lists(st.integers(1, 998), min_size=1, max_size=4), seed=st.integers(0, 2**31))
def test_the_error_is_that_of_the_noise_whatever_is_predicted(kind: Any, times: list[int], seed: int) -> None:
    """The weights of `noise_weight` are right, and a perfect prediction gives the noise itself."""
    schedule = schedule_of(kind)
    levels, shape = levels_at(schedule, *times), (len(times), 2, 3)
    images, noise = some(seed, *shape), some(seed + 1, *shape)
    noisy, wanted = noised(images, noise, levels), target(kind, images, noise, levels)
    torch.testing.assert_close(predicted_noise(kind, wanted, noisy, levels), noise)
    guess = some(seed + 2, *shape)
    errors = denoising_errors(kind, guess, images, noise, levels, snr_limit=math.inf)
    in_noise = (noise - predicted_noise(kind, guess, noisy, levels)).square().flatten(1).mean(1)
    torch.testing.assert_close(errors, in_noise)
    native = denoising_errors(kind, guess, images, noise, levels, space="native")
    torch.testing.assert_close(native, (wanted - guess).square().flatten(1).mean(1))


def test_weights_of_predicted_images_have_a_limit() -> None:
    levels = levels_at(schedule_of("sample"), 0, 999)
    assert noise_weight("sample", levels, math.inf)[0] > 9000
    assert noise_weight("sample", levels, 20.0).tolist() == [20.0, noise_weight("sample", levels, math.inf)[1].item()]


DRAWING = Drawing(times=1000, shape=(2, 3), empty=0.3)


def test_a_draw_depends_on_seed_and_pair_alone() -> None:
    keys = [pair_key(f"p{number}") for number in range(8)]
    batch = draw(keys, 5, DRAWING)
    assert torch.equal(batch.chosen, batch.rejected) and len(set(batch.times.tolist())) == 8
    for row, key in enumerate(keys):
        alone = draw([key], 5, DRAWING)
        assert torch.equal(alone.chosen[0], batch.chosen[row]) and alone.times[0] == batch.times[row]
        assert alone.empty[0] == batch.empty[row]
    other = draw(keys, 6, DRAWING)
    assert (other.times != batch.times).any() and not torch.equal(other.chosen, batch.chosen)


def test_independent_noise_leaves_the_rest_as_it_is() -> None:
    keys = range(50)
    shared, apart = (
        draw(keys, 0, DRAWING),
        draw(keys, 0, Drawing(times=1000, shape=(2, 3), empty=0.3, independent=True)),
    )
    assert torch.equal(shared.chosen, apart.chosen) and torch.equal(shared.times, apart.times)
    assert torch.equal(shared.empty, apart.empty) and 5 <= shared.empty.sum() <= 25
    assert abs(torch.corrcoef(torch.stack([apart.chosen.flatten(), apart.rejected.flatten()]))[0, 1]) < 0.2


def test_one_time_for_a_step() -> None:
    drawing = Drawing(times=1000, shape=(1,), one_time=True)
    times = {int(draw([key], seed, drawing).times[0]) for seed in (3,) for key in range(9)}
    assert len(times) == 1 and len({int(draw([0], seed, drawing).times[0]) for seed in range(20)}) > 15


@given(parts=st.integers(1, 9), key=st.integers(0, 2**63 - 1))
def test_fixed_draws_cover_all_times(parts: int, key: int) -> None:
    draws = [draw([key], 0, DRAWING, part=(place, parts)) for place in range(parts)]
    for place, one in enumerate(draws):
        assert place * 1000 // parts <= one.times[0] < (place + 1) * 1000 / parts
    assert len({one.chosen[0, 0, 0].item() for one in draws}) == parts


def test_times_are_uniform() -> None:
    times = draw(range(4000), 1, Drawing(times=4, shape=(1,))).times
    assert np.abs(np.bincount(times.numpy(), minlength=4) / 1000 - 1).max() < 0.1
    assert set(one_of(range(100), 3, 3).tolist()) == {0, 1, 2} and (one_of([5], 3, 7) == one_of([4, 5], 3, 7)[1:]).all()
