"""How the label store does with many preferences: import, next item, fit of strengths, export.

    python benchmarks/labels.py --json

200,000 preferences, 1,000,000 pairs of them, each labelled once by a simulated model whose latent strengths are known;
then two people walk through the same items. Latency is that of `next_assignment`; the answer is not counted.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa

from popmargin.data.load_report import LoadReport
from popmargin.data.schema import COLUMNS, Preferences, arrow_schema
from popmargin.label.export.pop_edges import pop_edges
from popmargin.label.projects.draft import draw_pairs
from popmargin.label.store.label_store import LabelStore
from popmargin.pop.edges import PopEdges
from popmargin.pop.fit import fit_strengths


def made_up(count: int, characters: int) -> Preferences:
    """Preferences with responses of this length."""
    filler = "word " * (characters // 5)
    columns: dict[str, list[Any]] = {name: [None] * count for name in COLUMNS}
    columns["id"] = [f"preference-{row}" for row in range(count)]
    columns["prompt"] = [f"Question {row}?" for row in range(count)]
    columns["chosen"] = [f"good {row} {filler}" for row in range(count)]
    columns["rejected"] = [f"bad {row} {filler}" for row in range(count)]
    table = pa.Table.from_pydict(columns, schema=arrow_schema(conversational=False))
    return Preferences(datasets.Dataset(table), LoadReport("made up", "memory", "canonical", count, count, count))


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    return work(), time.perf_counter() - start


def measure(url: str | Path, *, preferences: int, edges: int, draws: int, characters: int = 500) -> dict[str, Any]:
    """Seconds of every step, and milliseconds of the next item."""
    data = made_up(preferences, characters)
    ids, rng = data.ids, np.random.default_rng(0)
    strength = rng.normal(size=preferences)
    first, second = draw_pairs(preferences, k=-(-edges // preferences))
    names_first, names_second = [ids[row] for row in first], [ids[row] for row in second]
    with LabelStore.open(url) as store:
        project = store.create_project("benchmark")
        _, import_s = timed(lambda: store.import_preferences(project.id, data))
        count, items_s = timed(lambda: store.add_items(project.id, "pop", names_first, names_second))
        judge, _ = store.add_annotator(project.id, "simulated", kind="judge")
        place = {key: row for row, key in enumerate(ids)}

        def label() -> int:
            stored = 0
            for batch in store.items(project.id):
                gap = [
                    strength[place[one]] - strength[place[other]]
                    for one, other in zip(batch["first"].to_pylist(), batch["second"].to_pylist(), strict=True)
                ]
                right = rng.random(len(gap)) < 1 / (1 + np.exp(-np.array(gap)))
                columns = {
                    "item": batch["item"],
                    "verdict": np.where(right, "first", "second").tolist(),
                    "request": [f"r{item}" for item in batch["item"].to_pylist()],
                }
                stored += store.record_many(judge.id, pa.table(columns))
            return stored

        labels, label_s = timed(label)
        latencies = next_items(store, project.id, draws)
        progress_s = [timed(lambda: store.progress(project.id, judge.id))[1] for _ in range(20)]
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "edges.parquet"
            _, export_s = timed(lambda: pop_edges(store, store.project("benchmark"))[0].save(out))
            made = PopEdges.load(out)
        scale, fit_s = timed(lambda: fit_strengths(made, ids))
    assert count == labels and len(made) == labels + draws
    fitted = np.asarray(scale.strength)
    return {
        "preferences": preferences,
        "edges": labels,
        "next_item_p50_ms": float(np.quantile(latencies, 0.5)),
        "next_item_p95_ms": float(np.quantile(latencies, 0.95)),
        "next_item_max_ms": max(latencies),
        "import_s": import_s + items_s,
        "labels_s": label_s,
        "export_s": export_s,
        "fit_s": fit_s,
        "fit_correlation": float(np.corrcoef(fitted, strength)[0, 1]),
        "progress_p50_ms": 1000 * float(np.median(progress_s)),
    }


def next_items(store: LabelStore, project: int, draws: int) -> list[float]:
    """Milliseconds of each `next_assignment` of two people in turn."""
    people = [store.add_annotator(project, f"person {number}")[0].id for number in range(2)]
    latencies: list[float] = []
    for number in range(draws):
        who = people[number % 2]
        now, seconds = timed(lambda who=who: store.next_assignment(who))
        store.record(who, now.id, "first", request=str(number))
        latencies.append(1000 * seconds)
    return latencies


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--db", help="an empty database, such as postgresql://… (default: a file that is removed)")
    parser.add_argument("--preferences", type=int, default=200_000)
    parser.add_argument("--edges", type=int, default=1_000_000)
    parser.add_argument("--draws", type=int, default=1_000, help="items given to people")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        url = args.db or Path(folder) / "labels.db"
        result = measure(url, preferences=args.preferences, edges=args.edges, draws=args.draws)
    if args.json:
        print(json.dumps(result))
        return
    for name, value in result.items():
        print(f"{name:<20} {value:,.3f}" if isinstance(value, float) else f"{name:<20} {value:,}")


if __name__ == "__main__":
    main()
