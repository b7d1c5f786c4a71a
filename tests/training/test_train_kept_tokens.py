"""A run on tokens that are kept on disk is the run on those in memory."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from popmargin.config import RunConfig
from popmargin.data import token_shards, tokenize
from popmargin.training.run import train
from popmargin.training.run_directory import RunDirectory


def facts(run: RunDirectory) -> tuple[bytes, bytes, str]:
    """Metrics, fingerprints (also of the tokens) and weights."""
    weights = (run.model / "model.safetensors").read_bytes()
    return (
        (run.path / "metrics.jsonl").read_bytes(),
        (run.path / "fingerprints.json").read_bytes(),
        hashlib.sha256(weights).hexdigest(),
    )


@pytest.mark.slow
def test_kept_tokens_train_the_same(
    configure: Callable[..., RunConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, _ = train(configure({"output": str(tmp_path / "plain"), "data": {"max_length": 40}}))
    assert not (tmp_path / "tokens").exists()
    monkeypatch.setattr(token_shards, "SHARD_ROWS", 5)
    monkeypatch.setattr(tokenize, "KEPT_FROM", 1)
    kept = {"data": {"max_length": 40, "cache": str(tmp_path / "tokens")}}
    run, _ = train(configure({"output": str(tmp_path / "kept")}, kept))
    assert facts(run) == facts(plain)
    folders = [folder for folder in (tmp_path / "tokens").iterdir() if folder.is_dir()]
    assert len(folders) == 2
    # Neither the folder nor the number of processes is a change of the run.
    elsewhere = {"data": {"max_length": 40, "cache": str(tmp_path / "other"), "workers": 3}}
    assert train(configure({"output": str(tmp_path / "plain")}, elsewhere), resume=True)[0].finished
