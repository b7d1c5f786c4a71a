"""Layouts of benchmarks: how a row holds responses, and how the benchmark counts. One file and entry each."""

from collections.abc import Mapping, Sequence
from typing import Any

from popmargin.errors import ConfigError, DataError, did_you_mean
from popmargin.evaluation.benchmarks.layouts import plain_pairs, rated_samples, reward_bench, reward_bench_2, rm_bench
from popmargin.evaluation.benchmarks.layouts.base import Layout

LAYOUTS: dict[str, Layout] = {
    module.ENTRY.name: module.ENTRY for module in (rm_bench, reward_bench_2, rated_samples, reward_bench, plain_pairs)
}
"""In the order in which they are tried; the last one reads whatever popmargin reads as preferences."""


def find_layout(name: str, rows: Sequence[Mapping[str, Any]]) -> Layout:
    """The layout of that name, or the first that fits the rows if it is "auto".

    Raises:
        ConfigError: there is no such layout.
        DataError: the rows do not have what the named layout needs.
    """
    if name == "auto":
        return next(layout for layout in LAYOUTS.values() if layout.fits(rows))
    if name not in LAYOUTS:
        raise ConfigError(f"There is no layout '{name}' of benchmarks. {did_you_mean(name, ['auto', *LAYOUTS])}")
    layout = LAYOUTS[name]
    if not layout.fits(rows):
        raise DataError(
            f"The data do not have the layout '{name}', which is: {layout.summary}. Remedy: rename the columns, or "
            "leave out --layout."
        )
    return layout
