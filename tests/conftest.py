"""Shape checks of every annotated function, and a tiny model with data to train it on."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

from jaxtyping import install_import_hook

# Where tensors and arrays are; before popmargin is imported. Row-by-row readers of data would only become slow.
CHECKED = ("data.ragged", "engine", "evaluation", "generate", "margin", "margin_sources", "models", "objectives", "pop")
CHECKED += tuple(f"recommend.{name}" for name in ("baselines", "cooccurrence", "denoising", "item_vectors", "ranks"))
CHECKED += ("recommend.ranking_metrics", "recommend.splitting", "regularizers", "study", "tokens", "training")
install_import_hook([f"popmargin.{name}" for name in CHECKED], "strict_types.check")

import gc  # noqa: E402
import json  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
from collections.abc import Callable  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers  # noqa: E402

import strict_types  # noqa: E402
from popmargin.config import RunConfig, from_dict, merge  # noqa: E402

torch.set_num_threads(1)
# A busy machine is no failure.
settings.register_profile("popmargin", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("popmargin")

_FROZEN = {"modules": 0}


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Training collects garbage, which takes longer than a tiny run: what was imported is not looked through again."""
    strict_types.check_anew()
    if len(sys.modules) > _FROZEN["modules"] + 100:
        _FROZEN["modules"] = len(sys.modules)
        gc.collect()
        gc.freeze()


TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEXT = "the sky is blue and warm light falls on quiet green hills where old birds sing about rain"
WORDS = TEXT.split()


@pytest.fixture(scope="session")
def tiny_tokenizer() -> Any:
    """Bytes and a few special tokens, with a ChatML template."""
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    core.decoder = decoders.ByteLevel()
    special = ["<pad>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    core.train_from_iterator([" ".join(WORDS)] * 3, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<|im_end|>", pad_token="<pad>", additional_special_tokens=["<|im_start|>"]
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def build_model(vocabulary: int, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Any:
    """A random Llama of two layers; weights large enough that gaps are not all alike."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=0.1,
        eos_token_id=2,
        pad_token_id=0,
        bos_token_id=1,
    )
    return LlamaForCausalLM(config).to(dtype).eval()


@pytest.fixture
def tiny_model(tiny_tokenizer: Any) -> Any:
    """A fresh model for one test."""
    return build_model(len(tiny_tokenizer))


@pytest.fixture(scope="session")
def make_model(tiny_tokenizer: Any) -> Callable[..., Any]:
    """Models of other seeds and dtypes."""
    return lambda **options: build_model(len(tiny_tokenizer), **options)


@pytest.fixture(scope="session")
def model_path(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Any) -> str:
    """The folder of the tiny model and its tokenizer."""
    folder = tmp_path_factory.mktemp("model")
    build_model(len(tiny_tokenizer)).save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return str(folder)


def make_rows(count: int = 40, *, rated: bool = True) -> list[dict[str, Any]]:
    """Preferences of different lengths and different strengths, one a prompt."""
    random = np.random.default_rng(7)

    def text(words: int) -> str:
        return " ".join(random.choice(WORDS, size=words))

    rows: list[dict[str, Any]] = []
    for number in range(count):
        row: dict[str, Any] = {
            "id": f"p{number:03d}",
            "prompt": f"{text(int(random.integers(1, 6)))} {number}?",
            "chosen": text(int(random.integers(1, 10))) + " fine.",
            "rejected": text(int(random.integers(1, 10))) + " poor.",
        }
        if rated:
            row |= {
                "chosen_rating": round(3 + 2 * random.random(), 3),
                "rejected_rating": round(3 * random.random(), 3),
            }
        rows.append(row)
    return rows


@pytest.fixture(scope="session")
def rows() -> list[dict[str, Any]]:
    """The rated preferences as dicts."""
    return make_rows()


@pytest.fixture(scope="session")
def data_path(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]) -> str:
    """The rated preferences as JSONL."""
    return write_jsonl(tmp_path_factory.mktemp("data") / "rated.jsonl", rows)


@pytest.fixture(scope="session")
def soft_path(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]) -> str:
    """The rated preferences with soft labels, a few of them below one half: the responses stand the other way round."""
    labels = [0.35 + 0.6 * number / len(rows) for number in range(len(rows))]
    other = {"chosen": "rejected", "rejected": "chosen",
             "chosen_rating": "rejected_rating", "rejected_rating": "chosen_rating"}  # fmt: skip
    turned = [{other.get(name, name): value for name, value in row.items()} for row in rows]
    soft = [
        (row if label >= 0.5 else swapped) | {"soft_label": label}
        for row, swapped, label in zip(rows, turned, labels, strict=True)
    ]
    return write_jsonl(tmp_path_factory.mktemp("data") / "soft.jsonl", soft)


@pytest.fixture(scope="session")
def unrated_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Preferences without ratings as JSONL."""
    return write_jsonl(tmp_path_factory.mktemp("data") / "unrated.jsonl", make_rows(rated=False))


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="session")
def shared_reference(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One reference cache for all tests that do not test the cache."""
    return str(tmp_path_factory.mktemp("reference"))


@pytest.fixture
def base_run(tmp_path: Path, model_path: str, data_path: str, shared_reference: str) -> dict[str, Any]:
    """A short run in fp32, as plain values."""
    return {
        "name": "run",
        "output": str(tmp_path / "run"),
        "model": {"path": model_path},
        "data": {"train": data_path, "test_size": 8, "max_length": 96},
        "objective": {"name": "dpo"},
        "reference": {"cache": shared_reference},
        "train": {"batch_size": 8, "learning_rate": 1e-3, "max_steps": 3, "warmup_ratio": 0.0, "scheduler": "constant"},
        "evaluation": {"max_new_tokens": 8, "prompts": 4, "tokens_per_batch": 64},
    }


@pytest.fixture
def configure(base_run: dict[str, Any]) -> Callable[..., RunConfig]:
    """The short run with changes, as a configuration: configure({"train": {"max_steps": 1}})."""
    return lambda *changes: from_dict(RunConfig, _merged(base_run, changes))


def _merged(base: dict[str, Any], changes: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    for change in changes:
        base = merge(base, change)
    return base


@pytest.fixture
def reward_path(tmp_path: Path) -> str:
    """A reward in a user's own file: the share of vowels."""
    file = tmp_path / "rewards.py"
    file.write_text(
        "def vowels(prompts, completions):\n"
        "    return [sum(c in 'aeiou' for c in text) / max(len(text), 1) for text in completions]\n"
    )
    return f"{file}:vowels"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data, beside the repository; tests that need them skip without."""
    folder = Path(__file__).resolve().parents[1] / ".." / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("real data sets are absent (../shared/data)")
    return folder.resolve()


@pytest.fixture(scope="session")
def popmargin_environment() -> dict[str, str]:
    """The environment of processes that tests start: one thread, no accelerator."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


@pytest.fixture(scope="session")
def popmargin(popmargin_environment: dict[str, str]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the command line in a process of its own, as a user does."""

    def run(
        *words: str, cwd: Path | None = None, processes: int = 0, python_path: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        paths = [str(path) for path in (python_path, os.environ.get("PYTHONPATH")) if path]
        launcher = ["-m", "torch.distributed.run", "--nproc_per_node", str(processes)] if processes else []
        return subprocess.run(
            [sys.executable, *launcher, "-m", "popmargin", *words],
            cwd=cwd,
            env=popmargin_environment | {"PYTHONPATH": os.pathsep.join(paths)},
            capture_output=True,
            text=True,
            timeout=900,
        )

    return run
