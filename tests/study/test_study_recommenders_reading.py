"""The first sentence of a comparison of recommenders, intervals over users and seeds, and what is said of settings."""

from pathlib import Path

import numpy as np
import pytest

from popmargin.config import dump_yaml
from popmargin.data.ragged import Ragged
from popmargin.errors import ConfigError
from popmargin.recommend.item_sequences import Catalogue
from popmargin.recommend.ranking_metrics import popularity
from popmargin.recommend.ranks import Ranking
from popmargin.recommend.splitting import Cases, Parts
from popmargin.report.recommendation_page import render_recommendation, text_table
from popmargin.report.results import StudyResults
from popmargin.study.recommenders.recommend_config import RecommendConfig, load_recommend_config
from popmargin.study.recommenders.recommend_study import record_changes
from popmargin.study.recommenders.recommender_results import Measurement, Recommended, over_seeds, results_of

USERS, ITEMS = 200, 30


def parts() -> Parts:
    histories = Ragged.of([[user % ITEMS + 1] for user in range(USERS)])
    cases = Cases(tuple(f"u{user}" for user in range(USERS)), histories, np.full(USERS, 1))
    return Parts(Catalogue.of(range(1, ITEMS + 1)), histories, histories, cases, cases)


def ranking(share: float, seed: int) -> Ranking:
    """Targets of this share of users are first, the others last."""
    ranks = np.where(np.random.default_rng(seed).permutation(USERS) < share * USERS, 0.0, ITEMS - 1.0)
    return Ranking(ranks, np.tile(np.arange(1, 21), (USERS, 1)))


def arm(name: str, kind: str, share: float, seeds: int) -> Recommended:
    """A recommender that finds this share of targets; with no seeds it is the same for all of them."""
    rankings = [Measurement(None if not seeds else seed, [ranking(share, 7 + seed)], {}) for seed in range(seeds or 1)]
    return Recommended(name, name, kind, kind, "published" if kind == "model" else "baseline", rankings)


def results(*arms: Recommended) -> StudyResults:
    return results_of(
        arms, parts(), part="test", cutoffs=[5, 10, 20], baseline=arms[0].name, title="A shop", config="",
        facts={}, versions={},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("shares", "seeds", "begins"),
    [
        ([0.2], 3, "The denoiser does not beat item-kNN: its NDCG@10 is 0.2"),
        ([0.2], 1, "The denoiser does not beat item-kNN: its NDCG@10 is 0.2"),
        ([0.2, 0.1], 3, "None of the 2 denoisers beats item-kNN: the best, d0, has NDCG@10 0.2"),
        ([0.9], 3, "d0 beats item-kNN: its NDCG@10 is 0.9"),
        ([0.9, 0.2], 3, "d0 beats item-kNN (1 of 2 denoisers do): the best, d0, has NDCG@10 0.9"),
        ([0.5], 3, "It remains open whether the denoiser beats item-kNN: its NDCG@10 is 0.5"),
        ([0.5, 0.1], 3, "It remains open whether any of the 2 denoisers beats item-kNN: the best, d0, has NDCG@10 0.5"),
        ([0.9], 1, "It remains open whether the denoiser beats item-kNN: its NDCG@10 is 0.9"),
        ([], 0, "Nothing is said of PreferDiff against item-kNN: there is no denoiser here."),
    ],
)
def test_the_first_sentence(shares: list[float], seeds: int, begins: str) -> None:
    """It says that no denoiser beats item-kNN, that one does, or that the intervals do not tell; on the page too."""
    models = [arm(f"d{place}", "model", share, seeds) for place, share in enumerate(shares)]
    weak = arm("weak knn", "item_knn", 0.1, 0)
    found = results(arm("knn", "item_knn", 0.5, 0), weak, *models)
    assert found.reading[0].startswith(begins)
    if shares:
        assert " of knn (" in found.reading[0] and "weak knn" not in found.reading[0]  # the best of several
    page = render_recommendation(found)
    lead = page.split('<p class="lead">')[1].split("</p>")[0]
    assert lead.startswith(begins)


def test_one_seed_tells_no_difference_of_trainings() -> None:
    """A model of one seed, far above: it is told, but not called a win; baselines without seeds are compared."""
    found = results(arm("knn", "item_knn", 0.5, 0), arm("markov", "markov", 0.8, 0), arm("d", "model", 0.9, 1))
    assert "one training seed cannot tell it from chance" in found.reading[0]
    lines = text_table(found).splitlines()
    assert next(line for line in lines if line.startswith("markov")).endswith("▲")
    assert next(line for line in lines if line.startswith("d ")).endswith("·")
    assert "the same for every seed" in render_recommendation(found)


def test_draws_of_a_seed_are_averaged_and_a_recommender_without_seeds_is_paired() -> None:
    """Two draws of each of three seeds are three rows, not six; against one ranking, seeds alone spread."""
    split = parts()
    cases, counts = split.test, popularity(split.train, ITEMS)
    drawn = [Measurement(seed, [ranking(0.4, seed), ranking(0.4, 10 + seed)], {}) for seed in range(3)]
    metrics = over_seeds(drawn, cases, counts, [5])
    assert metrics.per_user["recall@5"].shape == (3, USERS)
    both = np.stack([[(one.ranks < 5) for one in measured.rankings] for measured in drawn]).mean(axis=1)
    assert np.array_equal(metrics.per_user["recall@5"], both)
    found = results(arm("knn", "item_knn", 0.5, 0), Recommended("d", "d", "model", "x", "ours", drawn))
    gap = found.arms[1].differences["recall@5"]
    knn = ranking(0.5, 7).ranks < 5
    assert gap.estimate == pytest.approx(both.mean() - knn.mean()) and gap.low < gap.estimate < gap.high


def test_coverage_and_popularity_are_told_beside_the_ranks() -> None:
    found = results(arm("knn", "item_knn", 0.5, 0), arm("d", "model", 0.2, 2))
    assert found.arms[0].metrics["coverage@10"].estimate == pytest.approx(10 / ITEMS)
    page = render_recommendation(found)
    assert all(title in page for title in ("Coverage@10", "Gini@20", "Popularity@5", "NDCG@10", "Recall@20"))
    again = StudyResults.from_json(found.to_json())
    assert render_recommendation(again) == page


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": {"pth": "x"}}, r"Unknown key 'data.pth'. Did you mean 'path'?"),
        ({"data": {}}, r"data.path is missing: name the file of events"),
        ({"data": {"path": "x", "shares": [0.5, 0.5]}}, r"Give three shares that add up to 1."),
        ({"vectors": {"source": "file"}}, r"source file needs path"),
        ({"evaluation": {"cutoffs": [10, 5]}}, r"the smallest first"),
        ({"baseline": "item_kn"}, r"The baseline 'item_kn' is not an arm. Did you mean 'item_knn'\?"),
        (
            {"arms": {"item_knn": {"recommender": "item_kn"}}},
            r"arm 'item_knn': Unknown baseline 'item_kn'. Did you mean",
        ),
        ({"arms": {"item_knn": {"recommender": "item_knn", "opts": {}}}}, r"unknown key 'opts' beside recommender"),
        ({"arms": {"item_knn": {"recommender": "item_knn", "options": {"decy": 1}}}}, r"Did you mean 'decay'\?"),
        ({"arms": {"item_knn": {"trian": {}}}}, r"arm 'item_knn': Unknown key 'trian'. Did you mean 'train'\?"),
        ({"arms": {"item_knn": {"vectors": {"sourc": 1}}}}, r"arm 'item_knn': Unknown key 'vectors.sourc'"),
        ({"arms": {"item_knn": {"task": {"guidence": 2}}}}, r"arm 'item_knn': .*Did you mean 'guidance'\?"),
        ({"arms": {"item_knn": {"objective": {"beta": -1}}}}, r"arm 'item_knn': .*beta"),
        ({"arms": {"item_knn": {"task": "policy"}}}, r"the task is 'policy', but recommenders need items"),
        ({"base": {"model": {"path": "x"}}, "arms": {"item_knn": {}}}, r"model.path is set by the comparison"),
        ({"arms": {"item_knn": {"data": {"train": "x"}}}}, r"data.train is set by the comparison"),
        ({"arms": {"../x": {}}, "baseline": "../x"}, r"'../x' cannot be the name of a folder"),
        ({"seeds": [0, 0]}, r"each once"),
    ],
)
def test_mistakes_in_settings_name_the_file_the_place_and_the_nearest(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(dump_yaml({"data": {"path": "x.csv"}, "arms": {"item_knn": {"recommender": "item_knn"}}} | changes))
    with pytest.raises(ConfigError, match=message) as raised:
        load_recommend_config(RecommendConfig, file)
    assert str(raised.value).startswith(str(file))


def test_an_arm_has_the_settings_of_the_base_and_its_own() -> None:
    study = RecommendConfig(
        base={"task": {"schedule": "cosine"}, "train": {"epochs": 3}}, vectors={"source": "learned", "dimension": 8},
        arms={"item_knn": {"recommender": "sasrec"}, "d": {"objective": {"name": "dpo"}, "train": {"batch_size": 4}}},
    )  # fmt: skip
    run = study.run_config("d", 5)
    assert run.task == {"name": "items", "schedule": "cosine", "dimension": 8}
    assert (run.objective, run.train.epochs, run.train.batch_size, run.seed) == ({"name": "dpo"}, 3, 4, 5)
    assert study.options_of("item_knn", 5) == {"seed": 5} and study.has_seeds("item_knn")
    fixed = RecommendConfig(arms={"item_knn": {"recommender": "sasrec", "options": {"seed": 1}}})
    assert fixed.options_of("item_knn", 5) == {"seed": 1} and not fixed.has_seeds("item_knn")


def test_fewer_places_are_no_change_and_more_are() -> None:
    assert record_changes({"places": 20}, {"places": 10}) == {}
    assert record_changes({"places": 10}, {"places": 20}) == {"evaluation.cutoffs (largest)": "10 → 20"}
    assert record_changes({"data": "a", "run": {"x": 1}}, {"data": "b", "run": {}}).keys() == {
        "the split",
        "run.x",
        "run",
    }
