"""The general recipe: where rounds start, what they refer to, who labels, within which budget."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.rounds.conftest import facts

from popmargin.data.load import load_preferences
from popmargin.data.responses import Responses
from popmargin.errors import ConfigError, WaitingError
from popmargin.label.store.address import open_store
from popmargin.pop.edges import PopEdges
from popmargin.recipes.base import plan_of
from popmargin.rounds.rounds_config import RoundsConfig
from popmargin.rounds.run_rounds import run_rounds
from popmargin.rounds.stages.choose_prompts import choose_prompts

MakeRounds = Callable[..., RoundsConfig]


@pytest.mark.parametrize("start", ["previous", "initial"])
@pytest.mark.parametrize("reference", ["start", "initial"])
def test_where_rounds_start_and_what_they_refer_to(make_rounds: MakeRounds, start: str, reference: str) -> None:
    config = make_rounds({"name": "iterate", "labels": "random", "start": start, "reference": reference})
    plan = plan_of(config)
    model = Path(config.base["model"]["path"])
    second = plan["round-2/train"]
    assert second.inputs["model.path"] == (plan["round-1/train"]["model"] if start == "previous" else model)
    # A reference that is the start of the training needs no naming.
    named = start == "previous" and reference == "initial"
    assert second.inputs.get("reference.model") == (model if named else None)
    assert plan["round-2/sample"].inputs["policy"] == plan["round-1/train"]["model"]
    assert plan["round-1/sample"].inputs["policy"] == model


def test_options_are_checked(make_rounds: MakeRounds) -> None:
    for recipe, sentence in (
        ({}, "implicit reward needs recipe.seed_prompts"),
        ({"labels": "people"}, "people needs recipe.store"),
        ({"labels": "random", "store": "labels.db"}, "nothing else uses it"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            plan_of(make_rounds({"name": "iterate", **recipe}))


def test_the_budget_goes_to_what_the_policy_cannot_tell_apart() -> None:
    table = Responses(list("abcd"), [["x", "y"]] * 4, {"label": [0.0, 3.0, 0.0, 1.0, float("nan"), 2.0, 1.0, 1.5]})
    assert choose_prompts(table, 2, "uncertain", seed=0).tolist() == [1, 3]
    assert choose_prompts(table, 3, "uncertain", seed=0).tolist() == [0, 1, 3]  # what has no gap comes last
    even = Responses(list("abcd"), [["x", "y"]] * 4, {"label": [0.0] * 8})  # of an untrained policy
    assert len({tuple(choose_prompts(even, 2, "uncertain", seed=seed).tolist()) for seed in range(40)}) == 6
    drawn = {tuple(choose_prompts(table, 2, "random", seed=seed).tolist()) for seed in range(40)}
    assert len(drawn) == 6 and all(list(rows) == sorted(rows) for rows in drawn)


@pytest.mark.slow
def test_a_reward_labels_within_a_budget(tmp_path: Path, make_rounds: MakeRounds, reward_path: str) -> None:
    """PoP edges are drawn from the gaps of the labels; the reference stays the start model."""
    config = make_rounds(
        {"name": "iterate", "rounds": 2, "labels": reward_path, "budget": 6, "samples": 3, "reference": "initial"}
    )
    run_rounds(config, plan_of(config))
    folder = tmp_path / "rounds"
    for number in (1, 2):
        chosen = Responses.load(folder / f"round-{number}/choose/responses.parquet")
        assert len(chosen) == 6 and chosen.score_names == ()
        pairs = load_preferences(folder / f"round-{number}/pair/preferences.parquet")
        edges = PopEdges.load(folder / f"round-{number}/train/run/edges.parquet")
        assert set(edges.table["stronger"].to_pylist()) <= set(pairs.ids)


@pytest.mark.slow
@pytest.mark.parametrize("ask", ["preference", "pop"])
def test_people_answer_between_two_calls(tmp_path: Path, make_rounds: MakeRounds, ask: str) -> None:
    """The first call puts the questions into a store and stops; when they are answered, the same call goes on."""
    store_path = str(tmp_path / "labels.db")
    recipe: dict[str, Any] = {"name": "iterate", "rounds": 1, "labels": "people", "store": store_path, "ask": ask}
    recipe |= {"objective": {"name": "pop"}, "seed_prompts": 8} if ask == "pop" else {"objective": {"name": "dpo"}}
    config = make_rounds(recipe)
    with pytest.raises(WaitingError, match=r"waiting for people \(0 of \d+ answered\).*annotate .* rounds-round-1,"):
        run_rounds(config, plan_of(config))
    assert "stages are finished" in (tmp_path / "rounds/report.html").read_text()
    with open_store(store_path) as store:
        project = store.project("rounds-round-1")
        annotator, _ = store.add_annotator(project.id, "ada")
        verdicts = iter(["tie", "unsure"] if ask == "preference" else [])
        while (task := store.next_assignment(annotator.id)) is not None:
            store.record(annotator.id, task.id, next(verdicts, "first"), request=f"r{task.id}")
    run_rounds(config, plan_of(config))
    answers = tmp_path / "rounds/round-1/people/answers"
    assert (answers / "edges.parquet").is_file() == (ask == "pop")
    assert (tmp_path / "rounds/round-1/train/run/run.json").is_file()
    if ask == "preference":  # what nobody decided is not trained on, and the answers are measured, not the order asked
        said = facts(tmp_path / "rounds", "round-1/people/answers")
        assert said["left_out"] == {"tied answers": 1, "unsure answers": 1}
        assert said["pairs"] == len(load_preferences(answers / "preferences.parquet")) > 0
        assert said["agreement"]["pairs"] <= said["pairs"]
