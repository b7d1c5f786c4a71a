"""The holder of preferences: content, saving, selecting."""

import hashlib

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest

from popmargin.data import COLUMNS, Preferences, load_preferences, prompt_key
from popmargin.errors import ConfigError, DataError

TEXT_ROWS = [
    {"prompt": "p", "chosen": "ä\u2028b", "rejected": "c", "strength": 1.5, "annotator": "Ann"},
    {"prompt": "p", "chosen": "d", "rejected": "e", "soft_label": 0.75, "id": "mine"},
    {"prompt": "q", "chosen": "f", "rejected": "g", "chosen_rating": 3, "rejected_rating": 1.25},
]
CHAT_ROWS = [
    {
        "prompt": [{"content": "S", "role": "system"}, {"role": "user", "content": row["prompt"]}],
        "chosen": [{"role": "assistant", "content": row["chosen"]}],
        "rejected": [{"role": "assistant", "content": row["rejected"]}],
    }
    for row in TEXT_ROWS
]


@pytest.mark.parametrize("rows", [TEXT_ROWS, CHAT_ROWS])
@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".jsonl.gz"])
def test_saving_and_loading_keeps_everything(tmp_path, rows, suffix):
    prefs = load_preferences(rows)
    path = tmp_path / "deep" / f"prefs{suffix}"
    prefs.save(path)
    loaded = load_preferences(path)
    assert loaded.fingerprint() == prefs.fingerprint()
    assert loaded.dataset.to_list() == prefs.dataset.to_list()
    first = path.read_bytes()
    loaded.save(path)
    assert path.read_bytes() == first
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_fingerprint_is_of_the_content_alone(tmp_path):
    prefs = load_preferences(TEXT_ROWS)
    pq.write_table(prefs.dataset.data.table, tmp_path / "chunks.parquet", row_group_size=1)
    assert load_preferences(tmp_path / "chunks.parquet").fingerprint() == prefs.fingerprint()
    assert prefs.select([0, 1, 2]).fingerprint() == prefs.fingerprint()
    assert prefs.select([1, 0, 2]).fingerprint() != prefs.fingerprint()
    changed = [{**TEXT_ROWS[0], "strength": 1.6}, *TEXT_ROWS[1:]]
    assert load_preferences(changed).fingerprint() != prefs.fingerprint()


def test_columns_and_properties():
    prefs = load_preferences(TEXT_ROWS)
    assert tuple(prefs.dataset.column_names) == COLUMNS
    np.testing.assert_array_equal(prefs.strength, [1.5, np.nan, 1.75])
    np.testing.assert_array_equal(prefs.soft_label, [np.nan, 0.75, np.nan])
    assert prefs.ids[1] == "mine"
    assert prefs.prompt_keys == ["p", "p", "q"]
    assert (len(prefs), prefs.conversational) == (3, False)
    assert prefs[0]["annotator"] == "Ann"
    assert load_preferences(CHAT_ROWS).conversational


def test_nothing_that_is_handed_out_changes_the_preferences():
    prefs = load_preferences(TEXT_ROWS)
    before = prefs.fingerprint()
    prefs.ids.clear()
    prefs.prompt_keys.clear()
    prefs.strength[:] = 0
    prefs.soft_label[:] = 0
    assert (len(prefs.ids), len(prefs.prompt_keys), prefs.strength[0], prefs.soft_label[1]) == (3, 3, 1.5, 0.75)
    assert prefs.fingerprint() == before


def test_select():
    prefs = load_preferences(TEXT_ROWS)
    keys = prefs.prompt_keys
    part = prefs.select(np.array([2, 0]))
    assert part.ids == [prefs.ids[2], prefs.ids[0]]
    assert part.prompt_keys == [keys[2], keys[0]]
    np.testing.assert_array_equal(part.strength, [1.75, 1.5])
    assert part[0]["prompt"] == "q"
    assert part.select([1]).ids == prefs.ids[:1]
    assert len(prefs.select([])) == 0
    for bad, words in (([3], "Row 3 does not exist"), ([-1], "Row -1 does not exist"), ([0, 0], "duplicate ids")):
        with pytest.raises(DataError, match=words):
            prefs.select(bad)


def test_prompt_keys_tell_prompts_apart():
    one, two = [{"role": "user", "content": "a"}], [{"role": "system", "content": "a"}]
    assert prompt_key(one) == prompt_key([{"content": "a", "role": "user"}])
    assert len({prompt_key(one), prompt_key(two), prompt_key(one + one), prompt_key("a")}) == 4


def test_other_columns_types_and_suffixes_are_refused(tmp_path):
    prefs = load_preferences(TEXT_ROWS)
    with pytest.raises(DataError, match="need the columns id, prompt"):
        Preferences(prefs.dataset.remove_columns("id"), prefs.report)
    wrong = prefs.dataset.cast_column("strength", datasets.Value("string"))
    with pytest.raises(DataError, match="types that differ"):
        Preferences(wrong, prefs.report)
    with pytest.raises(ConfigError, match=r"prefs\.csv: this is written as \.parquet, \.jsonl or \.jsonl\.gz\."):
        prefs.save(tmp_path / "prefs.csv")
    assert list(tmp_path.iterdir()) == []


def test_rows_can_name_what_they_share_beyond_the_prompt(tmp_path):
    """Topics of prompts: a column of any name by --column cluster=topic; rows without one are their prompt's."""
    rows = [{"prompt": p, "chosen": "a", "rejected": "b", "topic": t} for p, t in (("p", "x"), ("q", "x"), ("r", None))]
    prefs = load_preferences(rows, columns={"cluster": "topic"})
    assert prefs.clusters == ["x", "x", "r"] and prefs.report.columns_used["cluster"] == "topic"
    assert load_preferences(rows).clusters == ["p", "q", "r"]
    for name in ("p.parquet", "p.jsonl"):
        prefs.save(tmp_path / name)
        assert load_preferences(tmp_path / name).clusters == prefs.clusters
    assert prefs.fingerprint() != load_preferences(rows).fingerprint()
    with pytest.raises(DataError, match=r"Row 1 .* is in cluster 'y', but another row with its prompt is in 'x'"):
        load_preferences(
            [{"prompt": "p", "chosen": c, "rejected": "b", "cluster": t} for c, t in (("a", "x"), ("c", "y"))]
        )


def test_the_fingerprint_of_data_without_clusters_is_the_one_it_had():
    """Of an earlier version, which had no such column: runs and references that name it stay valid."""
    prefs = load_preferences([{"prompt": "p", "chosen": "a", "rejected": "b", "id": "1"}])
    row = '["1", "p", "a", "b", null, null, null, null, null]\n'
    assert prefs.fingerprint() == hashlib.sha256(row.encode()).hexdigest()
