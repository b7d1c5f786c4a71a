"""The best-of-n study: gold rewards, arms that choose among the same samples, draws that are kept, and the report."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from popmargin import Responses
from popmargin.cli.main import main
from popmargin.errors import ConfigError, DataError, RunError
from popmargin.study.best_of_n.best_of_n_config import BestOfNConfig, SamplesConfig
from popmargin.study.best_of_n.best_of_n_study import DRAWS, RESULTS, ground_of, run_best_of_n
from popmargin.study.best_of_n.choosing_draw import chosen_by, market_of, told_apart
from popmargin.study.best_of_n.gold_samples import GoldSamples, read_samples
from popmargin.study.best_of_n.sample_features import sample_features
from popmargin.study.budget.budget_config import FeaturesConfig
from popmargin.study.budget.head_features import text_key

WIDTH, SAMPLES = 4, 8
ARMS = ["more", "ratings", "chain_control", "chain_scale", "coin", "untrained", "length"]


def write_samples(folder: Path) -> tuple[Path, Path, Path]:
    """Samples whose gold reward is linear in their features, for training and for measuring."""
    rng = np.random.default_rng(0)
    weights = rng.standard_normal(WIDTH)
    features: list[np.ndarray] = []
    keys: list[str] = []
    files: list[Path] = []
    for name, prompts in (("training", 12), ("measured", 10)):
        asked = [f"{name} {number}" for number in range(prompts)]
        texts = [[f"{number} of {prompt}" + " and" * (number % 3) for number in range(SAMPLES)] for prompt in asked]
        own = rng.standard_normal((prompts, SAMPLES, WIDTH))
        features += list(own.reshape(-1, WIDTH))
        keys += [text_key(prompt, text) for prompt, of_prompt in zip(asked, texts, strict=True) for text in of_prompt]
        files.append(folder / f"{name}.parquet")
        Responses(asked, texts, {"worth": (own @ weights).tolist()}).save(files[-1])
    held = folder / "features.npz"
    np.savez(held, features=np.array(features), keys=np.array(keys))
    return files[0], files[1], held


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    return write_samples(tmp_path_factory.mktemp("best-of-n"))


def config_of(files: tuple[Path, Path, Path], output: Path, **changes: Any) -> BestOfNConfig:
    training, measured, held = map(str, files)
    values: dict[str, Any] = {
        "samples": SamplesConfig(training=training, measured=measured, score="worth"),
        "features": FeaturesConfig(file=held, dimensions=0),
        "sizes": [30], "budget": 2.0, "draws": 2, "workers": 1, "ridges": [0.1, 1.0], "arms": ARMS,
        "output": str(output),
    }  # fmt: skip
    return BestOfNConfig(**{**values, **changes})


def test_pairs_and_choices_are_counted_by_hand() -> None:
    samples = GoldSamples(
        texts=[("p", "a"), ("p", "b"), ("p", "c"), ("q", "d"), ("q", "e")], gold=np.array([0.0, 1.0, 1.0, 2.0, 0.0]),
        ends=np.array([0, 3, 5]), clusters=["p", "q"],
    )  # fmt: skip
    assert told_apart(samples).tolist() == [2, 1]  # b and c are worth the same
    found = chosen_by(np.array([2.0, 3.0, 1.0, 0.0, 0.0]), samples, [1, 2])
    assert found.right.tolist() == [1.0, 0.5]  # b beats a, c does not; d and e tie
    # Of the pairs ab, ac, bc: b, a, b are chosen; of d and e either.
    np.testing.assert_allclose(found.best, [[2 / 3, 2 / 3], [1.0, 1.0]])


def test_arms_learn_what_the_gold_reward_says(files: Any, tmp_path: Path) -> None:
    results, report = run_best_of_n(config_of(files, tmp_path / "study"))
    [cell] = results.cells
    assert results.ns == [1, 2, 4, 8] and results.divergences[0] == 0 and results.prompts == 10
    for arm in cell.arms.values():  # one sample is one sample, whoever chooses
        assert arm.curve[0].estimate == pytest.approx(cell.start, abs=1e-6)
    best = {name: arm.curve[-1].estimate for name, arm in cell.arms.items()}
    assert best["gold"] == max(best.values()) and cell.arms["gold"].share_of_possible == pytest.approx(1.0)
    assert cell.arms["gold"].accuracy.estimate == 1.0
    assert best["more"] > best["base"] > best["coin"]
    assert cell.arms["more"].accuracy.estimate > cell.arms["coin"].accuracy.estimate
    # The same minutes: twice the first labels' again.
    assert cell.arms["more"].counts["preferences"] == 90
    assert cell.arms["more"].minutes == pytest.approx(3 * cell.arms["base"].minutes, rel=0.01)
    one = next(one for one in cell.differences if (one.name, one.against) == ("more", "base"))
    assert one.curve[-1].estimate == pytest.approx(best["more"] - best["base"])
    assert one.accuracy_power is not None and 0 <= one.accuracy_power <= 1
    page = report.read_text(encoding="utf-8")
    assert "the longer one wins" in page and "chosen by the gold reward" in page
    assert json.loads((report.parent / RESULTS).read_text())["cells"][0]["size"] == 30


def test_a_study_goes_on_where_it_was_killed(files: Any, tmp_path: Path) -> None:
    whole, _ = run_best_of_n(config_of(files, tmp_path / "whole", draws=3))
    first = config_of(files, tmp_path / "parts", draws=1)
    run_best_of_n(first)
    with (tmp_path / "parts" / DRAWS).open("a") as log:
        log.write('{"size": 30, "dr')  # torn by the kill
    results, _ = run_best_of_n(config_of(files, tmp_path / "parts", draws=3))
    assert [cell.arms for cell in results.cells] == [cell.arms for cell in whole.cells]
    with pytest.raises(RunError, match="draws of other settings"):
        run_best_of_n(config_of(files, tmp_path / "parts", draws=3, budget=1.0))


def test_a_draw_takes_other_preferences_labels_and_prompts(files: Any, tmp_path: Path) -> None:
    config = config_of(files, tmp_path)
    ground = ground_of(config, read_samples(config))
    one, two, again = (market_of(ground, config, draw) for draw in (0, 1, 0))
    assert one.pool.tolist() == again.pool.tolist() != two.pool.tolist()
    assert one.answers.seen.tolist() == again.answers.seen.tolist() != two.answers.seen.tolist()
    assert not set(one.pool) & set(one.pilot)
    apart = ground.strengths.apart
    assert not set(apart[one.pool]) & set(apart[one.pilot])  # prompts stay together


def test_a_rehearsal_leaves_the_measured_prompts_alone(files: Any, tmp_path: Path) -> None:
    config = config_of(files, tmp_path, rehearse=True)
    samples = read_samples(config)
    assert all(prompt.startswith("training") for prompt, _ in samples.measured.texts)
    assert not {prompt for prompt, _ in samples.measured.texts} & {prompt for prompt, _ in samples.strengths.texts}
    results, report = run_best_of_n(config)
    assert results.measured_first is None and "This is a rehearsal" in report.read_text(encoding="utf-8")


def test_empty_samples_are_left_out_and_counted(tmp_path: Path, files: Any) -> None:
    asked = [f"new {number}" for number in range(3)]
    some = tmp_path / "some.parquet"
    Responses(asked, [["a b", "c", " ", "dd"]] * 3, {"worth": [[0.0, 1.0, 5.0, 2.0]] * 3}).save(some)
    samples = SamplesConfig(training=str(files[0]), measured=str(some), score="worth")
    found = read_samples(config_of(files, tmp_path, samples=samples))
    assert found.measured.gold.tolist() == [0.0, 1.0, 2.0] * 3 and found.measured.fewest == 3
    assert found.facts["Left out"].startswith("3 empty samples")


def length(prompts: list[Any], completions: list[str]) -> list[float]:
    return [float(len(text)) for text in completions]


def test_a_reward_scores_samples_that_have_no_score(files: Any, tmp_path: Path) -> None:
    place = tmp_path / "mine.py"
    place.write_text("def length(prompts, completions):\n    return [float(len(text)) for text in completions]\n")
    samples = SamplesConfig(training=str(files[0]), measured=str(files[1]), reward=f"{place}:length")
    found = read_samples(config_of(files, tmp_path, samples=samples))
    assert found.measured.gold.tolist() == length([], [text for _, text in found.measured.texts])


def test_what_cannot_be_measured_is_refused(files: Any, tmp_path: Path) -> None:
    training, measured, _ = map(str, files)
    twice = SamplesConfig(training=training, measured=training, score="worth")
    with pytest.raises(DataError, match="12 prompts are in"):
        read_samples(config_of(files, tmp_path, samples=twice))
    mistyped = SamplesConfig(training=training, measured=measured, score="wroth")
    with pytest.raises(DataError, match="no score 'wroth'"):
        read_samples(config_of(files, tmp_path, samples=mistyped))
    config = config_of(files, tmp_path, ns=[1, 16])
    with pytest.raises(ConfigError, match="The best of 16 cannot be taken: a prompt has 8 samples"):
        ground_of(config, read_samples(config))
    with pytest.raises(DataError, match="9000 preferences cannot be drawn"):
        run_best_of_n(config_of(files, tmp_path / "large", sizes=[9000]))
    with pytest.raises(ConfigError, match="The arm 'mroe' is unknown"):
        config_of(files, tmp_path, arms=["mroe"])


def test_a_model_reads_every_sample(tmp_path: Path, model_path: str) -> None:
    texts = [("Q?", "a"), ("Q?", "b"), ("Q?", "c"), ("R?", "a"), ("R?", "d")]
    config = FeaturesConfig(model=model_path, layers=[0, 1], max_length=32)
    found = sample_features(texts, {text: text for text in texts}, config, str(tmp_path))
    assert np.isfinite(found).all() and len({tuple(row) for row in found.round(6).tolist()}) == len(texts)
    again = sample_features(texts[::-1], {text: text for text in texts}, config, str(tmp_path))
    np.testing.assert_allclose(found, again[::-1], atol=1e-6)


def test_the_command_says_what_is_missing(files: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    training, measured, held = map(str, files)
    given = ["study", "best-of-n", "--output", str(tmp_path / "out"), "--samples.training", training]
    assert main(given) == 2
    assert "samples.measured is missing" in capsys.readouterr().err
    given += ["--samples.measured", measured]
    assert main(given) == 2
    assert "Say what samples are worth" in capsys.readouterr().err
    given += ["--samples.score", "worth", "--features.file", held, "--features.dimensions", "0", "--sizes", "[20]"]
    assert main([*given, "--draws", "1", "--workers", "1", "--ridges", "[1.0]", "--arms", "[more]"]) == 0
    out = capsys.readouterr().out
    assert "new preferences" in out and "1 draw" in out and "report:" in out
