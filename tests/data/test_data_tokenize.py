"""Token ids: exact completion masks, templates, truncation."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from popmargin.data import (
    Ragged,
    load_preferences,
    prompt_text,
    tokenize_preferences,
    tokenize_prompts,
)
from popmargin.data.template import cut_after_end, join_turns
from popmargin.errors import ConfigError, DataError


def user(text):
    return {"role": "user", "content": text}


def bot(text):
    return {"role": "assistant", "content": text}


def one(prompt, chosen, rejected):
    return load_preferences([{"prompt": prompt, "chosen": chosen, "rejected": rejected}])


def sides(tokens, i=0):
    return tokens.prompt[i].tolist(), tokens.chosen[i].tolist(), tokens.rejected[i].tolist()


def test_chatml_prompt_is_the_generation_prompt_and_the_trailing_newline_is_left_out(chatml):
    tokens = tokenize_preferences(one([user("Why?")], [bot("Because.")], [bot("No.")]), chatml)
    prompt, chosen, rejected = sides(tokens)
    assert chatml.decode(prompt) == "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n"
    assert chatml.decode(chosen) == "Because.<|im_end|>"
    assert chatml.decode(rejected) == "No.<|im_end|>"
    report = tokens.report.to_dict()
    assert (report["rows_in"], report["rows_kept"], report["dropped"]) == (1, 1, [])
    assert report["ends"] == [chatml.eos_token_id]
    assert not any(report[name] for name in ("boundary_shifted", "unterminated", "altered", "examples"))
    assert tokens.report.notes() == []


CONTENT = st.text(st.sampled_from("aeT .,?\n5äß我"), min_size=1, max_size=12).filter(lambda text: text.strip())


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(CONTENT, min_size=1, max_size=3), CONTENT, CONTENT)
def test_chat_round_trip(chatml, contents, chosen, rejected):
    if chosen == rejected:
        return
    prompt = [user(text) if i % 2 == 0 else bot(text) for i, text in enumerate(contents)]
    if len(prompt) % 2 == 0:
        prompt = prompt[:-1]
    tokens = tokenize_preferences(one(prompt, [bot(chosen)], [bot(rejected)]), chatml)
    for text, completion in ((chosen, tokens.chosen[0]), (rejected, tokens.rejected[0])):
        whole = chatml.decode([*tokens.prompt[0], *completion])
        assert whole + "\n" == chatml.apply_chat_template([*prompt, bot(text)], tokenize=False)
    sampled = tokenize_prompts([prompt], chatml)[0]
    if not tokens.report.boundary_shifted:
        np.testing.assert_array_equal(sampled, tokens.prompt[0])


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(CONTENT, CONTENT, CONTENT)
def test_text_round_trip(plain, prompt, chosen, rejected):
    if chosen == rejected:
        return
    tokens = tokenize_preferences(one(prompt, chosen, rejected), plain)
    assert tokens.report.rows_kept == 1
    for text, completion in ((chosen, tokens.chosen[0]), (rejected, tokens.rejected[0])):
        whole = [*tokens.prompt[0], *completion]
        assert plain.decode(whole).removeprefix("<s>") == prompt + text + "</s>"
        assert whole.count(plain.eos_token_id) == 1
    if not tokens.report.boundary_shifted:
        np.testing.assert_array_equal(tokenize_prompts([prompt], plain)[0], tokens.prompt[0])


def test_a_merge_over_the_boundary_moves_it_for_both_sides(plain):
    assert len(plain("The").input_ids) == 1  # merged, so the boundary of "T" + "he" is inside a token
    tokens = tokenize_preferences(one("sky. T", "he", "5"), plain)
    prompt, chosen, rejected = sides(tokens)
    assert tokens.report.boundary_shifted == 1
    assert plain.decode(prompt) == "sky. " or plain.decode(prompt) == "sky."
    assert plain.decode(prompt + chosen) == "sky. The</s>"
    assert plain.decode(prompt + rejected) == "sky. T5</s>"


def test_a_prompt_that_merges_away_is_replaced_by_bos(plain):
    tokens = tokenize_preferences(one("T", "he", "5"), plain)
    assert tokens.prompt[0].tolist() == [plain.bos_token_id]
    assert plain.decode(tokens.chosen[0]) == "The</s>"


@pytest.mark.parametrize(("bos", "eos"), [(False, False), (True, False), (True, True), (False, True)])
def test_text_gets_bos_only_by_default_and_eos_once(make_tokenizer, bos, eos):
    tokenizer = make_tokenizer(chat_template=None, bos=bos, eos=eos)
    begin = [tokenizer.bos_token_id] * bos
    tokens = tokenize_preferences(one("Why?", " yes", " no</s>"), tokenizer)
    prompt, chosen, rejected = sides(tokens)
    assert prompt == begin + tokenizer("Why?", add_special_tokens=False).input_ids
    assert chosen == [*tokenizer(" yes", add_special_tokens=False).input_ids, tokenizer.eos_token_id]
    assert rejected == [*tokenizer(" no", add_special_tokens=False).input_ids, tokenizer.eos_token_id]
    assert tokenize_prompts(["Why?", "<s>Why?"], tokenizer)[0].tolist() == prompt
    assert tokenize_prompts(["<s>Why?"], tokenizer)[0].tolist().count(tokenizer.bos_token_id) == 1


BOS_TEMPLATE = (
    "<s>{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}{% if m['role'] == 'assistant' %}</s>{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}[assistant] {% endif %}"
)


def test_a_template_with_bos_gets_no_second_one(make_tokenizer):
    tokenizer = make_tokenizer(chat_template=BOS_TEMPLATE, bos=True)
    tokens = tokenize_preferences(one([user("Hi")], [bot("a")], [bot("b")]), tokenizer)
    prompt, chosen, _ = sides(tokens)
    assert prompt.count(tokenizer.bos_token_id) == 1
    assert (prompt + chosen).count(tokenizer.bos_token_id) == 1
    assert chosen[-1] == tokenizer.eos_token_id
    assert tokenize_prompts([[user("Hi")]], tokenizer)[0].tolist().count(tokenizer.bos_token_id) == 1


THINKING = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)


def test_a_template_that_is_not_prefix_safe_uses_the_true_common_prefix(make_tokenizer):
    tokenizer = make_tokenizer(chat_template=THINKING, eos_token="<|im_end|>")
    tokens = tokenize_preferences(one([user("Hi")], [bot("yes")], [bot("no")]), tokenizer)
    prompt, chosen, rejected = sides(tokens)
    assert tokens.report.boundary_shifted == 1
    assert tokenizer.decode(prompt) == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert (tokenizer.decode(chosen), tokenizer.decode(rejected)) == ("yes<|im_end|>", "no<|im_end|>")


def test_an_end_of_turn_token_that_is_not_eos_ends_the_completion(make_tokenizer):
    template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}<|eot|>\n\n{% endfor %}"
    tokenizer = make_tokenizer(chat_template=template)
    tokens = tokenize_preferences(one([user("Hi")], [bot("a <|eot|> b")], [bot("eot")]), tokenizer)
    prompt, chosen, rejected = sides(tokens)
    assert tokenizer.decode(prompt + chosen).endswith("assistant: a <|eot|> b<|eot|>")
    assert tokenizer.decode(prompt + rejected).endswith("assistant: eot<|eot|>")
    assert tokens.report.unterminated == 0


def test_a_template_without_an_end_is_counted_and_not_cut(make_tokenizer):
    template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    tokenizer = make_tokenizer(chat_template=template)
    tokens = tokenize_preferences(one([user("Hi")], [bot("a")], [bot("b")]), tokenizer)
    assert tokenizer.decode(tokens.chosen[0]).endswith("a\n")
    assert tokens.report.unterminated == 2


def test_a_prompt_that_ends_with_an_assistant_message_is_continued(chatml):
    prompt = [user("Count."), bot("1, 2,")]
    tokens = tokenize_preferences(one(prompt, [bot(" 3")], [bot(" 9")]), chatml)
    text = "<|im_start|>user\nCount.<|im_end|>\n<|im_start|>assistant\n1, 2,"
    assert chatml.decode(tokens.prompt[0]) == text
    assert chatml.decode(tokens.chosen[0]) == " 3<|im_end|>"
    assert chatml.decode(tokenize_prompts([prompt], chatml)[0]) == text
    assert join_turns([user("a")], [bot("b")]) == [user("a"), bot("b")]


def test_errors_of_template_and_tokenizer(make_tokenizer, chatml, plain):
    chat = one([{"role": "system", "content": "S"}, user("a")], [bot("b")], [bot("c")])
    with pytest.raises(DataError, match="no chat template"):
        tokenize_preferences(chat, plain)
    refusing = make_tokenizer(chat_template="{{ raise_exception('System role not supported') }}")
    with pytest.raises(DataError, match=r"row 0 \('[\w-]+'\) \(roles: system, user"):
        tokenize_preferences(chat, refusing)
    with pytest.raises(DataError, match="no EOS token"):
        tokenize_preferences(one("a", "b", "c"), make_tokenizer(chat_template=None, eos_token=None))
    with pytest.raises(ConfigError, match="Did you mean 'keep_prompt_end'"):
        tokenize_preferences(chat, chatml, truncation="keep_promt_end")
    with pytest.raises(ConfigError, match="max_length=1"):
        tokenize_preferences(chat, chatml, max_length=1)
    with pytest.raises(DataError, match="use one kind"):
        tokenize_prompts(["a", [user("a")]], chatml)


def test_an_empty_prompt_is_bos_else_eos_else_an_error(make_tokenizer):
    both = make_tokenizer(chat_template=None)
    assert tokenize_prompts([""], both)[0].tolist() == [both.bos_token_id]
    eos = make_tokenizer(chat_template=None, bos_token=None)
    assert tokenize_prompts([""], eos)[0].tolist() == [eos.eos_token_id]
    none = make_tokenizer(chat_template="{% for m in messages %}{% endfor %}", bos_token=None, eos_token=None)
    with pytest.raises(DataError, match="no BOS or EOS token"):
        tokenize_prompts([[user("")]], none)


LONG = "x " * 30


@pytest.mark.parametrize("truncation", ["keep_prompt_end", "keep_prompt_start"])
@pytest.mark.parametrize("bos", [False, True])
def test_truncation_cuts_the_prompt_first_and_is_counted(make_tokenizer, truncation, bos):
    tokenizer = make_tokenizer(chat_template=None, bos=bos)
    prefs = load_preferences(
        [
            {"prompt": f"1{LONG}2", "chosen": " a", "rejected": " b"},
            {"prompt": "1", "chosen": f" a {LONG}", "rejected": " b"},
            {"prompt": f"1{LONG}2", "chosen": f" a {LONG}", "rejected": f" b {LONG}"},
            {"prompt": "1", "chosen": f" {LONG} a", "rejected": f" {LONG} b"},
        ]
    )
    free = tokenize_preferences(prefs, tokenizer, max_length=None)
    tokens = tokenize_preferences(prefs, tokenizer, max_length=16, truncation=truncation)
    assert (tokens.report.prompts_cut, tokens.report.completions_cut) == (2, 3)
    assert tokens.report.dropped == ((prefs.ids[3], "identical_after_truncation"),)
    assert tokens.ids == prefs.ids[:3]
    assert tokens.index.tolist() == [0, 1, 2]
    for i in range(3):
        assert max(len(tokens.chosen[i]), len(tokens.rejected[i])) + len(tokens.prompt[i]) <= 16
        for cut, whole in ((tokens.chosen[i], free.chosen[i]), (tokens.rejected[i], free.rejected[i])):
            np.testing.assert_array_equal(cut, whole[: len(cut)])
        count, whole = len(tokens.prompt[i]), free.prompt[i]
        if truncation == "keep_prompt_start" or count == len(whole):
            np.testing.assert_array_equal(tokens.prompt[i], whole[:count])
        else:
            np.testing.assert_array_equal(tokens.prompt[i][bos:], whole[len(whole) - count + bos :])
            assert (tokens.prompt[i][0] == tokenizer.bos_token_id) == bos
    assert len(tokens.prompt[2]) == 8  # the prompt keeps half before the completions are cut
    np.testing.assert_array_equal(tokens.chosen[0], free.chosen[0])


def test_drop_and_error_name_the_long_rows(plain):
    rows = [{"prompt": "a", "chosen": "b", "rejected": "c"}, {"prompt": LONG, "chosen": "b", "rejected": "c"}]
    prefs = load_preferences(rows)
    tokens = tokenize_preferences(prefs, plain, max_length=8, truncation="drop")
    assert tokens.report.dropped == ((prefs.ids[1], "too_long"),)
    assert tokens.report.rows_in == tokens.report.rows_kept + len(tokens.report.dropped) == 2
    with pytest.raises(DataError, match=rf"1 of 2 rows .* max_length=8 tokens: {prefs.ids[1]} \(\d+ tokens\)"):
        tokenize_preferences(prefs, plain, max_length=8, truncation="error")
    with pytest.raises(DataError, match="No row is left of 2"):
        tokenize_preferences(prefs, plain, max_length=2, truncation="drop")


def test_same_tokens_from_different_texts_are_dropped(make_tokenizer):
    template = "{% for m in messages %}{{ m['content'] | trim }}</s>{% endfor %}"
    prefs = load_preferences(
        [
            {"prompt": [user("q")], "chosen": [bot("a ")], "rejected": [bot("a")]},
            {"prompt": [user("q")], "chosen": [bot("a")], "rejected": [bot("b")]},
        ]
    )
    tokens = tokenize_preferences(prefs, make_tokenizer(chat_template=template))
    assert tokens.report.dropped == ((prefs.ids[0], "identical_tokens"),)
    assert tokens.index.tolist() == [1]


def test_batches_do_not_matter(plain):
    rows = [{"prompt": f"p {i}", "chosen": "yes " * (i % 5 + 1), "rejected": "no"} for i in range(2_050)]
    prefs = load_preferences(rows)
    tokens = tokenize_preferences(prefs, plain)
    assert len(tokens) == len(tokens.prompt) == len(tokens.chosen) == 2_050
    for i in (0, 999, 1_000, 2_049):
        alone = tokenize_preferences(prefs.select([i]), plain)
        assert sides(alone) == sides(tokens, i)
        assert alone.ids == [tokens.ids[i]]


def test_sampling_prompts_keep_their_end(make_tokenizer):
    tokenizer = make_tokenizer(chat_template=None, bos=True)
    whole = tokenize_prompts([LONG], tokenizer)[0]
    cut = tokenize_prompts([LONG, "a"], tokenizer, max_length=5)
    assert cut[0].tolist() == [whole[0], *whole[-4:]]
    assert cut.lengths.tolist() == [5, 2]
    assert len(tokenize_prompts([], tokenizer)) == 0


@given(st.lists(st.lists(st.integers(0, 9), max_size=4), max_size=6), st.data())
def test_ragged(sequences, data):
    ragged = Ragged.of(sequences)
    assert (ragged.values.dtype, ragged.offsets.dtype) == (np.int32, np.int64)
    assert [ragged[i].tolist() for i in range(len(ragged))] == sequences
    assert ragged.lengths.tolist() == [len(sequence) for sequence in sequences]
    both = Ragged.concatenate([ragged, ragged])
    assert [both[i].tolist() for i in range(len(both))] == sequences * 2
    if sequences:
        picks = data.draw(st.lists(st.integers(0, len(sequences) - 1)))
        taken = ragged.take(picks)
        assert [taken[i].tolist() for i in range(len(taken))] == [sequences[i] for i in picks]
        assert ragged[-1].tolist() == sequences[-1]
    with pytest.raises(IndexError):
        ragged[len(sequences)]


def test_prompt_text_is_the_last_user_turns():
    assert prompt_text("plain") == "plain"
    assert prompt_text([user("a"), bot("b"), user("c"), user("d")]) == "c\nd"
    assert prompt_text([user("a"), bot("b")]) == "a"
    assert prompt_text([bot("b")]) == "b"
    assert prompt_text([]) == ""


def test_cut_after_end_never_cuts_content():
    ends = ("<e>", "<|x|>")
    assert cut_after_end("u: hi<e>\na: it <e> is<e>\n", "it <e> is", ends) == ("u: hi<e>\na: it <e> is<e>", True)
    assert cut_after_end("a: x<|x|>\n", "x", ends) == ("a: x<|x|>", True)  # the content also occurs inside the token
    assert cut_after_end("a: hi\n", "hi", ends) == ("a: hi\n", False)
    assert cut_after_end("a: HI<e>\n", "hi", ends) == ("a: HI<e>", True)
