"""Sentences about numbers: wins, losses, and what cannot be told apart."""

from dataclasses import replace
from pathlib import Path

import pytest

from popmargin.config import RunConfig, from_dict
from popmargin.report.results import ArmResult
from popmargin.statistics.intervals import Interval
from popmargin.study import gather
from popmargin.study.reading import _amount, read_control, read_reference, read_results
from popmargin.training.run_directory import RunDirectory

NAN = float("nan")


def arm(name: str, origin: str = "baseline", seeds: int = 2, **differences: Interval) -> ArmResult:
    return ArmResult(
        name=name,
        objective=name,
        label=name.upper(),
        origin=origin,
        seeds=list(range(seeds)),
        metrics={"accuracy": Interval(0.7, 0.6, 0.8), "accuracy_longer": Interval(0.55, 0.5, 0.6)},
        differences=differences,
        reliability=[],
        curves={},
        training={},
        overhead={},
        samples=[],
    )


UP, DOWN, UNCLEAR = Interval(0.05, 0.01, 0.09), Interval(-0.2, -0.3, -0.1), Interval(0.01, -0.02, 0.04)


def test_better_worse_and_unclear() -> None:
    arms = [
        arm("dpo"),
        arm("pop", "published", accuracy=UP, win_rate_reference=DOWN),
        arm("pop_rank", "ours", accuracy=UNCLEAR, win_rate_reference=UNCLEAR),
        arm("ipo", accuracy=DOWN),
    ]
    text = read_results(arms, "dpo")
    assert text[0] == (
        "Held-out accuracy, compared with DPO: higher for POP (+5.0 points, 95% +1.0 to +9.0); "
        "lower for IPO (-20.0 points, 95% -30.0 to -10.0); the other 1 cannot be told apart from it."
    )
    assert "POP trades: better than DPO on held-out accuracy, worse on win rate against the reference." in text
    assert any(line.startswith("POP_RANK does not win here: no clear difference from DPO") for line in text)
    assert not any(line.startswith("IPO does") for line in text)
    assert any("longer wins" in line and "55.0%" in line and "70.0%" in line for line in text)
    assert text[-1] == "2 training seeds: the intervals cover other prompts and other seeds."


def test_of_many_arms_a_sentence_names_the_two_that_differ_most() -> None:
    """Sixteen arms are no wall of text: the summary has the rest."""
    gains = [Interval(0.01 * number, 0.005 * number, 0.02 * number) for number in range(1, 16)]
    many = [arm("dpo"), *(arm(f"a{number}", "published", accuracy=gain) for number, gain in enumerate(gains, 1))]
    text = read_results(many, "dpo")
    assert text[0].startswith("Held-out accuracy, compared with DPO: higher for A15 (+15.0 points")
    assert "), A14 (" in text[0] and text[0].endswith(") and 13 more.") and "A13" not in text[0]
    assert (
        text[1]
        == f"Among the metrics above, compared with DPO: {', '.join(f'A{n}' for n in range(1, 15))} and A15 only win."
    )
    alone = [replace(one, seeds=[0]) for one in many]
    text = read_results(alone, "dpo")
    assert "the largest and smallest of 15: A15 " in text[0] and text[0].count("points") == 4
    assert len(" ".join(text)) < 1200


def test_one_run_of_each_arm_is_no_verdict() -> None:
    """However far the interval is from zero: it knows nothing of another seed."""
    arms = [arm("dpo", seeds=1), arm("pop", "published", 1, accuracy=UP), arm("ipo", seeds=1, accuracy=DOWN)]
    text = read_results(arms, "dpo")
    assert text[0] == (
        "Held-out accuracy, one run each against one of DPO, over prompts only: POP +5.0 points, 95% +1.0 to +9.0; "
        "IPO -20.0 points, 95% -30.0 to -10.0."
    )
    assert text[-1].startswith("One training seed: the intervals cover other prompts, not other seeds.")
    assert not any("wins" in line or "worse" in line for line in text if "longer" not in line)
    assert "is unknown with one seed each" in read_control("POP", "CONTROL", {"accuracy": UP}, told=False)
    known = read_results([arm("dpo", seeds=5), arm("pop", "published", 1, accuracy=UP)], "dpo")
    assert any(line.startswith("POP beats DPO") for line in known)  # the baseline's seeds are in the interval
    assert "1 to 5 training seeds" in known[-1]


def test_many_differences_are_read_together() -> None:
    """Four arms, eight differences with p of 0.001, 0.03, 0.04 … : at 5% only the first stands beside the others."""
    p = iter([0.001, 0.03, 0.04, 0.2, 0.4, 0.6, 0.8, 0.9])

    def tested(name: str) -> ArmResult:
        one, two = next(p), next(p)
        shown = [replace(UP if value < 0.05 else UNCLEAR, p=value) for value in (one, two)]
        return arm(name, accuracy=shown[0], pop_accuracy=shown[1])

    text = read_results([arm("dpo"), *map(tested, "abcd")], "dpo")
    assert text[-1] == (
        "Of 8 differences in the summary, 3 exclude zero at 95%; if none were real, 0.4 would on average. 1 of them "
        "holds up at a false discovery rate of 5% (Benjamini–Hochberg); A in PoP accuracy, B in "
        "Accuracy do not."
    )


def test_wins_and_losses_alone() -> None:
    text = read_results([arm("dpo", seeds=2), arm("pop", "published", 2, accuracy=UP, mean_reward=UP)], "dpo")
    assert "POP beats DPO on held-out accuracy and mean reward and loses on none of these metrics." in text
    assert text[-1].startswith("2 training seeds")
    text = read_results([arm("dpo"), arm("pop", "published", accuracy=DOWN)], "dpo")
    assert "POP does not win here: it is clearly worse than DPO on held-out accuracy." in text


def test_undefined_intervals_are_no_verdict() -> None:
    text = read_results([arm("dpo"), arm("pop", "published", accuracy=Interval(NAN, NAN, NAN), pop_accuracy=UP)], "dpo")
    assert not any(line.startswith("Held-out accuracy") for line in text)
    assert any(line.startswith("PoP accuracy, compared with DPO: higher for POP") for line in text)


def test_a_margin_that_adds_nothing_is_said_to() -> None:
    unclear = {"accuracy": Interval(0.01, -0.02, 0.04), "kl_per_token": Interval(1.0, 0.5, 1.5)}
    assert "cannot be told apart from CONTROL" in read_control("POP", "CONTROL", unclear)
    clear = read_control("POP", "CONTROL", {"accuracy": Interval(0.03, 0.02, 0.04)})
    assert "cannot" not in clear and "held-out accuracy +3.0 points, 95% +2.0 to +4.0" in clear


def test_what_training_adds_to_an_order_that_was_there() -> None:
    simpo = arm("simpo")
    simpo.metrics["accuracy_reference"] = Interval(0.644, 0.58, 0.7)
    assert read_reference(simpo, UP) == (
        "SIMPO scores by the policy's own log-probs, by which the reference model is already right for 64.4% of the "
        "held-out preferences; training adds +5.0 points, 95% +1.0 to +9.0."
    )


def test_further_rewards_are_read_like_the_first() -> None:
    """An arm that gains reward and loses the prompt does not simply win."""
    known = Interval(0.9, 0.8, 1.0)
    arms = [
        replace(arm("dpo"), metrics={"mean_still_the_prompt": known}),
        replace(
            arm("pop", "published", mean_reward=UP, mean_still_the_prompt=DOWN),
            metrics={"mean_still_the_prompt": known},
        ),
    ]
    text = read_results(arms, "dpo")
    assert "Mean still the prompt, compared with DPO: lower for POP (-0.200, 95% -0.300 to -0.100)." in text
    assert "POP trades: better than DPO on mean reward, worse on mean still the prompt." in text
    control = read_control("POP", "DPO", arms[1].differences)
    assert "mean reward +0.050, 95% +0.010 to +0.090; mean still the prompt -0.200, 95% -0.300 to -0.100" in control


def test_small_clear_differences_are_not_shown_as_zero() -> None:
    assert _amount("mean_reward", Interval(0.00021, 0.000042, 0.0004)) == "+0.00021, 95% +0.00004 to +0.00040"
    assert _amount("mean_reward", Interval(0.00001, -0.00002, 0.00003)) == "+0.000, 95% -0.000 to +0.000"


def test_a_margin_is_compared_with_a_control_that_is_trained_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """An arm with fewer steps than the control would say what the steps do."""

    def arm(name: str, objective: str, steps: int) -> gather.Arm:
        config = from_dict(RunConfig, {"objective": {"name": objective}, "train": {"max_steps": steps}})
        return gather.Arm(name, [RunDirectory(Path(name))] * 2, [config] * 2, [], None)

    monkeypatch.setattr(gather, "_differences", lambda *arms: {"accuracy": UP})
    made = [arm("pop", "pop", 150), arm("pop 60", "pop", 60), arm("control", "dpo_stronger", 60), arm("dpo", "dpo", 60)]
    said = gather._against_controls({one.name: one for one in made}, None, {})
    assert len(said) == 1 and said[0].startswith("What the margin adds: pop 60 against control")
