"""The task `items`: it trains with any objective, resumes, is evaluated and recommends, through the command line."""

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
from popmargin.errors import DataError, RunError
from popmargin.recommend.cooccurrence import cooccurrence_vectors
from popmargin.recommend.denoising.item_denoiser import DenoisingRecommender
from popmargin.recommend.denoising.saved_denoiser import load_item_denoiser, read_start, write_start
from popmargin.recommend.graded_preferences import edges_within_users, graded_rows
from popmargin.recommend.item_preferences import case_rows, read_pair, training_rows
from popmargin.recommend.item_sequences import Sequences
from popmargin.recommend.item_vectors import whiten
from popmargin.recommend.ranks import rank_cases
from popmargin.recommend.read_sequences import load_sequences
from popmargin.recommend.splitting import Parts, leave_one_out, split_by_user

ITEMS = 12


@pytest.fixture(scope="module")
def parts() -> Parts:
    """A ring of twelve items: every user goes round it from somewhere."""
    sequences = [[f"i{(start + step) % ITEMS}" for step in range(4)] for start in range(5 * ITEMS)]
    return split_by_user(Sequences.of(sequences), seed=0)


@pytest.fixture
def folder(parts: Parts, tmp_path: Path) -> Path:
    """A start model with vectors from co-occurrence, and the preferences of both sides."""
    write_start(tmp_path / "start", parts.catalogue, whiten(cooccurrence_vectors(parts.train, ITEMS, 8))[:, :8])
    for name, rows in (("train", training_rows(parts)), ("valid", case_rows(parts, parts.valid))):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def train(folder: Path, objective: dict[str, Any] | None = None, *flags: str, name: str = "run", **task: Any) -> Path:
    config = {
        "output": str(folder / name),
        "task": {"name": "items", "schedule": "cosine", "evaluation_draws": 2, "heads": 1, **task},
        "model": {"path": str(folder / "start")},
        "data": {"train": str(folder / "train.jsonl"), "test": str(folder / "valid.jsonl")},
        "objective": objective or {"name": "preferdiff"},
        "train": {"batch_size": 16, "learning_rate": 0.01, "max_steps": 4, "weight_decay": 0.0},
    }
    (folder / "run.yaml").write_text(dump_yaml(config))
    assert main(["train", str(folder / "run.yaml"), *flags]) == 0
    return folder / name


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "model.safetensors")


@pytest.mark.slow
def test_it_trains_resumes_and_is_evaluated(folder: Path) -> None:
    run = train(folder, None, "--train.save_steps", "2")
    before, metrics = weights(run), (run / "metrics.jsonl").read_bytes()
    first = json.loads(metrics.splitlines()[0])
    assert first["loss"] > 0 and 0 < first["chosen_error"] < 4 and first["without_negative"] == 0
    assert not torch.equal(before["null"], torch.zeros(8)) and torch.equal(
        before["table"][1:], torch.from_numpy(read_start(folder / "start")[1])
    )  # fmt: skip
    (run / "run.json").unlink()
    for checkpoint in run.glob("checkpoints/*4"):
        checkpoint.rename(folder / "gone")
    assert main(["train", "--resume", "--output", str(run)]) == 0
    assert (run / "metrics.jsonl").read_bytes() == metrics
    after = weights(run)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert main(["eval", str(run)]) == 0
    margins = pq.read_table(run / "evaluation" / "margins.parquet").to_pydict()
    assert len(margins["reward_margin"]) == 6 and all(map(math.isfinite, margins["reward_margin"]))


@pytest.mark.slow
@pytest.mark.parametrize(
    "objective",
    [
        {"name": "dpo"},
        {"name": "dpo", "beta": 5.0, "margin": "fixed"},
        {"name": "preferdiff", "batch_mean": True},
        {"name": "preferdiff", "regression": 1.0},
        {"name": "simpo"},
    ],
    ids=["dpo", "margin", "batch-mean", "regression", "simpo"],
)
def test_losses_compose(folder: Path, objective: dict[str, Any]) -> None:
    flags = ["--margin.source", "fixed", "--margin.value", "0.5"] if objective.pop("margin", None) else []
    run = train(folder, objective, *flags, negatives="random", negative_count=2)
    assert math.isfinite(json.loads((run / "metrics.jsonl").read_text().splitlines()[0])["loss"])


@pytest.mark.slow
def test_ratings_give_pop_margins_between_preferences(folder: Path) -> None:
    """Under the averaged policy of the first step every margin is the gap of the policy itself."""
    rows = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    rated = [row | {"chosen_rating": 5.0, "rejected_rating": 1.0 + place % 4} for place, row in enumerate(rows)]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rated))
    run = train(folder, {"name": "pop"}, "--model.precision", "bf16")
    first = json.loads((run / "metrics.jsonl").read_text().splitlines()[0])
    assert first["target_distance"] == 0 and first["target_margin_mean"] > 0


@pytest.mark.slow
def test_graded_feedback_trains_with_margins_soft_labels_and_edges(folder: Path, parts: Parts) -> None:
    """A few steps with each way to use the strengths of clicks, carts and purchases."""
    events = [
        {"user": f"u{user}", "item": f"i{(user + 3 * step) % ITEMS}", "time": step, "feedback": kind}
        for user in range(20)
        for step, kind in enumerate(("click", "buy", "click", "cart", "buy"))
    ]
    data = load_sequences(events, grades={"click": 1, "cart": 2, "buy": 4})
    rows, step = graded_rows(data, leave_one_out(data), pairs="all")
    assert step.kept == {"users with preferences": 20} and len(rows) == 20
    edges_within_users(rows).save(folder / "edges.parquet")
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for flags, name in (
        (["--margin.source", "ratings"], "dpo"),
        (["--data.soft_label_temperature", "1"], "geometric_dpo"),
        (["--pop.edges", str(folder / "edges.parquet"), "--regularizers", "[{name: sft, weight: 0.667}]"], "pop"),
    ):
        run = train(folder, {"name": name}, *flags, name=name)
        first = json.loads((run / "metrics.jsonl").read_text().splitlines()[0])
        assert math.isfinite(first["loss"]) and first["without_negative"] == 0


@pytest.mark.slow
def test_the_score_does_not_depend_on_the_batch(folder: Path) -> None:
    """Held-out margins of one run, forwarded together and one by one."""
    run = train(folder)
    found: list[list[float]] = []
    for size in ("64", "1"):
        assert main(["eval", str(run), "--evaluation.tokens_per_batch", size]) == 0
        found.append(pq.read_table(run / "evaluation" / "margins.parquet")["reward_margin"].to_pylist())
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5)


@pytest.mark.slow
def test_given_rejected_items_are_the_negatives(folder: Path, parts: Parts) -> None:
    """They say which item is rejected, so that graded feedback can train."""
    rows = [json.loads(line) | {"rejected": "item i0"} for line in (folder / "train.jsonl").read_text().splitlines()]
    rows = [row for row in rows if row["chosen"] != "item i0"]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = train(folder)
    assert json.loads((run / "metrics.jsonl").read_text().splitlines()[0])["without_negative"] == 0


@pytest.mark.slow
def test_learned_vectors(folder: Path, parts: Parts) -> None:
    """Without vectors in the start model they are trained; a trained model is loaded with its items."""
    (folder / "start" / "vectors.safetensors").unlink()
    run = train(folder, dimension=16, hidden=[32])
    model, catalogue = load_item_denoiser(run / "model")
    assert catalogue == parts.catalogue and not model.given and model.table.shape == (ITEMS + 1, 16)
    assert model.options.hidden == [32]
    ranking = rank_cases(DenoisingRecommender(model), parts.test, items=ITEMS, count=3)
    assert ranking.best.shape == (len(parts.test), 3)


@pytest.mark.slow
def test_it_learns_the_ring(folder: Path, parts: Parts) -> None:
    run = train(folder, None, "--train.max_steps", "120", "--train.scheduler", "constant")
    model, _ = load_item_denoiser(run / "model")
    ranks = rank_cases(DenoisingRecommender(model), parts.test, items=ITEMS).ranks
    assert ranks.mean() < 1  # at random: 5.5


@pytest.mark.slow
def test_it_stops_where_validation_is_best_and_resumes_exactly(folder: Path, parts: Parts) -> None:
    """The saved weights are those of the best epoch; a run that goes on from a checkpoint ends with the same files."""
    flags = ["--train.stop_on", "recall@5", "--train.patience", "3", "--train.scheduler", "constant",
             "--train.epochs", "30", "--train.max_steps", "null", "--train.save_steps", "3"]  # fmt: skip
    run = train(folder, None, *flags)
    curves = [json.loads(line) for line in (run / "curves.jsonl").read_text().splitlines()]
    values, steps = [line["recall@5"] for line in curves], [line["step"] for line in curves]
    best = values.index(max(values))
    assert steps == list(range(3, 3 * len(steps) + 1, 3)) and len(values) == best + 4 < 30
    facts = json.loads((run / "run.json").read_text())
    assert facts["stopping"] == {"metric": "recall@5", "best": max(values), "step": steps[best], "evaluations_since": 3}
    assert any("whose weights are kept" in note for step in facts["account"] for note in step["notes"])
    model, _ = load_item_denoiser(run / "model")
    found = rank_cases(DenoisingRecommender(model), parts.valid, items=ITEMS).ranks
    assert float((found < 5).mean()) == max(values)
    before, told = weights(run), {name: (run / name).read_bytes() for name in ("metrics.jsonl", "curves.jsonl")}
    (run / "run.json").unlink()
    for again in range(2):  # from the last checkpoint, where it had stopped, and from one before
        assert main(["train", "--resume", "--output", str(run)]) == 0
        assert told == {name: (run / name).read_bytes() for name in told}
        assert all(torch.equal(weights(run)[name], value) for name, value in before.items())
        if not again:
            (run / "run.json").unlink()
            (run / "checkpoints" / f"checkpoint-{steps[-1]}").rename(folder / "gone")


@pytest.mark.slow
def test_stopping_changes_nothing_until_it_stops(folder: Path) -> None:
    plain = train(folder)
    stopping = train(folder, None, "--train.stop_on", "ndcg@10", "--train.patience", "9", name="other")
    assert (plain / "metrics.jsonl").read_bytes() == (stopping / "metrics.jsonl").read_bytes()


def test_what_cannot_be_stopped_on_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(AssertionError):
        train(folder, None, "--train.stop_on", "recal@5")
    assert "train.stop_on is 'recal@5', which a recommender of items does not measure. Did you mean 'recall@5'" in (
        capsys.readouterr().err
    )
    with pytest.raises(AssertionError):
        train(folder, None, "--task", "policy", "--train.stop_on", "recall@5")
    assert "train.stop_on has no meaning for" in capsys.readouterr().err


def test_what_is_no_item_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = (folder / "train.jsonl").read_text()
    (folder / "train.jsonl").write_text(lines.replace('"item i3"', '"item i99"'))
    with pytest.raises(AssertionError):
        train(folder)
    assert "item 'i99' is not among the 12 of model.path" in capsys.readouterr().err
    (folder / "train.jsonl").write_text(lines)
    with pytest.raises(AssertionError):
        train(folder, None, "--model.lora_rank", "4")
    assert "an item denoiser is trained as a whole" in capsys.readouterr().err
    with pytest.raises(AssertionError):
        train(folder, {"name": "orpo"}, negatives="hardst")
    assert "negatives is 'hardst'. Did you mean 'hardest'" in capsys.readouterr().err
    with pytest.raises(DataError, match=r"the prompt is '1 2'\. For items, write"):
        read_pair("p", "1 2", "item 1", "item 2")
    with pytest.raises(DataError, match="Give a list with an item or more"):
        read_pair("p", '{"history": []}', "item 1", "item 2")
    with pytest.raises(DataError, match=r"rejected is 'nothing'\. For items, write 'item ID' or 'other items'"):
        read_pair("p", '{"history": [1]}', "item 1", "nothing")
    with pytest.raises(RunError, match="holds no items"):
        read_start(folder)
    with pytest.raises(RunError, match="no trained model of them"):
        load_item_denoiser(folder / "start")
