"""Statistics of ratings, and of time per label, on small tables whose numbers can be counted by hand."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from label_stores import preferences
from test_label_quality import of, table
from test_label_report import Page

from popmargin.cli.main import main
from popmargin.label.projects.open_project import open_project
from popmargin.label.quality.label_quality import label_quality, together
from popmargin.label.quality.report_page import quality_json, reading, render_label_report
from popmargin.label.store.label_store import LabelStore
from popmargin.statistics.agreement import cohen_kappa


def rating(item: int, name: str, verdict: Any, **other: Any) -> dict[str, Any]:
    return {"kind": "rating", "item": item, "first": f"p{item // 2}", "second": None, "annotator": name,
            "response": ("chosen", "rejected")[item % 2], "verdict": str(verdict), **other}  # fmt: skip


ROWS = [
    *(rating(item, "Ada", value) for item, value in enumerate((1, 2, 3, 4))),
    *(rating(item, "Ben", value) for item, value in enumerate((1, 3, 3, "unsure"))),
    *(rating(item, "Cy", value) for item, value in enumerate((2, 2))),
]


def test_agreement_of_ratings_by_hand() -> None:
    """Items 0 to 2 have 1 1 2, 2 3 2 and 3 3; item 3 has one rating.

    Interval α: pairs of an item weigh 1 / (m − 1). Item 0 has squared differences 0, 1 and 1, in both orders, halved:
    2; item 1 the same; item 2 none: 4 over n = 8 values. By chance, all 8 values 1 1 2 2 2 3 3 3 in pairs: 2·(2·3·1 +
    2·3·4 + 3·3·1) = 78 over n (n − 1) = 56. So α = 1 − (4 / 8) / (78 / 56).
    """
    found = label_quality(table(*ROWS)).raters
    assert found is not None and (found.items, found.shared) == (4, 3)
    assert found.interval.estimate == pytest.approx(1 - (4 / 8) / (78 / 56))
    assert found.apart.estimate == pytest.approx((2 / 3 + 2 / 3 + 0) / 3)
    # Ranks: 1 1 2 2 2 3 3 3 have the middles 1, 3.5 and 6.5, so 1 to 2 is 2.5 apart, 2 to 3 is 3, 1 to 3 is 5.5.
    expected = 2 * (2 * 3 * 2.5**2 + 2 * 3 * 5.5**2 + 3 * 3 * 3.0**2)
    assert found.ordinal.estimate == pytest.approx(1 - ((2 * 2.5**2 + 2 * 3.0**2) / 8) / (expected / 56))


def test_a_row_for_everybody_by_hand() -> None:
    again = [
        rating(0, "Ada", 1, repeat_of=1),
        rating(1, "Ada", 4, repeat_of=2),
        rating(2, "Ada", "unsure", repeat_of=3),
    ]
    first = [{**row, "gold": gold, "seconds": seconds} for row, gold, seconds in
             zip(ROWS, ["1", "3", None, None], (2.0, 4.0, 9.0, 5.0), strict=False)]  # fmt: skip
    quality = label_quality(table(*first, *ROWS[4:], *again))
    assert quality.annotators == [] and quality.agreement == []
    assert quality.raters is not None
    rows = {row.name: row for row in quality.raters.raters}
    ada, ben = rows["Ada"], rows["Ben"]
    assert (ada.labels, ada.seconds, ada.unsure, ada.mean) == (4, 4.5, 0.0, 2.5)
    assert ada.deviation == pytest.approx(np.std([1, 2, 3, 4], ddof=1))
    assert (ada.consistency.estimate, ada.again) == (0.5, 1.0)  # 1 and 1, 2 and 4; "unsure" is no rating
    assert ada.gold.estimate == 0.5
    # The others of Ada's items give 1 2, 3 2 and 3; lower medians 1, 2 and 3.
    assert ada.others.estimate == pytest.approx((0.5 + 0.5 + 0) / 3)
    assert ada.kappa.estimate == pytest.approx(cohen_kappa([1, 2, 3], [1, 2, 3], "quadratic")) == pytest.approx(1)
    assert ben.unsure == 0.25 and ben.others.estimate == pytest.approx((0.5 + 1 + 0) / 3)
    assert ben.kappa.estimate == pytest.approx(cohen_kappa([1, 2, 3], [1, 3, 3], "quadratic"))
    assert math.isnan(ben.consistency.estimate) and math.isnan(ben.gold.estimate)


def timed(items: int = 4) -> list[dict[str, Any]]:
    """Ratings take 2, 4, 6, 8 s; PoP labels 8, 12, 16; a preference 5 s; what is no label of a person has no part."""
    rows = [rating(item, "Ada", 3, seconds=2.0 * (item + 1)) for item in range(items)]
    rows += [{"item": 100 + n, "first": "p0", "second": "p1", "annotator": name, "seconds": seconds}
             for n, (name, seconds) in enumerate((("Ada", 8.0), ("Ben", 12.0), ("Ada", 16.0)))]  # fmt: skip
    rows.append({"item": 200, "kind": "preference", "second": None, "seconds": 5.0})
    rows.append(rating(0, "Ada", 3, seconds=500.0, repeat_of=1))
    rows.append({"item": 100, "annotator": "judge", "annotator_kind": "judge", "seconds": 900.0})
    return rows


def test_time_per_label_and_per_strength_by_hand() -> None:
    """Both ratings of p0 take 2 + 4 s, of p1 6 + 8: a median of 10. PoP 12 against 5 a rating and 10 a strength."""
    pace = label_quality(table(*timed())).pace
    pop, one, both = pace.kinds["pop"], pace.kinds["rating"], pace.strength
    assert (one.labels, one.people, one.median.estimate, one.quarters) == (4, 1, 5.0, (3.5, 6.5))
    assert (pop.labels, pop.people, pop.median.estimate, pop.quarters) == (3, 2, 12.0, (10.0, 14.0))
    assert (one.per_hour, pop.per_hour, pace.kinds["preference"].per_hour) == (720.0, 300.0, 720.0)
    assert both is not None and (both.labels, both.median.estimate, both.per_hour) == (2, 10.0, 360.0)
    assert (pace.ratio.estimate, pace.strength_ratio.estimate, pace.both) == (2.4, 1.2, 1)
    assert 1.0 <= pace.ratio.low < 2.4 < pace.ratio.high <= 8.0  # from 8 : 8 to 16 : 2
    assert 8 / 14 <= pace.strength_ratio.low < pace.strength_ratio.high <= 16 / 6


def test_a_strength_needs_two_ratings_that_are_numbers() -> None:
    """Two people's times of a response are averaged: (2 + 6) / 2 + 4 = 8; p1 has "unsure", p2 one response."""
    rows = [
        rating(0, "Ada", 1, seconds=2.0),
        rating(0, "Ben", 2, seconds=6.0),
        rating(1, "Ada", 1, seconds=4.0),
        rating(2, "Ada", 1, seconds=1.0),
        rating(3, "Ada", "unsure", seconds=1.0),
        rating(4, "Ada", 1, seconds=1.0),
    ]
    pace = label_quality(table(*rows)).pace
    assert pace.strength is not None
    assert (pace.strength.labels, pace.strength.people, pace.strength.median.estimate) == (1, 2, 8.0)
    assert math.isnan(pace.ratio.estimate) and pace.both == 0


def test_the_interval_of_the_ratio_covers_the_true_one() -> None:
    """Exponential times with means 30 and 10: 95% intervals hold the ratio of medians, 3, nearly always."""
    hits = 0
    for seed in range(10):
        rng = np.random.default_rng(seed)
        rows = [rating(n, "Ada", 3, seconds=float(rng.exponential(10))) for n in range(60)]
        rows += [{"item": 100 + n, "seconds": float(rng.exponential(30))} for n in range(60)]
        ratio = label_quality(table(*rows)).pace.ratio
        hits += ratio.low <= 3 <= ratio.high
    assert 7 <= hits <= 10


def test_labels_of_two_projects_are_put_together_without_mixing_their_items() -> None:
    """Both number from 1: item 1 is another in the second table, and so is the answer that is repeated."""
    one = table({"item": 1}, {"item": 1, "repeat_of": 1})
    two = table(rating(1, "Ada", 2), rating(1, "Ada", 4, repeat_of=1), rating(1, "Ben", 2))
    whole = together([one, two])
    assert len(set(whole["assignment"].to_pylist())) == 5 and len(set(whole["item"].to_pylist())) == 2
    quality = label_quality(whole)
    assert quality.items == {"preference": 0, "pop": 1, "rating": 1, "rank": 0} and quality.raters is not None
    assert of(quality, "Ada").consistency.estimate == 1.0
    assert [row.again for row in quality.raters.raters if row.name == "Ada"] == [2.0]
    assert together([table()]).num_rows == 0


def test_the_page_the_sentences_and_the_json_say_the_same() -> None:
    quality = label_quality(table(*timed(), *ROWS))
    page = render_label_report(quality, "both")
    words = " ".join(" ".join(Page(page).words).split())
    assert "Two ratings give the strength of one preference." in words and "1 did both" in words
    assert "PoP label : rating 2.40 [" in words and "Ratings of single responses" in words
    said = " ".join(reading(quality))
    assert "Two people's ratings of the same response are" in said and "it takes 1.20 times (" in said
    assert "Median times: a PoP label 12.0 s, a label on one preference 5.0 s, a rating of one response 5.0 s." in said
    numbers = json.loads(json.dumps(quality_json(quality), allow_nan=False))
    assert numbers["pace"]["ratio"]["estimate"] == 2.4 and numbers["pace"]["kinds"]["rating"]["quarters"] == [3.5, 6.5]
    assert numbers["raters"]["raters"][0]["gold"] == {"estimate": None, "low": None, "high": None}


@pytest.mark.parametrize("apart", [False, True], ids=["one store", "two stores"])
def test_a_project_of_ratings_stands_beside_one_of_pop_labels(tmp_path: Path, capsys: Any, apart: bool) -> None:
    """Ratings give p0 the largest gap and p3 the least, and the PoP labels name the preference that comes earlier."""
    db, other = str(tmp_path / "labels.db"), str(tmp_path / ("rated.db" if apart else "labels.db"))
    for url, kind in ((db, "pop"), (other, "rating")):
        with LabelStore.open(url) as store:
            asked: Any = {"scale": 9} if kind == "rating" else {"k": 3, "sampling": "random"}
            project = open_project(store, preferences(4), kind, kind=kind, **asked, say=lambda line: None)
            who, _ = store.add_annotator(project.id, "anna")
            while (now := store.next_assignment(who.id)) is not None:
                row = int(now.first.id[1:])
                verdict: Any = str(8 - row) if now.response == "chosen" else "2"
                if now.second is not None:
                    verdict = "first" if row < int(now.second.id[1:]) else "second"
                store.record(who.id, now.id, verdict, request=str(now.id), seconds=6.0 if kind == "pop" else 4.0)
    out = tmp_path / "labels.html"
    words = ["label", "report", "--db", db, "--project", "pop", "--out", str(out), "--overwrite", "--with"]
    assert main([*words, f"{other}#rating" if apart else "rating", "--json"]) == 0
    numbers = json.loads(capsys.readouterr().out)
    assert numbers["items"] == {"preference": 0, "pop": 6, "rating": 8, "rank": 0} and numbers["rated_by_people"]
    assert numbers["ratings"][0]["agreement"]["estimate"] == 1.0 and numbers["ratings"][0]["labels"] == 6
    assert numbers["pace"]["ratio"]["estimate"] == 1.5 and numbers["pace"]["strength_ratio"]["estimate"] == 0.75
    assert "How good are the labels of pop and rating?" in out.read_text(encoding="utf-8")
    assert main(words[:-1]) == 0
    printed = capsys.readouterr().out
    assert "larger gap in the data's ratings" in printed and "wrote " in printed
    assert main([*words, "nothing"]) == 2
