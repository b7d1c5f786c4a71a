"""Tool calls and tools: kept through every way of reading and writing, and written as transformers writes them."""

import copy
import json
from typing import Any

import datasets
import pytest

from popmargin.data import load_preferences, split_preferences, tokenize_preferences, tokenize_prompts
from popmargin.errors import DataError
from popmargin.rewards.load import load_reward
from popmargin.rewards.rate import response_ratings
from template_kinds import CHATML, build

TOOLS = [{"type": "function", "function": {"name": "weather", "description": "The weather", "parameters": {}}}]
TEMPLATE = (
    r"{% if tools %}{{ '<|im_start|>system\n' + tools | tojson + '<|im_end|>\n' }}{% endif %}{% for m in messages %}"
    r"{{ '<|im_start|>' + m.role + '\n' + (m.name or '') + (m.content or '') }}{% for call in m.tool_calls or [] %}"
    r"{{ '<call>' + call.function.name + call.function.arguments | tojson + '</call>' }}{% endfor %}"
    r"{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def call(place: str, text: str | None = None) -> dict[str, Any]:
    function = {"name": "weather", "arguments": {"place": place}}
    return {"role": "assistant", "content": text, "tool_calls": [{"type": "function", "function": function}]}


ANSWERED = [user("In Rome?"), call("Rome"), {"role": "tool", "name": "weather", "content": "rain"}]
ROWS = [
    {"prompt": [user("Hello?")], "chosen": [{"role": "assistant", "content": "Hi."}], "rejected": [call("Oslo")]},
    {"prompt": [user("In Lima?")], "chosen": [call("Lima")], "rejected": [call("Rome")], "tools": TOOLS},
    {"prompt": [user("In Bonn?")], "chosen": [call("Bonn", "I look.")], "rejected": [call("Bonn")], "tools": []},
    {"prompt": ANSWERED, "chosen": [call("Rome", "Again.")], "rejected": [call("Rome")], "tools": TOOLS},
]


def tokenizer(template: str = TEMPLATE) -> Any:
    made = copy.deepcopy(build("chatml"))
    made.chat_template = template
    return made


def test_tool_calls_are_trained_on_as_transformers_writes_them():
    writer = tokenizer()
    prefs = load_preferences(ROWS)
    rows = tokenize_preferences(prefs, writer)
    for number, row in enumerate(ROWS):
        for side, ids in (("chosen", rows.chosen), ("rejected", rows.rejected)):
            turns = [*row["prompt"], *row[side]]
            whole = writer.apply_chat_template(turns, tools=row.get("tools"), tokenize=False).rstrip("\n")
            assert writer.decode([*rows.prompt[number], *ids[number]]) == whole
    sampled = tokenize_prompts([prefs[row]["prompt"] for row in range(len(prefs))], writer)
    assert [list(sampled[row]) for row in range(len(prefs))] == [list(rows.prompt[row]) for row in range(len(prefs))]


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".jsonl.gz"])
def test_tool_calls_are_saved_split_and_read_back(tmp_path, suffix):
    prefs = load_preferences(ROWS)
    prefs.save(tmp_path / f"saved{suffix}")
    back = load_preferences(tmp_path / f"saved{suffix}")
    assert back.fingerprint() == prefs.fingerprint()
    train, test = split_preferences(back, test_size=1, seed=0)
    assert sorted([*train.prompt_keys, *test.prompt_keys]) == sorted(prefs.prompt_keys)


def test_other_ways_to_write_the_same_are_read_the_same():
    row = ROWS[1]
    function = row["chosen"][0]["tool_calls"][0]["function"]
    text_arguments = {"name": "weather", "arguments": json.dumps(function["arguments"])}
    nulls = {"type": "function", "id": None, "function": {"name": "weather", "arguments": {"place": "Lima", "x": None}}}
    ways = [
        {"chosen": [{"role": "assistant", "tool_calls": json.dumps([{"type": "function", "function": function}])}]},
        {"chosen": [{"role": "assistant", "tool_calls": [{"type": "function", "function": text_arguments}]}]},
        {"chosen": [{"role": "assistant", "content": None, "function_call": text_arguments}]},
        {"chosen": [{"from": "function_call", "value": json.dumps(function)}]},
        {"chosen": [{"role": "assistant", "content": "", "tool_calls": [nulls]}]},
        {"tools": json.dumps(TOOLS)},
        {"prompt": {"messages": row["prompt"], "tools": TOOLS}, "tools": None},
    ]
    expected = load_preferences([row]).fingerprint()
    for way in ways:
        assert load_preferences([{**row, **way}]).fingerprint() == expected, way
    assert load_preferences(datasets.Dataset.from_list([row])).fingerprint() == expected


def test_data_without_tools_keep_their_fingerprint():
    row = {"prompt": [user("Hi?")], "chosen": [{"role": "assistant", "content": "Yes."}]}
    row["rejected"] = [{"role": "assistant", "content": "No."}]
    plain = load_preferences([row])
    assert plain.fingerprint() == load_preferences([{**row, "tools": []}]).fingerprint()
    assert plain.dataset.features.arrow_schema.field("prompt").type.value_type.num_fields == 2


def test_tools_make_prompts_different():
    first, second = load_preferences([ROWS[1], {**ROWS[1], "tools": []}]).prompt_keys
    assert first != second


@pytest.mark.parametrize(
    ("rows", "named"), [([ROWS[0]], "omits the tool calls of row 0"), ([ROWS[1]], "omits the offered tools")]
)
def test_a_template_without_tools_is_refused(rows, named):
    with pytest.raises(DataError, match=named):
        tokenize_preferences(load_preferences(rows), tokenizer(CHATML.replace("m.content", "(m.content or '')")))


def test_a_reward_reads_the_call():
    seen: list[str] = []

    def length(prompts: list[Any], completions: list[str]) -> list[float]:
        seen.extend(completions)
        return [float(len(text)) for text in completions]

    response_ratings(load_preferences([ROWS[2]]), load_reward(length))
    assert seen == ['I look.\nweather({"place": "Bonn"})', 'weather({"place": "Bonn"})']


def test_rated_responses_of_single_rows_keep_their_tools():
    asked = {"prompt": ROWS[1]["prompt"], "tools": TOOLS}
    rows = [{**asked, "completion": [call(place)], "label": place == "Lima"} for place in ("Lima", "Rome")]
    loaded = load_preferences(rows)
    assert json.loads(loaded[0]["prompt"][0]["tools"]) == TOOLS
    assert "Lima" in loaded[0]["chosen"][0]["tool_calls"]
