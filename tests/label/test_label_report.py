"""The label report, and models on a real store by the command line."""

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from test_label_judge import Served
from test_label_quality import simulated, table

from popmargin.cli.main import main
from popmargin.data.load import load_preferences
from popmargin.label.quality.label_quality import label_quality
from popmargin.label.quality.report_page import reading, render_label_report, write_label_report
from popmargin.label.store.label_store import LabelStore


class Page(HTMLParser):
    """Reads a page; fails on tags that do not nest."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.words: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)
        assert not [name for name, _ in attrs if name.startswith("on")]
        if tag not in ("meta", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_all_sections_are_filled_and_nothing_is_loaded_from_outside() -> None:
    quality = label_quality(*simulated())
    page = render_label_report(quality, "<script>alert(1)</script>")
    read = Page(page)
    assert "Not shown" not in page and not {"script", "img", "iframe"} & set(read.tags)
    assert read.tags.count("table") == read.tags.count("caption") == 8
    assert "Ben <b>" in "".join(read.words) and "http:" not in page and ">nan" not in page
    assert page == render_label_report(label_quality(*simulated()), "<script>alert(1)</script>")


def test_human_agreement_stands_beside_every_judges() -> None:
    sentences = " ".join(reading(label_quality(*simulated())))
    assert "The best model, judge:tiny, reaches" in sentences
    assert "on the same items and against the same panels" in sentences
    assert "Position bias" in sentences and "would give 25%" in sentences


def test_few_and_no_labels_say_what_is_missing(tmp_path: Path) -> None:
    page = write_label_report(label_quality(table()), tmp_path / "deep" / "labels.html", "none").read_text()
    assert "Nobody has labelled" in page and page.count("Not shown:") == 6
    one = render_label_report(label_quality(table({}, {"annotator_kind": "judge", "annotator": "j"})), "one")
    assert "Give the project an overlap" in one and "agreement is unknown" in one
    Page(one)


@pytest.fixture
def labels(tmp_path: Path, data_path: str) -> str:
    """A store with PoP and preference items, two of which a person has labelled."""
    path = str(tmp_path / "labels.db")
    with LabelStore.open(path) as store:
        project = store.create_project("demo")
        preferences = load_preferences(data_path)
        store.import_preferences(project.id, preferences)
        ids = preferences.ids
        store.add_items(project.id, "pop", ids[:10], ids[10:20])
        store.add_items(project.id, "preference", ids[:4])
        person = store.add_annotator(project.id, "Ada")[0].id
        for number in range(2):
            given = store.next_assignment(person)
            assert given is not None
            store.record(person, given.id, "first", request=f"r{number}", seconds=3.0)
    return path


def rows_of(path: str) -> list[dict[str, Any]]:
    with LabelStore.open(path) as store:
        return store.labels(store.project("demo").id).to_pylist()


def test_models_label_a_store_once_and_the_report_shows_them(
    labels: str, tmp_path: Path, reward_path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    judge = ["label", "judge", "--db", labels, "--project", "demo", "--judge"]
    assert main([*judge, "ratings"]) == 0
    assert main([*judge, f"reward:{reward_path}", "--name", "vowels"]) == 0
    printed = capsys.readouterr().out
    assert "ratings: 14 new labels in project 'demo'\n14 questions = 14 labels + 0 unsure" in printed
    before = rows_of(labels)
    assert len(before) == 2 + 14 + 14 and {row["annotator_kind"] for row in before} == {"person", "ratings", "reward"}
    assert main([*judge, "ratings"]) == 0 and "ratings: 0 new labels" in capsys.readouterr().out
    assert rows_of(labels) == before
    out = tmp_path / "labels.html"
    assert main(["label", "report", "--db", labels, "--out", str(out)]) == 0
    assert "vowels" in out.read_text() and "30 labels by 1 person and 2 models on 14 items." in capsys.readouterr().out


def test_a_judge_behind_a_server_labels_a_store_by_the_command_line(
    labels: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = Served(tmp_path / "server", "")
    try:
        words = ["label", "judge", "--db", labels, "--project", "demo", "--judge", server.spec]
        words += ["--cache", str(tmp_path / "cache.jsonl"), "--price-in", "1", "--price-out", "2"]
        assert main(words) == 0
        printed = capsys.readouterr().out
        assert "judge:grader: 14 new labels" in printed and "28 calls, 0 answers from the cache, 0 unparsed" in printed
        assert "flipped with the order: 0 of 14 (0.0%)" in printed and "cost 0.0029" in printed
        rows = [row for row in rows_of(labels) if row["annotator_kind"] == "judge"]
        assert len(rows) == 14 and all(
            0.5 <= row["confidence"] <= 1 and row["note"].startswith("orders: ") for row in rows
        )
        assert main([*words, "--name", "again"]) == 0
        assert "0 calls, 28 answers from the cache" in capsys.readouterr().out and len(server.calls) == 28
    finally:
        server.stop()


def test_names_and_flags_that_do_not_fit_are_refused(
    labels: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judge = ["label", "judge", "--db", labels, "--project", "demo", "--judge"]
    for words, message in (
        ([*judge, "ratings", "--workers", "2"], "has no option 'workers'"),
        ([*judge, "ratings", "--name", "Ada"], "already has a person named 'Ada'"),
        ([*judge, "ratings", "--reward-options", "[1]"], "must be a mapping"),
        (["label", "report", "--db", str(tmp_path / "new.db"), "--out", "x.html"], "no such label store"),
    ):
        assert main(words) == 2
        assert message in capsys.readouterr().err
