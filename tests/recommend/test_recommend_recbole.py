"""RecBole's models in a Python of their own: files as it reads them, errors with a remedy, and a fit if it is there."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from popmargin.data.ragged import Ragged
from popmargin.errors import ConfigError, RunError
from popmargin.recommend.baselines.base import Observed
from popmargin.recommend.baselines.recbole import RecBoleOptions, fit_recbole
from popmargin.recommend.ranks import rank_cases
from popmargin.recommend.recbole_worker import write_benchmark
from popmargin.recommend.splitting import Cases

RECBOLE = os.environ.get("POPMARGIN_RECBOLE", "")
"""A Python that has RecBole."""


def ring(items: int) -> Observed:
    """Sequences that go round a ring of items; validation asks what follows each."""
    sequences = Ragged.of([[(start + step) % items + 1 for step in range(4)] for start in range(items)])
    names, histories = tuple(map(str, range(items))), Ragged.of([[start + 1] for start in range(items)])
    return Observed(sequences, sequences, items, Cases(names, histories, np.arange(1, items + 1) % items + 1))


def test_benchmark_files(tmp_path: Path) -> None:
    """Every training item with those before it; of a validation user only the target; all items of the catalogue."""
    write_benchmark(tmp_path, [[1, 2, 3], [4]], [[3, 1, 2]], 5, by_prefix=True)
    head = "user_id:token\titem_id_list:token_seq\titem_id:token\n"
    assert (tmp_path / "events.train.inter").read_text() == head + "train0\t1\t2\ntrain0\t1 2\t3\n"
    assert (tmp_path / "events.valid.inter").read_text() == head + "valid0\t3 1\t2\n"
    assert (tmp_path / "events.item").read_text() == "item_id:token\n1\n2\n3\n4\n5\n"
    write_benchmark(tmp_path, [[1, 2], [4]], [[3, 1]], 5, by_prefix=False)
    assert (tmp_path / "events.train.inter").read_text() == (
        "user_id:token\titem_id:token\ntrain0\t1\ntrain0\t2\ntrain1\t4\n"
    )


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Give the interpreter of an environment with RecBole"):
        RecBoleOptions()
    with pytest.raises(RunError, match="cannot be started"):
        fit_recbole(ring(3), RecBoleOptions(python=str(tmp_path / "python")))
    with pytest.raises(RunError, match=r"RecBole cannot be imported .* pip install --no-deps recbole"):
        fit_recbole(ring(3), RecBoleOptions(python=sys.executable))


@pytest.mark.slow
@pytest.mark.skipif(not RECBOLE, reason="POPMARGIN_RECBOLE is not set to a Python that has RecBole")
@pytest.mark.parametrize("model", ["SASRec", "DiffRec"])
def test_recbole_learns_the_ring(model: str) -> None:
    settings = {"learning_rate": 0.01, "train_batch_size": 16, "hidden_dropout_prob": 0.1, "attn_dropout_prob": 0.1}
    options = RecBoleOptions(python=RECBOLE, model=model, settings=settings, epochs=12)  # type: ignore[arg-type]
    observed = ring(30)
    ranks = rank_cases(fit_recbole(observed, options), observed.valid, items=30, count=1).ranks
    assert ranks.mean() < (3 if model == "SASRec" else 6)  # at random: 14.5
