"""Generation metrics against numbers by hand, and their file."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t as student

from popmargin.cli.main import main
from popmargin.data.load import load_preferences
from popmargin.data.responses import Responses
from popmargin.errors import DataError
from popmargin.evaluation.generations import Generations
from popmargin.evaluation.generative import generative_differences, generative_metrics
from popmargin.generate.drawn import Drawn
from popmargin.statistics.intervals import Clusters


def run(
    rewards: Any,
    lengths: Any = None,
    texts: list[str] | None = None,
    samples: int = 1,
    keys: Any = None,
    kl: Any = None,
    clusters: Any = None,
    finished: Any = None,
) -> Generations:
    count = len(rewards)
    texts = texts or [f"text {i}" for i in range(count)]
    responses = Responses(
        [f"key {i}" for i in range(count // samples)] if keys is None else keys,
        [texts[start : start + samples] for start in range(0, count, samples)],
        {"reward": rewards, "kl": np.arange(count) if kl is None else kl},
        tokens=np.array([2] * count if lengths is None else lengths),
        finished=np.arange(count) % 2 == 0 if finished is None else finished,
        columns={} if clusters is None else {"cluster": clusters},
    )
    return Generations(responses)


def estimates(*args: Any, **options: Any) -> dict[str, float]:
    return {name: value.estimate for name, value in generative_metrics(*args, **options).items()}


def test_numbers_by_hand() -> None:
    """Two samples a prompt: rewards (1, 3), (2, 2) against the reference's (2, 2), (2, 1).

    Pairs on prompt 0: 1<2, 1<2, 3>2, 3>2 = ½; on prompt 1: 2=2, 2>1, 2=2, 2>1 = ¾. KL (0+1+2+3) / lengths (1+2+3+4).
    """
    mine, reference = run([1, 3, 2, 2], [1, 2, 3, 4], samples=2), run([2, 2, 2, 1], [1, 1, 1, 1], samples=2)
    found = estimates(mine, reference, mine)
    assert found["mean_reward"] == 2.0
    assert found["win_rate_reference"] == pytest.approx(0.625)
    assert found["win_rate_baseline"] == 0.5
    assert found["length"] == 2.5
    assert found["length_difference"] == 1.5
    assert found["kl_per_token"] == pytest.approx(0.6)
    assert found["finished"] == 0.5


@pytest.mark.parametrize(
    ("drawn", "name"),
    [
        (Drawn(temperature=0.7, top_k=50), "log_ratio_per_token_t0.7_k50"),
        (Drawn(top_k=50), "log_ratio_per_token_t1_k50"),
        (Drawn(generation_config="model"), "log_ratio_per_token_own"),
    ],
)
def test_a_mean_log_ratio_is_a_kl_only_for_samples_of_the_policy_itself(
    drawn: Drawn, name: str, tmp_path: Path
) -> None:
    mine = Generations(run([1, 3], [1, 2]).responses, drawn)
    mine.save(tmp_path / "generations.parquet")
    assert Generations.load(tmp_path / "generations.parquet").drawn == mine.first(1).drawn == drawn
    found = estimates(mine)
    assert found[name] == pytest.approx(1 / 3) and "kl_per_token" not in found
    assert name in generative_differences(mine, mine)
    with pytest.raises(DataError, match=r"reference: run 0 was sampled at temperature 1 from all tokens, others at"):
        generative_metrics(mine, run([1, 3], [1, 2]))


def test_the_file_of_generations_is_one_of_responses_and_of_preferences(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The verbs of `popmargin data` read it too, with the reward as the rating."""
    file = tmp_path / "generations.parquet"
    drawn = run([1, 3, 2, 2.5], [1, 2, 3, 4], samples=2, keys=["p", "q"], clusters=["a", "b"])
    drawn.save(file)
    loaded = Responses.load(file)
    assert list(loaded) == list(drawn.responses) and loaded.score_names == ("reward", "kl")
    pairs = load_preferences(file)
    assert [(row["chosen"], row["rejected"], row["cluster"]) for row in pairs] == [
        ("text 1", "text 0", "a"),
        ("text 3", "text 2", "b"),
    ]
    assert pairs.rating_gap.tolist() == [2.0, 0.5] and list(loaded.pairs("all", by="reward").strength) == [2.0, 0.5]
    assert main(["data", "inspect", str(file)]) == 0
    assert "2 preferences on 2 prompts" in capsys.readouterr().out


def test_sampled_texts_stay_as_they_are_even_if_they_look_like_messages(tmp_path: Path) -> None:
    texts = ['[{"role": "user", "content": "Hi"}]', '{"role": "assistant", "content": oops}']
    key = [{"role": "system", "content": "S"}, {"role": "user", "content": "Hi"}]
    saved = run([1, 2], texts=texts, samples=2, keys=[key])
    saved.save(tmp_path / "generations.parquet")
    loaded = Generations.load(tmp_path / "generations.parquet").responses
    assert (loaded.texts, loaded.prompts) == (texts, [key])


@pytest.mark.parametrize("again", [False, True])
def test_files_that_were_written_before_give_the_same_numbers(tmp_path: Path, again: bool) -> None:
    """One row a completion, with the metrics that the code that wrote the files gave; also once they are saved anew."""
    found: dict[str, Generations] = {}
    for name in ("run", "reference"):
        found[name] = Generations.load(Path(__file__).parent / f"earlier_{name}.parquet")
        if again:
            found[name].save(tmp_path / f"{name}.parquet")
            found[name] = Generations.load(tmp_path / f"{name}.parquet")
    expected = json.loads((Path(__file__).parent / "earlier_metrics.json").read_text(encoding="utf-8"))
    mine, reference = found["run"], found["reference"]
    assert (mine.notes, str(mine.drawn)) == (("a note",), "temperature 1 from all tokens")
    assert mine.responses.prompts[0] == [{"role": "system", "content": "S"}, {"role": "user", "content": "Q 0"}]
    assert mine.responses.field_names == ("finished", "tokens") and mine.responses.field("finished")[:2] == [
        False,
        True,
    ]
    metrics = generative_metrics(mine, reference, reference)
    differences = generative_differences([mine, mine], reference, reference)
    for values, wanted in ((metrics, expected["metrics"]), (differences, expected["differences"])):
        assert {name: value.to_dict() for name, value in values.items()} == wanted
    reference = generative_metrics(reference)
    assert {name: value.to_dict() for name, value in reference.items()} == expected["reference"]
    assert reference["kl_per_token"].to_dict()["estimate"] is None


def test_generations_that_do_not_say_how_they_were_drawn_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "generations.parquet"
    run([1, 3]).save(file)
    table = pq.read_table(file)
    kept = {key: value for key, value in table.schema.metadata.items() if key != b"popmargin.drawn"}
    pq.write_table(table.replace_schema_metadata(kept), file)
    with pytest.raises(DataError, match=r"does not say how its responses were sampled. Generate again"):
        Generations.load(file)


def test_distinct_n_by_hand() -> None:
    """The words are the, cat, ., the, cat and dog: 4 of 6 differ; of the 4 bigrams (the, cat) comes twice."""
    found = estimates(run([0, 0], texts=["the cat. The cat", "dog"]))
    assert found["distinct_1"] == pytest.approx(4 / 6)
    assert found["distinct_2"] == pytest.approx(3 / 4)


def test_the_error_of_distinct_n_is_the_jackknifes() -> None:
    texts = ["a b c", "a d", "e", "a a"]
    interval = generative_metrics(run([0] * 4, texts=texts))["distinct_1"]
    without: list[float] = []
    for left_out in range(4):
        words = " ".join(t for i, t in enumerate(texts) if i != left_out).split()
        without.append(len(set(words)) / len(words))
    error = math.sqrt(3 / 4 * ((np.array(without) - 5 / 8) ** 2).sum())
    assert interval.estimate == pytest.approx(5 / 8)
    assert interval.low == pytest.approx(max(0.0, 5 / 8 - student.ppf(0.975, 3) * error))


@settings(max_examples=30)
@given(rewards=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=12))
def test_win_rates_of_both_sides_add_to_one(rewards: list[tuple[int, int]]) -> None:
    first, second = run([a for a, _ in rewards]), run([b for _, b in rewards])
    there, back = estimates(first, second), estimates(second, first)
    assert there["win_rate_reference"] + back["win_rate_reference"] == pytest.approx(1.0)
    assert there["win_rate_equal_length"] + back["win_rate_equal_length"] == pytest.approx(1.0, abs=1e-6)
    assert there["win_rate_equal_length"] == pytest.approx(there["win_rate_reference"], abs=1e-4)  # equal lengths


@settings(max_examples=30)
@given(seed=st.integers(0, 999))
def test_metrics_do_not_depend_on_the_order_of_prompts(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rewards, lengths, order = rng.normal(size=(2, 9)), rng.integers(1, 9, (2, 9)), rng.permutation(9)
    keys = [f"k{i}" for i in range(9)]
    first = estimates(run(rewards[0], lengths[0], keys=keys), run(rewards[1], lengths[1], keys=keys))
    moved = [keys[i] for i in order]
    texts = [f"text {i}" for i in order]
    second = run(rewards[0][order], lengths[0][order], texts, keys=moved, kl=order, finished=order % 2 == 0)
    assert estimates(second, run(rewards[1][order], lengths[1][order], keys=moved)) == pytest.approx(first, nan_ok=True)


def test_length_control_takes_length_out_and_stays_beside_the_win_rate() -> None:
    """Wins that come from length alone: half remains at equal length."""
    rng = np.random.default_rng(0)
    mine, other = rng.integers(10, 90, 300), rng.integers(10, 60, 300)
    noise = rng.normal(0, 10, 300)
    metrics = generative_metrics(run(mine + noise, mine), run(other, other))
    assert metrics["win_rate_reference"].estimate > 0.65
    lc = metrics["win_rate_equal_length"]
    assert lc.low < 0.5 < lc.high
    assert lc.low < lc.estimate < lc.high


def test_prompts_are_the_clusters() -> None:
    """Ten copies of the same 5 prompts under the same keys tell no more than the 5 prompts."""
    rewards = [0.0, 1.0, 2.0, 5.0, 9.0]
    few = generative_metrics(run(rewards))["mean_reward"]
    many = generative_metrics(run(rewards * 10, keys=[f"key {i}" for i in range(5)] * 10))["mean_reward"]
    apart = generative_metrics(run(rewards * 10))["mean_reward"]
    assert many.to_dict() == pytest.approx(few.to_dict())
    by_topic = generative_metrics(run(rewards * 2, clusters=list("aabbccddee")))["mean_reward"]
    assert by_topic.to_dict() == pytest.approx(
        generative_metrics(run(rewards * 2, keys=list("aabbccddee")))["mean_reward"].to_dict()
    )
    assert apart.high - apart.low < 0.5 * (few.high - few.low)


def test_several_seeds_and_paired_differences() -> None:
    rng = np.random.default_rng(0)
    rewards = [rng.normal(size=30) for _ in range(3)]
    base, better = [run(one) for one in rewards], [run(one + 0.5) for one in rewards]
    reference = run(rng.normal(size=30))
    found = generative_differences(better, base, reference)
    assert [getattr(found["mean_reward"], end) for end in ("estimate", "low", "high")] == pytest.approx([0.5] * 3)
    together = estimates(base, reference)
    alone = [estimates(one, reference) for one in base]
    assert together["win_rate_reference"] == pytest.approx(np.mean([one["win_rate_reference"] for one in alone]))
    gain = estimates(better, reference)["win_rate_equal_length"] - together["win_rate_equal_length"]
    assert found["win_rate_equal_length"].estimate == pytest.approx(gain)
    assert found["distinct_1"].estimate == 0.0
    assert not {"win_rate_baseline", "length_difference"} & set(found)


def test_what_was_not_measured_is_undefined() -> None:
    unscored = Generations(run([0, 0]).responses.with_scores(reward=None, kl=None))
    found = generative_metrics(unscored, run([1, 2]))
    for name in ("mean_reward", "win_rate_reference", "win_rate_equal_length", "win_rate_baseline", "kl_per_token"):
        assert math.isnan(found[name].estimate)
    assert found["length"].estimate == 2.0
    bare = Generations(Responses(["p", "q"], [["a"], ["b"]], {"reward": [2, 1]}))
    found = generative_metrics(bare, run([1, 2], keys=["p", "q"]))
    assert found["win_rate_reference"].estimate == 0.5 and found["distinct_1"].estimate == 1.0
    for name in ("length", "length_difference", "win_rate_equal_length", "finished", "kl_per_token"):
        assert math.isnan(found[name].estimate)


def test_winning_everywhere_is_not_certain() -> None:
    found = generative_metrics(run([1] * 20), run([0] * 20))
    assert found["win_rate_reference"].estimate == 1.0
    assert found["win_rate_reference"].low == pytest.approx(0.025 ** (1 / 20))
    assert found["win_rate_equal_length"] == found["win_rate_reference"]


def test_a_file_comes_back_as_it_was(tmp_path: Path) -> None:
    saved = run([1.5, 2.5, -1, 0], samples=2, texts=["", "ü\n", "b", "c"])
    saved.save(tmp_path / "new" / "generations.parquet")
    loaded = Generations.load(tmp_path / "new" / "generations.parquet")
    assert list(loaded.responses) == list(saved.responses) and loaded.drawn == saved.drawn
    assert loaded.first(1).responses.texts == ["", "ü\n"]


def test_files_and_runs_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        Generations.load(tmp_path / "none.parquet")
    (tmp_path / "bad.parquet").write_text("x")
    with pytest.raises(DataError, match="not a file of generations"):
        Generations.load(tmp_path / "bad.parquet")
    with pytest.raises(DataError, match=r"1 responses have no reward, first response 1 .*key 1"):
        run([1, math.nan])
    with pytest.raises(DataError, match="Response 0 is messages"):
        Generations(Responses(["p"], [[[{"role": "assistant", "content": "x"}]]]))
    uneven = Generations(Responses(["p", "q"], [["a"], ["b", "c"]]))
    with pytest.raises(DataError, match="run 0 has 2 responses to prompt 1 and 1 to the first"):
        generative_metrics(uneven)
    with pytest.raises(DataError, match="different prompts"):
        generative_metrics(run([1, 2]), run([1, 2], keys=["key 1", "key 0"]))
    with pytest.raises(DataError, match="2 seeds against 3"):
        generative_metrics([run([1, 2])] * 3, [run([1, 2])] * 2)


def test_ngrams_are_attributed_to_the_prompts_that_alone_hold_them() -> None:
    from popmargin.evaluation.generative import distinct_counts

    different, total, unique, held = distinct_counts(["a b", "b c", "c c"], Clusters(["x", "x", "y"]), 1)
    assert (different, total, unique.tolist(), held.tolist()) == (3, 6, [2.0, 0.0], [4.0, 2.0])
