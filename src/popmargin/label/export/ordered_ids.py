"""A column with the order of each ranking, in tables of labels: ids of the preferences, the strongest first."""

import json
from typing import Any

import pyarrow as pa

from popmargin.data.questions import is_order
from popmargin.label.store.ranked_items import ranked_ids


def with_orders(labels: Any) -> Any:
    """A table of labels with a column `order`, a JSON list, if some are of rankings; others have none."""
    if "rank" not in labels["kind"].unique().to_pylist():
        return labels
    rows = labels.select(["first", "others", "verdict"]).to_pylist()
    said = [json.dumps(ranked_ids(row), ensure_ascii=False) if is_order(row["verdict"]) else None for row in rows]
    return labels.append_column("order", pa.array(said, pa.string()))
