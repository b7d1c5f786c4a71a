"""`train` and `evaluate` from Python: a model in memory is as good as a path, and a run tells what it has trained."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from popmargin import TrainedRun, evaluate, load_preferences, margins, sample_edges, train
from popmargin.errors import ConfigError
from popmargin.training.run_directory import RunDirectory

SHORT = {
    "train": {"batch_size": 8, "learning_rate": 1e-3, "max_steps": 3, "warmup_ratio": 0.0, "logging_steps": 1},
    "data": {"test_size": 8, "max_length": 96},
}


@pytest.fixture
def settings(shared_reference: str) -> dict[str, Any]:
    return SHORT | {"reference": {"cache": shared_reference}}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_a_model_in_memory_trains_as_its_path_does(
    tmp_path: Path, settings: dict[str, Any], tiny_model: Any, tiny_tokenizer: Any, model_path: str, data_path: str
) -> None:
    before = {name: value.clone() for name, value in tiny_model.state_dict().items()}
    memory = train(data_path, model=tiny_model, tokenizer=tiny_tokenizer, objective="dpo", output=tmp_path / "memory",
                   config=settings)  # fmt: skip
    path = train(data_path, model=model_path, objective="dpo", output=tmp_path / "path", config=settings)
    for name, value in weights(path.directory.model).items():
        assert torch.equal(weights(memory.directory.model)[name], value), name
        assert torch.equal(memory.model.state_dict()[name].cpu(), value), name
        assert torch.equal(tiny_model.state_dict()[name], before[name]), name  # the given one is left as it is
    assert not torch.equal(weights(path.directory.model)["lm_head.weight"], before["lm_head.weight"])
    assert memory.metrics == path.metrics and [line["step"] for line in memory.metrics] == [1, 2, 3]


def test_a_run_tells_what_it_has_trained(
    tmp_path: Path, settings: dict[str, Any], model_path: str, tiny_tokenizer: Any, rows: list[dict[str, Any]]
) -> None:
    run = train(
        rows, model=model_path, objective={"name": "dpo", "beta": 0.2}, output=tmp_path / "run", config=settings
    )
    assert isinstance(run, TrainedRun) and isinstance(run.directory, RunDirectory)
    assert run.finished and run.started and run.path == tmp_path / "run" and not run.model.training
    assert run.facts()["train_preferences"] == 32 and run.config().objective["name"] == "dpo"
    table = run.margins()
    assert table.rows == 8
    held_out = [row for row in rows if row["id"] in table.ids]
    again = margins(run.model, model_path, held_out, tokenizer=tiny_tokenizer, max_length=96)
    order = [again.ids.index(name) for name in table.ids]
    np.testing.assert_allclose(table["margin"], again["margin"][order], atol=1e-4)
    np.testing.assert_allclose(table["reward_margin"], 0.2 * table["margin"])
    result = evaluate(run)
    assert result["intervals"]["accuracy"]["estimate"] == pytest.approx((table["margin"] > 0).mean())
    assert result["intervals"] == evaluate(run.path)["intervals"]
    assert run.evaluation.is_dir()


def test_an_adapter_run_has_its_model_too(
    tmp_path: Path, settings: dict[str, Any], model_path: str, data_path: str
) -> None:
    run = train(data_path, model=model_path, objective="dpo", output=tmp_path / "run",
                config=settings | {"model": {"lora_rank": 2}})  # fmt: skip
    assert "PeftModel" in type(run.model).__name__ and run.margins().rows == 8


def test_what_cannot_be_trained_is_said(
    tmp_path: Path, settings: dict[str, Any], tiny_model: Any, tiny_tokenizer: Any, model_path: str, data_path: str
) -> None:
    from peft import LoraConfig, get_peft_model

    def attempt(model: Any, tokenizer: Any = None) -> None:
        train(data_path, model=model, tokenizer=tokenizer, objective="dpo", output=tmp_path / "run", config=settings)

    with pytest.raises(ConfigError, match="comes without its tokenizer"):
        attempt(tiny_model)
    with pytest.raises(ConfigError, match=r"Omit tokenizer="):
        attempt(model_path, tiny_tokenizer)
    with pytest.raises(ConfigError, match="must be a transformers model"):
        attempt(torch.nn.Linear(2, 2), tiny_tokenizer)
    with pytest.raises(ConfigError, match="already has an adapter"):
        attempt(get_peft_model(tiny_model, LoraConfig(r=2, target_modules=["q_proj"])), tiny_tokenizer)


def test_rows_in_memory_are_read_as_the_configuration_says(
    tmp_path: Path, settings: dict[str, Any], model_path: str
) -> None:
    """As rows of a file are."""
    rated = [{"text": text, "rating": number} for number, text in enumerate(("a", "b", "c"))]
    rows = [{"prompt": f"{number}?", "responses": rated} for number in range(10)]
    data = {"test_size": 2, "max_length": 96}
    run = train(rows, model=model_path, objective="dpo", output=tmp_path / "run",
                config=settings | {"data": data | {"pairs": "all", "min_gap": 1.5}})  # fmt: skip
    assert len(run.margins().ids) == 2
    run = train(rows, model=model_path, objective="dpo", output=tmp_path / "all",
                config=settings | {"data": data | {"pairs": "all"}})  # fmt: skip
    assert len(run.margins().ids) == 6
    read = load_preferences(rows)
    with pytest.raises(ConfigError, match=r"data\.pairs, but the preferences are already loaded"):
        train(read, model=model_path, objective="dpo", output=tmp_path / "no", config={"data": {"pairs": "all"}})


def test_edges_may_be_a_file(tmp_path: Path, settings: dict[str, Any], model_path: str, data_path: str) -> None:
    data = load_preferences(data_path)
    edges = sample_edges(data.ids, data.strength, sampling="iterative", k=1)
    edges.save(tmp_path / "edges.parquet")
    short = settings | {"data": {"max_length": 96}, "train": settings["train"] | {"max_steps": 1}}
    test = [{"prompt": "other?", "chosen": "yes", "rejected": "no"}]
    losses = [
        train(data, test=test, edges=given, model=model_path, output=tmp_path / name, config=short).metrics
        for name, given in (("object", edges), ("file", str(tmp_path / "edges.parquet")))
    ]
    assert losses[0] == losses[1]
