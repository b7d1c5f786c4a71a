"""Labels that a judge on a server gives: what they cost is said first, kept, and never paid twice."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.rewards.rating_server import Server, by_length

from popmargin.config import RunConfig, from_dict
from popmargin.data.responses import Responses
from popmargin.errors import ConfigError, RunError
from popmargin.recipes.iterate import IterateOptions
from popmargin.rewards.configured import Rewards
from popmargin.rewards.load import load_reward
from popmargin.rounds import Plan, Work, run_plan
from popmargin.rounds.gathered import gather
from popmargin.rounds.page import render_rounds
from popmargin.rounds.runner import states_of
from popmargin.rounds.stages.label_responses import add_labels
from popmargin.rounds.stages.paid_labels import label_options, measuring_cost


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    running.answer = by_length
    yield running
    running.close()


TEXTS = [["a", "aaa"], ["aa", "aaaa"], ["aaaaa", "aaaaa"], ["a" * 6, "a" * 7], ["a" * 8, "a" * 9]]
"""Responses to five prompts; two of the third are the same question."""


def responses_stage(work: Work) -> None:
    Responses([f"{number}?" for number in range(5)], TEXTS).save(work.outputs["responses"])


def plan_of_labels(server: Server, folder: Path, **options: Any) -> Plan:
    plan = Plan()
    responses = plan.add("round-1/sample", responses_stage, outputs={"responses": "responses.parquet"})["responses"]
    options = {"cache": str(folder / "cache.jsonl"), "backoff": 0.01, "retries": 0, "workers": 1, **options}
    by = f"judge:grader@{server.url}"
    add_labels(plan, "round-1/label", RunConfig(), responses=responses, by=by, policy="", reference="", options=options)
    return plan


def test_the_cost_is_said_before_the_first_call_and_kept(tmp_path: Path, server: Server) -> None:
    said: list[str] = []
    asked_when_said: list[int] = []

    def say(line: str) -> None:
        said.append(line)
        asked_when_said.append(len(server.bodies))

    plan, folder = plan_of_labels(server, tmp_path, price=0.5), tmp_path / "out"
    manifest = run_plan(plan, folder, say=say)["round-1/label"]
    line = next(line for line in said if "calls" in line)
    assert line.endswith("10 responses of 5 prompts, 9 calls; 9 calls to pay cost 4.5")
    assert asked_when_said[said.index(line)] == 0 and len(server.bodies) == 9
    assert manifest.facts["cost"] == {"scored responses": 10, "calls": 9, "for calls at most": 4.5}
    page = render_rounds(gather("", "", plan, folder), planned=2)
    assert "9 calls; 4.5 for calls at most; 10 scored responses" in page
    labels = Responses.load(folder / "round-1/label/responses.parquet").score("label")
    assert labels.tolist() == [1, 3, 2, 4, 5, 5, 6, 7, 8, 9]


def test_a_stage_that_failed_pays_only_for_the_rest(tmp_path: Path, server: Server) -> None:
    """Other workers, prices and patience are no other labels: the stage goes on with them."""
    plan, folder = plan_of_labels(server, tmp_path), tmp_path / "out"
    server.answer = lambda body, number: by_length(body, number) if number <= 4 else (500, "busy")
    with pytest.raises(RunError, match="round-1/label"):
        run_plan(plan, folder, say=lambda _: None)
    server.answer = by_length
    server.bodies.clear()
    said: list[str] = []
    plan = plan_of_labels(server, tmp_path, workers=2, timeout=50, price=0.1)
    manifest = run_plan(plan, folder, say=said.append)["round-1/label"]
    assert len(server.bodies) == 5 and "9 calls, 4 of them answered in" in " ".join(said)
    assert "5 calls to pay cost 0.5" in " ".join(said) and manifest.facts["cost"]["calls"] == 9
    changed = plan_of_labels(server, tmp_path, max_tokens=9)
    assert states_of(changed, folder)["round-1/label"].changes == (
        "options was null, now {\"max_tokens\": 9}",
    )  # fmt: skip


def test_a_limit_leaves_prompts_out_and_counts_them(tmp_path: Path, server: Server) -> None:
    plan, folder = plan_of_labels(server, tmp_path, limit=6), tmp_path / "out"
    facts = run_plan(plan, folder, say=lambda _: None)["round-1/label"].facts
    assert len(server.bodies) == 5 and facts["left_out"] == {"prompts beyond the limit of calls": 2}
    assert len(Responses.load(folder / "round-1/label/responses.parquet")) == 3
    assert "prompts beyond the limit of calls: 2" in render_rounds(gather("", "", plan, folder), planned=2)
    with pytest.raises(ConfigError, match="limit 1 is less than the calls of the first prompt"):
        run_plan(plan_of_labels(server, tmp_path, limit=1), tmp_path / "less", say=lambda _: None)


def test_many_missing_ratings_stop_the_stage(tmp_path: Path, server: Server) -> None:
    server.answer = lambda body, number: (200, "no idea") if number <= 3 else by_length(body, number)
    plan, folder = plan_of_labels(server, tmp_path), tmp_path / "out"
    with pytest.raises(RunError, match=r"no rating for 3 of 10 responses \(allowed: 5%\)"):
        run_plan(plan, folder, say=lambda _: None)
    facts = run_plan(plan_of_labels(server, tmp_path, max_unparsed=0.3), folder, say=lambda _: None)
    assert facts["round-1/label"].facts["missing"] == 3 and len(server.bodies) == 9
    facts = run_plan(plan_of_labels(server, tmp_path, again=True), tmp_path / "new", say=lambda _: None)
    assert facts["round-1/label"].facts["missing"] == 0 and len(server.bodies) == 12


JUDGE = "judge:grader@http://localhost:1/v1"


@pytest.mark.parametrize(
    ("by", "options", "sentence"),
    [
        ("implicit", {"workers": 2}, "labels: implicit takes none"),
        ("random", {"price": 2}, "labels: random takes none"),
        (JUDGE, {"wokers": 2}, r"label_options: .* has no option 'wokers'.*'workers'"),
        (JUDGE, {"prise": 2}, r"has no option 'prise'.*'price'"),
        (JUDGE, {"price": -1}, r"label_options\.price is -1; give a number"),
        (JUDGE, {"price": float("nan")}, r"label_options\.price is nan; give a number"),
        (JUDGE, {"workers": "two"}, "Option workers of the judge is 'two'"),
        (JUDGE, {"template": "nowhere.txt"}, "template nowhere.txt cannot be read"),
        (JUDGE, {"limit": 1.5}, r"label_options\.limit is 1\.5; give a whole number"),
        (JUDGE, {"model": "other"}, "has the model 'grader' in its name but 'other'"),
        ("implicit:runs/x", {"limit": 3}, "no option 'limit'. That is an option of judges on a server"),
        ("popmargin.demo.sentiment:sentiment_reward", {"price": 1}, "is Python code and takes no options"),
    ],
)
def test_options_are_checked_before_any_work(by: str, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        label_options(by, options)


def test_people_take_no_options() -> None:
    with pytest.raises(ConfigError, match="labels: people takes none"):
        IterateOptions(labels="people", store="labels.db", label_options={"workers": 2})


def test_settings_that_decide_are_kept_apart() -> None:
    decides, how = label_options(JUDGE, {"max_tokens": 8, "limit": 4, "workers": 2, "price": 0.1, "cache": "x.jsonl"})
    assert (decides, how) == ({"max_tokens": 8, "limit": 4}, {"workers": 2, "price": 0.1, "cache": "x.jsonl"})
    assert json.loads(json.dumps(decides)) == decides


def test_measuring_by_a_judge_has_a_cost(server: Server, tmp_path: Path) -> None:
    judge = load_reward(f"judge:grader@{server.url}", cache=tmp_path / "cache.jsonl")
    code = load_reward(lambda prompts, completions: [0.0 for _ in prompts])
    assert measuring_cost(Rewards(judge), 12) == {"calls at most": 12}
    assert measuring_cost(Rewards(code, {"also": judge}), 12) == {"calls at most": 12}
    assert measuring_cost(Rewards(code), 12) == measuring_cost(None, 12) == {}


def test_a_missing_key_is_found_before_anything_is_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    judge = "judge:m@http://localhost:8000/v1"
    monkeypatch.setenv("JUDGE_KEY", "secret")
    assert label_options(judge, {"api_key_env": "JUDGE_KEY"}) == ({}, {"api_key_env": "JUDGE_KEY"})
    monkeypatch.delenv("JUDGE_KEY")
    with pytest.raises(ConfigError, match="environment variable JUDGE_KEY"):
        label_options(judge, {"api_key_env": "JUDGE_KEY"})


def test_a_password_is_not_stored_with_the_rounds() -> None:
    with pytest.raises(ConfigError, match=r"store holds a password, .* PGPASSWORD") as caught:
        from_dict(IterateOptions, {"labels": "people", "store": "postgresql://ann:secret@host/labels"})
    assert "secret" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"pop\.edges holds a password"):
        from_dict(RunConfig, {"pop": {"edges": "postgresql://ann:secret@host/labels#p"}})
    assert from_dict(RunConfig, {"pop": {"edges": "postgresql://ann@host/labels"}}).pop.edges is not None
