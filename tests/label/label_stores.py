"""What tests of the label store fill it with, and a clock to turn."""

from datetime import UTC, datetime, timedelta
from typing import Any

import datasets
import pyarrow as pa

from popmargin.data.load_report import LoadReport
from popmargin.data.schema import COLUMNS, Preferences, arrow_schema


def preferences(count: int, *, conversational: bool = False) -> Preferences:
    """Preferences p0, p1, … with ratings that are known for every other one."""

    def words(text: str, role: str) -> Any:
        return [{"role": role, "content": text}] if conversational else text

    columns: dict[str, list[Any]] = {name: [None] * count for name in COLUMNS}
    columns["id"] = [f"p{row}" for row in range(count)]
    columns["prompt"] = [words(f"Question {row}? ‹ü› 🙂", "user") for row in range(count)]
    columns["chosen"] = [words(f"good {row}\n\twith \0 and \x1f", "assistant") for row in range(count)]
    columns["rejected"] = [words(f"bad {row} <script>", "assistant") for row in range(count)]
    columns["chosen_rating"] = [4.5 if row % 2 else None for row in range(count)]
    columns["rejected_rating"] = [row / 7 if row % 2 else None for row in range(count)]
    columns["soft_label"] = [0.1 + 0.7 if row % 3 == 0 else None for row in range(count)]
    columns["annotator"] = ["anna" if row % 2 else None for row in range(count)]
    table = pa.Table.from_pydict(columns, schema=arrow_schema(conversational=conversational))
    report = LoadReport("made here", "memory", "canonical", count, count, count)
    return Preferences(datasets.Dataset(table), report)


class Clock:
    """A time that a test moves on."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def pass_seconds(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
