"""A small generated catalogue on which recommenders differ: popular items, successors, and groups of items by taste."""

import json
from pathlib import Path
from typing import Any

import numpy as np

GROUPS, IN_GROUP = 12, 15
ITEMS = GROUPS * IN_GROUP
USERS = 900


def shop_events(users: int = USERS, seed: int = 0) -> list[dict[str, Any]]:
    """Events of users, oldest first, each user's after the other's.

    A user has two tastes (groups of items). Of the next items, two in five follow the last one (each item has one
    successor, of its group), two in five are of a taste, the popular items of a group more often, and one in five is
    anything, by popularity. So `popularity` finds little, `markov` the successors, `item_knn` the tastes.
    """
    generator = np.random.default_rng(seed)
    share = 1 / np.arange(1, IN_GROUP + 1)
    share /= share.sum()
    whole = np.tile(share, GROUPS) / GROUPS
    follower = np.concatenate([group * IN_GROUP + generator.permutation(IN_GROUP) for group in range(GROUPS)])
    rows: list[dict[str, Any]] = []
    for user in range(users):
        tastes = generator.choice(GROUPS, 2, replace=False)
        items: list[int] = []
        for step in range(int(generator.integers(5, 12))):
            kind = generator.random()
            if items and kind < 0.4:
                item = int(follower[items[-1]])
            elif kind < 0.8:
                item = int(generator.choice(tastes)) * IN_GROUP + int(generator.choice(IN_GROUP, p=share))
            else:
                item = int(generator.choice(ITEMS, p=whole))
            items.append(item)
            rows.append({"user": f"u{user}", "item": f"i{item:03d}", "time": 1000 * step + user})
    return rows


def write_shop(path: Path, **changes: int) -> Path:
    """The events as a JSONL file."""
    path.write_text("".join(json.dumps(row) + "\n" for row in shop_events(**changes)))
    return path
