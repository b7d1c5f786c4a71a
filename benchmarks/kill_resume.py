"""Kill training with SIGKILL, resume it, and compare the end with a run that was left alone, to the last bit.

    python benchmarks/kill_resume.py --runs 100 --json

Tiny random models in fp32 on one thread, a checkpoint every other step: all weights, LoRA and a margin bank in turn.
Half of the kills come within 30 ms of the beginning or the end of a save, the others at any moment; a fifth with two
processes. Every killed run is resumed once, to its end. Prints how many were killed, how many left a newest checkpoint
that is broken, how many resumes came to their end, and how many of these ended identical.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
os.environ |= {"TOKENIZERS_PARALLELISM": "false"}
sys.path.insert(0, str(Path(__file__).parent))

import yaml

from identity import preload
from identity_cases import BASE, build_inputs, merged

KINDS = {
    "full": {"objective": {"name": "pop"}},
    "lora": {"objective": {"name": "pop"}, "model": {"lora_rank": 2, "lora_dropout": 0.1}},
    "bank": {"objective": {"name": "pop"}, "target": {"kind": "bank"}},
}
STEPS = {"max_steps": 24, "save_steps": 2, "save_total_limit": 2}
MARKS = ("metrics.jsonl", "model")


def main() -> int:
    """Kill, resume, count."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=20, help="kills")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments")
    parser.add_argument("--json", action="store_true", help="print the counts as JSON")
    args = parser.parse_args()
    draw = random.Random(args.seed)
    counts = {"kills": 0, "broken_newest": 0, "resumed": 0, "identical": 0}
    with tempfile.TemporaryDirectory(prefix="popmargin-kill-") as place:
        folder = Path(place)
        build_inputs(folder)
        os.chdir(folder)
        preload()
        straight = {
            (kind, two): alone(folder, kind, two) for kind in KINDS for two in (False, True)[: 1 + (args.runs > 4)]
        }
        while (number := counts["kills"]) < args.runs:
            kind, two = list(KINDS)[number % len(KINDS)], number % 5 == 4
            seconds, marks = straight[kind, two]
            run = folder / f"killed-{number}"
            process = start(run, kind, two, resume=False)
            wait_for_moment(run / "checkpoints", process, seconds, at_a_save=number % 2 == 0, draw=draw)
            kill(process)
            if (run / "run.json").exists():
                print(f"{number}: {kind} had ended before it was killed", file=sys.stderr)
                shutil.rmtree(run)
                continue
            counts["kills"] += 1
            counts["broken_newest"] += is_broken(run / "checkpoints")
            ended = wait(start(run, kind, two, resume=(run / "config.yaml").exists())) == 0
            counts["resumed"] += ended
            same = ended and fingerprint(run) == marks
            counts["identical"] += same
            if not same:
                print(
                    f"{number}: {kind}, {1 + two} processes: {'differs' if ended else 'did not resume'}",
                    file=sys.stderr,
                )
            shutil.rmtree(run, ignore_errors=True)
    print(json.dumps(counts) if args.json else "\n".join(f"{name}: {count}" for name, count in counts.items()))
    return 0 if counts["kills"] == counts["identical"] else 1


class Forked:
    """A training in a fork of this process, which has imported everything."""

    def __init__(self, words: list[str], log: Path) -> None:
        self.pid = os.fork()
        self._status: int | None = None
        if self.pid:
            return
        code = 1
        try:
            with log.open("ab") as opened:
                os.dup2(opened.fileno(), 1)
                os.dup2(opened.fileno(), 2)
            from popmargin.cli.main import main as popmargin

            code = popmargin(words)
        finally:
            os._exit(code)

    def poll(self) -> int | None:
        """The exit status, once it has ended."""
        if self._status is None:
            found, status = os.waitpid(self.pid, os.WNOHANG)
            self._status = os.waitstatus_to_exitcode(status) if found else None
        return self._status

    def wait(self) -> int:
        """Wait for the end."""
        while (status := self.poll()) is None:
            time.sleep(0.005)
        return status


Process = Forked | subprocess.Popen[bytes]


def start(run: Path, kind: str, two: bool, *, resume: bool) -> Process:
    """Begin a training, or go on with it."""
    config = run.with_suffix(".yaml")
    config.write_text(yaml.safe_dump(merged(BASE, KINDS[kind], {"output": str(run), "train": STEPS})))
    words, log = ["train", str(config), *(["--resume"] if resume else [])], run.with_suffix(".log")
    if not two:
        return Forked(words, log)
    launcher = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node",
        "2",
        "-m",
        "popmargin",
    ]
    with log.open("ab") as opened:
        return subprocess.Popen([*launcher, *words], stdout=opened, stderr=opened, start_new_session=True)


def wait(process: Process) -> int:
    """The exit status at the end."""
    return process.wait()


def kill(process: Process) -> None:
    """SIGKILL, to all processes of a training at once."""
    if isinstance(process, Forked):
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
    else:
        for pid in [process.pid, *children(process.pid)]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
    process.wait()


def children(pid: int) -> list[int]:
    """All descendants of a process."""
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False).stdout.split()
    return [each for child in map(int, found) for each in (child, *children(child))]


def alone(folder: Path, kind: str, two: bool) -> tuple[float, dict[str, str]]:
    """Seconds and end of a run that nobody kills."""
    run, started = folder / f"straight-{kind}-{1 + two}", time.monotonic()
    if wait(start(run, kind, two, resume=False)):
        raise SystemExit(run.with_suffix(".log").read_text())
    return time.monotonic() - started, fingerprint(run)


def wait_for_moment(
    checkpoints: Path, process: Process, seconds: float, *, at_a_save: bool, draw: random.Random
) -> None:
    """Until the moment of the kill."""
    if not at_a_save:
        until(lambda: False, process, draw.uniform(0.05, 0.95) * seconds)
        return
    before, begins = 2 * draw.randrange(1, STEPS["max_steps"] // 2), draw.random() < 0.5
    seen = checkpoints / f".unfinished/checkpoint-{before}" if begins else checkpoints / f"checkpoint-{before}"
    until(seen.exists, process, 10 * seconds)
    time.sleep(draw.uniform(0, 0.03))


def until(ready: Callable[[], bool], process: Process, seconds: float) -> None:
    """Wait for something, the end of a process, or some time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and not ready() and process.poll() is None:
        time.sleep(0.0005)


def is_broken(checkpoints: Path) -> bool:
    """Whether the newest checkpoint by name must not be used."""
    from popmargin.training.checkpoints import checkpoints_in, fault_of

    found = checkpoints_in(checkpoints)
    return bool(found) and fault_of(found[-1]) is not None


def fingerprint(run: Path) -> dict[str, str]:
    """Digests of the metrics and of the trained weights."""
    files = [
        file for mark in MARKS for file in sorted([run / mark] if (run / mark).is_file() else (run / mark).iterdir())
    ]
    return {
        file.relative_to(run).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in files
        if file.suffix in (".safetensors", ".jsonl")
    }


if __name__ == "__main__":
    sys.exit(main())
