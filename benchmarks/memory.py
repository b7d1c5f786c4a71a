"""Memory of a training, in bytes a parameter and process: what is trained x processes and how they share x target.

    python benchmarks/memory.py --json memory.json
    python benchmarks/memory.py --only lora --processes 1

Trains a random Llama of 34 million parameters on the CPU, a few short rows a step, so that weights dominate. Tensors
are counted, not the pages of the process: those that are alive before a phase, and what PyTorch's allocator hands out
and takes back in it. Each cell runs in processes of its own, forked from one that has imported everything; the process
with the most counts. `planned` is the estimate of `popmargin train --dry-run` for the same cell, `kept` what is still
alive after the last step, and `sent` what a process has sent to others in that step, as the system counts it (Linux).
ZeRO-3 needs DeepSpeed, with buckets of a million elements here, not 500 million, and no more of what it has
gathered left whole, not a billion.
"""

import argparse
import json
import os
import socket
import sys
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "ACCELERATE_USE_CPU": "true"}
os.environ |= {"TOKENIZERS_PARALLELISM": "false"}

sys.path.insert(0, str(Path(__file__).parent))
sys.path.append(str(Path(sys.prefix) / "deepspeed"))  # where make setup puts it

import torch
from transformers import TrainerCallback

from popmargin.training.launch_files import launch_file
from popmargin.training.memory import TensorPeak, live_bytes
from several_on_cpu import allow_fsdp_on_cpus, without_compiled_operations

MODEL = {"hidden_size": 384, "intermediate_size": 1152, "num_attention_heads": 6,
         "num_key_value_heads": 6, "tie_word_embeddings": True, "max_position_embeddings": 1024}  # fmt: skip
TRAINED = {"full": {}, "lora": {"model": {"lora_rank": 8}}}
TARGETS = {
    "none": {"objective": {"name": "dpo"}},
    "ema": {"objective": {"name": "pop"}, "target": {"kind": "ema"}},
    "bank": {"objective": {"name": "pop"}, "target": {"kind": "bank"}},
}
COLUMNS = ("load", "training", "planned", "kept", "saving", "sent")
SENT = slice(200, 208)
"""Of `tcpi_bytes_sent` in Linux's `struct tcp_info`."""
BOUNDED = (
    "reduce_bucket_size",
    "stage3_prefetch_bucket_size",
    "stage3_max_live_parameters",
    "stage3_max_reuse_distance",
)
WRAPPED: dict[str, dict[str, Any]] = {
    "ddp": {},
    "fsdp2": {"fsdp": True, "fsdp_config": {"version": 2}},
    "zero3": {"deepspeed": json.loads(launch_file("zero3.json").read_text())},
}
"""How several processes train one model here."""
WRAPPED["zero3"]["deepspeed"]["zero_optimization"] |= dict.fromkeys(BOUNDED, 10**6)


@dataclass(frozen=True)
class Cell:
    """One training.

    Attributes:
        trained: full or lora.
        processes: how many.
        wrapped: how they share the model.
        target: none, ema or bank.
    """

    trained: str
    processes: int
    wrapped: str
    target: str

    @property
    def name(self) -> str:
        return f"{self.trained}, {self.processes} x {self.wrapped}, {self.target}"


def main() -> int:
    """Run the cells, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path, help="the JSON file to write")
    parser.add_argument("--only", choices=list(TRAINED), help="one way of training; default: all")
    parser.add_argument("--target", choices=list(TARGETS), help="one target; default: all")
    parser.add_argument("--wrapped", choices=list(WRAPPED), help="how two processes share a model; default: all")
    parser.add_argument("--processes", type=int, choices=[1, 2], help="default: both")
    parser.add_argument("--layers", type=int, default=8, help="of the model: what stays whole grows with them")
    args = parser.parse_args()
    cells = [Cell(trained, processes, wrapped, target)
             for processes in (1, 2) for wrapped in (tuple(WRAPPED) if processes > 1 else ("alone",))
             for trained in TRAINED for target in TARGETS
             if args.processes in (None, processes) and args.only in (None, trained)
             and args.target in (None, target) and (processes == 1 or args.wrapped in (None, wrapped))]  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="memory-") as folder:
        parameters = prepare(Path(folder), args.layers)
        entries = [measure(Path(folder), cell) | {"cell": asdict(cell)} for cell in cells]
    print(table(entries, parameters))
    if args.json is not None:
        args.json.write_text(json.dumps({"parameters": parameters, "cells": entries}, indent=1) + "\n")
    return 0


def prepare(folder: Path, layers: int) -> int:
    """Import everything, and write the model; returns its parameters."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, trainer  # noqa: F401

    import popmargin.demo
    from popmargin.models.demo_model import demo_model_path
    from popmargin.training import dry_run, run  # noqa: F401

    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(demo_model_path())
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), num_hidden_layers=layers, **MODEL))
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    (folder / "data.parquet").symlink_to(Path(popmargin.demo.__file__).parent / "sentiment.parquet")
    return sum(parameter.numel() for parameter in model.parameters())


def measure(folder: Path, cell: Cell) -> dict[str, Any]:
    """Train one cell; the largest process counts."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pipes = [os.pipe() for _ in range(cell.processes)]
    children = [forked(lambda n=number: peaks(folder, cell, n, port), pipes[number][1])  # type: ignore[misc]
                for number in range(cell.processes)]  # fmt: skip
    texts: list[str] = []
    for (out, into), child in zip(pipes, children, strict=True):
        os.close(into)
        with open(out, encoding="utf-8") as pipe:  # noqa: PTH123
            texts.append(pipe.read())
        os.waitpid(child, 0)
    found = [json.loads(text) for text in texts if text]
    if len(found) < cell.processes:
        raise SystemExit(f"{cell.name}: a process failed")
    print(f"{cell.name}: {found[0]}", file=sys.stderr, flush=True)
    return {name: max(process[name] for process in found) for name in found[0]}


def forked(work: Callable[[], dict[str, int]], into: int) -> int:
    """Do some work in a child, which writes its result."""
    child = os.fork()
    if child == 0:
        try:
            os.write(into, json.dumps(work()).encode())
        except Exception:
            traceback.print_exc()
        finally:
            os._exit(0)
    return child


def peaks(folder: Path, cell: Cell, number: int, port: int) -> dict[str, int]:
    """Peak bytes by phase, in one process."""
    if cell.processes > 1:
        os.environ |= {"RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": str(cell.processes),
                       "LOCAL_WORLD_SIZE": str(cell.processes), "MASTER_ADDR": "127.0.0.1",
                       "MASTER_PORT": str(port)}  # fmt: skip
    if cell.wrapped == "fsdp2":
        allow_fsdp_on_cpus()
    if cell.wrapped == "zero3":
        os.environ["DS_ACCELERATOR"] = "cpu"
        del os.environ["ACCELERATE_USE_CPU"]  # with which accelerate uses no DeepSpeed
        without_compiled_operations()
    from popmargin.config import RunConfig, from_dict, merge
    from popmargin.engine.processes import give_up_gathered
    from popmargin.models.sharding import Sharding
    from popmargin.training.arguments import training_arguments
    from popmargin.training.build import Run, make_parts, make_trainer
    from popmargin.training.dry_run import setting_of, shapes_of, sizes_of
    from popmargin.training.final import save_trained
    from popmargin.training.memory_plan import plan

    output = folder / cell.name.replace(" ", "").replace(",", "-")
    settings: dict[str, Any] = {
        "output": str(output),
        "model": {"path": str(folder / "model")},
        "data": {"train": str(folder / "data.parquet"), "limit": 24, "test_size": 8, "max_length": 64},
        "reference": {"cache": str(folder / "cache"), "tokens_per_batch": 128},
        "train": {
            "batch_size": 2,
            "max_steps": 2,
            "save_minutes": 0,
            "trainer_arguments": WRAPPED.get(cell.wrapped, {}),
        },
    }
    settings = merge(merge(settings, TRAINED[cell.trained]), TARGETS[cell.target])
    config = from_dict(RunConfig, settings)
    run = Run.read(config)
    workspace = run.workspace()  # of the plan alone, which is made before processes are connected
    shapes = shapes_of(run, workspace, run.model)
    assert shapes is not None
    planned = plan(shapes, sizes_of(run, workspace), setting_of(run)).peak
    arguments = training_arguments(config.train, config.seed, output / "checkpoints")
    workspace = run.workspace()
    workspace.task.sharding = Sharding.of(arguments)
    with TensorPeak() as load:
        run.record(workspace)
        parts = make_parts(run, workspace)
    with TensorPeak() as training:
        trainer = make_trainer(arguments, parts, run.train)
        steps = Sent()
        trainer.add_callback(steps)
        trainer.train()
    give_up_gathered(trainer.model)
    kept = live_bytes()
    with TensorPeak() as saving:
        save_trained(trainer, workspace.task, run.model, output / "model", ([workspace.train.encoded] * 2))
    found = {"load": load, "training": training, "saving": saving}
    return {name: of.bytes for name, of in found.items()} | {"planned": planned, "kept": kept, "sent": steps.last}


class Sent(TrainerCallback):
    """What this process has sent in the last optimizer step, by all its connections."""

    def __init__(self) -> None:
        self.last = self._before = 0

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        now = sent_bytes()
        self.last, self._before = now - self._before, now


def sent_bytes() -> int:
    """Bytes that this process has sent over TCP, with which gloo connects processes."""
    total = 0
    for entry in Path("/proc/self/fd").iterdir():
        try:
            with socket.socket(fileno=os.dup(int(entry.name))) as connection:
                info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, SENT.stop)
        except OSError:  # no socket, or another kind of one
            continue
        total += int.from_bytes(info[SENT], sys.byteorder)
    return total


def table(entries: list[dict[str, Any]], parameters: int) -> str:
    """Bytes a parameter, in Markdown."""
    lines = [f"| trained | processes | target | {' | '.join(COLUMNS)} |", f"|{'---|' * (3 + len(COLUMNS))}"]
    for entry in entries:
        cell = entry["cell"]
        sizes = " | ".join(f"{entry[name] / parameters:.2f}" for name in COLUMNS)
        shared = cell["processes"] if cell["processes"] == 1 else f"{cell['processes']}, {cell['wrapped']}"
        lines.append(f"| {cell['trained']} | {shared} | {cell['target']} | {sizes} |")
    return "\n".join([f"Bytes a parameter and process ({parameters:,} parameters):", "", *lines])


if __name__ == "__main__":
    sys.exit(main())
