"""Whether two versions of popmargin train the same numbers, to the last bit.

    PYTHONPATH=/path/to/old/src python benchmarks/identity.py --out old.json
    PYTHONPATH=/path/to/new/src python benchmarks/identity.py --out new.json
    python benchmarks/identity.py --compare old.json new.json

Trains tiny random models in fp32 on one thread: every objective x {full, LoRA} x {ema, policy, bank} x {policy, reward}
x {straight, killed and resumed}, and what else can be set. It knows popmargin by its command line alone, so that the
same script runs on any version. Of every run it keeps hashes: of each metric in metrics.jsonl over all steps, of the
trained weights, the PoP edges, the held-out margins, and the numbers of the evaluation; refusals by their first words.
Each case is a process of its own, forked from one that has imported everything, so that none depends on another.
"""

import argparse
import contextlib
import fnmatch
import gc
import hashlib
import importlib
import io
import json
import os
import pkgutil
import platform
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
os.environ |= {"TOKENIZERS_PARALLELISM": "false"}
sys.path.insert(0, str(Path(__file__).parent))

import yaml

from identity_cases import BASE, KILLED_AT, Case, build_inputs, merged, special_cases, table_cases
from identity_compare import compare

TIMED = ("second", "time", "memory", "tokens_per", "flos")
"""Parts of the names of metrics that are no numbers of training."""
WORDS = 10  # of an error sentence
Hashes = dict[str, str]


def main() -> int:
    """Run or compare."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, help="the JSON file to write")
    parser.add_argument("--compare", nargs=2, type=Path, metavar=("OLD", "NEW"), help="print a table in Markdown")
    parser.add_argument(
        "--only", default="*", metavar="PATTERN", help="cases whose name holds it, or matches it with *"
    )
    parser.add_argument("--quick", action="store_true", help="a short selection")
    parser.add_argument("--jobs", type=int, default=1, help="processes at once")
    parser.add_argument("--keep", type=Path, help="a folder for inputs and runs; else they are deleted")
    args = parser.parse_args()
    if args.compare:
        return compare(*args.compare, only=_pattern(args.only))
    with contextlib.ExitStack() as stack:
        folder = (args.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="identity-")))).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        entries = run_all(folder, _pattern(args.only), quick=args.quick, jobs=args.jobs)
    if args.out is not None:
        whole = not args.quick and args.only == "*"
        result = {"machine": machine(), "whole": whole, "cases": entries}
        args.out.write_text(json.dumps(result, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    crashed = [name for name, entry in entries.items() if entry["outcome"] == "crashed"]
    print(f"{len(entries)} entries, {len(crashed)} crashed" + "".join(f"\n  {name}" for name in crashed))
    return int(bool(crashed))


def _pattern(text: str) -> str:
    return text if "*" in text else f"*{text}*"


def machine() -> dict[str, str]:
    """What the numbers depend on beside popmargin."""
    import torch
    import transformers

    capability = torch.backends.cpu.get_cpu_capability()
    versions = {"torch": str(torch.__version__), "transformers": transformers.__version__}
    return {"cpu": f"{platform.machine()} {capability}", "python": platform.python_version(), **versions}


def run_all(folder: Path, only: str, *, quick: bool, jobs: int) -> dict[str, Any]:
    """Train and evaluate all chosen cases; entries by name of the case and the way (straight, resumed, eval)."""
    preload()
    build_inputs(folder)
    cases = [*table_cases(objective_names()), *special_cases()]
    chosen = [case for case in cases if fnmatch.fnmatch(case.name, only) and (case.quick or not quick)]
    entries: dict[str, Any] = {}
    started = time.perf_counter()
    with ThreadPoolExecutor(jobs) as pool:
        numbered = enumerate(chosen)
        for made in pool.map(lambda pair: run_case(folder, pair[1], folder / f"case-{pair[0]}"), numbered):
            entries |= made
            name, took = next(iter(made)), time.perf_counter() - started
            print(f"{took:6.1f} s  {name}: {', '.join(entry['outcome'] for entry in made.values())}", file=sys.stderr)
    return entries


def preload() -> None:
    """Import popmargin and what it imports late, once for all forks."""
    import popmargin

    for name in ("peft", "datasets", "accelerate", "transformers.trainer", "transformers.models.llama.modeling_llama"):
        importlib.import_module(name)
    for module in pkgutil.walk_packages(popmargin.__path__, "popmargin."):
        if not module.name.endswith("__main__"):
            with contextlib.suppress(Exception):
                importlib.import_module(module.name)
    import torch

    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()  # collections in the forks would go through, and copy, all of it


def objective_names() -> list[str]:
    """Those that this version lists."""
    from popmargin.cli.main import main as popmargin

    with contextlib.redirect_stdout(io.StringIO()) as text:
        popmargin(["objectives", "--json"])
    return [entry["name"] for entry in json.loads(text.getvalue())]


# -- one case ----------------------------------------------------------------------------------------------------------


def run_case(inputs: Path, case: Case, folder: Path) -> dict[str, Any]:
    """Train a case straight on, evaluate it, and train it again from what a kill would have left."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    settings = case.settings if case.verb == "compare" else merged(BASE, case.settings)
    if case.verb == "train":
        settings = merged(settings, {"reference": {"cache": str(inputs / "reference")}})
        settings["output"] = str(folder / "run")
    else:
        settings = merged(settings, {"output": str(folder / "run")})
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    run, left = folder / "run", folder / "left"

    def straight() -> Any:
        if case.resume:
            snapshot_at(KILLED_AT, run, left)
        return command([case.verb, str(config)], folder)

    entries = {f"{case.name} | straight": forked(straight, inputs, lambda: training_hashes(run))}
    if case.evaluate and entries[f"{case.name} | straight"]["outcome"] == "done":
        words = ["eval", str(run), *case.flags]
        entries[f"{case.name} | eval"] = forked(lambda: command(words, folder), inputs, lambda: evaluation_hashes(run))
    if case.verb == "compare":
        entries[f"{case.name} | eval"] = forked(lambda: None, inputs, lambda: evaluation_hashes(run))
    if case.resume and entries[f"{case.name} | straight"]["outcome"] == "done":
        shutil.rmtree(run)
        left.rename(run)
        words = ["train", str(config), "--resume"]
        entries[f"{case.name} | resumed"] = forked(lambda: command(words, folder), inputs, lambda: training_hashes(run))
    return entries


def forked(work: Callable[[], str | None], inputs: Path, read: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Do some work in a fork, with the inputs' folder as working directory, and read what it wrote.

    Args:
        work: returns the error sentence of a refusal, or None.
        inputs: the working directory.
        read: what is kept of a success.
    """
    out, into = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside the pool's threads
        child = os.fork()
    if child == 0:
        os.close(out)
        try:
            os.chdir(inputs)
            refused = work()
            entry = {"outcome": "refused", "words": refused} if refused else {"outcome": "done", **read()}
        except BaseException as error:
            entry = {"outcome": "crashed", "words": f"{type(error).__name__}: {error}"[:200]}
            traceback.print_exc()
        with open(into, "w", encoding="utf-8") as pipe:  # noqa: PTH123
            json.dump(entry, pipe)
        os._exit(0)
    os.close(into)
    with open(out, encoding="utf-8") as pipe:  # noqa: PTH123
        text = pipe.read()
    os.waitpid(child, 0)
    return json.loads(text) if text else {"outcome": "crashed", "words": "the process died"}


def command(words: list[str], folder: Path) -> str | None:
    """One popmargin command in this process, what it prints in a file; its refusal's first words, or None."""
    from popmargin.cli.main import main as popmargin

    log = folder / f"{words[0]}.log"
    with log.open("a", encoding="utf-8") as file:
        kept = [os.dup(number) for number in (1, 2)]
        for number in (1, 2):
            os.dup2(file.fileno(), number)
        try:
            code = popmargin(words)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for number, copy in zip((1, 2), kept, strict=True):
                os.dup2(copy, number)
    if code == 0:
        return None
    errors = [line for line in log.read_text(encoding="utf-8").splitlines() if "error: " in line]
    sentence = errors[-1].partition("error: ")[2] if errors else f"exit code {code}"
    return " ".join(sentence.replace(str(folder), "").split()[:WORDS])


def snapshot_at(step: int, run: Path, left: Path) -> None:
    """Copy the run directory at the beginning of a step: what a kill would leave at that moment is what is on disk."""
    from transformers.trainer_callback import CallbackHandler

    begin = CallbackHandler.on_step_begin

    def noting(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        if state.global_step == step and not left.exists():
            shutil.copytree(run, left)
        return begin(self, args, state, control, **kwargs)

    CallbackHandler.on_step_begin = noting


# -- what is kept of it ------------------------------------------------------------------------------------------------


def _hash(*parts: bytes) -> str:
    return hashlib.blake2b(b"\x1f".join(parts), digest_size=8).hexdigest()


def _hash_values(values: list[Any]) -> str:
    return _hash(json.dumps(values).encode())  # floats as the shortest text that reads back as the same


def training_hashes(run: Path) -> dict[str, Any]:
    """Of a run or a study: metrics by name, weights, edges and strengths; the losses themselves too."""
    hashes: Hashes = {}
    losses: list[float] = []
    found = [file.parent for file in run.rglob("metrics.jsonl")]
    folders = sorted(folder for folder in found if "checkpoints" not in folder.relative_to(run).parts)
    assert folders, f"no metrics.jsonl in {run}"
    for folder in folders:
        prefix = "" if folder == run else f"{folder.relative_to(run)}: "
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        losses += [line["loss"] for line in lines]
        for name in sorted({name for line in lines for name in line if not any(part in name for part in TIMED)}):
            hashes[f"{prefix}{name}"] = _hash_values([line.get(name) for line in lines])
        hashes[f"{prefix}weights"] = weights_hash(folder / "model")
        for file in (folder / "edges.parquet", folder / "scale.parquet"):
            hashes |= table_hashes(file, f"{prefix}{file.stem}.")
    return {"hashes": hashes, "losses": losses}


def weights_hash(folder: Path) -> str:
    """Of all tensors, by name."""
    import torch
    from safetensors.torch import load_file

    tensors = {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}
    assert tensors, f"no weights in {folder}"
    parts: list[bytes] = []
    for name, tensor in sorted(tensors.items()):
        parts += [f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode()]
        parts += [tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()]
    return _hash(*parts)


def table_hashes(file: Path, prefix: str) -> Hashes:
    """Of the columns of a Parquet file; none where there is none."""
    import pyarrow.parquet as pq

    if not file.is_file():
        return {}
    return {f"{prefix}{name}": _hash_values(values) for name, values in pq.read_table(file).to_pydict().items()}


def evaluation_hashes(run: Path) -> dict[str, Any]:
    """Of the columns of margins and generations, and of all intervals, counts and curves that were written."""
    hashes: Hashes = {}
    for file in sorted(run.rglob("*.parquet")):
        if file.stem in ("margins", "generations", "reference_generations"):
            place = file.parent.relative_to(run)
            hashes |= table_hashes(file, "" if str(place) == "evaluation" else f"{place}/{file.stem}.")
    assert hashes, f"nothing was evaluated in {run}"
    for file in sorted([*run.rglob("metrics.json"), *run.rglob("curves.jsonl")]):
        place = str(file.relative_to(run)).removeprefix("evaluation/")
        values = [json.loads(line) for line in _objects(file)]
        for name, numbers in _numbers(values).items():
            hashes[f"{place} {name}"] = _hash_values(numbers)
    return {"hashes": hashes}


def _objects(file: Path) -> list[str]:
    text = file.read_text(encoding="utf-8")
    return text.splitlines() if file.suffix == ".jsonl" else [text]


def _numbers(values: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """The numbers below every key of the topmost mappings, each of `intervals` by its own name; accounts are words."""
    found: dict[str, list[Any]] = {}

    def walk(value: Any, into: list[Any]) -> None:
        if isinstance(value, dict):
            for key in sorted(value):
                walk(value[key], into)
        elif isinstance(value, list):
            for item in value:
                walk(item, into)
        elif value is None or isinstance(value, (int, float)):
            into.append(value)

    for mapping in values:
        intervals = mapping.get("intervals", {})
        for key, value in [*((k, v) for k, v in mapping.items() if k != "intervals"), *intervals.items()]:
            if key not in ("account", "sampling") and not any(part in key for part in TIMED):
                walk(value, found.setdefault(key, []))
    return {name: numbers for name, numbers in found.items() if numbers}


if __name__ == "__main__":
    sys.exit(main())
