"""Fits a RecBole model and scores histories, in a Python that has RecBole; it imports nothing of this package.

The first line of standard input is the path of the job. Every further line is the path of histories (.npz with `values`
and `offsets`), which are scored; the scores lie beside it as .npy. Each answer is one line: `ok`, or what went wrong.
"""

import importlib
import itertools
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any, TextIO

import numpy as np

NAME = "events"
_REMEDY = (
    "RecBole 1.2.1 needs NumPy below 2, and ray only for what is not used here. Into an environment of its own: pip "
    "install torch 'numpy<2' 'pandas<3' 'scipy<1.15' scikit-learn colorlog colorama pyyaml tqdm texttable psutil thop "
    "tabulate plotly tensorboard; pip install --no-deps recbole"
)


def sequences_of(file: Path) -> list[list[int]]:
    """Ragged lists of item numbers."""
    with np.load(file) as arrays:
        values, offsets = arrays["values"], arrays["offsets"]
    return [values[first:last].tolist() for first, last in itertools.pairwise(offsets)]


def write_benchmark(
    folder: Path, train: list[list[int]], valid: list[list[int]], items: int, *, by_prefix: bool
) -> None:
    """RecBole's benchmark files: each item with the items before it, or each user with each item.

    The validation files are only what RecBole asks for; the best epoch is chosen outside it.
    """
    for part, sequences, prefixes in (("train", train, True), ("valid", valid, False)):
        lines = [
            "user_id:token\titem_id_list:token_seq\titem_id:token" if by_prefix else "user_id:token\titem_id:token"
        ]
        for user, sequence in enumerate(sequences):
            for place in range(1 if by_prefix else 0, len(sequence)):
                if by_prefix and not prefixes and place < len(sequence) - 1:
                    continue
                before = " ".join(map(str, sequence[:place]))
                lines.append("\t".join([f"{part}{user}", *([before] if by_prefix else []), str(sequence[place])]))
        (folder / f"{NAME}.{part}.inter").write_text("\n".join(lines) + "\n", encoding="utf-8")
    every = "\n".join(["item_id:token", *map(str, range(1, items + 1))])
    (folder / f"{NAME}.item").write_text(every + "\n", encoding="utf-8")


class Worker:
    """A RecBole model, its data, and how its scores map to our numbers of items."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.job, self.folder, self.items = job, Path(job["folder"]), int(job["items"])
        self.sequential = job["model"] != "DiffRec"
        try:
            config, data = importlib.import_module("recbole.config"), importlib.import_module("recbole.data")
            utils = importlib.import_module("recbole.utils")
            version = importlib.import_module("recbole").__version__
        except ImportError as error:
            raise RuntimeError(f"RecBole cannot be imported ({error}). {_REMEDY}") from error
        if np.__version__.partition(".")[0] != "1":
            raise RuntimeError(f"RecBole {version} cannot run with NumPy {np.__version__}. {_REMEDY}")
        self.torch = importlib.import_module("torch")
        self.train, self.valid = (sequences_of(self.folder / f"{part}.npz") for part in ("train", "valid"))
        limit = int(job["length"])
        if self.sequential:
            self.train = [sequence[-limit - 1 :] for sequence in self.train]
            self.valid = [sequence[-limit - 1 :] for sequence in self.valid]
        place = self.folder / NAME
        place.mkdir()
        write_benchmark(place, self.train, self.valid, self.items, by_prefix=self.sequential)
        columns = ["user_id", *(["item_id_list"] if self.sequential else []), "item_id"]
        alias = {"alias_of_item_id": ["item_id_list"]} if self.sequential else {}
        sequence = {"MAX_ITEM_LIST_LENGTH": limit} if self.sequential else {}
        self.config = config.Config(
            model=job["model"], dataset=NAME,
            config_dict={
                "data_path": str(self.folder), "benchmark_filename": ["train", "valid", "valid"],
                "load_col": {"inter": columns, "item": ["item_id"]}, **alias, **sequence,
                "train_neg_sample_args": None, "seed": int(job["seed"]), "reproducibility": True, "epochs": 1,
                "state": "WARNING", "show_progress": False, "checkpoint_dir": str(self.folder / "saved"),
                "log_wandb": False, **job["settings"],
            },
        )  # fmt: skip
        utils.init_seed(self.config["seed"], self.config["reproducibility"])
        dataset = data.create_dataset(self.config)
        self.batches, _, _ = data.data_preparation(self.config, dataset)
        utils.init_seed(self.config["seed"], self.config["reproducibility"])
        self.model = utils.get_model(job["model"])(self.config, self.batches.dataset).to(self.config["device"])
        self.trainer = utils.get_trainer(self.config["MODEL_TYPE"], job["model"])(self.config, self.model)
        ids = dataset.field2token_id["item_id"]
        self.places = np.array([ids[str(item)] for item in range(1, self.items + 1)])
        self.interaction = importlib.import_module("recbole.data.interaction").Interaction

    def fit(self) -> None:
        """One epoch after another, with the weights of the best validation recall@10."""
        best, waited, kept = -1.0, 0, self._weights()
        for epoch in range(int(self.job["epochs"])):
            self.trainer.start_epoch, self.trainer.epochs = epoch, epoch + 1
            self.trainer.fit(self.batches, verbose=False, saved=False, show_progress=False)
            found = self._recall()
            waited = waited + 1 if found <= best else 0
            if found > best:
                best, kept = found, self._weights()
            if waited >= int(self.job["patience"]):
                break
        self.model.load_state_dict(kept)

    def _weights(self) -> dict[str, Any]:
        return {name: value.clone() for name, value in self.model.state_dict().items()}

    def _recall(self) -> float:
        hits = 0.0
        for start in range(0, len(self.valid), 256):
            chunk = self.valid[start : start + 256]
            scores = self.scores([sequence[:-1] for sequence in chunk])
            own = scores[np.arange(len(chunk)), [sequence[-1] - 1 for sequence in chunk]][:, None]
            hits += float(((scores > own).sum(axis=1) + ((scores == own).sum(axis=1) - 1) / 2 < 10).sum())
        return hits / max(len(self.valid), 1)

    def scores(self, histories: list[list[int]]) -> Any:
        """Scores of items 1 to I, (B, I)."""
        self.model.eval()
        with self.torch.no_grad():
            found = self._of_sequences(histories) if self.sequential else self._of_sets(histories)
        return found.cpu().numpy()[:, self.places]

    def _of_sequences(self, histories: list[list[int]]) -> Any:
        limit = int(self.job["length"])
        lists, lengths = np.zeros((len(histories), limit), dtype=np.int64), np.zeros(len(histories), dtype=np.int64)
        for row, history in enumerate(histories):
            last = history[-limit:]
            lists[row, : len(last)], lengths[row] = self.places[np.array(last) - 1], len(last)
        fields = {"item_id_list": self.torch.from_numpy(lists), "item_length": self.torch.from_numpy(lengths)}
        batch = self.interaction(fields).to(self.config["device"])
        return self.model.full_sort_predict(batch).view(len(histories), -1)

    def _of_sets(self, histories: list[list[int]]) -> Any:
        rows = self.torch.zeros(len(histories), self.model.n_items)
        for row, history in enumerate(histories):
            rows[row, self.places[np.array(history) - 1]] = 1.0
        return self.model.p_sample(rows.to(self.config["device"]))


def answer(file: str, worker: Worker) -> None:
    """Score the histories in a file."""
    np.save(Path(file).with_suffix(".npy"), worker.scores(sequences_of(Path(file))).astype(np.float32))


def serve(lines: TextIO, told: TextIO) -> int:
    """Do the job, and answer until the input ends."""

    def say(text: str) -> None:
        told.write(text.replace("\n", " ") + "\n")
        told.flush()

    try:
        worker = Worker(json.loads(Path(lines.readline().strip()).read_text(encoding="utf-8")))
        worker.fit()
        say("ok")
        for line in lines:
            answer(line.strip(), worker)
            say("ok")
    except Exception as error:
        traceback.print_exc()
        say(str(error) if isinstance(error, RuntimeError) else f"{type(error).__name__}: {error}")
        return 1
    return 0


def main() -> int:
    """The process: answers go to what was standard output, and whatever RecBole prints to standard error."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return serve(sys.stdin, answers)


if __name__ == "__main__":
    sys.exit(main())
