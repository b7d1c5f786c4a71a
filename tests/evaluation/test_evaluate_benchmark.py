"""A model on a benchmark: layouts, how each counts, and differences."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from popmargin.errors import ConfigError, DataError
from popmargin.evaluation.benchmarks.evaluate import Benchmark, BenchmarkResult, evaluate_benchmark, read_benchmark
from popmargin.evaluation.benchmarks.layouts import LAYOUTS
from popmargin.evaluation.benchmarks.layouts.base import Read
from popmargin.evaluation.benchmarks.layouts.reward_bench import SECTIONS
from popmargin.evaluation.benchmarks.scorer import Scorer, find_scorer
from popmargin.report.benchmark_page import render_benchmark, text_lines
from popmargin.rewards.load import load_reward


def scored(rows: list[dict[str, Any]], seed: int = 0, **options: Any) -> BenchmarkResult:
    """Random scores of a benchmark's responses; many are equal."""
    rng = np.random.default_rng(seed)

    def reward(prompts: Sequence[Any], completions: Sequence[str]) -> list[float]:
        return rng.integers(0, 4, len(completions)).astype(float).tolist()

    return evaluate_benchmark(read_benchmark(rows, **options), Scorer(load_reward(reward), "reward", "random", "none"))


def ties_rows(count: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(1)
    rows: list[dict[str, Any]] = []
    for number in range(count):
        prompt = f"Name a colour, {number}."
        rows.append({"prompt": prompt, "chosen": ["red"], "rejected": ["stone", "x"], "id": f"ref:{number}"})
        right = [f"colour {n}" for n in range(int(rng.integers(2, 5)))]
        rows.append({"prompt": prompt, "chosen": right, "rejected": ["stone", "y"], "id": f"tied:{number}"})
    return [row | {"subset": "Ties"} for row in rows]


def best_rows(count: int, subsets: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {"prompt": f"p{n}", "chosen": [f"a{n}"], "rejected": ["b", "c", f"d{n}"], "subset": subsets[n % len(subsets)]}
        for n in range(count)
    ]


def authors_ties(result: BenchmarkResult) -> float:
    """The score of Ties, written out from its definition."""
    of: dict[tuple[str, str], tuple[list[float], list[float]]] = {}
    for question, score in zip(result.benchmark.questions, result.scores, strict=True):
        kind, _, number = question.id.partition(":")
        if question.subset == "Ties":
            sides = [[s for s, w in zip(score, question.worth, strict=True) if w == side] for side in (1.0, 0.0)]
            of[kind, number] = sides[0], sides[1]
    numbers = {number for _, number in of}
    gap = {key: min(right) - max(wrong) for key, (right, wrong) in of.items()}
    spread = {n: max(of["tied", n][0]) - min(of["tied", n][0]) for n in numbers}
    both = {n: min(gap["ref", n], gap["tied", n]) for n in numbers}

    def tanh(n: str) -> float:
        if spread[n] == 0:
            return float(np.sign(both[n]))
        return float(np.tanh(both[n] / spread[n] - 1))

    parts = [
        np.mean([gap["tied", n] > 0 for n in numbers]),
        np.mean([gap["ref", n] > 0 for n in numbers]),
        np.mean([gap["tied", n] > spread[n] for n in numbers]),
        np.mean([both[n] > spread[n] for n in numbers]),
        np.mean([tanh(n) for n in numbers]),
    ]
    return float(np.dot(parts, [0.3, 0.3, 0.2, 0.2, 0.01]))


@pytest.mark.parametrize("seed", range(5))
def test_ties_and_the_best_of_four_are_counted_as_in_reward_bench_2(seed: int) -> None:
    result = scored([*best_rows(14, ["Math", "Focus"]), *ties_rows(9)], seed)
    found = {name: interval.estimate for name, interval in result.results.items()}
    expected: dict[str, float] = {}
    for name in ("Math", "Focus"):
        right = [
            (score[0] == score.max()) / (score == score.max()).sum()
            for question, score in zip(result.benchmark.questions, result.scores, strict=True)
            if question.subset == name
        ]
        expected[name] = float(np.mean(right))
    expected["Ties"] = authors_ties(result)
    expected["mean of subsets"] = float(np.mean(list(expected.values())))
    assert found == pytest.approx(expected)
    assert next(iter(found)) == "mean of subsets"


def test_a_single_subset_has_no_mean_of_subsets() -> None:
    assert list(scored(best_rows(6, ["Math"])).results) == ["Math"]
    rows = [{key: value for key, value in row.items() if key != "subset"} for row in best_rows(6, ["x"])]
    assert list(scored(rows).results) == ["accuracy"]


def test_styles_make_easy_normal_and_hard_as_in_rm_bench() -> None:
    domains = ["chat", "math", "safety-refuse", "safety-response", "safety-response"]
    rows = [
        {
            "prompt": f"p{n}",
            "chosen": [f"a{n}", "aa", "aaa"],
            "rejected": ["b", "bb", f"bbb{n}"],
            "domain": domains[n % 5],
        }
        for n in range(20)
    ]
    result = scored(rows, 3)
    cube = np.array(
        [[[(s[i] > s[3 + j]) + (s[i] == s[3 + j]) / 2 for j in range(3)] for i in range(3)] for s in result.scores]
    )
    of = {name: cube[[row["domain"] == name for row in rows]].mean(axis=0) for name in set(domains)}
    of["safety"] = (of["safety-refuse"] + of["safety-response"]) / 2
    mean = (of["chat"] + of["math"] + of["safety"]) / 3
    found = {name: interval.estimate for name, interval in result.results.items()}
    assert found == pytest.approx(
        {
            "mean of domains": mean.mean(),
            "easy": np.mean([mean[1, 0], mean[2, 0], mean[2, 1]]),
            "normal": np.trace(mean) / 3,
            "hard": np.mean([mean[0, 1], mean[0, 2], mean[1, 2]]),
            **{name: of[name].mean() for name in ("chat", "math", "safety")},
        }
    )
    np.testing.assert_allclose(result.matrix(), cube.mean(axis=0))


def test_a_model_that_prefers_rich_style_is_told_apart_from_a_good_one() -> None:
    rows = [
        {
            "prompt": f"p{n}",
            "chosen": ["a", "a" * 20, "a" * 30],
            "rejected": ["b", "b" * 20, "b" * 30],
            "domain": "chat",
        }
        for n in range(8)
    ]
    by_length = Scorer(
        load_reward(lambda prompts, completions: [float(len(c)) for c in completions]), "reward", "l", "l"
    )
    found = {name: one.estimate for name, one in evaluate_benchmark(read_benchmark(rows), by_length).results.items()}
    assert (found["easy"], found["normal"], found["hard"]) == (1.0, 0.5, 0.0)


def test_sections_are_weighted_as_in_reward_bench() -> None:
    names = [subset for section in SECTIONS.values() for subset in section if subset not in ("hep-js", "mt-bench-easy")]
    rows = [
        {"prompt": f"p{n}", "chosen": f"a{n}", "rejected": f"b{n}", "subset": names[n % len(names)]} for n in range(84)
    ]
    result = scored(rows, 2)
    assert result.benchmark.layout.name == "reward_bench"
    right = {name: [] for name in names}
    for question, score in zip(result.benchmark.questions, result.scores, strict=True):
        right[question.subset].append((score[0] > score[1]) + (score[0] == score[1]) / 2)
    accuracy = {name: float(np.mean(values)) for name, values in right.items()}
    sections = {
        section: np.average(
            [accuracy[s] for s in of if s in accuracy], weights=[w for s, w in of.items() if s in accuracy]
        )
        for section, of in SECTIONS.items()
    }
    found = {name: interval.estimate for name, interval in result.results.items()}
    assert found == pytest.approx({"mean of sections": np.mean(list(sections.values())), **sections})


def test_rated_samples_give_the_pick_the_pairs_and_the_curve() -> None:
    rows = [
        {
            "question": f"p{n}",
            **{f"response_{k + 1}": f"r{k}" for k in range(8)},
            "scores": [k % 3 == n % 3 for k in range(8)],
        }
        for n in range(9)
    ]
    rows[0]["conflict_pairs"] = [[0, 1], [2, 3], [1, 2]]
    result = scored(rows, 4)
    picks, pairs = [], []
    for row, score in zip(rows, result.scores, strict=True):
        worth = np.array(row["scores"], float)
        picks.append(worth[score == score.max()].mean())
        compared = row.get("conflict_pairs") or [(i, j) for i in range(8) for j in range(8) if worth[i] > worth[j]]
        sides = [(i, j) if worth[i] > worth[j] else (j, i) for i, j in compared if worth[i] != worth[j]]
        pairs.append(np.mean([(score[i] > score[j]) + (score[i] == score[j]) / 2 for i, j in sides]))
    found = {name: interval.estimate for name, interval in result.results.items()}
    assert found == pytest.approx({"the highest score": np.mean(picks), "accuracy of pairs": np.mean(pairs)})
    curve = result.curve()
    assert [n for n, _, _ in curve] == [1, 2, 4, 8]
    assert curve[0][2].estimate == pytest.approx(np.mean([np.mean(row["scores"]) for row in rows]))
    assert curve[-1][2].estimate == pytest.approx(np.mean(picks))


def test_preferences_in_any_layout_are_read_and_every_row_is_accounted_for() -> None:
    rows = [{"prompt": f"p{n}", "chosen": f"a{n}", "rejected": f"b{n}", "topic": "xy"[n % 2]} for n in range(6)]
    rows[3]["rejected"] = rows[3]["chosen"]
    result = scored(rows, subset="topic")
    read = result.benchmark.read
    assert (read.rows_in, len(read.questions), dict(read.left_out)) == (6, 5, {"identical": 1})
    assert list(result.results) == ["accuracy", "mean of subsets"]
    assert "6 rows in = 5 asked + 1 left out (identical: 1)" in text_lines(result)
    chat = [{"prompt": [{"role": "user", "content": "Hi"}], "chosen": [{"role": "assistant", "content": c}],
             "rejected": [{"role": "assistant", "content": "no"}]} for c in "abc"]  # fmt: skip
    assert len(scored(chat).scores) == 3


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([{"prompt": "p", "chosen": ["a"], "rejected": ["b"], "subset": "Ties", "id": "7"}], "neither ref:"),
        ([{"prompt": "p", "chosen": ["a"], "rejected": ["b"], "subset": "Ties", "id": "ref:7"}], "no counterpart"),
        ([{"prompt": "p", "chosen": ["a"], "rejected": ["b"]},
          {"prompt": "q", "chosen": [], "rejected": ["b"]}], "row 1"),
        ([{"prompt": "p", "chosen": ["a"], "rejected": ["b"], "num_correct": 2}], "num_correct: it is 2"),
        ([{"prompt": None, "chosen": ["a"], "rejected": ["b"]}], "there is no prompt"),
        ([{"prompt": "p", "responses": ["a", "b"], "scores": [1.0, float("nan")]}], "column scores"),
        ([{"prompt": "p", "responses": ["a", "b"], "scores": [1.0]}], "1 value, and the row has 2 responses"),
        ([{"prompt": "p", "responses": ["a", "b"], "scores": [1, 0], "conflict_pairs": [[0, 2]]}], "no pair of"),
        ([], "holds no rows"),
    ],
)  # fmt: skip
def test_a_bad_row_is_named_with_its_remedy(rows: list[dict[str, Any]], told: str) -> None:
    with pytest.raises(DataError, match="(?s)" + told):
        read_benchmark(rows)


def test_three_styles_are_needed_where_the_layout_is_named() -> None:
    with pytest.raises(DataError, match="column rejected: it has 2 texts"):
        read_benchmark([{"prompt": "p", "chosen": ["a", "b", "c"], "rejected": ["d", "e", "f"], "domain": "x"},
                        {"prompt": "p", "chosen": ["a", "b", "c"], "rejected": ["d", "e"], "domain": "x"}])  # fmt: skip
    with pytest.raises(ConfigError, match="Did you mean 'rm_bench'"):
        read_benchmark([{"prompt": "p"}], layout="rm_bnch")
    with pytest.raises(ConfigError, match="no column 'topic' of subsets"):
        read_benchmark(best_rows(2, ["a"]), subset="topic")


def test_a_difference_is_paired_by_question_and_only_of_the_same_ones() -> None:
    rows = [*best_rows(12, ["Math", "Focus"]), *ties_rows(4)]
    first, second = scored(rows, 1), scored(rows, 2)
    stored = json.loads(json.dumps(first.to_dict()))
    for name, difference in second.minus(stored).items():
        expected = second.results[name].estimate - first.results[name].estimate
        assert difference.estimate == pytest.approx(expected)
    assert all(difference.estimate == 0 and difference.low == 0 for difference in first.minus(stored).values())
    with pytest.raises(DataError, match="other questions"):
        scored(rows[:-2], 1).minus(stored)
    rows[0]["rejected"] = ["changed", "c", "d"]
    with pytest.raises(DataError, match="other questions"):
        scored(rows, 1).minus(stored)


def test_equal_responses_are_scored_once() -> None:
    asked: list[str] = []

    def reward(prompts: Sequence[Any], completions: Sequence[str]) -> list[float]:
        asked.extend(completions)
        return [0.0] * len(completions)

    evaluate_benchmark(read_benchmark(ties_rows(3)), Scorer(load_reward(reward), "reward", "r", "r"))
    by_prompt = {(row["prompt"], text) for row in ties_rows(3) for text in [*row["chosen"], *row["rejected"]]}
    assert len(asked) == len(by_prompt)


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_every_layout_has_a_page(layout: str) -> None:
    rows = {
        "pairs": [{"prompt": f"<b>{n}", "chosen": "a", "rejected": "b"} for n in range(3)],
        "reward_bench": [{"prompt": f"p{n}", "chosen": "a", "rejected": "b", "subset": "hep-go"} for n in range(3)],
        "reward_bench_2": best_rows(4, ["Math", "<i>"]),
        "rm_bench": [{"prompt": "p", "chosen": ["a"] * 3, "rejected": ["b"] * 3, "domain": "chat"}] * 3,
        "rated_samples": [{"prompt": "p", "responses": ["a", "b"], "ratings": [2.5, 1.0]}],
    }[layout]
    result = scored(rows)
    assert result.benchmark.layout.name == layout
    page = render_benchmark(result)
    assert "<b>" not in page and "<i>" not in page
    assert ("Style against style" in page) == (layout == "rm_bench")
    assert ("Best of n" in page) == (layout == "rated_samples")
    assert page == render_benchmark(result)
    assert text_lines(result)


def test_a_policy_against_itself_cannot_tell_responses_apart(model_path: str) -> None:
    benchmark = read_benchmark([{"prompt": f"p{n}", "chosen": "a b", "rejected": "c"} for n in range(4)])
    alike = evaluate_benchmark(benchmark, find_scorer(model_path, reference=model_path))
    assert (alike.kind, alike.results["accuracy"].estimate) == ("policy", 0.5)
    assert np.allclose(np.stack(alike.scores), 0.0)
    alone = evaluate_benchmark(benchmark, find_scorer(model_path))
    mean = evaluate_benchmark(benchmark, find_scorer(model_path, per_token=True))
    assert np.stack(alone.scores).max() < 0 and np.stack(mean.scores).min() > np.stack(alone.scores).min()


def test_a_folder_says_what_it_holds(make_model: Callable[..., Any], tiny_tokenizer: Any, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    config = make_model().config
    config.num_labels, config.pad_token_id = 1, tiny_tokenizer.pad_token_id
    model = AutoModelForSequenceClassification.from_config(config)
    model.save_pretrained(tmp_path / "rm")
    tiny_tokenizer.save_pretrained(tmp_path / "rm")
    scorer = find_scorer(str(tmp_path / "rm"))
    assert scorer.kind == "reward"
    benchmark = read_benchmark([{"prompt": "p", "chosen": "a", "rejected": "b"}])
    assert len(scorer.score(benchmark.questions)[0]) == 2
    with pytest.raises(ConfigError, match="--reference is for policies"):
        find_scorer(str(tmp_path / "rm"), reference="none")
    with pytest.raises(ConfigError, match="is no folder here"):
        find_scorer("nothing-here")


def test_nothing_to_ask_is_an_error() -> None:
    empty = Benchmark("data", LAYOUTS["pairs"], Read([], 3, {"tie": 3}))
    silent = Scorer(load_reward(lambda prompts, completions: [0.0] * len(completions)), "reward", "r", "r")
    with pytest.raises(DataError, match="3 rows, and none is a question"):
        evaluate_benchmark(empty, silent)
