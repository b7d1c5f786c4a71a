"""Texts and conversations."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from popmargin.data.messages import as_text, harmonise, parse_transcript, split_messages, split_texts
from popmargin.data.validate import RowError

TURN = st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": st.sampled_from("abc")})


@settings(max_examples=200)
@given(st.lists(TURN, min_size=1, max_size=5), st.lists(TURN, min_size=1, max_size=5))
def test_conversations_split_as_trl_splits_them(chosen, rejected):
    data_utils = pytest.importorskip("trl.data_utils")
    theirs = data_utils.extract_prompt({"chosen": chosen, "rejected": rejected})
    prompt, better, worse = split_messages(chosen, rejected)
    assert prompt + better == chosen
    assert prompt + worse == rejected
    if min(len(chosen), len(rejected)) > 1:
        assert (prompt, better, worse) == (theirs["prompt"], theirs["chosen"], theirs["rejected"])


@settings(max_examples=200)
@given(st.text("ab .\n我", max_size=8), st.text("ab .\n我", max_size=8), st.text("ab .\n我", max_size=8))
def test_text_split_loses_nothing_and_cuts_no_word(prefix, left, right):
    chosen, rejected = "x" + prefix + left, "x" + prefix + right
    try:
        prompt, better, worse = split_texts(chosen, rejected)
    except RowError as error:
        assert error.kind == "no_prompt"
        return
    assert (prompt + better, prompt + worse) == (chosen, rejected)
    for side in (better, worse):
        assert not (prompt[-1:] in tuple("abx") and side[:1] in tuple("abx"))


@pytest.mark.parametrize(
    ("chosen", "rejected", "prompt"),
    [
        ("The sky is blue.", "The sky is green.", "The sky is"),
        ("The sky is blue.", "The sky is black.", "The sky is"),
        ("Q: why?\nyes", "Q: why?\nno", "Q: why?\n"),
        ("Say yes", "Say yes, please", "Say"),
        ("天空是蓝", "天空是红", "天空是"),
    ],
)
def test_text_split_examples(chosen, rejected, prompt):
    assert split_texts(chosen, rejected)[0] == prompt


@pytest.mark.parametrize(
    "value",
    [
        [{"role": "user", "content": "Hi"}],
        {"role": "user", "content": "Hi"},
        {"role": ["user"], "content": ["Hi"]},
        [{"from": "human", "value": "Hi"}],
        [{"role": "user", "content": [{"type": "text", "text": "H"}, {"type": "text", "text": "i"}]}],
        [{"role": "user", "content": "Hi", "tool_calls": None}],
    ],
)
def test_every_shape_of_messages(value):
    assert as_text(value, "prompt", Counter()) == [{"role": "user", "content": "Hi"}]


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (None, "missing"),
        (3, "type"),
        (b"text", "type"),
        (["text"], "type"),
        ([{"role": "user", "content": None}], "type"),
        ([{"role": "", "content": "a"}], "type"),
        ([{"role": "user", "content": [{"type": "image"}]}], "type"),
        ({"text": "a"}, "type"),
    ],
)
def test_what_is_no_text(value, kind):
    with pytest.raises(RowError) as caught:
        as_text(value, "prompt", Counter())
    assert (caught.value.kind, caught.value.column) == (kind, "prompt")


def test_left_out_message_fields_are_noted():
    notes = Counter()
    as_text([{"role": "user", "content": "a", "name": "Ann"}], "prompt", notes)
    assert notes == {"message fields other than role and content are dropped (name)": 1}


def test_repeated_prompts_are_taken_off_and_missing_answers_refused():
    ask, yes, no = ({"role": r, "content": c} for r, c in (("user", "?"), ("assistant", "yes"), ("assistant", "no")))
    assert harmonise([ask], [ask, yes], [ask, no], Counter()) == ([ask], [yes], [no])
    assert harmonise("?", "yes", "no", Counter()) == ("?", "yes", "no")
    assert harmonise("?", [yes], [no], Counter()) == ([ask], [yes], [no])
    with pytest.raises(RowError, match="no assistant message"):
        harmonise([ask], [{"role": "user", "content": "and?"}], [no], Counter())
    with pytest.raises(RowError, match="does not contain all of it"):
        harmonise([ask, yes], [ask, no], [ask, yes], Counter())


def test_transcript_contents():
    turns = parse_transcript("\n\nHuman: a: b\n\nc\n\nAssistant:d ")
    assert turns == [{"role": "user", "content": "a: b\n\nc"}, {"role": "assistant", "content": "d "}]
