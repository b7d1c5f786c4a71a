"""Prompts from any data: distinct by content, in order, with what else is known of them."""

import json
from pathlib import Path
from typing import Any

import pytest

from popmargin.data.load import load_preferences
from popmargin.data.read_prompts import load_prompts
from popmargin.data.responses import Responses
from popmargin.errors import DataError

ASK = [{"role": "user", "content": "Hi"}]


@pytest.mark.parametrize(
    ("rows", "prompts"),
    [
        ([{"prompt": "a"}, {"prompt": "b"}, {"prompt": "a"}], ["a", "b"]),
        ([{"prompt": ASK}, {"prompt": json.dumps(ASK)}], [ASK]),
        ([{"instruction": "Sum", "input": "1 2"}, {"instruction": "Sum", "input": ""}], ["Sum\n\n1 2", "Sum"]),
        ([{"system": "Be kind.", "prompt": "Hi"}], [[{"role": "system", "content": "Be kind."}, *ASK]]),
        ([{"prompt": "a", "chosen": "x", "rejected": "y"}, {"prompt": "a", "chosen": "y", "rejected": "z"}], ["a"]),
        ([{"prompt": "a", "response_a": "x", "response_b": "y", "winner": "tie"}], ["a"]),
        ([{"question": "a", "generations": ["x", "y"]}, {"question": "b", "generations": []}], ["a", "b"]),
        ([{"instruction": "a", "output": text, "generator": "m"} for text in "xy"], ["a"]),
    ],
)  # fmt: skip
def test_prompts_of_all_layouts(rows: list[dict[str, Any]], prompts: list[Any]) -> None:
    found = load_prompts(rows)
    assert found.prompts == prompts and found.rows >= len(prompts)


def test_the_prompts_of_preferences_are_those_of_training() -> None:
    """Where the prompt is the common beginning of two conversations, too."""
    rows = [
        {"system": "Be kind.", "prompt": f"p{i}", "chosen": "a", "rejected": "b", "cluster": f"c{i}"} for i in (0, 1, 0)
    ]
    data = load_preferences(rows)
    found = load_prompts(rows)
    assert found.keys == list(dict.fromkeys(data.prompt_keys)) and found.columns == {"cluster": ["c0", "c1"]}
    talks = [{"chosen": [*ASK, {"role": "assistant", "content": text}], "rejected": ASK * 2} for text in "ab"]
    for row in talks:
        row["rejected"] = [*ASK, {"role": "assistant", "content": "bad"}]
    assert load_prompts(talks).prompts == [ASK]


def test_nothing_is_left_out_without_a_word() -> None:
    rows = [{"prompt": "a", "chosen": "x", "rejected": "x"}, *({"prompt": "b", "chosen": "x", "rejected": "y"},) * 2]
    found = load_prompts(rows)
    assert found.left_out == {"chosen and rejected are the same": 1, "the same content as an earlier row": 1}
    assert found.step().rows_in == 3
    few = load_prompts([{"prompt": "a"}, {"prompt": "b"}, {"prompt": "c"}]).first(1)
    assert few.prompts == ["a"] and few.left_out == {"beyond the first 1": 2}
    begun = load_prompts([{"prompt": [*ASK, {"role": "assistant", "content": "He"}]}])
    assert begun.notes == ("prompts that end with the assistant's turn, which responses continue: 1",)


def test_columns_go_along_and_make_way(tmp_path: Path) -> None:
    """Names that responses use for themselves are changed; what an earlier sampling said of the prompts is gone."""
    found = load_prompts([{"prompt": "a", "topic": 1, "source": "book"}, {"prompt": "a", "topic": 2, "source": "web"}])
    assert found.columns == {"topic": [1], "prompt_source": ["book"]}
    made = Responses(["a"], [["x"]], {"r": [1]}, source="m", columns={"topic": [1], "prompt_tokens": [3]})
    made.save(tmp_path / "made.parquet")
    assert load_prompts(tmp_path / "made.parquet").columns == {"topic": [1]}


def test_lines_of_text(tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("the sky\n\n  old birds \nthe sky\n", encoding="utf-8")
    found = load_prompts(file)
    assert found.prompts == ["the sky", "old birds"]
    assert found.left_out == {"an empty line": 1, "the same content as an earlier row": 1}
    assert found.as_chat().prompts[0] == [{"role": "user", "content": "the sky"}]


def test_mistakes_are_answered_in_words(tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("\n")
    (tmp_path / "bad.jsonl").write_text('{"prompt": "a"}\n{"prompt": ""}\n{"prompt": 3}\n')
    for source, words in (
        (tmp_path / "prompt.txt", r"No such file: .*prompt\.txt\. Did you mean .*prompts\.txt"),
        (tmp_path / "prompts.txt", "there are no prompts"),
        (tmp_path / "bad.jsonl", r"bad\.jsonl:2: the prompt is empty"),
        ([{"text": "a"}], r"there is no prompt\. Columns found: text\..*--column prompt=text"),
        ([{"prompt": "a"}, {"prompt": ASK}], "some prompts are text, others are conversations"),
        ([{"prompt": 3}], r"row 0 \(from 0\), column 'prompt': the prompt is an int"),
        ([], "there are no rows"),
    ):
        with pytest.raises(DataError, match=words):
            load_prompts(source)
    assert load_prompts([{"text": "a"}], columns={"prompt": "text"}).prompts == ["a"]
