"""Signals: which column says how strong a preference is, and what it is used as; weights of the data."""

import json
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import expit, logit

from popmargin.cli.main import main
from popmargin.config import RunConfig, dump_yaml, merge
from popmargin.errors import ConfigError, DataError
from popmargin.objectives.base import OBJECTIVES
from popmargin.pop.scale import StrengthScale
from popmargin.pop.strengths import half_normal_strengths
from popmargin.training.build import Parts, Run, make_loss, make_parts
from popmargin.training.combinations import without_effect
from popmargin.training.run import train
from popmargin.training.run_account import training_steps
from popmargin.training.signals import make_signals
from popmargin.training.workspace import Workspace

Configure = Callable[..., RunConfig]
COUNT = 12
PLAIN = {"chosen_rating": None, "rejected_rating": None}
MARGIN = [-1.5, 0.0, 2.0, 0.5] * 3
LABEL = [0.5, 0.6, 0.75, 0.9] * 3
WEIGHT = [0.0, 1.0, 2.0, 5.0] * 3


@pytest.fixture
def with_data(configure: Configure, rows: list[dict[str, Any]], tmp_path: Path) -> Callable[..., RunConfig]:
    """A run on twelve preferences that hold some columns; a list gives every row its value, None leaves it empty."""

    def make(columns: dict[str, Any], *changes: dict[str, Any]) -> RunConfig:
        file = tmp_path / "signals.jsonl"
        lines: list[str] = []
        for place, row in enumerate(rows[:COUNT]):
            values = {name: each[place] if isinstance(each, list) else each for name, each in columns.items()}
            lines.append(json.dumps({name: value for name, value in (row | values).items() if value is not None}))
        file.write_text("\n".join(lines) + "\n")
        return configure({"data": {"train": str(file), "test_size": 4}, "train": {"batch_size": 8}}, *changes)

    return make


def built(config: RunConfig) -> tuple[Workspace, Parts]:
    workspace = Run.read(config).workspace()
    return workspace, make_parts(Run.read(config), workspace)


def given(config: RunConfig, workspace: Workspace, parts: Parts) -> list[str]:
    """What the account says of signals and weights."""
    notes = training_steps(Run.read(config), workspace, parts)[-1].notes
    return [note for note in notes if note.split(":")[0] in ("margin", "soft_label", "order", "weight", "level")]


def of_trained(workspace: Workspace, values: list[float]) -> np.ndarray:
    """The values of the training preferences, in their order."""
    return np.array([values[int(name[1:])] for name in workspace.train.ids])


SOURCES: dict[str, tuple[dict[str, Any], dict[str, Any], Callable[[float], float], str]] = {
    "TRL's margin": ({"margin": MARGIN}, {}, lambda m: m, "column 'margin', reward units, times 1"),
    "margins above 0": (
        {"margin": [abs(value) for value in MARGIN]},
        {},
        lambda m: m,
        "column 'strength' ('margin' in the file), reward units, times 1",
    ),
    "a strength": ({"strength": LABEL}, {}, lambda s: s, "column 'strength', reward units, times 1"),
    "a signed column": (
        {"helpful": MARGIN},
        {"column": "helpful", "scale": 0.5},
        lambda m: 0.5 * m,
        "column 'helpful', reward units, times 0.5",
    ),
    "turned round": (
        {"left": MARGIN},
        {"column": "left", "scale": -1},
        lambda m: -m,
        "column 'left', reward units, times -1",
    ),
    "nats": ({"gap": MARGIN}, {"column": "gap", "unit": "nats"}, lambda m: 0.1 * m, "column 'gap', nats, times 1"),
    "votes": (
        {"share": LABEL},
        {"column": "share", "unit": "probability", "scale": 2},
        lambda p: 2 * float(logit(p)),
        "column 'share', probabilities, times 2",
    ),
    "soft labels": ({"soft_label": LABEL}, {"column": "soft_label"}, lambda p: float(logit(p)),
                    "column 'soft_label', probabilities, times 1"),
}  # fmt: skip


@pytest.mark.parametrize("name", SOURCES)
def test_every_signal_is_a_margin(with_data: Callable[..., RunConfig], name: str) -> None:
    """`dpo_rating_margin` on data without ratings; at the start Δ is 0, so that the loss is log(1 + eᵐ)."""
    columns, signal, expected, told = SOURCES[name]
    (values,) = columns.values()
    changes = {"objective": {"name": "dpo_rating_margin"}, "signals": {"margin": signal} if signal else {}}
    config = with_data(PLAIN | columns, changes, {"train": {"max_steps": 1}})
    workspace, parts = built(config)
    margins = np.array([expected(value) for value in of_trained(workspace, values)])
    np.testing.assert_allclose(parts.collator.columns["margin"], margins, rtol=1e-6)
    assert given(config, workspace, parts) == [f"margin: {told}"]
    if name == "TRL's margin":
        run, _ = train(config, workspace=workspace)
        (line,) = run.metrics()
        assert line["loss"] == pytest.approx(np.logaddexp(0, margins).mean(), rel=1e-4)


def test_ratings_and_a_fitted_scale_are_margins(with_data: Callable[..., RunConfig]) -> None:
    ratings = {"objective": {"name": "dpo_rating_margin"}, "signals": {"margin": {"column": "ratings", "scale": 2}}}
    workspace, parts = built(config := with_data({"margin": MARGIN}, ratings))
    np.testing.assert_allclose(parts.collator.columns["margin"], 2 * workspace.train.preferences.rating_gap, rtol=1e-6)
    assert given(config, workspace, parts) == ["margin: the gap of the ratings, reward units, times 2"]
    scale = {"objective": {"name": "dpo_rating_margin"}, "signals": {"margin": {"column": "scale", "scale": 0.5}}}
    workspace, parts = built(config := with_data({}, scale))
    assert isinstance(parts.scale, StrengthScale) and parts.edges is not None
    np.testing.assert_allclose(
        parts.collator.columns["margin"], 0.5 * half_normal_strengths(parts.scale.strength), rtol=1e-6
    )
    assert given(config, workspace, parts) == [
        "margin: the strength scale, reward units, times 0.5",
        "order: the gap of the ratings, times 1",
    ]


@pytest.mark.parametrize("unit", ["reward", "nats", "probability"])
def test_a_signal_is_a_soft_label(with_data: Callable[..., RunConfig], unit: str) -> None:
    column, values = ("share", LABEL) if unit == "probability" else ("gap", MARGIN)
    signal = {"column": column, "unit": unit, "scale": 0.5}
    workspace, parts = built(
        with_data(PLAIN | {column: values}, {"objective": {"name": "cdpo"}, "signals": {"soft_label": signal}})
    )
    raw, beta = of_trained(workspace, values), parts.loss.beta
    odds = {"reward": raw, "nats": beta * raw, "probability": logit(np.clip(raw, 1e-12, 1 - 1e-12))}[unit]
    np.testing.assert_allclose(parts.collator.columns["soft_label"], expit(0.5 * odds), rtol=1e-6)


def test_a_signal_orders_sampled_edges(with_data: Callable[..., RunConfig]) -> None:
    """Turned round, every edge points the other way; without it, the data's strengths order them."""
    objective = {"objective": {"name": "pop"}, "pop": {"unmatched": "drop"}}
    level = [float(place) for place in range(COUNT)]
    for sign in (1, -1):
        signal = {"signals": {"order": {"column": "level", "scale": sign}}}
        workspace, parts = built(config := with_data(PLAIN | {"level": level}, objective, signal))
        rows = parts.collator.rows
        order = sign * of_trained(workspace, level)
        assert len(rows) and (order[rows.stronger] > order[rows.weaker]).all()
        assert given(config, workspace, parts) == [f"order: column 'level', times {sign}"]
    explicit = sum(int(name[1:]) % 3 != 1 for name in workspace.train.ids)
    for columns, told in (
        ({}, "the gap of the ratings, times 1"),
        ({"strength": LABEL}, "column 'strength', times 1"),
        (
            {"strength": [1.0, None, 2.0] * 4},
            f"column 'strength' in {explicit} of 8 rows, the rating gap in others",
        ),
    ):
        workspace, parts = built(config := with_data(columns, objective))
        assert given(config, workspace, parts) == [f"order: {told}"]
    with pytest.raises(DataError, match=r"signals.order needs level, which 2 of 8 preferences lack \(first: 'p0"):
        first = [int(name[1:]) for name in workspace.train.ids[:2]]
        lacking = [None if place in first else 1.0 * place for place in range(COUNT)]
        built(with_data(PLAIN | {"level": lacking}, objective, {"signals": {"order": "level"}}))


@pytest.mark.slow
def test_weights_of_the_data_travel_with_every_objective(with_data: Callable[..., RunConfig]) -> None:
    columns = {"weight": WEIGHT, "soft_label": LABEL}
    workspace = Run.read(with_data(columns)).workspace()
    weight = of_trained(workspace, WEIGHT)
    for name in OBJECTIVES.names():
        config = with_data(columns, {"objective": {"name": name}})
        parts = make_parts(Run.read(config), workspace)
        rows = parts.collator.rows
        assert parts.collator.columns["weight"].tolist() == weight.tolist(), name
        batch = parts.collator([0, 1, 2])
        assert batch["weight"] == weight[rows.stronger[:3]].sum(), name
        (part,) = batch["parts"]
        assert part["columns"]["weight"].tolist() == weight[rows.stronger[:3]].tolist(), name
        used = weight[rows.stronger]
        effective = used.sum() ** 2 / (used**2).sum()
        told = training_steps(Run.read(config), workspace, parts)[-1].notes
        assert {
            "weight: column 'weight', times 1",
            f"weighted rows: mean weight {used.mean():g}, effective sample size {effective:.1f} of {len(used)}",
            f"rows of weight 0, not trained on: {(used == 0).sum()}",
        } <= set(told), name


def test_weights_can_be_others_or_none(with_data: Callable[..., RunConfig]) -> None:
    columns = {"weight": WEIGHT, "votes": [4.0] * COUNT}
    for signals, expected in (
        ({"weight": None}, None),
        ({"weight": {"column": "votes", "scale": 0.5}}, [2.0] * 8),
        ({"weight": "votes"}, [4.0] * 8),
    ):
        workspace, parts = built(config := with_data(columns, {"signals": signals}))
        found = parts.collator.columns.get("weight")
        assert (None if found is None else found.tolist()) == expected
        (idle,) = [
            note for note in training_steps(Run.read(config), workspace, parts)[-1].notes if "not used by" in note
        ]
        assert ("weight" in idle, "votes" in idle) == (True, expected is None)


def test_wrong_weights_are_named(with_data: Callable[..., RunConfig]) -> None:
    with pytest.raises(DataError, match=r"signals.jsonl:3.*weight is -1"):
        built(with_data({"weight": [1.0, 1.0, -1.0, *[1.0] * 9]}))
    with pytest.raises(
        DataError, match=r"A run with weights needs weight, which \d of 8 .* set signals.weight to null"
    ):
        built(with_data({"weight": [None, 1.0] * 6}))
    with pytest.raises(DataError, match="All weights are 0"):
        built(with_data({"weight": [0.0] * COUNT}))
    with pytest.raises(DataError, match=r"As weights, the column 'margin' must be 0 or more.*signals.weight to null"):
        built(with_data({"margin": MARGIN}, {"signals": {"weight": "margin"}}))


@pytest.mark.parametrize("use", ["margin", "weight"])
def test_numbers_beyond_fp32_are_refused_by_row(with_data: Callable[..., RunConfig], use: str) -> None:
    """1e40 became infinite on the way to the batch; a scale brings it back."""
    huge = {"helpful": [1e40, 0.5] * 6}
    change = {"objective": {"name": "dpo_rating_margin"}, "signals": {use: "helpful"}}
    with pytest.raises(DataError, match=rf"As {use}, the column 'helpful' .*'p\d+' \(1e\+40\).*signals.{use}.scale"):
        built(with_data(huge, change))
    change["signals"] = {use: {"column": "helpful", "scale": 1e-40}}
    _, parts = built(with_data(huge, change))
    assert sorted(set(parts.collator.columns[use].round(3).tolist())) == [0.0, 1.0]


def test_a_margin_that_is_missing_says_what_would_do(with_data: Callable[..., RunConfig]) -> None:
    config = with_data(PLAIN | {"margin": [None, -1.0] * 6}, {"objective": {"name": "dpo_rating_margin"}})
    with pytest.raises(DataError) as caught:
        built(config)
    holes = sum(int(name[1:]) % 2 == 0 for name in Run.read(config).workspace().train.ids)
    text = str(caught.value)
    assert "needs chosen_rating and rejected_rating, which 8 of 8 preferences lack (first: 'p0" in text
    assert "strength, which 8 of 8" in text and f"margin, which {holes} of 8" in text and "signals.margin" in text
    with pytest.raises(DataError, match="no column 'margins'"):
        built(with_data({"margin": MARGIN}, {"signals": {"weight": "margins"}}))
    with pytest.raises(DataError, match="has 2 numbers per row"):
        built(with_data({"features": [[1.0, 2.0]] * COUNT}, {"signals": {"weight": "features"}}))
    label = {"objective": {"name": "dpo_rating_margin"}, "signals": {"margin": "soft_label"}}
    with pytest.raises(DataError, match=r"must be strictly between 0 and 1: .*'p0.*\(1\)"):
        built(with_data({"soft_label": [1.0] * COUNT}, label))
    label["signals"] = {"margin": {"column": "helpful", "unit": "probability"}}
    with pytest.raises(DataError, match=r"must be from 0 to 1. \d of 8 preferences break this: 'p0"):
        built(with_data({"helpful": MARGIN}, label))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"signals": {"margins": "x"}}, "signals.margins: no part of this run reads such a column. .*'margin'"),
        ({"signals": {"margin": {"colum": "x"}}}, "signals.margin is .* name a column"),
        ({"signals": {"margin": {"column": "x", "units": "nats"}}}, "no option 'units'.*unit"),
        ({"signals": {"margin": {"column": "x", "unit": "logits"}}}, "unit is 'logits'"),
        ({"signals": {"margin": {"column": "x", "scale": 0}}}, "other than 0"),
        ({"signals": {"margin": None}}, "signals.margin is None: name a column"),
        ({"signals": {"weight": {"column": "x", "unit": "nats"}}}, "signals.weight.unit: only margin and soft_label"),
        ({"signals": {"order": "scale"}}, "signals.order: the scale is fitted to edges"),
        ({"signals": {"soft_label": "x"}, "data": {"soft_label_temperature": 1.0}}, "set one of them"),
    ],
)
def test_signals_without_meaning_are_refused(configure: Configure, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_loss(configure({"objective": {"name": "cdpo"}}, change))


def test_signals_that_nothing_reads_are_said(configure: Configure) -> None:
    signals = {"signals": {"margin": "x", "order": "y", "soft_label": "z", "weight": "w"}}
    config = configure(signals, {"objective": {"name": "dpo"}})
    (said,) = without_effect(make_loss(config), pop=config.pop, target=config.target, data=config.data)
    assert said.startswith("No effect: signals.margin, signals.order, signals.soft_label. The objective 'dpo'")
    config = configure(signals, {"objective": {"name": "pop"}, "pop": {"edges": "edges.parquet"}})
    assert (
        "signals.order" in without_effect(make_loss(config), pop=config.pop, target=config.target, data=config.data)[0]
    )


def test_a_column_that_is_used_is_in_the_fingerprints(with_data: Callable[..., RunConfig]) -> None:
    signals = {"objective": {"name": "dpo_rating_margin"}, "signals": {"margin": "helpful"}}

    def record(helpful: list[float], weight: list[float]) -> Any:
        config = with_data({"helpful": helpful, "weight": weight}, signals)
        run = Run.read(config)
        return run.record(Run.read(config).workspace())

    first = record(MARGIN, WEIGHT)
    assert not first.changes(record(MARGIN, WEIGHT))
    for other, column in ((record(LABEL, WEIGHT), "helpful"), (record(MARGIN, LABEL), "weight")):
        (told,) = first.changes(other)
        assert told.startswith(f"the column '{column}': changed")


def test_weights_and_signals_by_command(
    with_data: Callable[..., RunConfig], tmp_path: Path, capsys: pytest.CaptureFixture[str], base_run: dict[str, Any]
) -> None:
    """From the file to metrics, account and report, with a key on the command line."""
    config = with_data(PLAIN | {"margin": MARGIN, "weight": WEIGHT})
    values = merge(base_run, {"data": {"train": config.data.train, "test_size": 4}, "train": {"max_steps": 1}})
    (tmp_path / "run.yaml").write_text(dump_yaml(merge(values, {"objective": {"name": "dpo_rating_margin"}})))
    assert main(["train", str(tmp_path / "run.yaml"), "--signals", "{margin: {column: margin, scale: 0.5}}"]) == 0
    told = "margin: column 'margin', reward units, times 0.5"
    assert told in capsys.readouterr().err
    (line,) = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    weight = np.array([WEIGHT[int(name[1:])] for name in Run.read(config).workspace().train.ids])
    margin = np.array([0.5 * MARGIN[int(name[1:])] for name in Run.read(config).workspace().train.ids])
    assert line["loss"] == pytest.approx((weight * np.logaddexp(0, margin)).sum() / weight.sum(), rel=1e-4)
    assert line["weight_mean"] == pytest.approx(weight.mean())
    assert main(["eval", str(tmp_path / "run")]) == 0
    assert main(["report", str(tmp_path / "run"), "--out", str(tmp_path / "report.html")]) == 0
    page = unescape((tmp_path / "report.html").read_text())
    assert told in page and "weighted rows: mean weight" in page


def test_an_unknown_unit_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"signals\.margin\.unit is 'prob'.*Known: nats, probability, reward"):
        make_signals({"margin": {"column": "share", "unit": "prob"}}, ["margin"])
