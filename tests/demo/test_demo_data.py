"""The demo's data, reward and studies as shipped."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from popmargin.config import merge, read_yaml
from popmargin.data.load import load_preferences
from popmargin.demo import demo_data_path, demo_study_path
from popmargin.demo.prompts import prompts
from popmargin.demo.sentiment import sentiment, sentiment_reward
from popmargin.study.config import load_study
from popmargin.study.standard import standard_study_path
from popmargin.training.sides import load_split

ROOT = Path(__file__).parents[2]


def test_the_shipped_data_is_small_and_large_enough() -> None:
    import pyarrow.parquet as pq

    rows = pq.read_table(demo_data_path()).to_pylist()
    assert demo_data_path().stat().st_size <= 1.5 * 2**20
    assert len(rows) >= 600 and all(len(row["responses"]) == 4 for row in rows)
    known = set(prompts())
    assert all(row["prompt"][-1]["content"] in known for row in rows)
    assert len({row["prompt"][-1]["content"] for row in rows}) == len(rows)


def test_the_ratings_are_the_gold_reward() -> None:
    import pyarrow.parquet as pq

    for row in pq.read_table(demo_data_path()).to_pylist()[::25]:
        for response in row["responses"]:
            assert response["rating"] == pytest.approx(sentiment(response["text"]), abs=1e-4)
    assert sentiment_reward(["", ""], ["It was wonderful.", "It was horrible."]) == [
        pytest.approx(0.5719), pytest.approx(-0.5423)
    ]  # fmt: skip


def test_preferences_of_the_demo_prefer_the_better_sentiment() -> None:
    preferences = load_preferences(str(demo_data_path()), pairs="best_vs_random", bad_rows="drop")
    assert preferences.report.rows_in == preferences.report.rows_kept + preferences.report.rows_reported
    assert np.isfinite(preferences.strength).all() and (preferences.strength > 0).all()


def test_the_demo_compares_the_seven_arms_on_one_split() -> None:
    study = load_study(standard_study_path(), changes=read_yaml(demo_study_path()))
    assert list(study.arms) == [
        "dpo", "dpo_fixed_margin", "dpo_rating_margin", "dpo_stronger", "pop_iterative", "pop_random", "pop_rank"
    ]  # fmt: skip
    configs = [study.run_config(arm, 0) for arm in study.arms]
    assert len({repr(config.data) for config in configs}) == 1
    train, test = load_split(configs[0].data)
    assert len(train) == configs[0].data.limit and not set(train.prompt_keys) & set(test.prompt_keys)
    assert configs[4].pop.sampling == "iterative" and configs[5].pop.sampling == "random"
    assert configs[3].pop == configs[5].pop, "the control trains on the edges of the arm it controls"


def test_the_full_demo_runs_five_seeds_on_all_data() -> None:
    from popmargin.cli.demo import FULL

    study = load_study(standard_study_path(), changes=merge(read_yaml(demo_study_path()), FULL))
    assert study.seeds == [0, 1, 2, 3, 4] and study.run_config("dpo", 4).data.limit is None


def test_flipped_labels_keep_ratings_and_flip_texts() -> None:
    study = load_study(standard_study_path(), changes=read_yaml(demo_study_path()))
    data = study.run_config("dpo", 0).data
    clean, _ = load_split(data)
    noisy, _ = load_split(replace(data, flip=0.3))
    flipped = [a["chosen"] == b["rejected"] for a, b in zip(clean.dataset, noisy.dataset, strict=True)]
    assert 0.2 < np.mean(flipped) < 0.4
    assert clean.dataset["chosen_rating"] == noisy.dataset["chosen_rating"] and clean.ids == noisy.ids


def test_the_data_card_names_the_number_of_prompts() -> None:
    import pyarrow.parquet as pq

    card = (demo_data_path().parent / "DATA_CARD.md").read_text(encoding="utf-8")
    assert f"{pq.read_table(demo_data_path()).num_rows} prompts" in card
