"""Draws of a study in processes of their own, each kept as soon as it is finished."""

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, TypeVar

from popmargin.files import append_jsonl, read_jsonl

_KEPT: dict[str, Any] = {}
GroundT = TypeVar("GroundT")
ConfigT = TypeVar("ConfigT")


def run_draws(
    draw: Callable[[GroundT, ConfigT, int, int], dict[str, Any]],
    ground: GroundT,
    config: ConfigT,
    log: Path,
    *,
    sizes: Sequence[int],
    draws: int,
    workers: int,
) -> list[dict[str, Any]]:
    """Run what the log does not have yet, and append each draw as it ends.

    Args:
        draw: a function of a module: what all draws share, the configuration, a size and a draw's number.
        ground: what all draws share; it is sent to every process once.
        config: of the study.
        log: JSON lines.
        sizes: of the study.
        draws: of each size.
        workers: processes.

    Returns:
        The lines of the log that belong to these sizes and draws.
    """
    done = {(row["size"], row["draw"]) for row in read_jsonl(log)}
    wanted = [(size, number) for number in range(draws) for size in sizes if (size, number) not in done]
    if wanted:
        _run(draw, ground, config, wanted, log, workers)
    return [row for row in read_jsonl(log) if row["draw"] < draws and row["size"] in sizes]


def _run(draw: Any, ground: Any, config: Any, wanted: Sequence[tuple[int, int]], log: Path, workers: int) -> None:
    if workers == 1 or len(wanted) == 1:
        for size, number in wanted:
            append_jsonl(log, draw(ground, config, size, number))
        return
    context = multiprocessing.get_context("spawn")
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"  # the processes read it as they start
    try:
        with ProcessPoolExecutor(
            min(workers, len(wanted)), context, initializer=_keep, initargs=(draw, ground, config)
        ) as pool:
            waiting: list[Future[dict[str, Any]]] = [pool.submit(_one, *part) for part in wanted]
            try:
                for ended in as_completed(waiting):
                    append_jsonl(log, ended.result())
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before


def _keep(draw: Any, ground: Any, config: Any) -> None:
    import torch

    torch.set_num_threads(1)
    _KEPT.update(draw=draw, ground=ground, config=config)


def _one(size: int, number: int) -> dict[str, Any]:
    return _KEPT["draw"](_KEPT["ground"], _KEPT["config"], size, number)
