"""What chat templates do to rows: said before training, and mended where asked for."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForSequenceClassification

from popmargin.config import DataConfig, from_dict
from popmargin.data import load_preferences, tokenize_preferences, tokenize_prompts
from popmargin.data.encode import Writing
from popmargin.data.template import continue_block, holds, opened_block, shared_start
from popmargin.errors import ConfigError, DataError
from popmargin.models.reward_models import RewardFormat, padding_apart
from popmargin.rewards.reward_model import ModelReward
from template_kinds import KINDS, build

CHAT = [name for name, kind in KINDS.items() if kind.template is not None]
WRITINGS = [Writing(), Writing("sampling"), Writing("sampling", "keep")]
THOUGHT = "<think>\nTwo and two are four.\n</think>\n\nFour."


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def bot(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def row(name: str, prompt: list[Any], chosen: str, rejected: str) -> dict[str, Any]:
    return {"id": name, "prompt": prompt, "chosen": [bot(chosen)], "rejected": [bot(rejected)]}


ROWS = [
    row("plain", [user("What is two and two?")], "It is four.", "Five."),
    row("thought", [user("What is two and two?")], THOUGHT, "Five."),
    row("turns", [user("Two and two?"), bot("Four."), user("And two more?")], "Six.", "\nSeven. "),
    row("same answer", [user("Two?")], "<think>a</think>So.", "<think>b</think>So."),
    row("only thought", [user("Well?")], "<think>\nHm.\n</think>", "No."),
]


def tokenized(name: str, writing: Writing = WRITINGS[0], rows: list[dict[str, Any]] = ROWS) -> Any:
    return tokenize_preferences(load_preferences(rows), build(name), writing=writing)


def texts(name: str, tokens: Any, place: int) -> tuple[str, str, str]:
    decode = build(name).decode
    return decode(tokens.prompt[place]), decode(tokens.chosen[place]), decode(tokens.rejected[place])


@pytest.mark.parametrize("writing", WRITINGS[1:])
@pytest.mark.parametrize("name", CHAT)
def test_the_prompt_of_training_is_that_of_sampling(name: str, writing: Writing) -> None:
    tokens = tokenized(name, writing)
    sampled = tokenize_prompts([ROWS[place]["prompt"] for place in tokens.index], build(name))
    for place in range(len(tokens)):
        assert tokens.prompt[place].tolist() == sampled[place].tolist()
    report = tokens.report
    assert (report.boundary_shifted, report.template_shifted) == (0, 0)
    assert not any("data.prompt: sampling trains" in note for note in report.notes())


@pytest.mark.parametrize("name", CHAT)
def test_the_two_ways_differ_only_where_the_report_says_so(name: str) -> None:
    asis, sampling = tokenized(name), tokenized(name, Writing("sampling"))
    decode = build(name).decode
    if asis.report.boundary_shifted:
        return
    for place in range(len(asis)):
        assert texts(name, asis, place) == texts(name, sampling, place)
        for side in ("chosen", "rejected"):
            written = [*getattr(asis, side)[place]]
            assert decode(written) == decode([*getattr(sampling, side)[place]])


@pytest.mark.parametrize("name", CHAT)
def test_kept_reasoning_is_in_the_completion(name: str) -> None:
    tokens = tokenized(name, Writing("sampling", "keep"))
    assert tokens.report.rows_kept == len(ROWS) and not tokens.report.dropped
    for place, one in enumerate(ROWS):
        prompt, *completions = texts(name, tokens, place)
        for completion, side in zip(completions, ("chosen", "rejected"), strict=True):
            text = one[side][0]["content"]
            assert holds(completion, continue_block(prompt, text)), (name, one["id"])
            assert completion.count("<think>") + prompt.endswith("<think>\n") <= 1
    assert (tokens.report.altered, tokens.report.emptied) == (0, 0)


def test_a_template_that_strips_reasoning_is_said_in_numbers_and_rows() -> None:
    report = tokenized("strip").report
    assert (report.template_shifted, report.altered, report.emptied) == (4, 2, 1)
    assert report.dropped == (("same answer", "identical_tokens"),)
    assert report.examples["template_shifted"] == ("plain", "thought", "turns", "only thought")
    assert report.examples["altered"] == ("thought", "only thought")
    assert report.to_dict()["examples"]["emptied"] == ["only thought"]
    left_out, prompts, altered, emptied = report.notes()
    assert left_out.startswith("1 row left out after tokenization (same answer): the chat template writes chosen and")
    assert prompts == (
        "4 rows of 4 (plain, thought, turns, …): the training prompt differs from the one sampling starts from, "
        "where the chat template ends it with '<think>\\n'. "
        "data.prompt: sampling trains on the sampling prompt."
    )
    assert altered.startswith("2 of 8 completions (in thought, only thought): the chat template drops part of the")
    assert altered.endswith("data.prompt: sampling with data.reasoning: keep trains on the full text.")
    assert emptied.startswith("1 of 8 completions (in only thought): the chat template drops all of the text")


def test_a_text_that_the_prompt_holds_too_is_missed_all_the_same() -> None:
    rows = [row("quoted", [user(f"Is this right? {THOUGHT}")], THOUGHT, "Five.")]
    assert tokenized("strip", rows=rows).report.examples["altered"] == ("quoted",)


def test_reasoning_that_begins_like_the_sampling_prompt_is_not_left_out() -> None:
    """A sampling prompt with an empty block, as for answers without reasoning: its tag is the completion's too."""
    tokenizer = copy.deepcopy(build("chatml"))
    block = "'<|im_start|>assistant\\n<think>\\n\\n</think>\\n\\n'"
    tokenizer.chat_template = tokenizer.chat_template.replace("'<|im_start|>assistant\\n'", block)
    rows = [row("thought", [user("Two and two?")], THOUGHT, THOUGHT.replace("Four", "Five"))]
    report = tokenize_preferences(load_preferences(rows), tokenizer).report
    assert (report.template_shifted, report.altered) == (1, 0)
    kept = tokenize_preferences(load_preferences(rows), tokenizer, writing=Writing("sampling", "keep"))
    assert tokenizer.decode(kept.chosen[0]) == f"{THOUGHT}<|im_end|>" and kept.report.kept == 0


def test_the_fix_is_offered_and_does_what_it_says() -> None:
    sampling = tokenized("strip", Writing("sampling"))
    prompt, chosen, rejected = texts("strip", sampling, 1)
    assert prompt == "<|begin|><|User|>What is two and two?<|Assistant|><think>\n"
    assert (chosen, rejected) == ("\n\nFour.<|end|>", "Five.<|end|>")
    assert sampling.report.unclosed == 8 and "opens a block (<think>) that they do not close" in str(
        sampling.report.notes()
    )
    kept = tokenized("strip", Writing("sampling", "keep"))
    prompt, chosen, rejected = texts("strip", kept, 1)
    assert chosen == "Two and two are four.\n</think>\n\nFour.<|end|>"
    assert (kept.report.kept, kept.report.unclosed) == (4, 6)
    assert "4 of 10 completions (in thought, same answer, only thought): trained on in full" in str(kept.report.notes())


@pytest.mark.parametrize("name", ["plain", "nothing"])
def test_a_template_without_an_end_is_said(name: str) -> None:
    (note,) = tokenized(name).report.notes()
    assert note.startswith("10 of 10 completions (in plain, thought, turns, …): the chat template does not close them ")
    assert "does not learn where to stop" in note


def test_a_system_prompt_of_the_template_is_said() -> None:
    (note,) = tokenized("default_system").report.notes()
    assert "before conversations without a system message: 'system You are a kind and careful assistant.'." in note
    own = row("own", [{"role": "system", "content": "Be brief."}, user("Why?")], "So.", "No.")
    assert tokenized("default_system", rows=[own]).report.notes() == []


@pytest.mark.parametrize("name", ["chatml", "base_eos", "think", "think_open", "gemma", "channels", "unmarked_end"])
def test_where_nothing_happens_nothing_is_said(name: str) -> None:
    assert tokenized(name, rows=ROWS[:3]).report.notes() == []


def test_a_template_with_other_rules_for_roles_names_the_row() -> None:
    rows = [ROWS[0], row("twice", [user("a"), user("b")], "c", "d")]
    with pytest.raises(DataError, match=r"row 1 \('twice'\) \(roles: user, user\): Roles must alternate"):
        tokenized("alternating", rows=rows)


def test_tokens_that_merge_over_the_boundary_stay_apart_on_the_sampling_prompt() -> None:
    tokenizer = build("no_template")
    rows = [{"id": "m", "prompt": "The quick br", "chosen": "own fox", "rejected": "ight fox"}]
    asis = tokenize_preferences(load_preferences(rows), tokenizer)
    assert asis.report.boundary_shifted == 1 and "1 row of 1 (m): tokens merge" in asis.report.notes()[0]
    apart = tokenize_preferences(load_preferences(rows), tokenizer, writing=Writing("sampling"))
    assert apart.report.notes() == []
    assert apart.prompt[0].tolist() == tokenize_prompts(["The quick br"], tokenizer)[0].tolist()
    assert tokenizer.decode(apart.chosen[0]) == "own fox<|endoftext|>"


def test_a_completion_tokenized_apart_gets_no_space_of_its_own() -> None:
    """SentencePiece puts a space before a text that stands alone; after a prompt there is none."""
    tokenizer = build("alternating")
    rows = [{"prompt": "The quick br", "chosen": "own fox", "rejected": "ight fox"}]
    apart = tokenize_preferences(load_preferences(rows), tokenizer, writing=Writing("sampling"))
    assert tokenizer.decode([*apart.prompt[0], *apart.chosen[0]]) == "<s> The quick brown fox</s>"


def test_what_a_length_limit_does_is_said() -> None:
    rows = [
        {"id": "long", "prompt": "x " * 40, "chosen": " a", "rejected": " b"},
        {"id": "alike", "prompt": "1", "chosen": "x " * 40 + "a", "rejected": "x " * 40 + "b"},
        {"id": "ends", "prompt": "1", "chosen": "a" + " x" * 40, "rejected": "b"},
    ]
    report = tokenize_preferences(load_preferences(rows), build("no_template"), max_length=20).report
    assert report.notes() == [
        "1 row left out after tokenization (alike): chosen and rejected are identical in their first 20 tokens.",
        "1 row (long) lost prompt tokens (data.max_length 20).",
        "1 of 4 completions (in ends) lost their end (data.max_length 20): the model does not learn where to stop.",
    ]
    rows.append({"id": "short", "prompt": "1", "chosen": "a", "rejected": "b"})
    dropped = tokenize_preferences(load_preferences(rows), build("no_template"), max_length=20, truncation="drop")
    assert dropped.report.notes() == [
        "3 rows left out after tokenization (long, alike, ends): they have more than 20 tokens (data.max_length)."
    ]


def test_completions_that_go_on_after_an_end_token_are_said() -> None:
    rows = [
        ROWS[0],
        row("twice", [user("a")], "Yes.<|im_end|>", "No."),
        {**row("turns", [user("a")], "", "No."), "chosen": [bot("Yes."), user("Sure?"), bot("I am.")]},
        row("other", [user("a")], "Yes.", "No.<|endoftext|>User: b"),
    ]
    report = tokenized("base_eos", rows=rows).report
    assert report.goes_on == 3
    (note,) = report.notes()
    assert note.startswith("3 of 8 completions (in twice, turns, other): they continue after an end token")


def test_keep_needs_the_sampling_prompt() -> None:
    with pytest.raises(ConfigError, match=r"needs data\.prompt: sampling"):
        Writing(reasoning="keep")
    with pytest.raises(ConfigError, match=r"needs data\.prompt: sampling"):
        from_dict(DataConfig, {"reasoning": "keep"})
    several = {**ROWS[1], "chosen": [bot(THOUGHT), user("Sure?"), bot("Yes.")]}
    with pytest.raises(DataError, match=r"row 0 \('thought'\) begins: it has 3 messages"):
        tokenized("strip", Writing("sampling", "keep"), [several])


@pytest.mark.parametrize("writing", WRITINGS)
def test_a_reward_model_of_ours_reads_what_it_was_trained_on(writing: Writing, tmp_path: Path) -> None:
    tokenizer = padding_apart(copy.deepcopy(build("strip")))
    tokenizer.save_pretrained(tmp_path)
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1,
                         num_attention_heads=2, num_labels=1, pad_token_id=tokenizer.pad_token_id)  # fmt: skip
    model = LlamaForSequenceClassification(config).eval()
    model.save_pretrained(tmp_path)
    RewardFormat(max_length=200, prompt=writing.prompt, reasoning=writing.reasoning).save(tmp_path)
    tokens = tokenized("strip", writing, ROWS[1:2])
    with torch.no_grad():
        expected = float(model(torch.tensor([[*tokens.prompt[0], *tokens.chosen[0]]])).logits)
    found = ModelReward(str(tmp_path)).score([ROWS[1]["prompt"]], [THOUGHT])
    assert found == pytest.approx([expected], abs=1e-5)


def test_small_functions_at_their_edges() -> None:
    assert [shared_start(*pair) for pair in (("ab", "abc"), ("abc", "ab"), ("ax", "bx"), ("", "a"))] == [
        "ab", "ab", "", ""
    ]  # fmt: skip
    assert opened_block("[/INST]") == opened_block("<|Assistant|>") == ("", "")
    assert opened_block("[THINK]") == ("[THINK]", "[/THINK]")
    assert continue_block("a<think>\n", "b") == "b"
    assert continue_block("a", "<think>b") == "<think>b"


def test_rows_that_the_template_makes_equal_have_the_remedy_for_that() -> None:
    same = row("same", [user("Two and two?")], "<think>Easy.</think>4", "<think>Hard.</think>4")
    with pytest.raises(DataError, match=r"identical_tokens.*data\.reasoning: keep"):
        tokenize_preferences(load_preferences([same]), build("strip"))
