"""Every request that is paid: no verb passes its limit, over restarts, and none can be added that has none."""

import ast
import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.cli.test_cli_flags import parsers
from tests.rewards.rating_server import Server

import popmargin
from popmargin.cli.main import VERBS, build_parser, main
from popmargin.config import EvaluationConfig, RunConfig, from_dict
from popmargin.data.questions import PreferenceText
from popmargin.errors import ConfigError, RunError
from popmargin.generate.batch_server import BatchServer
from popmargin.generate.server import Server as Client
from popmargin.generate.spending import Budget, most_tokens
from popmargin.judges.client import ChatClient
from popmargin.label.labellers.labelling import label_pairs
from popmargin.label.labellers.load import load_labeller
from popmargin.rewards.configured import check_rewards, configured_rewards
from popmargin.rewards.load import option_names
from popmargin.rounds.manifest import Manifest
from popmargin.training.inputs import differences

SOURCE = Path(popmargin.__file__).parent
HTTP = {
    "cli/annotate.py": "sees whether the package is there",
    "generate/server.py": "pays by a purse", "generate/batch_server.py": "pays by a purse",
    "label/web/webhook_sender.py": "sends events to the lead", "label/export/hub_push.py": "sends a data set",
}  # fmt: skip
"""What speaks to a server of others."""
CLIENTS = {"judges/client.py", "judges/backends.py", "rewards/rating_judge.py", "generate/from_server.py"}
"""What makes a client of a paid server."""
SCORES = re.compile(r"(?:reward\.score|\w\.score_some)\(")
CALL = 1.02
"""What a call costs at these prices: 100 tokens and 1."""
PRICES = ("--price-in", "10000", "--price-out", "20000")
LIMIT = 20.0


def answer(body: dict[str, Any], number: int) -> tuple[int, str]:
    content = body["messages"][0]["content"]
    if "Rating: N" in content:
        return 200, "Rating: 7"
    if content.startswith("Tell"):
        return 200, f"answer to {content}"
    return 200, "A" if 'name="A">\nyes' in content else "B"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    running = Server()
    running.answer = answer
    yield running
    running.close()


def lines(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def words(server: Server, tmp_path: Path) -> dict[str, list[str]]:
    """Of each verb that takes --max-cost; each makes 24 calls."""
    pairs = [{"prompt": f"Say {n}.", "chosen": f"yes {n}", "rejected": "no"} for n in range(12)]
    preferences = lines(tmp_path / "pairs.jsonl", pairs)
    several = [{"prompt": row["prompt"], "responses": [row["chosen"], row["rejected"]]} for row in pairs]
    responses = lines(tmp_path / "several.jsonl", several)
    prompts = lines(tmp_path / "prompts.jsonl", [{"prompt": f"Tell {n}."} for n in range(24)])
    judge, cache = f"judge:m@{server.url}", str(tmp_path / "cache.jsonl")
    options = f"{{cache: '{cache}', workers: 4}}"
    out = str(tmp_path / "out.parquet")
    of_server = ["--server", server.url, "--model", "m", "--max-new-tokens", "16"]
    benchmark = ["--model", judge, "--data", preferences, "--options", options]
    return {
        "label judge": ["--judge", judge, "--db", str(tmp_path / "labels.db"), "--cache", cache, "--workers", "4"],
        "label rank": [responses, "--judge", judge, "--out", out, "--cache", cache, "--workers", "4"],
        "data rate": [responses, "--reward", judge, "--reward-options", options, "--out", out],
        "pop sample": [preferences, "--reward", judge, "--reward-options", options, "--out", out],
        "eval": benchmark,
        "eval --as compare": [*benchmark, "--as", "compare"],
        "generate": [prompts, "--chat", *of_server, "--workers", "4", "--out", out],
    }


def flags_of(verb: str) -> set[str]:
    (found,) = [one for one in parsers(build_parser([verb.split()[0]])) if one.prog == f"popmargin {verb}"]
    return {flag for action in found._actions for flag in action.option_strings}


def test_no_module_speaks_to_a_server_without_a_purse() -> None:
    speaks: set[str] = set()
    makes: set[str] = set()
    for file in sorted(SOURCE.rglob("*.py")):
        name, text = file.relative_to(SOURCE).as_posix(), file.read_text(encoding="utf-8")
        tree = ast.parse(text)
        called = {node.func.id: node for node in ast.walk(tree)
                  if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}  # fmt: skip
        if re.search(r"^\s*(?:import httpx|from httpx import|import requests|import urllib\.request)", text, re.M):
            speaks.add(name)
        if "import_extra" in called and '"httpx"' in text:
            speaks.add(name)
        if called.keys() & {"Server", "BatchServer", "ChatClient"}:
            makes.add(name)
        if SCORES.search(text) and "class CallableReward" not in text:
            assert "say_cost(" in text, f"{name} asks for scores: say what they cost with say_cost before"
        assert "purse=None" not in text, f"{name}: who pays?"
    assert speaks == HTTP.keys()
    assert makes <= CLIENTS
    for takes in (Client.ask, BatchServer.ask, ChatClient.__init__):
        assert inspect.signature(takes).parameters["purse"].default is inspect.Parameter.empty


def test_every_verb_that_names_a_server_has_a_limit(words: dict[str, list[str]]) -> None:
    named = {"--api-key-env", "--reward-options", "--server"}
    limited: set[str] = set()
    for parser in parsers(build_parser(VERBS)):
        flags = {flag for action in parser._actions for flag in action.option_strings}
        if flags & named:
            assert {"--max-cost", "--price-in", "--price-out"} <= flags, f"{parser.prog} pays without a limit"
            limited.add(parser.prog.removeprefix("popmargin "))
    assert limited == {verb.partition(" --")[0] for verb in words}, "test each below"
    assert {"max_cost", "price_in", "price_out"} <= set(option_names("judge:m@http://localhost:1/v1"))


VERBS_THAT_PAY = ("label judge", "label rank", "data rate", "pop sample", "eval", "eval --as compare", "generate")


@pytest.mark.parametrize("verb", VERBS_THAT_PAY)
def test_a_limit_is_never_passed_and_a_higher_one_goes_on_there(
    verb: str, words: dict[str, list[str]], server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert set(words) == set(VERBS_THAT_PAY)
    if verb == "label judge":
        made = ["label", "import", str(tmp_path / "pairs.jsonl"), "--db", words[verb][3], "--kind", "preference"]
        assert main(made) == 0
    command = [*verb.partition(" --")[0].split(), *words[verb]]
    asked: list[int] = []

    def run(*more: str) -> tuple[int, str]:
        before = len(server.bodies)
        capsys.readouterr()
        code = main([*command, *PRICES, *more])
        asked.append(len(server.bodies) - before)
        said = capsys.readouterr()
        return code, said.out + said.err

    code, said = run("--max-cost", str(LIMIT))
    assert code == (0 if verb == "label judge" else 2), said
    assert "24 calls, 0 answers from the cache; cost about " in said and f"--max-cost {LIMIT:g}: {LIMIT:g} left" in said
    assert re.search(rf"Stopped at .*{LIMIT:g}.* is paid", said) and re.search(r"raise (?:the limit|it) to go on", said)
    assert 5 < asked[0] < 24 and asked[0] * CALL <= LIMIT
    run("--max-cost", str(LIMIT))
    assert (asked[0] + asked[1]) * CALL <= LIMIT, "counted over restarts"
    code, said = run("--max-cost", "1000")
    assert code == 0 and sum(asked) == 24, "no answer is paid twice"
    assert f"paid in earlier runs: {(asked[0] + asked[1]) * CALL:.4g}" in said


def test_a_configuration_has_a_limit_for_all_that_share_its_cache(server: Server, tmp_path: Path) -> None:
    """As a study, or a recipe, whose runs each load the judge anew."""
    options: dict[str, Any] = {"cache": str(tmp_path / "c.jsonl"), "workers": 2, "max_cost": 16.0}
    given = {"reward": f"judge:m@{server.url}", "reward_options": options}
    with pytest.raises(ConfigError, match="needs its prices: give the options price_in and price_out"):
        check_rewards(from_dict(EvaluationConfig, given), images=False)
    options |= {"price_in": 10000.0, "price_out": 20000.0}
    config = from_dict(EvaluationConfig, given)
    check_rewards(config, images=False)
    before = len(server.bodies)
    for run in range(3):
        rewards = configured_rewards(config, images=False)
        assert rewards is not None
        if run == 2:
            with pytest.raises(RunError, match=r"Stopped at the limit of 16 .*raise the limit to go on there"):
                rewards.scores([f"{run}?"] * 10, [f"text {n}" for n in range(10)], None)
        else:
            assert len(rewards.scores([f"{run}?"] * 4, [f"text {n}" for n in range(4)], None)["reward"]) == 4
    paid = (len(server.bodies) - before) * CALL
    assert 8 * CALL <= paid <= 16.0


def test_who_needs_every_answer_is_told_that_the_budget_ended(server: Server, tmp_path: Path) -> None:
    """What was not asked is no answer: not a tie, not unsure."""
    judge = load_labeller(
        f"judge:m@{server.url}", budget=Budget(0.001), scope="", cache=tmp_path / "c.jsonl", price_in=1e4, price_out=1e4
    )
    first, second = (PreferenceText(id=name, prompt="?", chosen="a", rejected="b") for name in "ab")
    with pytest.raises(RunError, match=r"Stopped at the limit of 0\.001"):
        label_pairs(judge, [(first, second)])


@pytest.mark.parametrize(
    ("verb", "more", "message"),
    [
        ("data rate", ("--reward", "popmargin.demo.sentiment:sentiment_reward"), "is for judges on a server"),
        ("label rank", ("--judge", "popmargin.demo.sentiment:sentiment_reward"), "is for judges on a server"),
        ("label rank", ("--judge", "people"), "--max-cost is for judges, not for --judge people"),
        ("eval", ("--model", "popmargin.demo.sentiment:sentiment_reward"), "is for judges on a server"),
    ],
)
def test_a_limit_of_what_costs_nothing_is_refused(
    verb: str, more: tuple[str, ...], message: str, words: dict[str, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    kept = [word for word in words[verb] if "jsonl" in word or word == "--data" or "parquet" in word or word == "--out"]
    kept = [word for word in kept if "cache" not in word]
    assert main([*verb.split(), *kept, *more, "--max-cost", "5"]) == 2
    assert message in capsys.readouterr().err


def test_the_most_of_a_completion_counts_its_prompt() -> None:
    assert most_tokens({"prompt": "abc", "max_tokens": 8, "n": 3}) == (105, 24)
    chat = {"messages": [], "tools": [{"name": "look"}], "max_tokens": 8}
    assert most_tokens(chat)[0] > most_tokens({"messages": [], "max_tokens": 8})[0] + len('{"name": "look"}')


def test_a_limit_may_be_raised_in_a_study_and_in_a_recipe_that_has_begun() -> None:
    """Else the remedy of the message would be refused as another configuration."""
    judged: dict[str, Any] = {"reward": "judge:m@http://localhost:1/v1"}
    options = [{"workers": 2, "max_cost": limit, "price_in": 1.0} for limit in (5.0, 9.0)]
    runs = [from_dict(RunConfig, {"evaluation": judged | {"reward_options": own}}) for own in options]
    assert differences(*runs) == {} and differences(runs[0], RunConfig()) != {}
    for place in ({"evaluation": {"reward_options": own}} for own in options), ({"options": own} for own in options):
        low, high = (Manifest("label", "f", settings, {}) for settings in place)
        assert list(low.changes(high)) == []
    other = Manifest("label", "f", {"options": options[0] | {"max_tokens": 9}}, {})
    assert list(other.changes(Manifest("label", "f", {"options": options[1]}, {})))
