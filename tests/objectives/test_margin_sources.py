"""Margins before an objective: identities row by row and in gradient, and values in NumPy."""

from typing import Any

import numpy as np
import pytest
import torch

from popmargin.errors import ConfigError
from popmargin.margin import Margin
from popmargin.margin_sources.base import make_margin
from popmargin.objectives.base import OBJECTIVES, Needs, Rows
from popmargin.training.trainer import Loss

COUNT = 64
OWN_SOURCES = ["fixed", "pop", "ratings"]
TAKERS = ["aps", "dpo", "dpo_stronger", "hinge", "ipo", "robust_dpo", "ropo", "simpo"]


def make_rows(chosen: torch.Tensor, rejected: torch.Tensor) -> Rows:
    random = np.random.default_rng(1)

    def drawn(scale: float) -> torch.Tensor:
        return torch.from_numpy(random.normal(size=COUNT) * scale)

    has_weaker = torch.from_numpy(random.random(COUNT) < 0.7)
    target = torch.where(has_weaker, drawn(8.0), torch.zeros(COUNT, dtype=torch.float64))
    return Rows(
        chosen=chosen,
        rejected=rejected,
        has_weaker=has_weaker,
        target=Margin(values=target, unit="nats"),
        columns={"margin": drawn(1.0)},
    )


def make_loss(name: str, required: dict[str, Any] | None = None, **options: Any) -> Loss:
    kind = OBJECTIVES.get(name)
    made = None if required is None else make_margin(required)
    return Loss(objective=kind, options=kind.make_options(options), margin=made)


def both(loss: Loss) -> tuple[torch.Tensor, ...]:
    """The loss of every row (B,), and its gradients in both scores."""
    random = np.random.default_rng(0)
    scores = [torch.from_numpy(random.normal(size=COUNT) * 10).requires_grad_() for _ in range(2)]
    values = loss.objective.function(loss.less_margin(make_rows(*scores)), loss.options)
    return values.detach(), *torch.autograd.grad(values.sum(), scores)


@pytest.mark.parametrize(
    ("composed", "same"),
    [
        (make_loss("dpo", {"source": "fixed", "value": 1.5}), make_loss("dpo_fixed_margin", margin=1.5)),
        (make_loss("dpo", {"source": "fixed"}, beta=0.3), make_loss("dpo_fixed_margin", beta=0.3)),
        (make_loss("dpo", {"source": "ratings", "scale": 0.5}), make_loss("dpo_rating_margin", margin_scale=0.5)),
        (make_loss("dpo", {"source": "pop"}), make_loss("pop")),
        (make_loss("dpo_stronger", {"source": "pop"}), make_loss("pop")),
        (
            make_loss("dpo", {"source": "pop", "margin_min": -2, "margin_max": 3}, beta=0.5),
            make_loss("pop", beta=0.5, margin_min=-2, margin_max=3),
        ),
        (make_loss("simpo", {"source": "pop"}, beta=1, gamma=0), make_loss("simpo_pop")),
        (make_loss("simpo", {"source": "fixed", "value": 0.5}), make_loss("simpo", gamma=1.5)),
    ],
    ids=["fixed", "fixed-beta", "ratings", "pop", "stronger-pop", "pop-clip", "simpo-pop", "simpo-gamma"],
)
def test_known_methods(composed: Loss, same: Loss) -> None:
    for ours, theirs in zip(both(composed), both(same), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    assert composed.needs.edges == same.needs.edges and composed.needs.weaker == same.needs.weaker
    assert composed.needs.margin == same.needs.margin


@pytest.mark.parametrize("name", TAKERS)
def test_no_margin_is_the_objective_itself(name: str) -> None:
    for ours, theirs in zip(both(make_loss(name, {"source": "fixed", "value": 0})), both(make_loss(name)), strict=True):
        assert torch.equal(ours, theirs)


def test_who_takes_a_margin() -> None:
    """A new objective says so itself; those of popmargin are listed here, since each was looked at."""
    own = [name for name in OBJECTIVES.names() if OBJECTIVES.get(name).function.__module__.startswith("popmargin.")]
    assert [name for name in own if OBJECTIVES.get(name).takes_margin == "yes"] == TAKERS


@pytest.mark.parametrize("name", TAKERS)
def test_takers_see_the_gap_alone(name: str) -> None:
    """Scores that move together change nothing, and nothing but scores is read."""
    kind = OBJECTIVES.get(name)
    chosen, rejected = (torch.from_numpy(np.random.default_rng(seed).normal(size=COUNT)) for seed in (0, 1))
    plain, moved = (
        kind.function(Rows(chosen=chosen + by, rejected=rejected + by), kind.options()) for by in (0.0, -7.0)
    )
    torch.testing.assert_close(plain, moved, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", TAKERS)
@pytest.mark.parametrize("source", OWN_SOURCES)
def test_reward_margin_less_margin(name: str, source: str) -> None:
    """z = β·Δ − m, computed here without the library; and no gradient through m."""
    loss = make_loss(name, {"source": source})
    chosen = torch.linspace(-20, 20, COUNT, dtype=torch.float64).requires_grad_()
    rows = make_rows(chosen, torch.zeros(COUNT, dtype=torch.float64))
    assert rows.margin is not None and rows.target is not None
    expected = {
        "fixed": 1.0,
        "ratings": rows.margin.values.numpy(),
        "pop": loss.beta * np.clip(rows.target.values.numpy(), 0, 10),
    }[source]
    seen = loss.less_margin(rows)
    np.testing.assert_allclose(
        loss.beta * seen.gap.detach(), loss.beta * chosen.detach().numpy() - expected, rtol=1e-12, atol=1e-12
    )
    (slope,) = torch.autograd.grad(seen.gap.sum(), chosen)
    assert torch.equal(slope, torch.ones_like(slope))


def test_hinge_with_ratings_in_numpy() -> None:
    loss = make_loss("hinge", {"source": "ratings", "scale": 2.0}, beta=0.5)
    gap, rating = np.array([0.0, 4.0, 10.0, -2.0]), np.array([0.25, 1.0, 1.0, -3.0])
    zero = torch.zeros(4, dtype=torch.float64)
    rows = Rows(chosen=torch.from_numpy(gap), rejected=zero, columns={"margin": torch.from_numpy(rating)})
    values = loss.objective.function(loss.less_margin(rows), loss.options).numpy()
    np.testing.assert_allclose(values, np.maximum(0, 1 - 0.5 * gap + 2 * rating))
    np.testing.assert_allclose(values, [1.5, 1.0, 0.0, 0.0])  # by hand; the last: 1 + 1 − 6 is below 0


def test_needs_of_both() -> None:
    first = Needs(edges=True, reference=True)
    assert first | Needs(weaker="target", margin=True) == Needs(
        edges=True, reference=True, weaker="target", margin=True
    )
    assert Needs(weaker="gradient") | Needs() == Needs() | Needs(weaker="gradient") == Needs(weaker="gradient")


@pytest.mark.parametrize(
    ("name", "source", "origin"),
    [
        ("dpo", "fixed", "baseline"),
        ("dpo", "ratings", "baseline"),
        ("dpo", "pop", "published"),
        ("dpo_stronger", "fixed", "ours"),
        ("hinge", "pop", "ours"),
        ("simpo", "pop", "ours"),
    ],
)
def test_what_is_ours_is_called_ours(name: str, source: str, origin: str) -> None:
    assert make_loss(name, {"source": source}).origin == origin
    assert make_loss(name).origin == OBJECTIVES.get(name).origin


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, r"margin\.source is missing, e\.g\. margin: \{source: pop\}\. Known: fixed, pop, ratings"),
        ({"value": 1}, r"margin\.source is missing"),
        ({"source": "rating"}, r"Unknown margin source 'rating'\. Did you mean 'ratings'"),
        ({"source": "fixed", "valeu": 1}, r"margin 'fixed' has no option 'valeu'\. Did you mean 'value'"),
        ({"source": "pop", "value": 1}, r"margin 'pop' has no option 'value'\. Known: margin_max, margin_min"),
        ({"source": "fixed", "value": float("nan")}, r"margin\.value must be a finite number, not nan"),
        ({"source": "fixed", "value": "much"}, r"margin\.value must be a number, not 'much'"),
        ({"source": "ratings", "scale": 0}, r"margin 'ratings': scale must be a finite number above 0"),
        ({"source": "pop", "margin_min": 3, "margin_max": 1}, r"margin_min 3\.0 is above margin_max 1\.0"),
    ],
)
def test_mistakes(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_margin(values)
