"""The budget study: strengths of people, a simulated annotator, equal cost, draws that are kept, and advice."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import expit

from popmargin.cli.main import main
from popmargin.errors import ConfigError, DataError, RunError
from popmargin.statistics.jackknife import Estimate
from popmargin.study.budget import budget_study
from popmargin.study.budget.annotator import Answers, calibrated, grades, rating_error
from popmargin.study.budget.arms import ARMS
from popmargin.study.budget.budget_config import BudgetConfig, FeaturesConfig, PricesConfig, StrengthsConfig
from popmargin.study.budget.budget_study import DRAWS, run_budget
from popmargin.study.budget.draw import Parts
from popmargin.study.budget.gather_draws import advise
from popmargin.study.budget.head_features import features_of_model, text_key, whitened
from popmargin.study.budget.human_strengths import HumanStrengths, read_strengths
from popmargin.study.budget.price_list import Prices
from popmargin.study.budget.purchases import Market, UnaffordableError, buy
from popmargin.tasks.response_features import response_features

PROMPTS, EACH, WIDTH = 14, 6, 5


def write_votes(folder: Path, votes: int = 5) -> tuple[Path, Path]:
    """Preferences with votes that a linear reward explains, and features of their responses."""
    rng = np.random.default_rng(0)
    weights = 3 * rng.standard_normal(WIDTH)
    rows: list[dict[str, Any]] = []
    features: list[np.ndarray] = []
    keys: list[str] = []
    for prompt in range(PROMPTS):
        own = rng.standard_normal((EACH, WIDTH))
        texts = [" ".join(["word"] * (2 + number)) + f" {prompt}" for number in range(EACH)]
        features += list(own)
        keys += [text_key(f"Prompt {prompt}", text) for text in texts]
        value = own @ weights
        for i in range(EACH):
            for j in range(i):
                first = int(rng.binomial(votes, expit(value[i] - value[j])))
                rows.append(
                    {"prompt": f"Prompt {prompt}", "response_a": texts[i], "response_b": texts[j], "votes_a": first,
                     "votes_b": votes - first, "subject": f"s{prompt // 2}"}
                )  # fmt: skip
    data, held = folder / "votes.jsonl", folder / "features.npz"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    np.savez(held, features=np.array(features), keys=np.array(keys))
    return data, held


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_votes(tmp_path_factory.mktemp("budget"))


@pytest.fixture(scope="module")
def strengths(files: tuple[Path, Path]) -> HumanStrengths:
    return read_strengths(str(files[0]))


def config_of(files: tuple[Path, Path], output: Path, **changes: Any) -> BudgetConfig:
    values: dict[str, Any] = {
        "data": StrengthsConfig(path=str(files[0])),
        "features": FeaturesConfig(file=str(files[1]), dimensions=0),
        "sizes": [20], "budgets": [1.0], "draws": 2, "workers": 1, "ridges": [0.1],
        "arms": ["more", "votes", "chain_rank", "length"], "output": str(output),
    }  # fmt: skip
    return BudgetConfig(**{**values, **changes})


# --- strengths ------------------------------------------------------------------------------------------------------


def test_noise_is_measured_from_the_votes(strengths: HumanStrengths, files: tuple[Path, Path]) -> None:
    rows = [json.loads(line) for line in files[0].read_text().splitlines()]
    assert strengths.facts["votes"] == 5
    assert len(strengths.log_odds) + strengths.facts["ties_left_out"] == len(rows)
    shares = np.array([max(row["votes_a"], row["votes_b"]) / 5 for row in rows])
    found = expit(strengths.log_odds)
    assert (found < shares + 1e-12).all() and (found > 0.5).all()  # five of five is no certainty
    # Two votes of the same five agree as often as two annotators: an estimate without any model.
    pairs = np.mean([(a * (a - 1) + b * (b - 1)) / 20 for a, b in ((row["votes_a"], row["votes_b"]) for row in rows)])
    assert strengths.agreement == pytest.approx(float(pairs), abs=0.02)
    drawn = np.mean([expit(strengths.drawn(np.random.default_rng(seed))) for seed in range(300)], axis=0)
    np.testing.assert_allclose(drawn, found, atol=0.05)
    assert strengths.kind == "votes" and len(strengths.texts) == PROMPTS * EACH


def test_better_is_what_people_prefer(strengths: HumanStrengths, files: tuple[Path, Path]) -> None:
    row = json.loads(files[0].read_text().splitlines()[0])
    texts = [row["response_a"], row["response_b"]]
    best = texts[0] if row["votes_a"] > row["votes_b"] else texts[1]
    assert strengths.texts[strengths.better[0]] == (row["prompt"], best)
    values = strengths.value[strengths.better] - strengths.value[strengths.worse]
    assert (values > 0).mean() > 0.75  # the values of responses explain the votes


@pytest.mark.parametrize("agreement", [0.6, 0.8])
def test_ratings_have_the_noise_of_an_agreement(tmp_path: Path, agreement: float) -> None:
    rows = [
        {"prompt": f"p{number}", "responses": [{"text": "a", "rating": 5.0}, {"text": "b", "rating": 4.0 - number % 3},
                                               {"text": "c", "rating": 5.0}]}
        for number in range(6)
    ]  # fmt: skip
    path = tmp_path / "ratings.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    found = read_strengths(str(path), agreement=agreement)
    assert found.agreement == pytest.approx(agreement, abs=1e-6)
    assert found.kind == "ratings" and found.facts["ties_left_out"] == 6
    gaps = found.value[found.better] - found.value[found.worse]
    np.testing.assert_allclose(gaps, found.log_odds)


def test_data_without_strengths_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "plain.jsonl"
    path.write_text('{"prompt": "p", "chosen": "a", "rejected": "b"}\n')
    with pytest.raises(DataError, match="neither votes, a soft label, ratings nor a strength"):
        read_strengths(str(path))


def test_shares_of_unknown_numbers_of_votes_ask(tmp_path: Path) -> None:
    path = tmp_path / "shares.jsonl"
    rows = [{"prompt": f"p{n}", "chosen": "a", "rejected": "b", "soft_label": 0.8} for n in range(3)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with pytest.raises(DataError, match=r"data\.votes"):
        read_strengths(str(path))
    assert len(read_strengths(str(path), votes=5).log_odds) == 3


# --- the annotator --------------------------------------------------------------------------------------------------


def test_labels_and_comparisons_are_as_often_right_as_the_strengths_say() -> None:
    count = 40_000
    log_odds = np.repeat([0.5, 2.0], count // 2)
    strengths = HumanStrengths(
        texts=[("p", "a"), ("p", "b")], better=np.zeros(count, np.int64), worse=np.ones(count, np.int64),
        log_odds=log_odds, value=np.array([1.0, 0.0]), clusters=["p"], cluster=np.zeros(count, np.int64),
        apart=np.zeros(count, np.int64), kind="ratings",
    )  # fmt: skip
    answers = Answers.drawn(strengths, (0, 0), 0)
    right = answers.right(np.arange(count))
    assert right[: count // 2].mean() == pytest.approx(expit(0.5), abs=0.015)
    assert right[count // 2 :].mean() == pytest.approx(expit(2.0), abs=0.015)
    share = answers.vote_share(np.arange(count), np.full(count, 4))
    assert share[count // 2 :].mean() == pytest.approx(expit(2.0), abs=0.015)
    some = np.concatenate([np.arange(500), np.arange(count - 500, count)])
    for signed in (True, False):
        stronger, weaker, asked = answers.compared(some, 1000, scheme="chain", signed=signed, noise=0.0)
        sign = np.where(answers.right(some), 1.0, -1.0) if signed else 1.0
        strength = sign * log_odds[some]
        assert asked == 1000 and (strength[stronger] >= strength[weaker]).all()
    # With equal strengths, an answer is a coin: the jitter makes no tie that would be left out.
    stronger, _, asked = answers.compared(np.arange(500), 500, scheme="random", signed=False, noise=1.0)
    assert len(stronger) == asked == 500


def test_two_ratings_are_right_as_often_as_a_label(strengths: HumanStrengths) -> None:
    rows = np.arange(len(strengths.log_odds))
    draws = [Answers.drawn(strengths, (0, draw), 0) for draw in range(100)]
    by_label = np.mean([answers.right(rows).mean() for answers in draws])
    by_rating = np.mean([(answers.rating_gap(rows) > 0).mean() for answers in draws])
    assert by_rating == pytest.approx(by_label, abs=0.015)
    gap = np.random.default_rng(0).normal(0, 2, 50)
    plain = HumanStrengths(
        texts=[("p", str(number)) for number in range(51)], better=np.arange(50), worse=np.full(50, 50),
        log_odds=np.abs(gap), value=np.append(np.abs(gap), 0.0), clusters=["p"], cluster=np.zeros(50, np.int64),
        apart=np.zeros(50, np.int64), kind="ratings",
    )  # fmt: skip
    assert rating_error(plain) == pytest.approx(np.pi / np.sqrt(6), rel=0.1)


def test_grades_and_calibration_give_the_share_that_is_right() -> None:
    rng = np.random.default_rng(1)
    seen = rng.choice([0.5, 2.0], 20_000) + rng.logistic(size=20_000)
    soft = grades(seen, seen)
    for value in np.unique(soft):
        assert (seen[soft == value] > 0).mean() == pytest.approx(value, abs=0.01)
    gap = rng.normal(0, 2, 20_000)
    right = rng.random(20_000) < expit(0.3 + 0.7 * gap)
    assert calibrated(gap, right, level=True) == pytest.approx((0.3, 0.7), abs=0.06)
    assert calibrated(gap, np.full(len(gap), True), level=False)[0] == 0


# --- equal cost -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def market(strengths: HumanStrengths) -> Market:
    config = BudgetConfig(data=StrengthsConfig(path="x"))
    rng = np.random.default_rng(0)
    order = rng.permutation(len(strengths.log_odds))
    return Market(
        answers=Answers.drawn(strengths, (0, 0), 5), pool=order[:150], pilot=order[150:],
        prices=Prices.of(PricesConfig(), strengths), noise=config.comparison_noise, rank_weight=1.0,
    )  # fmt: skip


def test_prices_are_words_and_decisions(strengths: HumanStrengths) -> None:
    prompt, response = strengths.words
    found = Prices.of(PricesConfig(words_per_minute=120, decide_seconds=4, vote=50.0), strengths)
    assert found.preference == pytest.approx((prompt + 2 * response) / 2 + 4)
    assert found.comparison - found.chained == pytest.approx((prompt + 2 * response) / 2)
    assert (found.inline, found.vote) == (4, 50)


@pytest.mark.parametrize(
    "name", [name for name, arm in ARMS.items() if arm.buys not in ("coin", "untrained", "length")]
)
@pytest.mark.parametrize("budget", [1.0, 3.0])
def test_no_arm_spends_more_than_it_may_nor_leaves_a_label_unbought(market: Market, name: str, budget: float) -> None:
    size, prices = 24, market.prices
    allowed = (1 + budget) * size * prices.preference
    try:
        bought = buy(ARMS[name], market, size, budget)
    except UnaffordableError:
        assert name.startswith("iterative") and budget == 1.0
        return
    assert bought.seconds <= allowed + 1e-6
    bounded = ARMS[name].buys in ("nothing", "ratings") or ARMS[name].scheme == "iterative"
    if not bounded:
        assert bought.seconds > allowed - max(vars(prices).values())
    assert len(bought.rows) == len(bought.right) == len(set(bought.rows.tolist()))
    assert set(bought.rows.tolist()) <= set(market.pool.tolist())
    if not ARMS[name].needs_new and ARMS[name].buys != "nothing":
        assert len(bought.rows) == size
    assert all(np.isfinite(values).all() for values in bought.columns.values())


def test_arms_share_the_labels_of_the_preferences_that_they_share(market: Market) -> None:
    base, more = (buy(ARMS[name], market, 24, 1.0) for name in ("base", "more"))
    np.testing.assert_array_equal(base.rows, more.rows[:24])
    np.testing.assert_array_equal(base.right, more.right[:24])
    votes = buy(ARMS["votes"], market, 24, 1.0)
    np.testing.assert_array_equal(votes.right, base.right)
    assert set(np.unique(votes.columns["soft_label"])) <= {0.5, 1.0}  # of two votes, the first one is the label


def test_too_small_a_pool_is_said(market: Market) -> None:
    with pytest.raises(UnaffordableError, match="the pool has 150 preferences, and 200 could be bought"):
        buy(ARMS["more"], market, 100, 1.0)


# --- the study ------------------------------------------------------------------------------------------------------


def test_held_out_groups_are_the_same_whatever_else_and_apart(strengths: HumanStrengths, files: Any) -> None:
    one, other = (Parts.of(strengths, config_of(files, Path("x"), draws=draws)) for draws in (2, 9))
    np.testing.assert_array_equal(one.measured, other.measured)
    assert not set(strengths.apart[one.measured]) & set(strengths.apart[one.development])
    rehearsal = Parts.of(strengths, config_of(files, Path("x"), rehearse=True))
    used = set(rehearsal.measured.tolist()) | set(rehearsal.development.tolist())
    assert not used & set(one.measured.tolist())
    by_subject = read_strengths(str(files[0]), apart="subject")
    assert len(np.unique(by_subject.apart)) == PROMPTS // 2 and len(by_subject.clusters) == PROMPTS


def test_a_study_goes_on_where_it_was_killed(files: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = run_budget(config_of(files, tmp_path / "whole", draws=3))
    done: list[tuple[int, int]] = []
    plain = budget_study.run_draw

    def stopped(ground: Any, config: Any, size: int, draw: int) -> Any:
        if len(done) == 1:
            raise KeyboardInterrupt
        done.append((size, draw))
        return plain(ground, config, size, draw)

    monkeypatch.setattr(budget_study, "run_draw", stopped)
    with pytest.raises(KeyboardInterrupt):
        run_budget(config_of(files, tmp_path / "parts", draws=3))
    with (tmp_path / "parts" / DRAWS).open("a") as log:
        log.write('{"size": 20, "dr')  # torn by the kill
    monkeypatch.setattr(budget_study, "run_draw", plain)
    results, report = run_budget(config_of(files, tmp_path / "parts", draws=3))
    assert [(cell.arms, cell.main) for cell in results.cells] == [(cell.arms, cell.main) for cell in whole.cells]
    lines = [json.loads(line) for line in (tmp_path / "parts" / DRAWS).read_text().splitlines()]
    assert sorted((line["size"], line["draw"]) for line in lines) == [(20, 0), (20, 1), (20, 2)]
    assert "the longer one wins" in report.read_text(encoding="utf-8")


def test_draws_of_other_settings_are_not_mixed(files: Any, tmp_path: Path) -> None:
    run_budget(config_of(files, tmp_path))
    with pytest.raises(RunError, match=r"draws of other settings.*rehearse"):
        run_budget(config_of(files, tmp_path, ridges=[0.2]))
    again, _ = run_budget(config_of(files, tmp_path, ridges=[0.2]), overwrite=True)
    assert "- 0.2" in again.config.partition("ridges:")[2]
    assert again.held_out_used is not None


def test_the_numbers_of_an_arm_are_its_draws(files: Any, tmp_path: Path) -> None:
    config = config_of(files, tmp_path, draws=3, ridges=[0.01, 10.0])
    results, _ = run_budget(config)
    rows = [json.loads(line) for line in (tmp_path / DRAWS).read_text().splitlines()]
    parts = [row["cells"][0]["arms"]["more"] for row in rows]
    best = int(np.mean([part["validation"] for part in parts], axis=0).argmax())
    right = np.array([sum(part["right"][best]) for part in parts])
    cell = results.cells[0]
    assert cell.arms["more"].accuracy.estimate == pytest.approx(right.mean() / results.preferences)
    assert cell.arms["more"].ridge == config.ridges[best]
    base = [row["cells"][0]["arms"]["base"] for row in rows]
    chosen = int(np.mean([part["validation"] for part in base], axis=0).argmax())
    gain = (right - np.array([sum(part["right"][chosen]) for part in base])) / results.preferences
    assert cell.arms["more"].gain.estimate == pytest.approx(gain.mean())
    assert [one.name for one in cell.main] == ["votes", "chain_rank"]
    assert all(0 <= one.power <= 1 and one.detectable > 0 for one in cell.main)


def test_advice_is_the_simplest_arm_that_is_not_clearly_worse() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.01, (8, 30))

    def arm(level: float, own: float) -> Estimate:
        cells = level + noise + rng.normal(0, own, (8, 30))
        return Estimate(cells.mean(1), cells - cells.mean(1, keepdims=True), np.ones(30, np.int64))

    found = {"base": arm(0.6, 0.01), "more": arm(0.7, 0.02), "votes": arm(0.704, 0.02)}
    advice = advise(found)
    assert (advice.take, advice.best) == ("more", "votes") and advice.ties == ["more", "votes"]
    assert advise({"base": found["base"]}).take == "base"


def test_whitened_features_are_standard_on_the_development_part() -> None:
    rng = np.random.default_rng(0)
    features = rng.standard_normal((60, 8)) @ rng.standard_normal((8, 8)) + 3
    white = whitened(features, np.arange(40), 5)
    np.testing.assert_allclose(white[:40].T @ white[:40] / 40, np.eye(5), atol=1e-9)
    assert whitened(features, np.arange(40), 0).shape == (60, 8)
    with pytest.raises(DataError, match="not finite"):
        whitened(np.where(features > 0, features, np.nan), np.arange(40), 5)


def test_mistakes_name_what_is_meant(files: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Did you mean.*chain_rank"):
        config_of(files, tmp_path, arms=["chain_rnk"])
    other = tmp_path / "other.npz"
    np.savez(other, features=np.zeros((1, 2)), keys=np.array(["x"]))
    with pytest.raises(DataError, match="no features of"):
        run_budget(config_of((files[0], other), tmp_path / "out"))


def test_the_command_prints_what_to_take(files: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--features.file", str(files[1]), "--features.dimensions", "0", "--sizes", "[16]", "--budgets", "[1.0]"]
    flags += ["--draws", "2", "--workers", "1", "--ridges", "[0.1]", "--arms", "[more, chain_scale]"]
    assert main(["study", "budget", "--data", str(files[0]), "--output", str(tmp_path / "out"), *flags]) == 0
    said = capsys.readouterr().out
    assert "16 preferences" in said and "without new preferences" in said
    assert json.loads((tmp_path / "out" / "budget.json").read_text())["format"] == "popmargin-budget-1"
    assert main(["study", "budget", *flags]) == 2
    assert "--data FILE" in capsys.readouterr().err


def test_features_of_a_model_are_those_of_each_response_and_its_length(
    files: Any, tmp_path: Path, model_path: str
) -> None:
    found = read_strengths(str(files[0]))
    config = FeaturesConfig(model=model_path, layers=[1], max_length=64)
    features = features_of_model(found, config, str(tmp_path / "cache"))
    assert found.preferences is not None
    states = response_features(
        found.preferences, model=model_path, pool="mean", layers=[1], max_length=64, cache=str(tmp_path / "cache")
    )
    assert states.tokenized.ids == found.preferences.ids
    np.testing.assert_array_equal(features[found.better][:, :-1], states.array()[states.chosen])
    np.testing.assert_array_equal(features[found.worse][:, :-1], states.array()[states.rejected])
    np.testing.assert_allclose(np.exp(features[:, -1]) - 1, [len(text) for _, text in found.texts])


def test_a_size_that_the_data_do_not_have_is_named(files: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"500 preferences cannot be drawn.*Leave out that size: --sizes '\[20\]'"):
        run_budget(config_of(files, tmp_path, sizes=[20, 500], arms=["more"], draws=1))
