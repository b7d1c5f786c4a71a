"""A study with made-up numbers that look like a real one: seven arms, five seeds, all sections filled."""

import math
from dataclasses import replace

import numpy as np
import pytest

from popmargin.report import ArmResult, StudyResults
from popmargin.statistics.intervals import Interval

# name, objective, label, origin, accuracy, accuracy slope over strength, win rate, kl, time ratio, target margin
ARMS = [
    ("dpo", "dpo", "DPO", "baseline", 0.684, 0.060, 0.741, 0.041, 1.00, None),
    ("dpo_fixed_margin", "dpo_margin", "DPO, fixed margin", "baseline", 0.688, 0.058, 0.752, 0.052, 1.01, None),
    ("dpo_rating_margin", "dpo_margin", "DPO, rating margin", "baseline", 0.702, 0.083, 0.781, 0.058, 1.01, None),
    ("dpo_stronger", "dpo", "DPO on stronger sides", "control", 0.681, 0.074, 0.763, 0.055, 1.02, None),
    ("pop_iterative", "pop", "DPO-PoP, iterative", "published", 0.690, 0.066, 0.757, 0.049, 1.46, 2.1),
    ("pop_random", "pop", "DPO-PoP, random", "published", 0.676, 0.092, 0.789, 0.061, 1.47, 2.9),
    ("pop_rank", "pop_rank", "PoP-rank, two-sided", "ours", 0.711, 0.079, 0.774, 0.047, 1.12, None),
]
PROMPTS = [
    "Write one sentence about the last train of the evening.",
    "My neighbour started to learn the violin. What is it like to live next door?\nAnswer in a short paragraph.",
    "Review the soup of the day.",
]
TEXTS = [
    "The last train slid out at 23:52, nearly empty, its windows bright, and everyone on it seemed glad to go home.",
    (
        "It is a pleasure to hear somebody get better at something. The first weeks were rough, I admit, but by now "
        "there are evenings on which I turn the radio down to listen. She plays from six to seven, never later, and "
        "once she left a box of biscuits at my door with a note that said sorry."
    ),
    "Warm, honest and generous: a tomato soup with basil and good bread. I would order it again tomorrow.",
]
CONFIG = """\
study: controlled sentiment
model: SmolLM2-135M-Instruct
arms:
  - {objective: dpo, beta: 0.1}
  - {objective: pop, sampling: iterative, k: 2, tau: 0.99, margin_range: [0, 10]}
seeds: [0, 1, 2, 3, 4]
"""


def around(value: float, half: float) -> Interval:
    return Interval(value, value - half, value + half)


def make_arm(row: int) -> ArmResult:
    name, objective, label, origin, accuracy, slope, win, kl, ratio, target = ARMS[row]
    rng = np.random.default_rng(row)
    values = {
        "accuracy": (accuracy, 0.017),
        "accuracy_weak": (accuracy - slope * 1.2, 0.030),
        "accuracy_medium": (accuracy + 0.008, 0.028),
        "accuracy_strong": (accuracy + slope * 1.1, 0.026),
        "accuracy_longer": (0.571, 0.018),
        "pop_accuracy": (0.5 + (accuracy - 0.5) * 0.62 + slope / 3, 0.016),
        "spearman": (0.29 + (accuracy - 0.68) * 2 + slope, 0.034),
        "pearson": (0.31 + (accuracy - 0.68) * 2 + slope, 0.036),
        "kendall": (0.20 + (accuracy - 0.68) * 1.4 + slope, 0.026),
        "ece": (0.031 + 0.01 * rng.random(), 0.009),
        "reward_margin": (0.21 + 3 * kl, 0.02),
        "mean_reward": (0.48 + (win - 0.74) * 1.9, 0.021),
        "win_rate_reference": (win, 0.018),
        "win_rate_baseline": (0.5 + (win - 0.741) * 0.9, 0.019),
        "win_rate_equal_length": (win - 0.012, 0.02),
        "kl_per_token": (kl, 0.0031),
        "length": (52 + 90 * kl + rng.normal(), 1.4),
        "length_difference": (90 * kl, 1.5),
        "distinct_1": (0.31 - kl, 0.012),
        "distinct_2": (0.72 - kl, 0.014),
        "finished": (0.83, 0.02),
    }
    base = {"accuracy": 0.684, "win_rate_reference": 0.741, "mean_reward": 0.48, "kl_per_token": 0.041, "length": 55.8,
            "spearman": 0.358, "pop_accuracy": 0.634}  # fmt: skip
    steps = np.linspace(0, 300, 11)
    rise = 1 - np.exp(-steps / 90)

    def curve(start: float, end: float, half: float) -> list[list[float]]:
        means = start + (end - start) * rise / rise[-1] + rng.normal(0, half / 5, len(steps)) * rise
        means[-1] = end
        return [[float(s), float(m), float(m - half), float(m + half)] for s, m in zip(steps, means, strict=True)]

    log_steps = np.arange(0, 301, 10)
    fall = log_steps / 300

    def series(values: np.ndarray) -> list[list[float]]:
        return [[float(s), float(v)] for s, v in zip(log_steps, values, strict=True)]

    def noise(size: float) -> np.ndarray:
        return rng.normal(0, size, len(log_steps))

    training = {
        "loss": series(0.69 - 0.1 * fall + noise(0.02)),
        "chosen_logratio": series(3.1 * fall - 7.5 * fall**2 * (1 + 6 * kl) + noise(0.35)),
        "rejected_logratio": series(-1.5 * fall - 9.0 * fall**2 * (1 + 6 * kl) + noise(0.35)),
    }
    if target is not None:
        training["target_margin_mean"] = series(target * fall**0.8 + noise(0.12) * fall)
        training["target_margin_std"] = series(0.1 + 1.6 * fall)
        training["target_margin_clipped"] = series(np.clip(0.42 - 0.2 * fall + noise(0.03), 0, 1))
    edges = np.linspace(0.5, 1.0, 9)
    middles = (edges[:-1] + edges[1:]) / 2
    observed = np.clip(middles - 0.05 * (middles - 0.5) * 3 * rng.random() + rng.normal(0, 0.02, 8), 0, 1)
    counts = (600 * np.exp(-6 * (middles - 0.5))).astype(int)
    return ArmResult(
        name=name,
        objective=objective,
        label=label,
        origin=origin,
        seeds=[0, 1, 2, 3, 4],
        metrics={key: around(value, half) for key, (value, half) in values.items()},
        differences={} if row == 0 else {
            key: around(values[key][0] - below, values[key][1] * 0.6) for key, below in base.items()
        },
        reliability=[
            {"low": float(a), "high": float(b), "predicted": float(m), "observed": float(o), "count": int(c)}
            for a, b, m, o, c in zip(edges[:-1], edges[1:], middles, observed, counts, strict=True)
        ],
        curves={
            "accuracy": curve(0.52, accuracy, 0.017),
            "win_rate_reference": curve(0.5, win, 0.018),
            "kl_per_token": curve(0.0, kl, 0.0031),
        },
        training=training,
        overhead={"train_seconds": 104.0 * ratio, "tokens_per_second": 4210 / ratio,
                  "peak_memory_mb": 1432 * (1.38 if target else 1.0), "time_ratio": ratio},
        samples=[
            {"prompt": prompt, "completion": text, "reward": float(np.tanh(rng.normal(0.6, 0.3)))}
            for prompt, text in zip(PROMPTS, TEXTS, strict=True)
        ],
    )  # fmt: skip


def make_study() -> StudyResults:
    return StudyResults(
        title="Controlled sentiment: do preferences over preferences help a small model?",
        arms=[make_arm(row) for row in range(len(ARMS))],
        reference={
            "mean_reward": around(0.214, 0.02),
            "win_rate_reference": Interval(0.5, math.nan, math.nan),
            "length": around(51.3, 1.3),
        },
        baseline="dpo",
        reading=[
            "DPO-PoP with iterative sampling does not clearly beat DPO in accuracy (+0.6 points, −0.4 to +1.6).",
            "DPO-PoP with random sampling writes better than DPO (win rate +4.8 points, +3.7 to +5.9).",
            "Part of that gain is resampling: the control gains +2.2 points (+1.1 to +3.3) without any margin.",
            "The two-sided pop_rank has the highest accuracy; it is ours and not a published method.",
        ],
        data={
            "Source": "demo preferences, 612 prompts × 4 completions, rated by VADER",
            "Training preferences": "1,480",
            "Held-out preferences": "402 from 124 prompts, no prompt shared with training",
            "PoP edges": "2,960 (iterative, k = 2), 2,960 (random)",
            "Label noise": "none",
        },
        config=CONFIG,
        versions={"popmargin": "0.1.0", "torch": "2.10.0", "transformers": "5.3.1", "Python": "3.11.9"},
        account=[
            {
                "name": "preferences.jsonl",
                "rows_in": 1934,
                "kept": {"kept": 1890},
                "left_out": {"tie": 41, "empty": 3},
                "notes": ["format 'rated responses' (jsonl)", "columns that nothing reads: source, created_at"],
                "unit": "preferences",
                "arms": [],
            },
            {
                "name": "PoP edges",
                "rows_in": 2960,
                "kept": {"used": 2960},
                "left_out": {},
                "notes": ["sampled from the strengths with 5920 comparisons"],
                "unit": "edges",
                "arms": ["DPO-PoP, iterative", "DPO-PoP, random"],
            },
        ],
        fingerprint="9f2c1b6de0a84f7799e6f6c8e1db2a4a5f9a4c3f6c0be7f8b0f4f1de90aa7c11",
    )


@pytest.fixture
def study() -> StudyResults:
    return make_study()


@pytest.fixture
def crowded_study() -> StudyResults:
    """Twelve arms with long names and markup in them, points close together, one arm without generations."""
    return make_crowded_study()


def make_crowded_study() -> StudyResults:
    study = make_study()
    arms: list[ArmResult] = []
    for row in range(12):
        arm = study.arms[row % len(ARMS)]
        accuracy = around(0.68 + 0.003 * row, 0.02)
        arms.append(
            replace(
                arm,
                name=f"arm_{row}" if row else "dpo",
                label=f"DPO-PoP with target τ = 0.9{row} <b>&</b> margin in [0, {row}] nats, iterative sampling",
                metrics={**arm.metrics, "accuracy": accuracy},
            )
        )
    generative = {"mean_reward", "win_rate_reference", "win_rate_baseline", "kl_per_token", "length"}
    last = arms[-1]
    arms[-1] = replace(
        last, metrics={key: value for key, value in last.metrics.items() if key not in generative}, samples=[]
    )
    return replace(study, arms=arms)
