"""Splitting by prompt, and leaks."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from popmargin.data import check_leak, load_preferences, split_preferences
from popmargin.data.split import normalised_key
from popmargin.errors import ConfigError, DataError


def prefs_of(prompts, *, chat=False):
    def row(i, prompt):
        if chat:
            return {"prompt": [{"role": "user", "content": prompt}], "chosen": f"a{i}", "rejected": f"b{i}"}
        return {"prompt": prompt, "chosen": f"a{i}", "rejected": f"b{i}"}

    return load_preferences([row(i, prompt) for i, prompt in enumerate(prompts)])


VARIANTS = st.sampled_from(
    ["Hi", "hi", " HI\n", "Hi there", "hi  there", "hi\tthere", 'say "x"', 'SAY  "X"', "Straße", "other"]
)


@settings(max_examples=60)
@given(st.lists(VARIANTS, min_size=3, max_size=12), st.integers(0, 5), st.sampled_from([0.2, 0.5, 1]), st.booleans())
def test_split_never_leaks_and_loses_nothing(prompts, seed, test_size, chat):
    prefs = prefs_of([*prompts, "first extra", "second extra"], chat=chat)
    train, test = split_preferences(prefs, test_size=test_size, seed=seed)
    assert sorted(train.ids + test.ids) == sorted(prefs.ids)
    assert len(train) and len(test)
    keys = [{" ".join(p.casefold().split()) for p in part} for part in (texts(train), texts(test))]
    assert not keys[0] & keys[1]
    check_leak(train, test)


def texts(prefs):
    return [p if isinstance(p, str) else p[0]["content"] for p in prefs.dataset["prompt"]]


def test_split_does_not_depend_on_row_order_and_changes_with_the_seed():
    prompts = [f"prompt {i}" for i in range(40)]
    one = split_preferences(prefs_of(prompts), test_size=0.25, seed=3)[1]
    two = split_preferences(prefs_of(prompts[::-1]), test_size=0.25, seed=3)[1]
    assert set(texts(one)) == set(texts(two))
    assert len(one) == 10
    assert len(split_preferences(prefs_of(prompts), test_size=7, seed=3)[1]) == 7
    assert set(texts(one)) != set(texts(split_preferences(prefs_of(prompts), test_size=0.25, seed=4)[1]))


@pytest.mark.parametrize("size", [0, 1.0, 1.5, -0.1, 3, True])
def test_sizes_that_leave_a_side_empty(size):
    with pytest.raises(ConfigError, match="test_size="):
        split_preferences(prefs_of(["a", "b", "B"]), test_size=size, seed=0)


def test_one_prompt_cannot_be_split():
    with pytest.raises(ConfigError, match="1 of 1 distinct prompt,"):
        split_preferences(prefs_of(["a", "A "]), test_size=0.5, seed=0)


def test_a_leak_names_the_rows_of_both_sides():
    train, test = prefs_of(["x", "Some  prompt"]), prefs_of(["y", "some prompt", "z"])
    with pytest.raises(DataError, match="1 of 3 test rows") as caught:
        check_leak(train, test)
    assert f"test row 1 (id {test.ids[1]}) has the prompt of train row 1 (id {train.ids[1]})" in str(caught.value)


def test_conversation_keys_ignore_line_breaks_too():
    one, two = prefs_of(["a\nb"], chat=True), prefs_of(["A b"], chat=True)
    assert normalised_key(one.prompt_keys[0]) == normalised_key(two.prompt_keys[0])
    with pytest.raises(DataError):
        check_leak(one, two)
