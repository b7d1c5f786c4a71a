"""Preparing data: reading, splitting and tokenizing of generated preferences, before any model is loaded.

    python benchmarks/prepare.py --rows 1000000 --json prepare.json
    python benchmarks/prepare.py --rows 100000 --workers 1 --chat

Three times in a process of its own: from the start, killed halfway and started again, and with everything kept. CPU
seconds and memory are those of all its processes; memory is what they hold at the same time, with shared pages counted
once (PSS) and once a process (RSS), both with the memory-mapped pages that the system could drop.
"""

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}

import numpy as np

VOCABULARY = 8_000
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def words(draws: np.random.Generator) -> list[str]:
    """Made-up words, the frequent ones short."""
    letters = np.array(list("etaoinshrdlucmfwyp"))
    return ["".join(draws.choice(letters, 2 + min(number // 40, 8))) for number in range(2_000)]


def write_data(folder: Path, rows: int, chat: bool) -> None:
    """The preferences (Parquet) and a tokenizer made for them."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    draws = np.random.default_rng(0)
    known = np.array(words(draws))
    shares = 1 / np.arange(1, len(known) + 1)
    shares /= shares.sum()

    def texts(count: int, shortest: int, longest: int) -> list[str]:
        sizes = draws.integers(shortest, longest, count)
        drawn = iter(known[draws.choice(len(known), int(sizes.sum()), p=shares)])
        return [" ".join(next(drawn) for _ in range(size)) for size in sizes]

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=["<pad>", "<|im_start|>", "<|im_end|>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    core.train_from_iterator(texts(5_000, 20, 60), trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|im_end|>", pad_token="<pad>")
    tokenizer.chat_template = CHATML
    tokenizer.save_pretrained(folder / "tokenizer")
    writer: Any = None
    for start in range(0, rows, 50_000):
        count = min(50_000, rows - start)
        table: dict[str, list[Any]] = {"prompt": texts(count, 10, 50), "chosen": texts(count, 10, 80)}
        table |= {"rejected": texts(count, 10, 80), "margin": draws.normal(size=count).tolist()}
        table["id"] = [str(start + number) for number in range(count)]
        for name, role in (("prompt", "user"), ("chosen", "assistant"), ("rejected", "assistant")) if chat else ():
            table[name] = [[{"role": role, "content": text}] for text in table[name]]
        whole = pa.table(table)
        writer = writer or pq.ParquetWriter(folder / "data.parquet", whole.schema)
        writer.write_table(whole)
    writer.close()


def prepare(folder: Path, workers: int | None) -> None:
    """What a training does before it loads a model; prints what it made."""
    from transformers import AutoTokenizer

    from popmargin.config import DataConfig
    from popmargin.data import tokenize_preferences
    from popmargin.training.sides import load_split

    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    data = load_split(DataConfig(train=str(folder / "data.parquet")))
    seconds = [time.perf_counter()]
    found = [tokenize_preferences(side, tokenizer, workers=workers, keep=folder / "tokens") for side in data]
    seconds.append(time.perf_counter())
    tokens = sum(len(side.values) for one in found for side in (one.prompt, one.chosen, one.rejected))
    rows = sum(one.report.rows_in for one in found)
    kept, left_out = sum(map(len, found)), sum(len(one.report.dropped) for one in found)
    print(json.dumps({"rows": rows, "kept": kept, "left_out": left_out, "tokens": tokens,
                      "tokenizing_s": round(seconds[1] - seconds[0], 1)}))  # fmt: skip


def _children(parent: int) -> list[int]:
    """A process and all that it has started."""
    found = [parent]
    for number in found:
        for task in Path(f"/proc/{number}/task").glob("*/children"):
            try:
                found += map(int, task.read_text().split())
            except OSError:
                continue
    return found


def _memory(processes: list[int]) -> tuple[int, int]:
    """RSS and PSS of some processes together, bytes."""
    sums = {"Rss": 0, "Pss": 0}
    for number in processes:
        try:
            lines = Path(f"/proc/{number}/smaps_rollup").read_text().splitlines()[1:]
        except OSError:
            continue
        values = {line.split(":")[0]: line.split()[1] for line in lines}
        for name in sums:
            sums[name] += int(values.get(name, 0)) * 1024
    return sums["Rss"], sums["Pss"]


def watched(folder: Path, workers: int | None, kill_after: float | None = None) -> dict[str, Any]:
    """Prepare in another process, and watch it."""
    command = [sys.executable, __file__, "--inside", str(folder), *(["--workers", str(workers)] if workers else [])]
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    most, halfway = [0, 0], False
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            rss, pss = _memory(_children(process.pid))
            most = [max(most[0], rss), max(most[1], pss)]
            done = sum(file.stat().st_size for file in folder.glob("tokens/.*.building/rows"))
            if kill_after is not None and done >= kill_after:
                process.send_signal(signal.SIGKILL)
                halfway = True
            time.sleep(0.1)
        output = process.stdout.read() if process.stdout is not None else ""
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    told = {"wall_s": round(time.perf_counter() - began, 1), "cpu_s": round(seconds, 1),
            "peak_rss_gb": round(most[0] / 1e9, 2), "peak_pss_gb": round(most[1] / 1e9, 2)}  # fmt: skip
    if halfway:
        return told
    told |= json.loads(output.strip().splitlines()[-1])
    return {**told, "tokens_a_core_minute": round(told["tokens"] / seconds * 60)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, help="default: as a training chooses them")
    parser.add_argument("--chat", action="store_true", help="conversations instead of texts")
    parser.add_argument("--folder", type=Path, help="where data are made, and left; default: a temporary folder")
    parser.add_argument("--json", type=Path, help="also write the result to this file")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.inside is not None:
        prepare(args.inside, args.workers)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "data.parquet").exists():
            write_data(folder, args.rows, args.chat)
        half = 0.8 * args.rows / 2 * 4 * 8  # bytes of `rows`, of the larger side
        found = {
            "rows": args.rows,
            "chat": args.chat,
            "workers": args.workers,
            "cores": len(os.sched_getaffinity(0)),
            "killed halfway": watched(folder, args.workers, half),
            "started again": watched(folder, args.workers),
            "kept": watched(folder, args.workers),
        }
        for file in sorted((folder / "tokens").rglob("*"), reverse=True):
            file.rmdir() if file.is_dir() else file.unlink()
        found["from the start"] = watched(folder, args.workers)
    text = json.dumps(found, indent=1)
    print(text)
    if args.json is not None:
        args.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
