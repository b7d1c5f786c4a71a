"""Placing labels near their points without overlap."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
_REACH: Array = np.repeat([9.0, 14.0, 22.0, 34.0, 50.0, 70.0, 95.0, 125.0], 16)
_TURN: Array = np.array([(math.cos(turn * math.pi / 8), math.sin(turn * math.pi / 8)) for turn in range(16)] * 8)


class Box(NamedTuple):
    """An axis-parallel box in px."""

    left: float
    top: float
    right: float
    bottom: float

    def nearest(self, x: float, y: float) -> tuple[float, float]:
        """The point of the box closest to (x, y)."""
        return min(max(x, self.left), self.right), min(max(y, self.top), self.bottom)


def place_labels(
    points: Sequence[tuple[float, float]], widths: Sequence[float], frame: Box, *, bars: Sequence[Box] = (),
    height: float = 16, passes: int = 8,
) -> list[Box]:  # fmt: skip
    """Boxes for labels near their points that do not cover one another, a point or, if possible, a bar.

    Coordinate descent over a fixed set of places around each point, so that the same input gives the same answer.

    Args:
        points: centres of the markers in px, (N, 2).
        widths: width of each label in px, (N,).
        frame: where labels may be.
        bars: thin boxes that labels should avoid if possible.
        height: height of a label in px.
        passes: number of times every label is placed again.

    Returns:
        One box per point.
    """
    at = np.array(points, dtype=np.float64).reshape(-1, 2)
    dots = np.hstack([at - 8, at + 8])
    choices, leaders, costs = [], [], []
    for row, (point, width) in enumerate(zip(at, widths, strict=True)):
        size = np.array([width, height])
        corner = np.clip(
            point + _TURN * _REACH[:, None] + (_TURN - 1) * size / 2, frame[:2], np.array(frame[2:]) - size
        )
        boxes = np.hstack([corner, corner + size])
        way = (np.clip(point, boxes[:, :2], boxes[:, 2:]) - point)[:, None] * np.array([0.25, 0.5, 0.75])[:, None]
        leader = np.concatenate([point + way - 2, point + way + 2], axis=-1)
        cost = _REACH + 12 * _shared(boxes, dots) + 0.6 * _shared(boxes, np.array(bars).reshape(-1, 4))
        costs.append(cost + 4 * _shared(leader, np.delete(dots, row, axis=0)).sum(axis=1))
        choices.append(boxes)
        leaders.append(leader)
    places = np.array([boxes[0] for boxes in choices]).reshape(-1, 4)
    for _ in range(passes):
        before = places.copy()
        for row, (boxes, leader, cost) in enumerate(zip(choices, leaders, costs, strict=True)):
            others = np.delete(places, row, axis=0)
            places[row] = boxes[np.argmin(cost + 20 * _shared(boxes, others) + 4 * _shared(leader, others).sum(axis=1))]
        if np.array_equal(places, before):
            break
    return [Box(*map(float, place)) for place in places]


def _shared(boxes: Array, others: Array) -> Any:
    """Area in px² that each of the boxes (..., 4) shares with the others (M, 4), (...)."""
    low = np.maximum(boxes[..., None, :2], others[:, :2])
    high = np.minimum(boxes[..., None, 2:], others[:, 2:])
    return np.maximum(high - low, 0).prod(axis=-1).sum(axis=-1)
