import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from popmargin.report import ArmResult, StudyResults, render_report, write_report
from popmargin.statistics.intervals import Interval

VOID = {"meta", "link", "br", "img", "input", "hr"}
SECTIONS = ["summary", "tradeoff", "buckets", "curves", "margins", "logratios", "calibration", "overhead", "samples",
            "account", "notes", "setup"]  # fmt: skip


class Page(HTMLParser):
    """Reads a page; fails on tags that do not nest, and keeps what tests ask about."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag, (tag, self.getpos())

    def handle_data(self, data) -> None:
        if "style" not in self.open:
            self.text.append(data)

    def words(self) -> str:
        return " ".join("".join(self.text).split())

    def values(self, name: str) -> list[str]:
        return [value for _, attributes in self.tags if (value := attributes.get(name))]


def bare(name: str = "dpo", **values) -> ArmResult:
    return ArmResult(name=name, objective="dpo", label=name.upper(), origin="baseline", seeds=[0], **values)


def test_all_sections_in_order(study: StudyResults) -> None:
    text = render_report(study)
    page = Page(text)
    sections = [a["id"] for tag, a in page.tags if tag == "section" and a.get("id")]
    assert sections == SECTIONS
    assert "Not shown" not in page.words()
    assert all(sentence in page.words() for sentence in study.reading)
    assert [h for h in page.values("href") if h.startswith("#")] == [f"#{name}" for name in SECTIONS]


def test_size_and_numbers(study: StudyResults) -> None:
    text = render_report(study)
    assert len(text.encode()) < 400_000
    words = Page(text).words()
    assert "71.1%" in words and "[69.4, 72.8]" in words and "▲ +2.7 better" in words
    assert "ours 5 seeds" in words and "control 5 seeds" in words


def test_tables_and_pictures_are_labelled(study: StudyResults) -> None:
    page = Page(render_report(study))
    assert all(a.get("scope") in {"row", "col"} for tag, a in page.tags if tag == "th")
    tables = sum(tag == "table" for tag, _ in page.tags)
    assert tables == sum(tag == "caption" for tag, _ in page.tags) == 4
    pictures = [a for tag, a in page.tags if tag == "svg"]
    assert all(a.get("aria-hidden") == "true" or len(a.get("aria-label") or "") > 20 for a in pictures)
    assert sum(tag == "figure" for tag, _ in page.tags) == sum(tag == "figcaption" for tag, _ in page.tags) == 6


def test_ids_are_unique(crowded_study: StudyResults) -> None:
    ids = Page(render_report(crowded_study)).values("id")
    assert len(ids) == len(set(ids))
    page = Page(render_report(crowded_study))
    assert set(page.values("aria-labelledby")) <= set(ids)


def test_nothing_is_loaded_from_outside(study: StudyResults) -> None:
    text = render_report(study)
    assert not re.search(r"https?:|//[a-z]|@import|url\(", text, flags=re.I)
    page = Page(text)
    assert {tag for tag, _ in page.tags} & {"script", "img", "iframe", "object", "embed"} == set()
    assert set(page.values("src")) == set()
    assert "default-src 'none'" in text


HOSTILE = (
    "</script><img src=x onerror=alert(1)>",
    "</style><script>alert(1)</script>",
    "{{ 7 * 7 }} {% raw %}",
    "\"'><svg onload=alert(1)>",
    "-->\x00\x1b\ud800 ]]>",
    "\u202eevil",
)


@pytest.mark.parametrize("evil", HOSTILE)
def test_hostile_text_is_shown_and_not_obeyed(study: StudyResults, evil: str) -> None:
    arm = replace(
        study.arms[1],
        label=evil,
        objective=evil,
        metrics={**study.arms[1].metrics, evil: Interval(0.5, 0.4, 0.6)},
        samples=[{"prompt": evil, "completion": evil * 3, "reward": 0.1}],
    )
    hostile = StudyResults(
        title=evil, arms=[replace(study.arms[0], samples=[]), arm], reference={}, baseline="dpo", reading=[evil],
        data={evil: evil}, config=evil, versions={evil: evil}, fingerprint=evil,
    )  # fmt: skip
    page = Page(render_report(hostile))
    assert {tag for tag, _ in page.tags} & {"script", "img", "iframe"} == set()
    names = {name.lower() for _, attributes in page.tags for name in attributes}
    assert not {name for name in names if name.startswith("on")}
    shown = evil.replace("\x00", "�").replace("\x1b", "�").replace("\ud800", "�")
    assert "".join(page.text).count(shown) >= 10


def test_writes_utf8_that_reads_back(study: StudyResults, tmp_path) -> None:
    broken = replace(study, title="half a pair \ud83d and a whole one 🎻")
    path = write_report(broken, tmp_path / "deep" / "report.html")
    assert "🎻" in path.read_text(encoding="utf-8")
    assert [entry.name for entry in path.parent.iterdir()] == ["report.html"]


def test_same_study_same_bytes(study: StudyResults) -> None:
    assert render_report(study) == render_report(StudyResults.from_json(study.to_json()))


def test_study_without_arms() -> None:
    page = Page(render_report(StudyResults("Empty", [], {}, "dpo")))
    assert page.words().count("Not shown:") == 11  # all sections but the notes say why


def test_arm_with_nothing_but_a_name() -> None:
    page = Page(render_report(StudyResults("Bare", [bare()], {}, "dpo")))
    words = page.words()
    assert "One way of training" in words and "1 seed" in words
    assert words.count("Not shown:") == 9
    cells = [a for tag, a in page.tags if tag == "td"]
    assert len(cells) == 8 and words.count("–") >= 8


NAN = math.nan


def test_numbers_that_are_not_finite() -> None:
    broken = bare(
        metrics={"accuracy": Interval(NAN, NAN, NAN), "mean_reward": Interval(1.0, NAN, NAN),
                 "length": Interval(math.inf, 0, math.inf), "accuracy_weak": Interval(0.5, NAN, NAN)},
        curves={"accuracy": [[0, NAN, NAN, NAN], [1, 0.5, NAN, NAN], [2, 0.6, NAN, NAN]], "kl_per_token": []},
        training={"target_margin_mean": [[0, NAN], [1, 1.0], [2, 2.0]], "chosen_logratio": [[0, 1.0]]},
        reliability=[{"low": 0.5, "high": 1.0, "predicted": NAN, "observed": NAN, "count": 0}],
        overhead={"train_seconds": NAN, "time_ratio": 1.0},
        samples=[{"prompt": "p", "completion": "", "reward": NAN}],
    )  # fmt: skip
    words = Page(render_report(StudyResults("Broken", [broken], {}, "dpo"))).words()
    assert not re.search(r"\b(nan|inf|None)\b", words, flags=re.I)
    assert "reward –" in words and "1.00 ×" in words
    for name in ("reliability bins", "both an accuracy and a generative", "logged the log-ratios"):
        assert name in words


def test_no_nan_reaches_a_picture(study: StudyResults) -> None:
    holes = [replace(arm, curves={k: [[*row[:2], NAN, NAN] for row in rows] for k, rows in arm.curves.items()},
                     metrics={k: Interval(v.estimate, NAN, NAN) for k, v in arm.metrics.items()})
             for arm in study.arms]  # fmt: skip
    text = render_report(replace(study, arms=holes))
    assert not re.search(r'="[^"]*\b(nan|inf)\b', text)


def test_baseline_that_is_not_among_the_arms(study: StudyResults) -> None:
    page = Page(render_report(replace(study, baseline="gone")))
    assert "compared with gone" in page.words()
    assert "comparison arm" not in page.words()


def test_arm_without_generations_is_named(crowded_study: StudyResults) -> None:
    page = Page(render_report(crowded_study))
    words = page.words()
    last = crowded_study.arms[-1].label
    assert f"Not shown, since one of the two was not measured: {last}" in words
    assert words.count(last) > 5
    assert len(render_report(crowded_study).encode()) < 1_500_000


def test_mean_reward_takes_the_axis_when_there_are_no_win_rates(study: StudyResults) -> None:
    arms = [replace(arm, metrics={k: v for k, v in arm.metrics.items() if "win" not in k}) for arm in study.arms]
    words = Page(render_report(replace(study, arms=arms))).words()
    assert "Mean reward against accuracy on held-out preferences" in words


def test_long_completions_and_many_prompts_are_cut_and_counted(study: StudyResults) -> None:
    samples = [{"prompt": f"p{i}", "completion": "x" * 5000, "reward": 0.0} for i in range(9)]
    words = Page(render_report(replace(study, arms=[replace(study.arms[0], samples=samples)]))).words()
    assert "and 2,000 more characters" in words
    assert "3 more are in the results file" in words


def test_several_answers_to_one_prompt_stand_in_blocks_of_their_own(study: StudyResults) -> None:
    two = [{"prompt": "p", "completion": text, "reward": 0.0} for text in ("alpha", "omega")]
    arms = [replace(study.arms[0], samples=two), replace(study.arms[1], samples=two[:1])]
    words = Page(render_report(replace(study, arms=arms))).words()
    assert "Prompt 2" in words and "Prompt 3" not in words
    assert words.count("alpha") == 2 and words.count("omega") == 1


def test_scales_have_a_histogram_of_the_last_steps(study: StudyResults) -> None:
    """Eight bins; the last tenth of twenty steps counts, in which half is in the first and in the last bin."""
    heights = {1: 0.5, 8: 0.5}
    training = {
        f"tau_bin_{n}": [[float(s), 1 / 8 if s < 18 else heights.get(n, 0.0)] for s in range(20)] for n in range(1, 9)
    }
    without = Page(render_report(study))
    page = Page(render_report(replace(study, arms=[*study.arms, bare("aps", training=training)])))
    assert not any("Scales of" in (a.get("aria-label") or "") for _, a in without.tags)
    labels = [a["aria-label"] for tag, a in page.tags if tag == "svg" and "Scales of" in (a.get("aria-label") or "")]
    assert labels == ["Scales of APS at the end: 50% in the lowest bin, 50% in the highest."]
    assert page.words().count("bin 1 of 8: 50%") == 1 and "bin 2 of 8: 0%" in page.words()
