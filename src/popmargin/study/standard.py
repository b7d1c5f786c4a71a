"""The standard study, and which of its arms some data can support."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from popmargin.errors import DataError
from popmargin.study.config import StudyConfig
from popmargin.training.build import make_loss
from popmargin.training.sides import load_split


def standard_study_path() -> Path:
    """The YAML file of the standard study."""
    return Path(__file__).with_name("standard.yaml")


def keep_possible(study: StudyConfig) -> StudyConfig:
    """The study without the arms for which the data has no ratings or strengths; dropped arms are reported.

    Raises:
        DataError: fewer than two arms are left.
    """
    arms = dict(study.arms)
    config = study.run_config(study.baseline, study.seeds[0])
    train, _ = load_split(config.data)
    has = {
        "margin": bool(np.isfinite(train.margin).all()),
        "strength": bool(np.isfinite(train.strength).all()),
    }
    for arm in study.arms:
        run = study.run_config(arm, study.seeds[0])
        loss = make_loss(run)
        if loss.needs.margin and "margin" not in loss.signals and not has["margin"]:
            lacking = "ratings (chosen_rating and rejected_rating)"
        elif loss.samples_edges(run.pop) and "order" not in loss.signals and not has["strength"]:
            lacking = "strengths (ratings, or a strength column) to sample PoP edges from"
        else:
            continue
        print(
            f"skipping {arm}: some of the {len(train)} training preferences have no {lacking}",
            file=sys.stderr,
        )
        del arms[arm]
    if len(arms) < 2:
        raise DataError("The data supports fewer than two arms of the standard study. Add ratings or strengths.")
    return replace(study, arms=arms)
