"""ROPO's outer loop: what is kept, what replaces the rest, and the file that says so."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from tests.rounds.conftest import facts

from popmargin.data.load import load_preferences
from popmargin.data.responses import Responses
from popmargin.errors import ConfigError, DataError
from popmargin.recipes.base import plan_of
from popmargin.rounds.rounds_config import RoundsConfig
from popmargin.rounds.run_rounds import run_rounds
from popmargin.rounds.runner import run_plan
from popmargin.rounds.stages.rank_rows import about_flips, keep_rows, keep_smallest, robust_loss
from popmargin.rounds.stages.replace_rows import against_original, best_and_worst, weighted
from popmargin.rounds.stages.split_data import known_flips

MakeRounds = Callable[..., RoundsConfig]


def test_the_golden_filter() -> None:
    """Losses (.9, .1, .5, .7, .3) and f = .4 keep rows 1, 4 and 2; at a tie the earlier row stays."""
    loss = np.array([0.9, 0.1, 0.5, 0.7, 0.3])
    assert np.flatnonzero(keep_smallest(loss, 0.4)).tolist() == [1, 2, 4]
    assert np.flatnonzero(keep_smallest(np.array([0.5, 0.5, 0.5, 0.1]), 0.5)).tolist() == [0, 3]
    assert keep_smallest(loss, 0.0).all()
    for share in (0.1, 0.25, 0.3, 0.5):
        assert keep_smallest(np.arange(10.0), share).sum() == round((1 - share) * 10 + 1e-9)


@pytest.mark.parametrize(
    ("alpha", "at_zero", "steepest"),
    [
        (6.0, 1.8088884150, -0.3364722366),
        (14.0, 1.9147388538, -0.1431008436),
        (30.0, 1.9596021453, -0.0666913745),
    ],
)
def test_golden_losses(alpha: float, at_zero: float, steepest: float) -> None:
    assert robust_loss(np.array([0.0]), alpha)[0] == pytest.approx(at_zero, abs=1e-9)
    margins = np.linspace(-3, 3, 60001)
    slope = np.gradient(robust_loss(margins, alpha), margins)
    assert margins[slope.argmin()] == pytest.approx(steepest, abs=2e-4)
    assert slope.min() == pytest.approx(-1, abs=1e-6)


def test_kept_rows_keep_their_weights() -> None:
    rows = [{"prompt": f"{p}?", "chosen": "y", "rejected": "n", "weight": float(w)} for p, w in ("a1", "b3", "b5")]
    kept, dropped = load_preferences(rows[:1]), load_preferences([rows[1], rows[2] | {"chosen": "yes"}])
    plain = [{name: row[name] for name in ("prompt", "chosen", "rejected")} for row in rows]
    assert [row["weight"] for row in weighted(plain[:1], plain[1:2], kept, dropped)] == [1.0, 4.0]
    unweighted = load_preferences(plain[:1])
    assert weighted(plain[:1], plain[1:2], unweighted, dropped) == plain[:2]


def test_replacements() -> None:
    """Dropped prompts get the best against the worst sample, or against the original response with the lower score."""
    samples = Responses(
        ["a?", "b?", "c?"], [["a1", "a2"], ["b1", "b2"], ["c1", "c1"]], {"label": [0.0, 3.0, 1.0, 0.5, 2.0, 2.0]}
    )
    new, reasons = best_and_worst(samples, 1.0)
    assert [(row["prompt"], row["chosen"], row["rejected"]) for row in new] == [("a?", "a2", "a1")]
    assert sum(reasons.values()) == 2
    assert best_and_worst(samples, 99.0) == ([], {"no pair with a large enough gap": 3})
    originals = Responses(["a?", "b?", "c?"], [["w", "l"]] * 3, {"label": [5.0, 1.0, 9.0, 8.0, 2.5, 1.5]})
    new, reasons = against_original(samples, originals)
    assert [(row["prompt"], row["chosen"], row["rejected"]) for row in new] == [("a?", "a2", "l"), ("c?", "c1", "l")]
    assert sum(reasons.values()) == 1


def test_the_controls_of_the_filter() -> None:
    """At random as many rows are dropped, others with each seed; the oracle drops what is known to be wrong."""
    loss, wrong = np.arange(10.0), np.arange(10) % 4 == 0
    drawn = [keep_rows(loss, 0.3, by="random", seed=seed) for seed in range(20)]
    assert {int(kept.sum()) for kept in drawn} == {7} and len({tuple(kept) for kept in drawn}) > 10
    assert 0.6 < np.mean(drawn) < 0.8 and np.mean(drawn, axis=0)[-3:].max() > 0.4  # the largest losses are kept, too
    assert (keep_rows(loss, 0.0, by="oracle", wrong=wrong) == ~wrong).all()
    assert (keep_rows(loss, 0.3, by="loss") == keep_smallest(loss, 0.3)).all()


def test_known_flips_measure_the_filter() -> None:
    flips, loss = [1, 1, 0, 0, 0, 0], np.array([3.0, 0.5, 2.0, 1.0, 0.1, np.nan])
    rows = [{"prompt": f"{n}?", "chosen": "y", "rejected": "n", "wrong": wrong} for n, wrong in enumerate(flips)]
    data, kept = load_preferences(rows), np.array([False, True, False, True, True, False])
    found = about_flips(data, loss, kept, known_flips(data, "wrong"))
    assert (found["flips"], found["auc"]["estimate"]) == (2, 4 / 6)  # of 2 · 3 pairs; the last row is not ranked
    assert (found["precision"]["estimate"], found["recall"]["estimate"]) == (0.5, 0.5)
    nothing = about_flips(data, loss, np.ones(6, dtype=bool), np.zeros(6, dtype=bool))
    assert nothing["precision"]["estimate"] is nothing["auc"]["estimate"] is None
    with pytest.raises(DataError, match=r"'wrong' has no number in 1 of 6 rows \(first: '.*'\)"):
        known_flips(load_preferences([*rows[:5], {**rows[5], "wrong": None}]), "wrong")


@pytest.mark.parametrize(
    ("recipe", "data", "sentence"),
    [
        ({"filter": "oracle"}, {}, r"oracle needs to know which labels are wrong: set base\.data\.flip"),
        ({"filter": "oracle", "noise_share": 0.2}, {"flip": 0.2}, r"recipe\.noise_share has no effect"),
        ({}, {"soft_label_temperature": 1.0}, r"base\.data\.soft_label_temperature has no effect"),
        ({"known_flips": ""}, {}, r"recipe\.known_flips is empty"),
        ({"filter": "random"}, {"flip": 0.2}, r"random needs recipe\.noise_share"),
    ],
)
def test_controls_that_do_not_fit(
    make_rounds: MakeRounds, recipe: dict[str, Any], data: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        plan_of(make_rounds({"name": "ropo", **recipe}, {"data": data}))


def test_a_missing_column_of_known_flips_is_found_before_any_training(make_rounds: MakeRounds) -> None:
    config = make_rounds({"name": "ropo", "rounds": 1, "noise_share": 0.2, "known_flips": "wrnog"})
    with pytest.raises(DataError, match=r"stage 'data': .*wrnog"):
        run_plan(plan_of(config), config.output)


@pytest.mark.slow
@pytest.mark.parametrize("control", ["random", "oracle"])
def test_a_round_with_a_control(tmp_path: Path, make_rounds: MakeRounds, control: str) -> None:
    recipe = {"name": "ropo", "rounds": 1, "filter": control, "replace": "none"}
    recipe |= {"noise_share": 0.25} if control == "random" else {}
    config = make_rounds(recipe, {"data": {"flip": 0.3}, "train": {"max_steps": 2}})
    page = run_rounds(config, plan_of(config)).read_text()
    folder = tmp_path / "rounds"
    said, flips = facts(folder, "round-1/rank"), load_preferences(folder / "data/seed.parquet").column("known_flip")
    found = said["known_flips"]
    assert said["kept"] + said["dropped"] == said["rows"] == 32 and found["flips"] == flips.sum()
    lines = [json.loads(line) for line in (folder / "rows/rows.jsonl").read_text().splitlines()]
    assert sum(line["flipped"] for line in lines) == flips.sum()
    dropped = [line["flipped"] for line in lines if not line["kept_1"]]
    assert found["precision"]["estimate"] == pytest.approx(np.mean(dropped))
    assert (said["dropped"], all(dropped)) == ((8, False) if control == "random" else (flips.sum(), True))
    assert "largest margin that was dropped" not in page
    assert ("dropped, chosen at random" if control == "random" else "dropped, those known to be wrong") in page
    assert "AUC of the loss for them" in page and "dropped rows that are flips" in page
    trained = load_preferences(folder / "round-1/rank/kept.parquet")
    assert facts(folder, "round-1/train")["rows"] == len(trained) == said["kept"]


def test_no_noise_share_drops_nothing(make_rounds: MakeRounds) -> None:
    """f = 0 is the default: rows are ranked once, to look at, and nothing is trained again."""
    plan = plan_of(make_rounds({"name": "ropo"}))
    assert [stage.name for stage in plan][-3:] == ["round-0/measure", "round-1/rank", "rows"]
    assert "dropped" not in plan["round-1/rank"].outputs


@pytest.mark.slow
@pytest.mark.parametrize("cross_fit", [False, True])
def test_two_rounds(tmp_path: Path, make_rounds: MakeRounds, cross_fit: bool) -> None:
    recipe = {"name": "ropo", "rounds": 2, "noise_share": 0.25, "samples": 3, "cross_fit": cross_fit}
    config = make_rounds(recipe | ({"replace": "against_original"} if cross_fit else {}))
    plan = plan_of(config)
    assert all(
        stage.inputs.get("model.path") == Path(config.base["model"]["path"])
        for stage in plan
        if stage.name.endswith("/train")
    )  # each training begins at the start model
    report = run_rounds(config, plan)
    folder = tmp_path / "rounds"
    everyone = load_preferences(folder / "data/seed.parquet")
    for number in (1, 2):
        said = facts(folder, f"round-{number}/rank")
        assert (said["rows"], said["kept"], said["dropped"], said["not_ranked"]) == (32, 24, 8, 0)
        ranks = pq.read_table(folder / f"round-{number}/rank/ranks.parquet").to_pydict()
        assert ranks["id"] == everyone.ids
        kept = np.array(ranks["kept"])
        assert np.array(ranks["loss"])[kept].max() <= np.array(ranks["loss"])[~kept].min()
        rows = load_preferences(folder / f"round-{number}/replace/rows.parquet")
        replaced = facts(folder, f"round-{number}/replace")
        assert len(rows) == 24 + replaced["replaced"] and replaced["replaced"] <= 8
        assert sum(said["histogram"]["counts"]) == 32
    lines = [json.loads(line) for line in (folder / "rows/rows.jsonl").read_text().splitlines()]
    assert {line["id"] for line in lines} == set(everyone.ids)
    assert sum(not line["kept_2"] for line in lines) == 8
    losses = [line["loss_2"] for line in lines]
    assert losses == sorted(losses, reverse=True)
    if cross_fit:
        halves = [set(load_preferences(folder / f"halves/{half}.parquet").ids) for half in "ab"]
        assert halves[0] | halves[1] == set(everyone.ids) and not halves[0] & halves[1]
    page = report.read_text()
    assert "round-2: preferences by reward margin" in page and "Reward margins of the 32 preferences in round-2" in page
