"""Label statistics on small tables whose numbers can be counted by hand."""

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from popmargin.judges.labeller import Order, orders_note
from popmargin.label.quality.label_quality import Quality, label_quality

COLUMNS = ("assignment", "item", "kind", "first", "second", "annotator", "annotator_kind", "verdict", "seconds", "note",
           "confidence")  # fmt: skip
COLUMNS += ("response", "swap_pairs", "swap_first", "swap_second", "gold", "repeat_of", "training", "adjudicated",
            "guidelines_version", "created_at")  # fmt: skip


def table(*rows: dict[str, Any]) -> pa.Table:
    """Labels with defaults for what a test does not say."""
    full: list[dict[str, Any]] = []
    for number, row in enumerate(rows, start=1):
        item = row.get("item", number)
        base = {"kind": "pop", "first": f"f{item}", "second": f"s{item}", "annotator": "Ada", "verdict": "first"}
        base |= {"annotator_kind": "person", "note": "", "swap_pairs": False, "swap_first": False}
        base |= {"created_at": datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=number)}
        full.append(dict.fromkeys(COLUMNS) | base | {"assignment": number, "item": item} | row)
    return pa.Table.from_pylist(full, schema=pa.schema([(name, _TYPES.get(name, pa.string())) for name in COLUMNS]))


_TYPES = dict.fromkeys(("assignment", "item", "repeat_of", "guidelines_version"), pa.int64())
_BOOLS = ("swap_pairs", "swap_first", "swap_second", "training", "adjudicated")
_TYPES |= dict.fromkeys(_BOOLS, pa.bool_()) | {"seconds": pa.float64(), "confidence": pa.float64()}
_TYPES |= {"created_at": pa.timestamp("us", tz="UTC")}


def simulated(seed: int = 0, *, items: int = 120) -> tuple[pa.Table, dict[str, float]]:
    """Three people, a judge with a liking for A, and ratings, on items with true strengths."""
    rng = np.random.default_rng(seed)
    strengths = {f"p{n:03d}": float(rng.integers(1, 8)) for n in range(40)}
    ids = sorted(strengths)
    rows: list[dict[str, Any]] = []
    for item in range(items):
        first, second = rng.choice(ids, 2, replace=False)
        gap = strengths[first] - strengths[second]
        for name, noise, share in (
            ("Ada", 1.5, 1.0),
            ("Ben <b>", 2.5, 0.7),
            ("Cy", 4.0, 0.6),
            ("judge:tiny", 2.0, 1.0),
        ):
            if rng.random() > share:
                continue
            felt = gap + noise * rng.normal()
            verdict = "tie" if abs(felt) < 0.4 else "first" if felt > 0 else "second"
            row: dict[str, Any] = {
                "item": item,
                "first": first,
                "second": second,
                "annotator": name,
                "verdict": verdict,
            }
            if name.startswith("judge"):
                p1, p2 = (1 / (1 + math.exp(-x)) for x in (felt + 0.8, 0.8 - felt))
                places = [Order("A" if p > 0.5 else "B", p) for p in (p1, p2)]
                p = (p1 + 1 - p2) / 2
                row |= {"annotator_kind": "judge", "note": orders_note(places), "confidence": max(p, 1 - p)}
            else:
                row |= {"swap_pairs": bool(rng.random() < 0.5), "seconds": float(rng.gamma(4, 6))}
                row |= {"gold": ("first" if gap > 0 else "second") if item % 15 == 0 and gap else None}
            rows.append(row)
        if item % 6 == 0:
            again = rows[-1]["verdict"] if rng.random() < 0.8 else "tie"
            own = next(n for n, r in enumerate(rows, start=1) if r["item"] == item and r["annotator"] == "Ada")
            rows.append(rows[own - 1] | {"verdict": again, "repeat_of": own, "seconds": 9.0})
    rows += [
        {"item": 1000 + n, "kind": "preference", "first": ids[n % 40], "second": None, "annotator": name,
         "verdict": "first" if rng.random() < 0.8 else "second", "swap_first": bool(rng.random() < 0.5),
         "seconds": float(rng.gamma(4, 4))}
        for n in range(40) for name in ("Ada", "Ben <b>")
    ]  # fmt: skip
    return table(*rows), strengths


def of(quality: Quality, name: str) -> Any:
    return next(row for row in quality.annotators if row.name == name)


def test_annotator_numbers_by_hand() -> None:
    """Ada: left is the first pair unless swapped: left, right, left; one repeat differs; gold 1 of 2; one tie of 4."""
    quality = label_quality(
        table(
            {"seconds": 10.0, "gold": "first"},
            {"swap_pairs": True, "seconds": 30.0, "gold": "second"},
            {"swap_pairs": True, "verdict": "second", "seconds": 20.0},
            {"verdict": "tie"},
            {"item": 1, "repeat_of": 1},
            {"item": 2, "repeat_of": 2, "verdict": "second"},
            {"item": 1, "annotator": "Ben", "verdict": "unsure"},
            {"item": 2, "annotator": "Ben", "kind": "pop", "verdict": "wrong"},
        )
    )
    ada, ben = of(quality, "Ada"), of(quality, "Ben")
    assert (ada.labels, ada.seconds, ada.ties) == (4, 20.0, 0.25)
    assert ada.left.estimate == pytest.approx(2 / 3) and ada.gold.estimate == 0.5 and ada.consistency.estimate == 0.5
    assert (ben.labels, ben.unsure, ben.wrong) == (2, 0.5, 0.5) and math.isnan(ben.left.estimate)
    assert quality.labels == 8 and quality.items == {"preference": 0, "pop": 4, "rating": 0, "rank": 0}
    assert quality.pace.kinds["pop"].median.estimate == 20.0 and quality.pace.kinds["pop"].labels == 3


def test_left_of_preferences_is_the_response_that_stood_first() -> None:
    rows = [{"kind": "preference", "second": None, "swap_first": swap, "verdict": verdict}
            for swap, verdict in ((False, "first"), (True, "second"), (True, "second"), (True, "first"))]  # fmt: skip
    assert of(label_quality(table(*rows)), "Ada").left.estimate == 0.75


def test_judges_flip_and_stand_beside_people() -> None:
    """People agree on all four items but one; the judge names A in both orders once."""
    notes = [orders_note([Order("A"), Order(place)]) for place in "BBAB"] + [
        orders_note([Order("?"), Order("A")], "Hm")
    ]
    people = [{"item": n, "annotator": name, "verdict": "first" if n or name != "Cy" else "second"}
              for n in range(4) for name in ("Ada", "Ben", "Cy")]  # fmt: skip
    judge = [{"item": n, "annotator": "judge:x", "annotator_kind": "judge", "note": note,
              "verdict": ["first", "first", "tie", "first", "unsure"][n]} for n, note in enumerate(notes)]  # fmt: skip
    quality = label_quality(table(*people, *judge))
    row = of(quality, "judge:x")
    assert row.flips.estimate == 0.25 and row.left.estimate == 5 / 8 and math.isnan(row.others.estimate)
    (pop,) = quality.agreement
    (beside,) = pop.judges
    assert (pop.items, pop.shared, beside.items) == (5, 4, 4)
    assert pop.people.estimate == beside.people.estimate == pytest.approx((1 + 9) / 12)
    assert beside.judge.estimate == pytest.approx((2 + 3 + 0 + 3) / 12)
    assert pop.pairs.estimate == pytest.approx(10 / 12)
    assert of(quality, "Cy").others.estimate == 0.75
    assert of(quality, "Cy").kappa.estimate == pytest.approx(0)  # three of four, as chance gives
    assert math.isnan(of(quality, "Ada").kappa.estimate)  # always the same, as the others
    assert row.kappa.estimate == beside.kappa.estimate


def test_cycles_are_counted_by_majority() -> None:
    """a > b > c > a is a circle, a > d > … with b, d and a, d, b is not; d over c twice against once."""

    def edge(stronger: str, weaker: str, verdict: str = "first") -> dict[str, Any]:
        return {"first": stronger, "second": weaker, "verdict": verdict}

    rows = [edge("a", "b"), edge("b", "c"), edge("a", "c", "second"), edge("a", "d"), edge("b", "d")]
    cycles = label_quality(table(*rows, edge("d", "e"), edge("e", "d"), edge("e", "f", "tie"))).cycles
    assert cycles is not None
    assert (cycles.pairs, cycles.contradicted, cycles.triads) == (5, 1, 2)
    assert cycles.cyclic.estimate == 0.5 and cycles.on_cycles == pytest.approx(3 / 5)
    assert label_quality(table(edge("a", "b", "tie"))).cycles is None


def test_labels_by_coin_are_cyclic_in_a_quarter_of_the_triads() -> None:
    rng = np.random.default_rng(0)
    rows = [{"first": f"{i}", "second": f"{j}", "verdict": str(rng.choice(["first", "second"]))}
            for i in range(40) for j in range(i)]  # fmt: skip
    cycles = label_quality(table(*rows)).cycles
    assert cycles is not None and cycles.triads == 40 * 39 * 38 // 6
    assert cycles.cyclic.estimate == pytest.approx(0.25, abs=0.02) and cycles.on_cycles > 0.9


def test_pop_labels_are_held_against_ratings() -> None:
    rows = [
        {"item": n, "first": f"p{n}", "second": "zero", "verdict": "first" if n != 1 else "second"} for n in range(7)
    ]
    model = [rows[2] | {"annotator": "judge:x", "annotator_kind": "judge"}]
    strengths = {f"p{n}": float(n) for n in range(6)} | {"zero": 0.0, "p6": math.nan}
    people, judge = label_quality(table(*rows, *model), strengths).ratings
    assert (people.name, people.labels, people.agreement.estimate) == ("People", 5, 0.8)
    assert [round(third.estimate, 2) for third in people.thirds] == [0.5, 1.0, 1.0]
    assert (judge.name, judge.labels, judge.agreement.estimate) == ("judge:x", 1, 1.0)
    assert label_quality(table(*rows)).ratings == []


def test_no_labels_and_simulated_labels() -> None:
    empty = label_quality(table())
    assert empty.labels == 0 and empty.annotators == [] and empty.cycles is None
    quality = label_quality(*simulated())
    pop = next(found for found in quality.agreement if found.kind == "pop")
    assert 0 < pop.alpha.low < pop.alpha.estimate < pop.ordinal.estimate
    assert quality.ratings[0].thirds[0].estimate < quality.ratings[0].thirds[2].estimate
    assert of(quality, "judge:tiny").left.low > 0.5 > of(quality, "Ada").left.low
