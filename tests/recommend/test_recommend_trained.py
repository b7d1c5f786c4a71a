"""The front door from Python: load a trained model, rank items by name; folders that hold no model."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from popmargin import recommend
from popmargin.errors import DataError, RunError
from popmargin.recommend.denoising.item_denoiser import DenoisingRecommender, ItemDenoiser
from popmargin.recommend.denoising.saved_denoiser import WEIGHTS, write_start, write_trained
from popmargin.recommend.item_sequences import Catalogue, Sequences
from popmargin.recommend.ranks import recommend_items
from popmargin.recommend.saved_parts import load_parts, parts_digest, save_parts
from popmargin.recommend.splitting import leave_one_out

NAMES = ("cup", "honey", "milk", "tea")
HISTORIES = [["milk"], ["tea", "cup"]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory with a model of random weights."""
    folder = tmp_path_factory.mktemp("shop")
    torch.manual_seed(0)
    model = ItemDenoiser(len(NAMES), vectors=np.eye(4, dtype=np.float32))
    (folder / "model").mkdir()
    write_trained(folder / "model", Catalogue.of(NAMES), model)
    save_file(model.state_dict(), folder / "model" / WEIGHTS)
    return folder


def test_a_run_and_its_model_rank_alike(run: Path) -> None:
    shop = recommend.load(run)
    found = shop.rank(HISTORIES, k=3)
    assert found == recommend.load(run / "model").rank(HISTORIES, 3) == recommend.rank(run, HISTORIES, 3)
    assert found == recommend_items(DenoisingRecommender(shop.model), shop.catalogue, HISTORIES, count=3)
    assert set(found[0]) == {"cup", "honey", "tea"} and len(found[1]) == 2  # no item of the history
    assert all(len(items) == 4 for items in shop.rank(HISTORIES, exclude_history=False))
    with pytest.raises(DataError, match="1 item not in the catalogue of 4: jam"):
        shop.rank([["jam"]])
    with pytest.raises(DataError, match="History 1 is empty"):
        shop.rank([["tea"], []])


def test_other_folders_say_what_they_are(run: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="No such folder"):
        recommend.load(tmp_path / "nowhere")
    with pytest.raises(RunError, match="neither a run nor a model"):
        recommend.load(tmp_path)
    write_start(tmp_path / "start", Catalogue.of(NAMES))
    with pytest.raises(RunError, match="holds items, but no trained model"):
        recommend.load(tmp_path / "start")
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "config.yaml").write_text("name: half\n")
    with pytest.raises(RunError, match="has not finished training"):
        recommend.load(tmp_path / "half")
    (tmp_path / "policy" / "model").mkdir(parents=True)
    with pytest.raises(RunError, match="no recommender of items"):
        recommend.load(tmp_path / "policy")
    (tmp_path / "study" / "runs" / "d" / "seed-0" / "model").mkdir(parents=True)
    with pytest.raises(RunError, match=r"Did you mean .*seed-0"):
        recommend.load(tmp_path / "study")


def test_the_names_are_loaded_when_they_are_used() -> None:
    """Importing the package imports no torch."""
    code = "import sys\nfrom popmargin import recommend\nassert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert {"load", "rank", "load_sequences", "TrainedRecommender"} <= set(recommend.__all__)


def test_a_saved_split_is_the_same_split(tmp_path: Path) -> None:
    parts = leave_one_out(Sequences.of([["a", "b", "c", "d"], ["d", "a"]]))
    save_parts(tmp_path, parts)
    found = load_parts(tmp_path)
    assert parts_digest(found) == parts_digest(parts) and found.account == parts.account
    assert np.array_equal(found.known.values, parts.known.values) and found.test.users == parts.test.users
    (tmp_path / "parts.npz").write_bytes(b"x")
    with pytest.raises(RunError, match="holds no split that can be read"):
        load_parts(tmp_path)
