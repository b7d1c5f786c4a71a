"""One grammar names judges and rewards: every verb takes the same words, and refuses the same with the same hint."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

from popmargin.cli.main import main
from popmargin.config import RunConfig, from_dict, to_dict
from popmargin.errors import ConfigError
from popmargin.label.labellers.load import load_labeller
from popmargin.rewards.load import load_reward
from popmargin.rewards.naming import FORMS, Named, model_path, read_name

ROWS = [{"id": f"q{i}", "prompt": f"p{i}", "chosen": "a" * (2 * i + 2), "rejected": "a"} for i in range(4)]
CODE = "def length(prompts, completions):\n    return [float(len(text)) for text in completions]\n"
URL = "http://localhost:8000/v1"


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        ("package.module:name", Named("code", "package.module:name")),
        ("folder/file.py:name.score", Named("code", "folder/file.py:name.score")),
        ("model:runs/rm/model", Named("model", "runs/rm/model")),
        ("model:https://huggingface.co/owner/name", Named("model", "https://huggingface.co/owner/name")),
        (f"judge:{URL}", Named("server", URL)),
        (f"judge:owner/model:8b@{URL}", Named("server", URL, "owner/model:8b")),
        ("judge:http://me:key@host/v1", Named("server", "http://me:key@host/v1")),
        ("judge:m@http://me:key@host/v1", Named("server", "http://me:key@host/v1", "m")),
        ("ratings", Named("ratings")),
        # As earlier versions wrote them.
        (f"openai:m@{URL}", Named("server", URL, "m")),
        ("local:models/judge", Named("model", "models/judge", use="judge")),
        ("reward:file.py:name", Named("code", "file.py:name", use="reward")),
        ("reward:model:runs/rm/model", Named("model", "runs/rm/model", use="reward")),
        ("reward:score", Named("code", "reward:score")),  # a module of that name
    ],
)
def test_what_is_named(spec: str, named: Named) -> None:
    assert read_name(spec) == named
    assert model_path(spec) == (named.place if named.kind == "model" else None)


@pytest.fixture
def verbs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """The command line of every verb that takes a name, up to the name."""
    monkeypatch.chdir(tmp_path)
    Path("data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    Path("my_file.py").write_text(CODE)
    config = to_dict(
        from_dict(RunConfig, {"data": {"train": "data.jsonl"}, "output": "run", "model": {"path": "demo"}})
    )
    Path("run").mkdir()
    Path("run/config.yaml").write_text(yaml.safe_dump(config))
    assert main(["label", "import", "data.jsonl", "--db", "labels.db", "--k", "1"]) == 0
    data = ["--data.train", "data.jsonl", "--model.path", "demo", "--output", "new"]
    return {
        "data rate": ["data", "rate", "data.jsonl", "--out", "rated.jsonl", "--reward"],
        "pop sample": ["pop", "sample", "data.jsonl", "--out", "edges.parquet", "--reward"],
        "label judge": ["label", "judge", "--db", "labels.db", "--judge"],
        "train": ["train", *data, "--evaluation.reward"],
        "eval": ["eval", "run", "--evaluation.reward"],
        "compare": ["compare", "--data", "data.jsonl", "--model", "demo", "--output",
                    "new", "--reward"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("spec", "hint"),
    [
        ("gpt", f"'gpt' is not understood. Give {FORMS}."),
        ("my_file.py", f"Give {FORMS}. The file exists; add the name in it: 'my_file.py:NAME'"),
        ("ratigns", "Did you mean 'ratings'?"),
        ("modle:./nowhere", "there is no module 'modle' here. Did you mean 'model:./nowhere'?"),
        ("jugde:m@http://host/v1", "Did you mean 'judge:m@http://host/v1'?"),
        ("judge:gpt", "'judge:gpt' contains no URL. Give judge:MODEL@URL"),
        ("openai:m@localhost", "'openai:m@localhost' contains no URL. Give judge:MODEL@URL"),
        ("model:./nowhere", "./nowhere"),
        ("local:./nowhere", "./nowhere"),
    ],
)
def test_every_verb_refuses_the_same(
    verbs: dict[str, list[str]], spec: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    for verb, words in verbs.items():
        assert main([*words, spec]) == 2, verb
        if (spec, verb) not in {("local:./nowhere", "data rate"), ("local:./nowhere", "pop sample")}:
            assert hint in capsys.readouterr().err, verb
        else:
            assert "compares responses, but single responses are rated here" in capsys.readouterr().err, verb
        assert not Path("new").exists()


@pytest.mark.parametrize("spec", ["my_file:length", "my_file.py:length", "reward:my_file.py:length"])
def test_every_verb_takes_the_same(verbs: dict[str, list[str]], spec: str, capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ("data rate", "pop sample", "label judge"):
        assert main([*verbs[verb], spec]) == 0, verb
    assert "reward:my_file" in capsys.readouterr().out
    assert json.loads(Path("rated.jsonl").read_text().splitlines()[3])["chosen_rating"] == 8.0


def test_a_model_labels_as_what_it_is(tmp_path: Path, tiny_tokenizer: Any) -> None:
    """`model:PATH` is asked as a judge where it is a language model, and scores where it is a classifier."""
    sizes: dict[str, Any] = {"vocab_size": 400, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
                             "num_attention_heads": 2, "num_labels": 1}  # fmt: skip
    kinds: dict[str, Callable[..., Any]] = {"judge": LlamaForCausalLM, "reward": LlamaForSequenceClassification}
    for kind, make in kinds.items():
        make(LlamaConfig(**sizes)).save_pretrained(tmp_path / kind)
        tiny_tokenizer.save_pretrained(tmp_path / kind)
        assert load_labeller(f"model:{tmp_path / kind}").kind == kind
    assert (
        load_labeller(f"local:{tmp_path}/judge").name == load_labeller(f"model:{tmp_path}/judge").name == "judge:judge"
    )
    old, new = (load_labeller(f"{before}model:{tmp_path}/reward") for before in ("reward:", ""))
    assert old.name == new.name == f"reward:model:{tmp_path}/reward"
    with pytest.raises(ConfigError, match="is not a trained reward model"):
        load_labeller(f"reward:model:{tmp_path}/judge")


def test_the_model_on_a_server_is_named_once() -> None:
    for load in (load_reward, load_labeller):
        with pytest.raises(ConfigError, match=r"has no model name\. Give judge:MODEL@URL"):
            load(f"judge:{URL}")
        with pytest.raises(ConfigError, match="has the model 'a' in its name but 'b' in the option model"):
            load(f"judge:a@{URL}", model="b")
        assert load(f"judge:a@{URL}") and load(f"judge:{URL}", model="a") and load(f"judge:a@{URL}", model="a")
    names = {load_labeller(f"{spec}@{URL}").name for spec in ("judge:a", "openai:a")}
    assert names == {load_labeller(f"judge:{URL}", model="a").name} == {"judge:a"}


def test_ratings_rate_nothing() -> None:
    with pytest.raises(ConfigError, match="'ratings' are the data's own"):
        load_reward("ratings")
