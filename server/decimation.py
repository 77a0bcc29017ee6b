"""Thins metric series for charts without losing a peak."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from worker.store.metrics import Point


def decimate(points: Sequence[Point], max_points: int) -> list[Point]:
    """At most `max_points` of each series: the first, the last, and the minimum and maximum of equal stretches between.

    Values that are not finite (None) are kept like extremes: a stretch shows its first one in place of the minimum.
    """
    series: dict[str, list[Point]] = defaultdict(list)
    for point in points:
        series[point.key].append(point)
    kept = [point for one in series.values() for point in _thinned(one, max_points)]
    return sorted(kept, key=lambda point: (point.step, point.key))


def _thinned(points: Sequence[Point], max_points: int) -> Sequence[Point]:
    if len(points) <= max_points:
        return points
    inner = points[1:-1]
    num_stretches = (max_points - 2) // 2
    kept = [points[0]]
    for index in range(num_stretches):
        stretch = inner[index * len(inner) // num_stretches : (index + 1) * len(inner) // num_stretches]
        kept += sorted(_extremes(stretch), key=lambda point: point.step)
    return [*kept, points[-1]]


def _extremes(points: Sequence[Point]) -> set[Point]:
    missing = [point for point in points if point.value is None]
    finite = [point for point in points if point.value is not None]
    if not finite:
        return set(missing[:1])
    low = missing[0] if missing else min(finite, key=_value)
    return {low, max(finite, key=_value)}


def _value(point: Point) -> float:
    assert point.value is not None
    return point.value
