"""The report of a model on a benchmark, as a page and as lines for the terminal."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from popmargin.errors import counted
from popmargin.evaluation.benchmarks.evaluate import BenchmarkResult, fingerprint
from popmargin.evaluation.benchmarks.layouts.rm_bench import STYLES
from popmargin.files import HTML
from popmargin.report.metrics import Metric
from popmargin.report.render import TEMPLATES, render_page
from popmargin.report.results import write_text
from popmargin.report.tables import Cell, cell, visible_text
from popmargin.statistics.intervals import Interval

_SHARE = Metric("share", "", "%", "higher", "")
_PLAIN = Metric("plain", "", "", "higher", "")


def account_line(result: BenchmarkResult) -> str:
    """What came in, and what was kept.

    Example:
        >>> import numpy as np
        >>> from popmargin.evaluation.benchmarks.evaluate import BenchmarkResult, read_benchmark
        >>> asked = read_benchmark([{"prompt": "2+2?", "chosen": ["4"], "rejected": ["5"]}])
        >>> account_line(BenchmarkResult(asked, "model", "reward", "", [np.array([1.0, 0.0])]))
        '1 row in = 1 asked + 0 left out'
    """
    read = result.benchmark.read
    left = sum(read.left_out.values())
    reasons = "; ".join(f"{reason}: {count}" for reason, count in read.left_out.items())
    return f"{counted(read.rows_in, 'row')} in = {len(read.questions)} asked + {left} left out" + (
        f" ({reasons})" if reasons else ""
    )


def text_lines(result: BenchmarkResult, differences: Mapping[str, Interval] | None = None) -> list[str]:
    """The results for a terminal, one a line, then the subsets with their baselines."""
    lines = [account_line(result), *(f"note: {note}" for note in (*result.benchmark.read.notes, *result.notes))]
    width = max(len(name) for name in result.results)
    for name, interval in result.results.items():
        one = _cell(interval, (differences or {}).get(name), share=result.shares)
        more = f"   {one.symbol} {one.difference} {one.verdict}" if one.difference else ""
        lines.append(f"{name:{width}}  {one.estimate:>7}   {one.interval}{more}")
    rows = result.subsets()
    names = [row["subset"] or "all" for row in rows]
    width = max(len("subset"), *map(len, names))
    lines += ["", f"{'subset':{width}}  {'asked':>6}  {'model':>7}  {'longest':>7}  {'guess':>7}"]
    for name, row in zip(names, rows, strict=True):
        texts = [one.estimate for one in _baselined(row, share=result.shares)]
        lines.append(f"{name:{width}}  {row['questions']:>6}  " + "  ".join(f"{text:>7}" for text in texts))
    if (matrix := result.matrix()) is not None:
        lines += ["", "right (rows) against wrong (columns), by style: " + ", ".join(STYLES)]
        lines += ["  ".join(f"{100 * value:6.1f}%" for value in row) for row in matrix]
    if curve := result.curve():
        lines += ["", "best of n: n, KL in nats, worth"]
        lines += [f"{n:>4}  {kl:5.2f}  {_cell(found, None, share=result.shares).estimate:>7}" for n, kl, found in curve]
    return lines


def render_benchmark(
    result: BenchmarkResult, *, against: str = "", differences: Mapping[str, Interval] | None = None
) -> str:
    """The page as HTML; the same result gives the same bytes.

    Args:
        result: of a model.
        against: the other model's name, if there are differences.
        differences: by result.
    """
    shares, results, benchmark = result.shares, result.results, result.benchmark
    matrix = result.matrix()
    main, interval = next(iter(results.items()))
    headline = _cell(interval, None, share=shares)
    return render_page(
        TEMPLATES / "benchmark.html.j2",
        title=f"{Path(result.model).name} on {Path(benchmark.name).name}",
        lead=f"{main}: {headline.estimate} {headline.interval}",
        meaning=f"{result.model}, used as a {result.kind}. Its score: {result.meaning}. Layout of the data: "
        f"{benchmark.layout.name}.",
        model=Path(result.model).name,
        against=against,
        results=[(name, _cell(one, (differences or {}).get(name), share=shares)) for name, one in results.items()],
        subsets=[
            {
                "name": row["subset"] or "all",
                "questions": row["questions"],
                "cells": _baselined(row, share=shares),
            }
            for row in result.subsets()
        ],
        styles=STYLES,
        matrix=matrix and [(STYLES[i], [f"{100 * value:.1f}%" for value in row]) for i, row in enumerate(matrix)],
        curve=[(n, f"{kl:.2f}", _cell(one, None, share=shares)) for n, kl, one in result.curve()],
        account=account_line(result),
        remarks=[*benchmark.read.notes, *result.notes],
        counted=benchmark.layout.counted,
        fingerprint=fingerprint(benchmark),
        text=visible_text,
    )


def write_benchmark_report(
    result: BenchmarkResult,
    path: str | Path,
    *,
    against: str = "",
    differences: Mapping[str, Interval] | None = None,
) -> Path:
    """Write the HTML file, and return its path."""
    write_text(path, render_benchmark(result, against=against, differences=differences), HTML)
    return Path(path)


def _baselined(row: Mapping[str, Any], *, share: bool) -> list[Cell]:
    """A row of the table of subsets: the model, the longest response, and a guess, which is exact."""
    guess = Interval(row["guess"], math.nan, math.nan)
    return [_cell(one, None, share=share) for one in (row["model"], row["longest"], guess)]


def _cell(interval: Interval, difference: Interval | None, *, share: bool) -> Cell:
    return cell(interval, difference, _SHARE if share else _PLAIN, 1 if share else 3)
