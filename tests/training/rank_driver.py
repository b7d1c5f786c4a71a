"""Run the command line in several connected processes, one plan after the other, after importing everything once.

    python rank_driver.py PLAN.json

The plan is a list of runs: `processes`, `words` of the command line, `log` (one file a process: `LOG.RANK`), and
optionally `stop` (a file; once it exists the first process gets SIGTERM), `remove` (files and folders to delete before)
and `environment`. Prints the exit codes as JSON.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint.state_dict
import torch.distributed.tensor

from popmargin.cli.main import main

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from several_on_cpu import allow_fsdp_on_cpus, without_compiled_operations

torch.set_num_threads(1)


def start(run: dict[str, Any], rank: int, port: int) -> int:
    """One process of a run."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        count = str(run["processes"])
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), **run.get("environment", {})}
        with Path(f"{run['log']}.{rank}").open("w") as log, contextlib.redirect_stdout(log):
            os.dup2(log.fileno(), 2)
            allow_fsdp_on_cpus()
            if "DS_ACCELERATOR" in os.environ:
                without_compiled_operations()
            try:
                code = main(run["words"])
            except Exception:
                traceback.print_exc()
            log.flush()
    finally:
        sys.stderr.flush()
        os._exit(code)


def wait(pids: list[int], stop: Path | None) -> list[int]:
    """Exit codes; a process that fails takes the others with it, as a launcher does."""
    codes: dict[int, int] = {}
    while len(codes) < len(pids):
        for pid in set(pids) - codes.keys():
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                codes[pid] = os.waitstatus_to_exitcode(status)
        if stop is not None and stop.exists():
            os.kill(pids[0], signal.SIGTERM)
            stop = None
        if any(codes.values()):
            end = time.monotonic() + 10
            while time.monotonic() < end and len(codes) < len(pids):
                for pid in set(pids) - codes.keys():
                    found, status = os.waitpid(pid, os.WNOHANG)
                    if found:
                        codes[pid] = os.waitstatus_to_exitcode(status)
                time.sleep(0.05)
            for pid in set(pids) - codes.keys():
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
    return [codes[pid] for pid in pids]


if __name__ == "__main__":
    results: list[list[int]] = []
    for entry in json.loads(Path(sys.argv[1]).read_text()):
        for name in entry.get("remove", ()):
            if Path(name).is_dir():
                shutil.rmtree(name)
            else:
                Path(name).unlink(missing_ok=True)  # of a checkpoint that was not written
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            number = free.getsockname()[1]
        children = [start(entry, rank, number) for rank in range(entry["processes"])]
        results.append(wait(children, Path(entry["stop"]) if "stop" in entry else None))
    print(json.dumps(results))
