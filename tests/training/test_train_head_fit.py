"""A head on features: its loss is the objective's own, and its weights are the minimum."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import expit

from popmargin.errors import ConfigError, DataError
from popmargin.margin import Margin
from popmargin.objectives.base import OBJECTIVES, Rows
from popmargin.pop.sampling import sample_edges
from popmargin.training import head_fit
from popmargin.training.batches import TrainingRows
from popmargin.training.head_fit import HeadData, fit_heads, simple_loss

COUNT, RESPONSES, FEATURES = 40, 30, 4
BETA = {"beta": 1.0}


@pytest.fixture(scope="module")
def data() -> dict[str, Any]:
    """Preferences between responses with features, some labels wrong, and edges between them."""
    rng = np.random.default_rng(0)
    features, weights = rng.standard_normal((RESPONSES, FEATURES)), rng.standard_normal(FEATURES)
    first = rng.integers(0, RESPONSES, COUNT)
    second = (first + rng.integers(1, RESPONSES, COUNT)) % RESPONSES
    gap = (features @ weights)[first] - (features @ weights)[second]
    better = gap + rng.logistic(size=COUNT) > 0
    ids = [str(number) for number in range(COUNT)]
    edges = sample_edges(ids, np.where(better, gap, -gap), sampling="random", k=1, temperature=1.0)
    return {
        "features": features,
        "chosen": np.where(better, first, second),
        "rejected": np.where(better, second, first),
        "edges": edges.resolve(ids),
        "columns": {"soft_label": expit(np.abs(gap)), "margin": np.abs(gap), "scale": gap},
    }


def made(data: dict[str, Any], loss: Any, features: np.ndarray | None = None) -> HeadData:
    needs = loss.needs
    rows = TrainingRows.of_preferences(COUNT)
    if needs.edges:
        rows = TrainingRows.of_edges(*data["edges"], COUNT, everyone=needs.weaker == "gradient")
    columns = {name: data["columns"][name] for name in needs.columns}
    return HeadData(
        features=data["features"] if features is None else features,
        chosen=data["chosen"], rejected=data["rejected"], rows=rows, columns=columns,
    )  # fmt: skip


def by_hand(data: dict[str, Any], name: str, rewards: np.ndarray, target: np.ndarray | None) -> float:
    """The mean of the registered objective over rows that are put together here, one by one."""
    objective = OBJECTIVES.get(name)
    reward = [torch.tensor(float(value), dtype=torch.float64) for value in rewards]
    pairs = [(reward[c], reward[r]) for c, r in zip(data["chosen"], data["rejected"], strict=True)]
    rows = made(data, simple_loss(name, **BETA)).rows
    weaker = [int(place) for place in rows.weaker]
    none = torch.tensor(0.0, dtype=torch.float64)
    many = Rows(
        chosen=torch.stack([pairs[row][0] for row in rows.stronger]),
        rejected=torch.stack([pairs[row][1] for row in rows.stronger]),
        has_weaker=torch.tensor([place >= 0 for place in weaker]),
        weaker_chosen=torch.stack([pairs[place][0] if place >= 0 else none for place in weaker]),
        weaker_rejected=torch.stack([pairs[place][1] if place >= 0 else none for place in weaker]),
        target=None if target is None else Margin(
            values=torch.tensor([target[place] if place >= 0 else 0.0 for place in weaker], dtype=torch.float64),
            unit="nats",
        ),
        columns={key: torch.tensor(values[rows.stronger]) for key, values in data["columns"].items()},
        stronger_share=torch.tensor(rows.stronger_share, dtype=torch.float64),
        weaker_share=torch.tensor(rows.weaker_share, dtype=torch.float64),
    )  # fmt: skip
    return float(objective.function(many, objective.make_options(BETA)).mean())


NAMES = ("dpo", "cdpo", "dpo_stronger", "dpo_rating_margin", "pop", "pop_rank", "pop_scale")


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_is_the_objectives_own_on_the_same_rewards(data: dict[str, Any], name: str) -> None:
    loss = simple_loss(name, **BETA)
    rewards = np.random.default_rng(1).standard_normal(RESPONSES)
    target = np.random.default_rng(2).normal(1.0, 2.0, COUNT) if loss.needs.weaker == "target" else None
    batch = head_fit._Batch.of(made(data, loss, rewards[:, None]), loss, 2)  # pyright: ignore[reportPrivateUsage]
    # Two copies side by side: the second one has other rewards, and other targets.
    aim = None if target is None else torch.from_numpy(np.concatenate([target, target - 1]))
    both = torch.stack([batch.features[:, 0], 2 * batch.features[:, 0]])
    one, other = batch.means(loss, both, aim).tolist()
    assert one == pytest.approx(by_hand(data, name, rewards, target), abs=1e-12)
    assert other == pytest.approx(by_hand(data, name, 2 * rewards, None if target is None else target - 1), abs=1e-12)


@pytest.mark.parametrize("hidden", [0, 3])
@pytest.mark.parametrize("name", [name for name in NAMES if name != "pop"])
def test_no_step_from_the_fit_lowers_its_penalized_loss(data: dict[str, Any], name: str, hidden: int) -> None:
    loss, ridge = simple_loss(name, **BETA), 0.1
    fitted = made(data, loss)
    [head] = fit_heads(fitted, loss, [ridge], hidden=hidden, steps=2000)
    assert head.converged

    def whole(weights: np.ndarray) -> float:
        moved = head_fit.Head(weights=weights, features=FEATURES, hidden=hidden)
        return by_hand(data, name, moved.rewards(data["features"]), None) + ridge / 2 * float(weights @ weights)

    least = whole(head.weights)
    rng = np.random.default_rng(3)
    for size in (1e-2, 1e-1, 1.0):
        steps = rng.standard_normal((5, len(head.weights)))
        assert min(whole(head.weights + size * step / np.linalg.norm(step)) for step in steps) > least


def test_the_target_of_pop_is_the_gap_of_the_round_before(data: dict[str, Any]) -> None:
    loss = simple_loss("pop", **BETA)
    fitted = made(data, loss)
    first, second = (fit_heads(fitted, loss, [0.1], rounds=rounds)[0] for rounds in (1, 2))
    control = fit_heads(made(data, simple_loss("dpo_stronger", **BETA)), simple_loss("dpo_stronger", **BETA), [0.1])[0]
    np.testing.assert_allclose(first.weights, control.weights, atol=1e-4)  # the first target is 0
    rewards = first.rewards(data["features"])
    target = rewards[data["chosen"]] - rewards[data["rejected"]]

    def whole(weights: np.ndarray) -> float:
        moved = head_fit.Head(weights=weights, features=FEATURES)
        return by_hand(data, "pop", moved.rewards(data["features"]), target) + 0.05 * float(weights @ weights)

    assert whole(second.weights) < whole(first.weights) - 1e-6
    steps = np.random.default_rng(4).standard_normal((20, FEATURES)) / 50
    assert min(whole(second.weights + step) for step in steps) > whole(second.weights)


def test_a_head_does_not_depend_on_the_ridges_beside_it(data: dict[str, Any]) -> None:
    loss = simple_loss("dpo", **BETA)
    path = fit_heads(made(data, loss), loss, [0.01, 1.0])
    alone = [fit_heads(made(data, loss), loss, [ridge])[0] for ridge in (0.01, 1.0)]
    assert [head.ridge for head in path] == [0.01, 1.0]
    for one, other in zip(path, alone, strict=True):
        np.testing.assert_allclose(one.weights, other.weights, atol=2e-3)
    assert np.linalg.norm(path[1].weights) < np.linalg.norm(path[0].weights)


def test_weights_of_rows_count(data: dict[str, Any]) -> None:
    loss = simple_loss("dpo", **BETA)
    some = np.arange(COUNT) < 25
    whole = made(data, loss)
    weighted = HeadData(**{**vars(whole), "columns": {"weight": some.astype(np.float64)}})
    fewer = HeadData(
        features=data["features"], chosen=data["chosen"][some], rejected=data["rejected"][some],
        rows=TrainingRows.of_preferences(25),
    )  # fmt: skip
    one, other = fit_heads(weighted, loss, [0.1])[0], fit_heads(fewer, loss, [0.1])[0]
    np.testing.assert_allclose(one.weights, other.weights, atol=1e-4)


def test_what_a_head_cannot_do_is_refused(data: dict[str, Any]) -> None:
    loss = simple_loss("dpo", **BETA)
    with pytest.raises(ConfigError, match="ridges"):
        fit_heads(made(data, loss), loss, [0.0])
    with pytest.raises(ConfigError, match="simpo"):
        simple_loss("simpo")
    empty = HeadData(features=data["features"], chosen=data["chosen"], rejected=data["rejected"],
                     rows=TrainingRows.of_preferences(0))  # fmt: skip
    with pytest.raises(DataError, match="no rows"):
        fit_heads(empty, loss, [0.1])
