"""A judge that compares, on a benchmark: both orders, contradictions, unreadable answers, and how layouts count."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.label.served import Served

from popmargin.cli.main import main
from popmargin.errors import DataError, RunError
from popmargin.evaluation.benchmarks.evaluate import BenchmarkResult, read_benchmark
from popmargin.evaluation.benchmarks.judged_pairs import judge_benchmark, plan_judging
from popmargin.report.benchmark_page import render_benchmark, text_lines


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[str], Served]]:
    running: list[Served] = []

    def start(mode: str) -> Served:
        running.append(Served(tmp_path / f"server{len(running)}", mode))
        return running[-1]

    yield start
    for server in running:
        server.stop()


def judged(rows: list[dict[str, Any]], better: dict[str, float], **options: Any) -> BenchmarkResult:
    """Compared by a known value of each response; equal ones tie."""

    def compare(prompts: Sequence[Any], first: Sequence[Any], second: Sequence[Any]) -> list[str]:
        gaps = [better[a] - better[b] for a, b in zip(first, second, strict=True)]
        return ["tie" if gap == 0 else "first" if gap > 0 else "second" for gap in gaps]

    return judge_benchmark(plan_judging(read_benchmark(rows, **options)), compare, "known")


def test_orders_that_contradict_are_ties_and_unreadable_answers_are_asked_once_more() -> None:
    said = {("a", "b"): "first", ("b", "a"): "second", ("c", "d"): "first", ("d", "c"): "first",
            ("e", "f"): "second", ("f", "e"): "second", ("g", "h"): "tie", ("h", "g"): "second",
            ("i", "j"): "second", ("j", "i"): "first", ("k", "l"): "unsure", ("l", "k"): "second",
            ("m", "n"): "unsure", ("n", "m"): "second"}  # fmt: skip
    asked: list[tuple[str, str]] = []

    def compare(prompts: Sequence[Any], first: Sequence[Any], second: Sequence[Any]) -> list[str]:
        asked.extend(zip(first, second, strict=True))
        return [said[pair] for pair in zip(first, second, strict=True)]

    def again(prompts: Sequence[Any], first: Sequence[Any], second: Sequence[Any]) -> list[str]:
        return ["first" if one == "m" else "unsure" for one in first]

    rows = [{"prompt": "p", "chosen": x, "rejected": y} for x, y in ("ab", "cd", "ef", "gh", "ij", "kl", "mn")]
    result = judge_benchmark(plan_judging(read_benchmark(rows)), compare, "known", again=again)
    assert result.comparisons == {"pairs": 7, "right": 2, "wrong": 1, "tie": 1, "both_first": 1, "both_second": 1,
                                  "unread": 1, "identical": 0}  # fmt: skip
    assert result.results["accuracy"].estimate == pytest.approx((2 + 4 / 2) / 7)
    assert sorted(asked) == sorted(said)
    told = "\n".join(text_lines(result))
    assert "7 pairs = 2 for the better response + 1 for the other one + 1 tied" in told
    assert "position bias: 1 of 2 contradictions are for the response shown first" in told
    assert "position bias" in render_benchmark(result)


def test_a_right_response_must_win_over_all_wrong_ones() -> None:
    rows = [
        {"prompt": f"p{n}", "chosen": [right], "rejected": ["v", "w", "x"], "subset": "Math"}
        for n, right in enumerate(("all", "tied", "lost"))
    ]
    value = {"all": 3.0, "tied": 2.0, "lost": 1.0, "v": 0.0, "w": 2.0, "x": 0.5}
    result = judged(rows, value)
    assert result.results["Math"].estimate == pytest.approx((1 + 0.5 + 0) / 3)
    assert result.subsets()[0]["guess"] == pytest.approx(1 / 4)
    several = [{"prompt": "p", "chosen": ["lost", "all"], "rejected": ["v", "w"]}]
    assert judged(several, value).results["accuracy"].estimate == 1.0


def test_what_counts_by_scores_is_left_out_and_counted() -> None:
    rows = [
        {"prompt": "p", "chosen": ["a"], "rejected": ["b"], "subset": "Math", "id": "1"},
        {"prompt": "q", "chosen": ["a"], "rejected": ["b"], "subset": "Ties", "id": "ref:1"},
        {"prompt": "q", "chosen": ["a", "c"], "rejected": ["b"], "subset": "Ties", "id": "tied:1"},
    ]
    result = judged(rows, {"a": 1.0, "b": 0.0, "c": 1.0})
    assert list(result.results) == ["Math"]
    assert "3 rows in = 1 asked + 2 left out (Ties: counts by scores, and this judge compares: 2)" in text_lines(result)
    with pytest.raises(DataError, match="none is a question"):
        judged(rows[1:], {})


def test_styles_and_samples_are_counted_by_their_pairs() -> None:
    styles = [{"prompt": "p", "chosen": ["a", "aa", "aaa"], "rejected": ["b", "bb", "bbb"], "domain": "chat"}] * 2
    by_length = {text: float(len(text)) for row in styles for side in ("chosen", "rejected") for text in row[side]}
    result = judged(styles, by_length)
    assert [result.results[name].estimate for name in ("easy", "normal", "hard")] == [1.0, 0.5, 0.0]
    assert result.matrix() == [[0.5, 0.0, 0.0], [1.0, 0.5, 0.0], [1.0, 1.0, 0.5]]
    samples = [{"prompt": "p", "responses": ["a", "bb", "c"], "scores": [1, 0, 0]},
               {"prompt": "q", "responses": ["a", "bb"], "scores": [1, 1]}]  # fmt: skip
    result = judged(samples, {"a": 1.0, "bb": 0.0, "c": 1.0})
    assert list(result.results) == ["accuracy of pairs"] and result.curve() == []
    assert result.results["accuracy of pairs"].estimate == pytest.approx(0.75)
    assert result.subsets()[0]["longest"].estimate == pytest.approx(0.25)
    assert dict(result.benchmark.read.left_out) == {"all responses are worth the same": 1}


def test_each_different_question_is_asked_once_and_identical_responses_are_not() -> None:
    rows = [
        {"prompt": "p", "chosen": ["a"], "rejected": ["b", "a"]},
        {"prompt": "p", "chosen": ["a"], "rejected": ["b"]},
    ]
    plan = plan_judging(read_benchmark(rows, layout="reward_bench_2"))
    assert (plan.pairs, len(plan.shown)) == (3, 2)
    result = judged(rows, {"a": 1.0, "b": 0.0})
    assert result.comparisons is not None and result.comparisons["identical"] == 1
    assert result.results["accuracy"].estimate == pytest.approx((0.5 + 1) / 2)


def test_responses_of_several_turns_are_shown_whole() -> None:
    hi = {"role": "user", "content": "Hi"}
    turns = [{"role": "assistant", "content": "Yes?"}, {"role": "user", "content": "Why?"}]
    row = {"prompt": [hi], "chosen": [*turns, {"role": "assistant", "content": "Because."}],
           "rejected": [{"role": "assistant", "content": "No."}]}  # fmt: skip
    prompt, first, second = next(iter(plan_judging(read_benchmark([row])).shown.values()))
    assert prompt == [hi]
    assert [turn["content"] for turn in first] == ["Yes?", "Why?", "Because."]  # type: ignore[index]
    assert [turn["content"] for turn in second] == ["No."]  # type: ignore[index]


def test_differences_are_paired_and_other_answers_are_refused() -> None:
    rows = [{"prompt": f"p{n}", "chosen": f"a{n}", "rejected": f"b{n}"} for n in range(6)]
    first = judged(rows, {f"{side}{n}": float(n % 2 == (side == "a")) for side in "ab" for n in range(6)})
    second = judged(rows, {f"{side}{n}": float(side == "a") for side in "ab" for n in range(6)})
    stored = json.loads(json.dumps(first.to_dict()))
    assert second.minus(stored)["accuracy"].estimate == pytest.approx(0.5)
    with pytest.raises(RunError, match="answered with 'A'"):
        judge_benchmark(plan_judging(read_benchmark(rows)), lambda p, a, b: ["A"] * len(a), "letters")
    with pytest.raises(RunError, match="12 comparisons were asked, but 1 answer"):
        judge_benchmark(plan_judging(read_benchmark(rows)), lambda p, a, b: ["tie"], "short")


def test_a_server_is_asked_in_both_orders_and_answers_are_cached(
    serve: Callable[[str], Served], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [{"prompt": f"p{n}", "chosen": "x" * (2 + n), "rejected": "yyy", "subset": "ab"[n % 2]} for n in range(4)]
    rows[3]["rejected"] = "vague"  # five letters, as many as its opponent has
    Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    judge = serve("vague")
    words = ["eval", "--data", "pairs.jsonl", "--model", judge.spec, "--as", "compare", "--options", "{cache: c.jsonl}"]
    assert main([*words, "--dry-run", "--price", "0.5"]) == 0
    assert "4 questions, 4 pairs, 8 calls at most" in (told := capsys.readouterr().out) and "which cost 4" in told
    assert judge.calls == []
    assert main([*words, "--out", "first.json", "--report", "page.html"]) == 0
    told = capsys.readouterr().out
    assert "4 pairs = 1 for the better response + 1 for the other one + 1 tied + 1 with an answer that cannot" in told
    assert "10 calls" in told
    assert len(judge.calls) == 10  # both orders of four pairs, and twice a reminder
    stored = json.loads(Path("first.json").read_text())
    assert stored["model"]["used_as"] == "judge that compares"
    assert stored["results"]["accuracy"]["estimate"] == pytest.approx(0.5)
    assert stored["comparisons"]["unread"] == 1 and [row["subset"] for row in stored["subsets"]] == [None, "a", "b"]
    assert "that cannot be read" in Path("page.html").read_text()
    assert main([*words, "--against", "first.json", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["against"]["differences"]["accuracy"]["estimate"] == 0
    assert len(judge.calls) == 10


def test_a_judge_that_always_names_the_first_place_is_a_coin(serve: Callable[[str], Served], tmp_path: Path) -> None:
    from popmargin.label.ranking.comparers import load_comparer

    comparer = load_comparer(serve("place").spec, cache=tmp_path / "cache.jsonl")
    rows = [{"prompt": f"p{n}", "chosen": "long" * n, "rejected": "x"} for n in range(1, 5)]
    result = judge_benchmark(plan_judging(read_benchmark(rows)), comparer.compare, "place", again=comparer.again)
    assert result.results["accuracy"].estimate == 0.5
    assert any("4 of 4 contradictions are for the response shown first (100.0%" in note for note in result.notes)
