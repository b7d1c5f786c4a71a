"""TRL's own DPO trainer as oracle: the same rows, split into prompt and completion tokens by its code and ours.

Where ours is deliberately other, a test below says how and why:

- what a template writes after the end of a turn (a line break, mostly) is trained by TRL, and not by us: sampling has
  stopped by then;
- a prompt that ends with an assistant's message is continued by us; TRL closes it and begins another turn;
- rows whose chosen and rejected become the same tokens are left out and told by us; TRL trains on them;
- a prompt that merges away into the completions' first tokens is BOS, else EOS, to us; TRL's has no token, so that the
  first token of a completion is predicted from nothing, and not trained.
"""

from typing import Any

import pytest
from datasets import Dataset

from popmargin.data import load_preferences, tokenize_preferences
from template_kinds import KINDS, build, build_model

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
CHAT = [name for name, kind in KINDS.items() if kind.template is not None and name != "no_eos"]
TEXT = [name for name in KINDS if name != "no_eos"]
BREAK_AFTER_END = {
    "chatml", "chatml_padded_with_eos", "base_eos", "default_system", "think", "think_open", "gemma",
}  # fmt: skip


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def bot(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


CONVERSATIONS = [
    {"prompt": [user("What is two and two?")], "chosen": [bot("It is four.")], "rejected": [bot("Five.")]},
    {
        "prompt": [user("Two and two?"), bot("Four."), user("And two more? ")],
        "chosen": [bot("Six, I think. ")],
        "rejected": [bot("\nSeven.")],
    },
    {
        "prompt": [user("Why?")],
        "chosen": [bot("<think>\nLight is scattered.\n</think>\n\nBecause of the air.")],
        "rejected": [bot("<think>\nWho knows.\n</think>\n\nBecause.")],
    },
    {
        "prompt": [user("Count.")],
        "chosen": [bot("1"), user("And then?"), bot("2")],
        "rejected": [bot("1"), user("And then?"), bot("3")],
    },
]
TEXTS = [
    {"prompt": "The sky is", "chosen": " blue.", "rejected": " 5."},
    {"prompt": "The quick br", "chosen": "own fox", "rejected": "ight fox"},
    {"prompt": "Why?\n", "chosen": "\nLight.", "rejected": "Because."},
    {"prompt": "Is it?", "chosen": " yes", "rejected": " no\n"},
]


@pytest.fixture
def trls(tmp_path: Any) -> Any:
    """Rows -> (prompt, chosen, rejected) tokens of each, as TRL trains on them."""
    from trl import DPOConfig, DPOTrainer

    def run(name: str, rows: list[dict[str, Any]]) -> list[tuple[list[int], list[int], list[int]]]:
        tokenizer = build(name)
        arguments = DPOConfig(output_dir=str(tmp_path), report_to="none", use_cpu=True, max_length=None)
        trainer = DPOTrainer(
            model=build_model(tokenizer),
            ref_model=build_model(tokenizer),
            args=arguments,
            processing_class=tokenizer,
            train_dataset=Dataset.from_list(rows),
        )
        columns = ("prompt_ids", "chosen_ids", "rejected_ids")
        return [tuple(row[column] for column in columns) for row in trainer.train_dataset]

    return run


def ours(name: str, rows: list[dict[str, Any]]) -> list[tuple[list[int], list[int], list[int]]]:
    tokens = tokenize_preferences(load_preferences(rows), build(name), max_length=None)
    sides = (tokens.prompt, tokens.chosen, tokens.rejected)
    return [tuple(side[place].tolist() for side in sides) for place in range(len(tokens))]


@pytest.mark.parametrize("name", TEXT)
def test_texts_have_trls_tokens(name: str, trls: Any) -> None:
    assert ours(name, TEXTS) == trls(name, TEXTS)


@pytest.mark.parametrize("name", CHAT)
def test_conversations_have_trls_tokens_up_to_the_end_of_the_turn(name: str, trls: Any) -> None:
    decode = build(name).decode
    for mine, theirs in zip(ours(name, CONVERSATIONS), trls(name, CONVERSATIONS), strict=True):
        assert mine[0] == theirs[0]
        for completion, longer in zip(mine[1:], theirs[1:], strict=True):
            assert completion == longer[: len(completion)]
            assert decode(longer[len(completion) :]) == ("\n" if name in BREAK_AFTER_END else "")


def test_a_last_assistant_message_is_continued_by_us_alone(trls: Any) -> None:
    rows = [{"prompt": [user("Count."), bot("1, 2,")], "chosen": [bot(" 3")], "rejected": [bot(" 9")]}]
    decode = build("chatml").decode
    ((prompt, chosen, _),) = ours("chatml", rows)
    assert decode(prompt).endswith("<|im_start|>assistant\n1, 2,") and decode(chosen) == " 3<|im_end|>"
    ((prompt, _, _),) = trls("chatml", rows)
    assert decode(prompt).endswith("1, 2,<|im_end|>\n<|im_start|>assistant\n")


def test_rows_that_a_template_makes_equal_are_trained_on_by_trl_alone(trls: Any) -> None:
    rows = [
        {"prompt": [user("Two?")], "chosen": [bot("<think>a</think>So.")], "rejected": [bot("<think>b</think>So.")]},
        CONVERSATIONS[0],
    ]
    assert len(ours("strip", rows)) == 1
    (_, chosen, rejected), _ = trls("strip", rows)
    assert chosen == rejected


def test_a_prompt_that_merges_away_has_a_token_with_us_alone(trls: Any) -> None:
    rows = [{"prompt": "T", "chosen": "he", "rejected": "5"}]
    ((prompt, chosen, _),) = ours("no_template", rows)
    assert prompt == [build("no_template").eos_token_id]
    ((prompt, theirs, _),) = trls("no_template", rows)
    assert prompt == [] and theirs == chosen
