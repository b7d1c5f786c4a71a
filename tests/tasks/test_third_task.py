"""A task that the package does not know, in a user's file: it trains, resumes and is evaluated without an edit."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from popmargin.cli.main import main
from popmargin.config import dump_yaml

TOY = '''
"""Items with features: one is preferred to K others; a linear scorer learns which."""

from dataclasses import dataclass

import numpy as np
import torch
from safetensors.torch import load_file

from popmargin.engine.scores import PairScores
from popmargin.files import digest
from popmargin.tasks import Task, task


@dataclass(frozen=True)
class Report:
    rows_in: int
    rows_kept: int
    dropped: tuple = ()

    def notes(self):
        return []

    def to_dict(self):
        return {"rows_in": self.rows_in, "rows_kept": self.rows_kept}


@dataclass(frozen=True)
class Items:
    """Features of the preferred item (N, D) and of the K others (N, K, D)."""

    ids: list
    index: list
    report: Report
    preferred: np.ndarray
    others: np.ndarray

    def sizes(self):
        return np.zeros(len(self)), np.zeros(len(self))

    def __len__(self):
        return len(self.ids)

    def costs(self):
        return np.ones(len(self), dtype=np.int64)

    work = costs

    def collate(self, preferences):
        return {"preferred": torch.from_numpy(self.preferred[preferences]),
                "others": torch.from_numpy(self.others[preferences])}


@dataclass(frozen=True)
class LinearScorer:
    """What an item scores is its reward; what K items score together is their log-mean-exp."""

    alone = False
    wide: bool

    def score(self, model, batch, generator, *, log=False):
        preferred, others = (model(batch[name]).squeeze(-1) for name in ("preferred", "others"))
        rejected = others.logsumexp(-1) - np.log(others.shape[-1])
        return PairScores(preferred.double(), rejected.double()) if self.wide else PairScores(preferred, rejected)


@task("linear")
class Linear(Task):
    """A linear scorer over feature vectors."""

    provides = frozenset({"log_ratio", "mean_logp"})  # an item is one token, and there is no reference
    noun = "a linear scorer"
    beta = 1.0
    columns = ("features", "features_of_others")

    def encode(self, preferences):
        preferred, others = (preferences.column(name).astype(np.float32) for name in self.columns)
        count = len(preferences)
        return Items(preferences.ids, list(range(count)), Report(count, count), preferred, others)

    def fingerprints(self, sides, scoring=None):
        return {f"features of {name}": digest(items.preferred.tobytes() + items.others.tobytes())
                for name, items in sides.items()}

    def make_model(self, settings):
        model = torch.nn.Linear(3, 1, bias=False)
        torch.nn.init.zeros_(model.weight)
        return model

    def scorer(self, model, kind, *, precision, wide=False, tokens=None, statistics=False):
        return LinearScorer(wide)

    def inputs(self, encoded, scorer, *, reference=None, scoring=None):
        return encoded

    def load(self, folder):
        model = torch.nn.Linear(3, 1, bias=False)
        model.load_state_dict(load_file(folder / "model.safetensors"))
        return model
'''
TASTE = np.array([1.0, -2.0, 0.5])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    (tmp_path / "toy.py").write_text(TOY.replace('@task("linear")', f'@task("{tmp_path.name}")'))  # registered once
    with (tmp_path / "items.jsonl").open("w") as file:
        for number in range(80):
            items = random.normal(size=(4, 3)).round(3)
            best = int(np.argmax(items @ TASTE))
            others = np.delete(items, best, axis=0)
            strength = float(items[best] @ TASTE - (others @ TASTE).mean())
            row = {
                "id": f"r{number}",
                "prompt": f"user {number}",
                "chosen": f"item {best}",
                "rejected": "3 others",
                "features": items[best].tolist(),
                "features_of_others": others.tolist(),
                "strength": round(strength, 3),
            }
            file.write(json.dumps(row) + "\n")
    return tmp_path


def features(folder: Path, ids: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    rows = {row["id"]: row for row in map(json.loads, (folder / "items.jsonl").read_text().splitlines())}
    return torch.tensor([rows[name]["features"] for name in ids]), torch.tensor(
        [rows[name]["features_of_others"] for name in ids]
    )


def train(folder: Path, objective: str, *flags: str, **settings: Any) -> Path:
    config = {
        "output": str(folder / objective),
        "task": f"{folder}/toy.py:Linear",
        "data": {"train": str(folder / "items.jsonl"), "test_size": 20},
        "objective": {"name": objective},
        "train": {"batch_size": 20, "learning_rate": 0.1, "epochs": 4, "weight_decay": 0.0, **settings},
    }
    (folder / "run.yaml").write_text(dump_yaml(config))
    assert main(["train", str(folder / "run.yaml"), *flags]) == 0
    return folder / objective


@pytest.mark.parametrize("objective", ["dpo", "pop", "amapo"])
def test_a_task_of_ones_own_trains_resumes_and_is_evaluated(folder: Path, objective: str) -> None:
    run = train(folder, objective, save_steps=4)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    weights = load_file(run / "model" / "model.safetensors")["weight"]
    assert lines[-1]["accuracy"] > 0.8 and torch.nn.functional.cosine_similarity(
        weights[0], torch.tensor(TASTE, dtype=torch.float32), dim=0
    ) > 0.9  # fmt: skip
    if objective == "dpo":
        assert lines[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    (run / "run.json").unlink()
    before = (run / "metrics.jsonl").read_bytes()
    assert main(["train", "--resume", "--output", str(run)]) == 0
    assert (run / "metrics.jsonl").read_bytes() == before
    assert torch.equal(load_file(run / "model" / "model.safetensors")["weight"], weights)
    assert main(["eval", str(run)]) == 0
    margins = pq.read_table(run / "evaluation" / "margins.parquet").to_pydict()
    preferred, others = features(folder, margins["id"] if "id" in margins else margins["ids"])
    rejected = (others @ weights[0]).logsumexp(-1) - math.log(3)
    np.testing.assert_allclose(margins["reward_margin"], (preferred @ weights[0] - rejected).numpy(), rtol=1e-5,
                               atol=1e-5)  # fmt: skip


def test_what_the_task_does_not_provide_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(AssertionError):
        train(folder, "cpo")
    assert "'cpo' takes log-probs of responses, which a linear scorer does not have" in capsys.readouterr().err


def test_changed_code_of_the_task_is_noticed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = train(folder, "dpo")
    toy = folder / "toy.py"
    toy.write_text(toy.read_text().replace("np.log(others.shape[-1])", "0.0"))
    assert main(["eval", str(run)]) == 2
    assert f"the code of '{folder.name}'" in capsys.readouterr().err


def test_features_are_columns_of_the_data(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They come through Parquet and a split of the data, count as used, and changed ones are noticed."""
    parts = [str(folder / name) for name in ("train.parquet", "test.parquet")]
    flags = ["--train", parts[0], "--test", parts[1], "--test-size", "20"]
    assert main(["data", "split", str(folder / "items.jsonl"), *flags]) == 0
    run = train(folder, "dpo", "--data.train", parts[0], "--data.test", parts[1], "--train.max_steps", "1")
    assert "not used by 'dpo'" not in "\n".join(
        line for line in capsys.readouterr().err.splitlines() if "features" in line
    )
    table = pq.read_table(parts[1])
    values = [[value + 1.0 for value in row] for row in table["features"].to_pylist()]
    pq.write_table(table.set_column(table.column_names.index("features"), "features", [values]), parts[1])
    assert main(["eval", str(run)]) == 2
    assert "Changed: features of held-out preferences" in capsys.readouterr().err


def test_features_that_are_missing_are_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [json.loads(line) for line in (folder / "items.jsonl").read_text().splitlines()]
    rows[3]["features_of_others"] = rows[3]["features_of_others"][:2]
    (folder / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(AssertionError):
        train(folder, "dpo")
    assert "column 'features_of_others': has 2 numbers, the first 3" in capsys.readouterr().err
