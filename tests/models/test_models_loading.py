"""What comes from a folder: safetensors, and nothing that could run."""

import io
import json
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from popmargin.config import ModelConfig
from popmargin.errors import ConfigError, RunError
from popmargin.models.loading import load_tokenizer_files, stored_dtype
from popmargin.models.named_policy import NamedPolicy
from popmargin.models.policies import load_model, load_tokenizer
from popmargin.models.reward_models import load_reward_model
from popmargin.models.saved import write_model
from popmargin.models.sketch import sketch_pretrained
from popmargin.rewards.reward_model import ModelReward

CODE = """
from pathlib import Path
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification, PreTrainedTokenizerFast

Path(__file__).parent.joinpath("{mark}").touch()
Path("{mark}").touch()


class Config(LlamaConfig):
    model_type = "own"


class Model(LlamaForCausalLM):
    config_class = Config


class Classifier(LlamaForSequenceClassification):
    config_class = Config


class Tokenizer(PreTrainedTokenizerFast):
    pass
"""
LOADERS: dict[str, Callable[[str], Any]] = {
    "model": lambda path: load_model(path, torch.float32),
    "reward": lambda path: load_reward_model(path, torch.float32, 0),
    "tokenizer": load_tokenizer,
    "judge": ModelReward,
    "dtype": stored_dtype,
    "sketch": lambda path: sketch_pretrained(AutoModelForCausalLM, path, dtype=torch.float32),
}


def with_code(folder: Path, mark: Path, model_type: str) -> None:
    """A model folder that brings Python files for every class that transformers asks for."""
    (folder / "own.py").write_text(CODE.format(mark=mark))
    for file, names in {
        "config.json": {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model",
                        "AutoModelForSequenceClassification": "own.Classifier"},
        "tokenizer_config.json": {"AutoTokenizer": [None, "own.Tokenizer"]},
    }.items():  # fmt: skip
        settings = json.loads((folder / file).read_text())
        settings |= {"auto_map": names}
        settings |= {"model_type": model_type} if file == "config.json" else {"tokenizer_class": "Tokenizer"}
        (folder / file).write_text(json.dumps(settings))


@pytest.mark.parametrize("loader", list(LOADERS))
def test_code_of_a_model_folder_never_runs_and_nobody_is_asked(
    tmp_path: Path, tiny_model: Any, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch, loader: str
) -> None:
    """Though somebody pipes in a yes."""
    tiny_model.save_pretrained(tmp_path / "own")
    tiny_tokenizer.save_pretrained(tmp_path / "own")
    with_code(tmp_path / "own", tmp_path / "ran", "own")
    answers = io.StringIO("y\n" * 20)
    monkeypatch.setattr(sys, "stdin", answers)
    with pytest.raises((RunError, ConfigError), match=r"its own code \(auto_map\), which popmargin never runs\. Use"):
        LOADERS[loader](str(tmp_path / "own"))
    assert answers.tell() == 0 and not (tmp_path / "ran").exists()


@pytest.mark.parametrize("loader", ["model", "reward", "sketch"])
def test_a_kind_that_is_known_but_no_language_model_asks_nobody(
    tmp_path: Path, tiny_model: Any, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch, loader: str
) -> None:
    """Then only the folder has a class for it: `from_config` of an Auto class would ask as `from_pretrained` does."""
    tiny_model.save_pretrained(tmp_path / "own")
    tiny_tokenizer.save_pretrained(tmp_path / "own")
    with_code(tmp_path / "own", tmp_path / "ran", "clip")
    answers = io.StringIO("y\n" * 20)
    monkeypatch.setattr(sys, "stdin", answers)
    with pytest.raises(RunError, match=r"its own code \(auto_map\)"):
        LOADERS[loader](str(tmp_path / "own"))
    assert answers.tell() == 0 and not (tmp_path / "ran").exists()


def test_code_that_is_not_needed_is_passed_over(
    tmp_path: Path, tiny_model: Any, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kind of model that transformers knows is loaded as that, with its own `generate` left where it is."""
    folder = tmp_path / "own"
    tiny_model.save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    with_code(folder, tmp_path / "ran", "llama")
    (folder / "custom_generate").mkdir()
    (folder / "custom_generate" / "generate.py").write_text(CODE.format(mark=tmp_path / "ran"))
    answers = io.StringIO("y\n" * 20)
    monkeypatch.setattr(sys, "stdin", answers)
    model = load_model(str(folder), torch.float32)
    assert type(model).__module__.startswith("transformers.")
    assert model.generate(torch.tensor([[5, 6]]), max_new_tokens=1, do_sample=False).shape[1] == 3
    assert answers.tell() == 0 and not (tmp_path / "ran").exists()


@pytest.mark.parametrize("loader", ["model", "reward", "judge"])
@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "pytorch_model-00001-of-00002.bin", "model.pt", "consolidated.00.pth"]
)
def test_pickled_weights_are_refused(
    tmp_path: Path, tiny_model: Any, tiny_tokenizer: Any, loader: str, name: str
) -> None:
    tiny_model.save_pretrained(tmp_path)
    tiny_tokenizer.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(tiny_model.state_dict(), tmp_path / name)
    with pytest.raises((RunError, ConfigError), match=rf"are a pickle \({name}\).*can run code.*Convert them once"):
        LOADERS[loader](str(tmp_path))


def test_a_pickled_adapter_in_a_run_is_refused(tmp_path: Path, model_path: str) -> None:
    """Though it could be read without executing it: peft would fall back to it, or ask the hub."""
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "base_model_name_or_path": "x"}))
    torch.save({}, tmp_path / "adapter_model.bin")
    run = NamedPolicy("run", str(tmp_path), ModelConfig(path=model_path))
    with pytest.raises(RunError, match=r"are a pickle \(adapter_model\.bin\).*can run code"):
        run.load()


@pytest.mark.parametrize("path", ["./nomodel", "/gone/model", "~/gone-model", "a/b/c"])
def test_what_can_only_be_a_folder_is_not_asked_of_the_hub(path: str) -> None:
    for load in (load_tokenizer_files, LOADERS["model"]):
        with pytest.raises(RunError, match=rf"No such folder or model: {path}"):
            load(path)


def test_a_folder_that_is_named_like_a_hub_id_is_not_asked_of_the_hub(
    tmp_path: Path, tiny_model: Any, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor one that was mistyped beside it."""
    asked: list[Any] = []

    def ask(*place: Any, **_: Any) -> None:
        asked.append(place)
        raise OSError("no network")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(socket, "getaddrinfo", ask)
    monkeypatch.chdir(tmp_path)
    tiny_model.save_pretrained("owner/name")
    tiny_tokenizer.save_pretrained("owner/name")
    write_model(get_peft_model(load_model("owner/name", torch.float32), LoraConfig(r=1)), Path("owner/adapter"))
    for path in ("owner/name", "owner/adapter"):
        assert load_tokenizer_files(path).get_vocab() == tiny_tokenizer.get_vocab()
        assert LOADERS["model"](path) is not None
    for load in (load_tokenizer_files, LOADERS["model"]):
        with pytest.raises(RunError, match=r"No such folder or model: owner/nmae\. Did you mean owner/name\?"):
            load("owner/nmae")
    assert asked == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("named", [True, False])
def test_the_dtype_of_stored_weights(tmp_path: Path, make_model: Any, dtype: torch.dtype, named: bool) -> None:
    make_model(dtype=dtype).save_pretrained(tmp_path)
    if not named:
        settings = json.loads((tmp_path / "config.json").read_text())
        del settings["dtype"]
        (tmp_path / "config.json").write_text(json.dumps(settings))
    assert stored_dtype(str(tmp_path)) == dtype
