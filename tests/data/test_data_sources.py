"""Finding and reading rows: splits, several files, shards, globs; separators, encodings, keys."""

import json
import shutil

import datasets
import pytest

from popmargin.config import RunConfig, apply_overrides, from_dict
from popmargin.data import check_leak, load_preferences, split_preferences
from popmargin.data.locate import looks_local
from popmargin.errors import DataError
from popmargin.training.sides import load_split


def rows_of(*prompts):
    return [{"prompt": prompt, "chosen": f"{prompt} yes", "rejected": f"{prompt} no"} for prompt in prompts]


def write(path, *prompts):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows_of(*prompts)), encoding="utf-8")
    return path


def prompts_of(source, **options):
    return [row["prompt"] for row in load_preferences(source, **options).dataset]


@pytest.fixture
def folder(tmp_path):
    """Two shards of a training split, one of a test split, and what lies beside data."""
    write(tmp_path / "data" / "train-00000-of-00002.jsonl", "a", "b")
    write(tmp_path / "data" / "train-00001-of-00002.jsonl", "c", "d", "e")
    write(tmp_path / "data" / "test-00000-of-00001.jsonl", "f", "g")
    (tmp_path / "data" / "README.md").write_text("words")
    return tmp_path / "data"


def test_shards_globs_lists_and_splits_of_a_folder(folder):
    assert prompts_of(f"{folder}:train") == ["a", "b", "c", "d", "e"]
    assert prompts_of(folder, split="test") == ["f", "g"]
    assert prompts_of(f"{folder}/train-*.jsonl") == ["a", "b", "c", "d", "e"]
    both = [folder / "test-00000-of-00001.jsonl", folder / "train-00000-of-00002.jsonl"]
    assert prompts_of(both) == prompts_of(",".join(map(str, both))) == ["f", "g", "a", "b"]
    with pytest.raises(DataError, match=r"files of the splits test, train\. Remedy: name one: 'data:test'"):
        load_preferences(folder)
    with pytest.raises(DataError, match="no split 'dev'; it has test, train"):
        load_preferences(folder, split="dev")
    with pytest.raises(DataError, match="no file matches"):
        load_preferences(f"{folder}/x*.jsonl")
    (folder / "test-00000-of-00001.jsonl").unlink()
    assert len(load_preferences(folder)) == 5


def test_splits_by_folder_name_and_mixed_containers(tmp_path):
    write(tmp_path / "train" / "x.jsonl", "a")
    (tmp_path / "train" / "y.csv").write_text("prompt,chosen,rejected,margin\nb,yes,no,2\n")
    write(tmp_path / "held_out" / "x.jsonl", "c")
    assert prompts_of(tmp_path, split="train") == ["a", "b"]
    assert prompts_of(f"{tmp_path}:held_out") == ["c"]
    assert load_preferences(tmp_path, split="train").strength.tolist()[1] == 2


def test_problems_of_several_files_name_their_own(tmp_path):
    one = write(tmp_path / "one.jsonl", "a")
    two = tmp_path / "two.csv"
    two.write_text("prompt,chosen,rejected\nb,same,same\n")
    prefs = load_preferences([one, two], bad_rows="drop")
    (problem,) = prefs.report.problems
    assert problem.place == "two.csv:2" and prefs.report.source == "one.jsonl, two.csv"
    assert prefs.report.rows_in == 2 == len(prefs) + prefs.report.rows_reported


def run_config(*flags):
    return from_dict(RunConfig, apply_overrides({}, list(flags))).data


def test_training_takes_splits_globs_lists_and_saved_sets(tmp_path, folder):
    saved = tmp_path / "saved"
    data = {name: datasets.Dataset.from_list(rows_of(*name)) for name in ("train", "test")}
    data["test"] = datasets.Dataset.from_list(rows_of("other", "more"))
    datasets.DatasetDict(data).save_to_disk(saved)
    train, test = load_split(
        run_config("--data.train", str(saved), "--data.split", "train", "--data.test", f"{saved}:test")
    )
    assert (len(train), len(test)) == (5, 2)
    train, test = load_split(run_config("--data.train", f"{folder}:train", "--data.test", f"{folder}:test"))
    assert (len(train), len(test)) == (5, 2)
    parts = sorted(str(file) for file in folder.glob("train-*.jsonl"))
    config = run_config("--data.train", json.dumps(parts), "--data.test_size", "1")
    assert [len(side) for side in load_split(config)] == [4, 1]
    assert from_dict(RunConfig, {"data": {"train": parts}}).data.train == ",".join(parts)
    with pytest.raises(DataError, match=r"--data\.split"):
        load_split(run_config("--data.train", str(saved)))


@pytest.mark.parametrize(
    "name", ["x.jsonl", "x.jsnol", "x.xlsx", "./nomodel", "a/b/c", "~/data", "with space", "x.csv.gz"]
)
def test_what_looks_like_a_file_is_never_asked_of_the_hub(name, monkeypatch):
    def asked(*_, **__):
        raise AssertionError("the hub was asked")

    monkeypatch.setattr(datasets, "load_dataset", asked)
    assert looks_local(name)
    with pytest.raises(DataError, match="no such file or folder"):
        load_preferences(name)


def test_a_hub_id_may_name_its_split(monkeypatch):
    seen = []

    def load(name, split):
        seen.append((name, split))
        return datasets.Dataset.from_list(rows_of("a"))

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert prompts_of("owner/data-v1.0:test") == prompts_of("owner/data-v1.0", split="test") == ["a"]
    assert seen == [("owner/data-v1.0", "test")] * 2 and not looks_local("owner/data-v1.0")


TABLE = 'Prompt{0}Chosen{0}Rejected{0}Margin\n"p{0} ""q""\nline"{0}"good, 1"{0}bad{0}{1}\n'


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize(("mark", "number"), [(",", "1.5"), (";", "1,5"), (";", "1.5"), ("\t", "1.5"), ("|", "1.5")])
@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_separators_quotes_and_encodings(tmp_path, encoding, mark, number, suffix):
    path = tmp_path / f"x{suffix}"
    path.write_bytes(TABLE.format(mark, number).encode(encoding))
    prefs = load_preferences(path)
    row = prefs[0]
    assert (row["prompt"], row["chosen"], row["strength"]) == (f'p{mark} "q"\nline', "good, 1", 1.5)
    notes = " ".join(prefs.report.notes)
    assert ("separated by" in notes) == (mark != {".csv": ",", ".tsv": "\t"}[suffix])
    assert ("UTF-" in notes) == (encoding not in ("utf-8", "utf-8-sig"))


@pytest.mark.parametrize("name", ["x.jsonl", "x.json"])
def test_json_in_utf_16_and_keys_that_stand_twice(tmp_path, name):
    path = tmp_path / name
    line = '{"prompt": "Größe?", "chosen": "first", "rejected": "no", "chosen": "last"}'
    path.write_bytes((line if name == "x.jsonl" else f"[{line}]").encode("utf-16"))
    prefs = load_preferences(path)
    assert (prefs[0]["prompt"], prefs[0]["chosen"]) == ("Größe?", "last")
    assert "the key 'chosen' occurs twice in an object; the last value is used (rows: 1)" in prefs.report.notes
    assert "the file is UTF-16 and was read as such" in prefs.report.notes


def test_spaces_after_separators(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text('prompt, chosen, rejected\np, "yes, sir", no\n')
    prefs = load_preferences(path)
    assert (prefs[0]["chosen"], prefs[0]["rejected"]) == ("yes, sir", "no")


def user(text):
    return {"role": "user", "content": text}


def test_leaks_are_found_across_layouts(tmp_path):
    def prefs(prompt):
        return load_preferences([{"prompt": prompt, "chosen": "yes", "rejected": "no"}])

    system = {"role": "system", "content": "Be kind."}
    forms = [prefs("Which  sky?"), prefs([user("which sky?")]), prefs([system, user("Which\nsky?")])]
    for one in forms:
        for other in forms:
            with pytest.raises(DataError, match="1 of 1 test row"):
                check_leak(one, other)
    check_leak(forms[2], prefs([user("Which"), {"role": "assistant", "content": "What"}, user("sky?")]))


def test_prompts_that_differ_only_in_their_system_message_stay_together():
    rows = [
        {"system": f"System {i % 3}.", "prompt": f"Question {i // 3}?", "chosen": "yes", "rejected": "no"}
        for i in range(30)
    ]
    train, test = split_preferences(load_preferences(rows), test_size=0.3, seed=0)
    assert (len(train), len(test)) == (21, 9)
    check_leak(train, test)


def test_a_saved_set_named_like_its_split_is_still_a_folder(tmp_path):
    datasets.Dataset.from_list(rows_of("a")).save_to_disk(tmp_path / "x:test")
    assert prompts_of(str(tmp_path / "x:test")) == ["a"]
    shutil.rmtree(tmp_path / "x:test")
    with pytest.raises(DataError, match="no such file or folder"):
        load_preferences(str(tmp_path / "x:test"))
