"""Where the authors' code differs from ours, and by how much: the numbers that the pages of the objectives give."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from popmargin.objectives.aps import APSOptions, aps, scales
from popmargin.objectives.base import OBJECTIVES, Rows
from popmargin.objectives.pop_lagrangian import PopLagrangianOptions, pop_lagrangian


def token_logps(model: Any, ids: list[int]) -> np.ndarray:
    with torch.no_grad():
        logps = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
    return logps[torch.arange(len(ids) - 1), torch.tensor(ids[1:])].numpy()


@pytest.fixture(scope="module")
def gaps(make_model: Callable[..., Any]) -> dict[str, np.ndarray]:
    """Gaps of 100 random pairs of responses with a common beginning, our way and as the authors' code sums tokens."""
    reference, policy = make_model(), make_model()
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    random = np.random.default_rng(0)
    pad, end, words = 0, 2, range(3, 259)
    scores: list[list[list[float]]] = []
    for _ in range(100):
        common = int(random.integers(4))
        prompt, shared = (random.choice(words, size=n).tolist() for n in (random.integers(5, 20), common))
        pair: list[list[float]] = []
        for _ in range(2):
            response = [*shared, *random.choice(words, size=random.integers(5, 40)).tolist(), end]
            ids = prompt + response + [pad]
            mine = token_logps(policy, ids)[len(prompt) - 1 :]
            ratio = mine - token_logps(reference, ids)[len(prompt) - 1 :]
            own = slice(0, len(response))
            after = len(response) - common
            pair.append([ratio[own].sum(), ratio[common + 1 :].sum(), mine[own].mean(), mine[own].sum() / after])
        scores.append(pair)
    values = np.array(scores)
    return dict(zip(("pop", "pop_authors", "simpo", "simpo_authors"), (values[:, 0] - values[:, 1]).T, strict=True))


def test_a_skipped_token_and_a_pad(gaps: dict[str, np.ndarray]) -> None:
    """`pop`: by 0.39 nats on average, at a standard deviation of 2.1."""
    assert np.abs(gaps["pop"] - gaps["pop_authors"]).mean() == pytest.approx(0.39, abs=0.02)
    assert gaps["pop"].std() == pytest.approx(2.1, abs=0.06)


def test_division_by_the_tokens_after_the_divergence(gaps: dict[str, np.ndarray]) -> None:
    """`simpo_pop`: by 0.32 nats a token on average, at a standard deviation of 0.18."""
    assert np.abs(gaps["simpo"] - gaps["simpo_authors"]).mean() == pytest.approx(0.32, abs=0.02)
    assert gaps["simpo"].std() == pytest.approx(0.18, abs=0.01)


def authors_aps(d: float, o: APSOptions) -> tuple[float, float, float]:
    """τ, the loss without its price, and its gradient in d, with 1e-6 inside the logarithms."""

    def sigmoid(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    tau = 1.0
    for _ in range(o.iterations):
        u = d / tau
        slope = -math.log(sigmoid(u) + 1e-6) - math.log(2) + (1 - sigmoid(u)) * u + o.rho0
        tau = min(max(tau - slope / max(d * d / tau**3 * sigmoid(u) * sigmoid(-u), 1e-6), o.tau0), o.tau_max)
    u = d / tau
    return tau, -tau * math.log(sigmoid(u) + 1e-6), -sigmoid(u) * sigmoid(-u) / (sigmoid(u) + 1e-6)


@pytest.mark.parametrize("d", [-5.0, -2.0, -1.0, -0.5, 0.5, 1.0, 2.0, 5.0])
def test_a_millionth_inside_the_logarithm(d: float) -> None:
    options = APSOptions()
    chosen = torch.tensor([d / options.beta], dtype=torch.float64, requires_grad=True)
    rows = Rows(chosen=chosen, rejected=torch.zeros(1, dtype=torch.float64))
    tau, scaled, slope = authors_aps(d, options)
    ours = float(scales(rows, options))
    loss = aps(rows, options)
    loss.sum().backward()
    assert chosen.grad is not None
    assert ours == pytest.approx(tau, rel=1e-4)
    assert float(loss.detach()) - (options.rho0 - math.log(2)) * ours == pytest.approx(scaled, rel=2e-5)
    assert float(chosen.grad) / options.beta == pytest.approx(slope, rel=2e-5)


def course(violations: list[float], **options: Any) -> list[float]:
    """λ after every optimizer step."""
    kind = OBJECTIVES.get("pop_lagrangian")
    assert kind.init_state is not None and kind.update_state is not None
    made = PopLagrangianOptions(**options)
    state, found = kind.init_state(made), list[float]()
    for violation in violations:
        state = kind.update_state(state, {"violation": violation}, made)
        found.append(math.exp(float(state["log_lambda"])))
    return found


def test_the_authors_ascent_explodes_and_ours_does_not() -> None:
    """A steady violation of 0.3: log λ = 0.01·0.3·t, against 1/λ = 1 − 0.01·0.3·t, which is 0 at t = 333."""
    ours, theirs = course([0.3] * 400), course([0.3] * 400, ascent="authors")
    assert ours[-1] == pytest.approx(math.exp(1.2)) and ours[-1] == pytest.approx(3.3, abs=0.03)
    assert theirs[-1] == pytest.approx(100.0) and theirs[199] == pytest.approx(1 / (1 - 0.003 * 197), rel=0.01)


def test_golden_course_of_the_authors_ascent() -> None:
    """lr 0.5, a window of 2 and a threshold of 0.1: by hand, from log λ = 0."""
    found = course([0.3, 0.5, 0.1, -0.4], ascent="authors", window=2, threshold=0.1, lambda_lr=0.5)
    second = 0.5 * (0.4 - 0.1)
    third = second + 0.5 * math.exp(second) * (0.3 - 0.1)
    fourth = third + 0.5 * math.exp(third) * (-0.15 - 0.1)
    assert [math.log(value) for value in found] == pytest.approx([0.0, second, third, fourth])
    assert [math.log(value) for value in course([0.3, 0.5], lambda_lr=0.5)] == pytest.approx([0.15, 0.4])


def test_nothing_is_trained_before_the_window_is_full() -> None:
    options = PopLagrangianOptions(ascent="authors", window=3)
    kind = OBJECTIVES.get("pop_lagrangian")
    assert kind.init_state is not None and kind.update_state is not None
    state = kind.init_state(options)
    pulls: list[float] = []
    for _ in range(5):
        score = torch.zeros(1, requires_grad=True)
        fixed = torch.zeros(1)
        rows = Rows(chosen=score, rejected=fixed, weaker_chosen=fixed, weaker_rejected=fixed,
                    has_weaker=torch.ones(1, dtype=torch.bool), state=state)  # fmt: skip
        pop_lagrangian(rows, options).sum().backward()
        assert score.grad is not None
        pulls.append(float(score.grad))
        state = kind.update_state(state, {"violation": 0.0}, options)
    assert pulls[:3] == [0, 0, 0] and pulls[3] == pulls[4] < 0


@pytest.mark.parametrize(
    ("options", "message"),
    [({"window": 0}, "window must be 1 or more"), ({"threshold": math.inf}, "threshold must be a finite number")],
)
def test_settings_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PopLagrangianOptions(**options)
