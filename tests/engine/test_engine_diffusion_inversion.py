"""Inversion: golden values, levels, the way there and back, and what the published grid leaves out."""

import itertools
import math
from typing import Any

import diffusers
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from popmargin.engine.diffusion.inversion import Inversion, ddim_step, inversion_levels, invert, inverted_noise
from popmargin.engine.diffusion.predictions import Levels, noised
from popmargin.engine.diffusion.schedules import CLEAN, Schedule

TWO = Schedule.of_alphas([0.9, 0.5])
LINEAR = Schedule.of_scheduler(diffusers.DDPMScheduler())
COSINE = Schedule.of_scheduler(diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2"))


def smooth(images: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
    """ε̂ of a model of images from N(m, σ²), which depends on image and time."""
    signal, noise = (values.view(-1, 1) for values in LINEAR.levels(times))
    mean, variance = 0.3, 0.25
    return noise * (images - signal * mean) / (signal**2 * variance + noise**2)


def at(*times: int) -> torch.Tensor:
    return torch.tensor(times)


def images(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None]


@pytest.mark.parametrize(
    ("renoise", "way", "noise"),
    [
        (False, [1.0435516279, 0.9253979458], 0.3087103256),
        (True, [1.0456174630, 0.9188586154], 0.2994623158),
    ],
)
def test_golden_values(renoise: bool, way: list[float], noise: float) -> None:
    def predict(z: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        return 0.3 * z

    how = Inversion(steps=2, renoise=renoise)
    for time, wanted in enumerate(way):
        found = invert(images(1.0), at(time), predict, TWO, Inversion(steps=time + 1, renoise=renoise))
        assert found.item() == pytest.approx(wanted, abs=1e-9)
    found = invert(images(1.0), at(1), predict, TWO, how)
    levels = Levels(*TWO.levels(at(1)))
    assert inverted_noise(found, images(1.0), levels).item() == pytest.approx(noise, abs=1e-9)


def test_without_noise_nothing_but_the_signal_is_left() -> None:
    found = invert(images(2.0), at(1), lambda z, _: torch.zeros_like(z), TWO, Inversion(steps=2))
    assert found.item() == pytest.approx(2 * math.sqrt(0.5))
    assert inverted_noise(found, images(2.0), Levels(*TWO.levels(at(1)))).item() == pytest.approx(0, abs=1e-12)


@given(time=st.integers(0, 999), steps=st.integers(1, 60))
def test_levels_rise_from_the_image_to_exactly_the_time(time: int, steps: int) -> None:
    levels = inversion_levels(at(time), 1000, steps)[:, 0].tolist()
    assert levels[0] == CLEAN and levels[-1] == time and len(levels) == steps + 1
    moves = [b - a for a, b in itertools.pairwise(levels)]
    assert min(moves) >= 0 and sum(move > 0 for move in moves) == min(steps, time + 1)
    assert max(moves) - min(moves) <= 1  # as even as whole numbers allow


def test_published_levels_are_those_of_diffusers() -> None:
    for steps in (5, 10):
        scheduler = diffusers.DDIMInverseScheduler(steps_offset=1)
        scheduler.set_timesteps(steps)
        points = scheduler.timesteps.tolist()
        for time in (0, 1, 150, 200, 201, 399, 400, 998, 999):
            levels = inversion_levels(at(time), 1000, steps, "published")[:, 0].tolist()
            below = [point for point in points if point <= time] or points[:1]
            assert list(dict.fromkeys(levels)) == [CLEAN, *below] and len(levels) == steps + 1


@pytest.mark.parametrize("time", [50, 200])
def test_published_levels_do_not_invert_early_times(time: int) -> None:
    """There τ is the image, for a fifth of all times; exact levels give nearly what very many steps give."""
    start, times = images(0.7, -0.4), at(time, time)
    levels = Levels(*LINEAR.levels(times))

    def noise(grid: Any, steps: int) -> torch.Tensor:
        how = Inversion(steps=steps, renoise=False, grid=grid)
        return inverted_noise(invert(start, times, smooth, LINEAR, how), start, levels)

    published, exact, limit = noise("published", 5), noise("exact", 5), noise("exact", time)
    of_image = start * ((1 - levels.signal) / levels.noise)[:, None]
    assert (published - of_image).abs().max() < 0.05
    assert (exact - limit).abs().max() < 0.5 * (published - limit).abs().max()


def back(z: torch.Tensor, time: int, steps: int) -> torch.Tensor:
    """DDIM sampling from a time to the image."""
    levels = inversion_levels(at(time), 1000, steps)[:, 0].flip(0)
    for now, then in itertools.pairwise(levels):
        noise = gentle(z, now.clamp(min=0)[None].expand(len(z)))
        z = ddim_step(z, noise, *(Levels(*COSINE.levels(level[None].expand(len(z)))) for level in (now, then)))
    return z


def gentle(images: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
    """ε̂ of a model that changes little from step to step."""
    return 0.3 * torch.tanh(images) + 1e-4 * times.double().view(-1, 1)


@pytest.mark.parametrize("time", [700, 500, 60])
def test_the_way_there_and_back(time: int) -> None:
    """n = 50 comes back to the image within 1e-2, nearer with ReNoise; twice the steps halve the distance."""
    start = images(0.9, 0.1, -0.8)

    def distance(steps: int, **options: Any) -> float:
        there = invert(start, at(*[time] * 3), gentle, COSINE, Inversion(steps=steps, **options))
        return (back(there, time, steps) - start).abs().max().item()

    plain = distance(50, renoise=False)
    assert distance(50, renoise_time="later") < distance(50) < plain < 1e-2
    if time > 100:
        assert distance(100, renoise=False) == pytest.approx(plain / 2, rel=0.1)


@settings(max_examples=15)
@given(times=st.lists(st.integers(0, 999), min_size=2, max_size=8), grid=st.sampled_from(["exact", "published"]))
def test_any_batch_gives_the_same(times: list[int], grid: Any) -> None:
    start = torch.linspace(-1, 1, len(times), dtype=torch.float64)[:, None]
    how = Inversion(steps=4, grid=grid)
    whole = invert(start, at(*times), smooth, LINEAR, how)
    alone = torch.cat([invert(start[i : i + 1], at(time), smooth, LINEAR, how) for i, time in enumerate(times)])
    torch.testing.assert_close(whole, alone, rtol=0, atol=1e-12)


def test_the_time_of_the_second_prediction() -> None:
    asked: list[int] = []

    def predict(z: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        asked.append(int(times[0]))
        return z

    for later, wanted in (("earlier", [0, 0, 499, 499]), ("later", [0, 499, 499, 999])):
        asked.clear()
        invert(images(1.0), at(999), predict, LINEAR, Inversion(steps=2, renoise_time=later))  # pyright: ignore
        assert asked == wanted


def test_noise_that_is_given_back() -> None:
    levels, noise = Levels(*LINEAR.levels(at(300))), images(0.4)
    torch.testing.assert_close(inverted_noise(noised(images(1.0), noise, levels), images(1.0), levels), noise)


def test_no_gradient_goes_through_the_inversion() -> None:
    weight = torch.ones((), dtype=torch.float64, requires_grad=True)
    assert not invert(images(1.0), at(5), lambda z, _: weight * z, LINEAR, Inversion(steps=2)).requires_grad
