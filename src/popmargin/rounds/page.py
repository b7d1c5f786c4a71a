"""The report over rounds: policies, labels, cost and samples, on one HTML page."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from popmargin.config import dump_yaml, to_dict
from popmargin.files import HTML
from popmargin.report.metrics import LOG_RATIO, MINUS, Metric, decimals, metric
from popmargin.report.render import render_page
from popmargin.report.results import write_text
from popmargin.report.tables import Cell, cell, duration, visible_text
from popmargin.rounds.gathered import Measured, RoundsResults, gather
from popmargin.rounds.plan import Plan
from popmargin.rounds.round_figures import by_confidence, over_rounds, ranked_margins
from popmargin.rounds.rounds_config import REPORT, RoundsConfig
from popmargin.statistics.intervals import Interval

_TEMPLATE = Path(__file__).parent / "templates" / "rounds.html.j2"
_COLUMNS = (
    "accuracy", "mean_reward", "win_rate_reference", "kl_per_token", "length", "distinct_2", "finished",
)  # fmt: skip
_TOO_LOW = 0.6  # agreement of self-labels below which a loop is not expected to work (SPA's note, ours)


def write_rounds_report(config: RoundsConfig, plan: Plan, folder: Path) -> Path:
    """Write `report.html` of what is finished so far.

    Args:
        config: of the rounds.
        plan: their stages.
        folder: of the stages.
    """
    results = gather(config.title, dump_yaml(to_dict(config)), plan, folder)
    path = folder / REPORT
    write_text(path, render_rounds(results, planned=len(plan)), HTML)
    return path


def render_rounds(results: RoundsResults, *, planned: int) -> str:
    """The page as HTML; `planned` is the number of stages in the plan."""
    known = {key for policy in results.policies for key in policy.metrics}
    ratio = [key for key in sorted(known) if key.startswith(LOG_RATIO)]
    keys = [key for key in (*_COLUMNS, *ratio) if key in known]
    columns = [metric(key) for key in keys]
    return render_page(
        _TEMPLATE,
        title=results.title,
        lead=_lead(results, planned),
        reading=reading(results),
        columns=columns,
        rows=[(policy, _cells(policy, results.policies, columns)) for policy in results.policies],
        figures=[figure for key in keys if (figure := over_rounds(results.policies, key))],
        labels=_known_columns(
            [_label_row(name, facts, results.trainings.get(name, {})) for name, facts in results.labels.items()]
        ),
        confidence=[
            figure
            for name, facts in results.labels.items()
            if (figure := by_confidence(name, facts.get("label", {}).get("agreement", {}).get("curve", [])))
        ],
        ranks=_known_columns([_rank_row(name, facts) for name, facts in results.ranks.items()]),
        margins=[ranked_margins(name, facts["rank"]) for name, facts in results.ranks.items() if "rank" in facts],
        by_loss=any(facts["rank"].get("by") == "loss" for facts in results.ranks.values() if "rank" in facts),
        stages=[_stage_row(stage) for stage in results.stages],
        total=duration(sum(stage.seconds for stage in results.stages)),
        prompts=_prompts(results.policies),
        config=results.config,
        versions=results.stages[-1].versions if results.stages else {},
        text=visible_text,
    )


def _lead(results: RoundsResults, planned: int) -> str:
    done = len(results.stages)
    stages = f"All {planned} stages are finished." if done == planned else f"{done} of {planned} stages are finished."
    standing = " ".join([stages, *results.waiting])
    return (
        f"{standing} Every policy is measured on the same held-out preferences and prompts. "
        "Margins and KL are against the start model; differences are from the first trained policy. Intervals are 95%, "
        "over prompts; they do not include the spread over training seeds."
    )


def reading(results: RoundsResults) -> list[str]:
    """What the numbers say, in sentences: first and last policy, and whether the labels can be trusted."""
    sentences: list[str] = []
    trained = [policy for policy in results.policies if policy.name != "start"]
    if len(trained) > 1:
        for key in ("mean_reward", "win_rate_reference", "accuracy"):
            if key in trained[-1].differences:
                sentences.append(_difference(trained[0], trained[-1], key))
    for name, facts in results.labels.items():
        found = facts.get("label", {}).get("agreement")
        if found is None or found["overall"]["estimate"] is None:
            continue
        overall = Interval.from_dict(found["overall"])
        sentence = (
            f"{name}: the labels agree with the reward on {overall.estimate:.0%} of {found['pairs']} pairs "
            f"[{overall.low:.0%}, {overall.high:.0%}]."
        )
        if overall.estimate < _TOO_LOW:
            sure = overall.high < _TOO_LOW
            sentence += f" Below about {_TOO_LOW:.0%}, a loop on such labels is not expected to help" + (
                "." if sure else "; the interval includes values above it."
            )
        sentences.append(sentence)
    return sentences


def _difference(first: Measured, last: Measured, key: str) -> str:
    entry, change = metric(key), last.differences[key]
    scale, unit = (100, " points") if entry.is_share else (1, "")
    before, after = (policy.metrics[key].estimate * scale for policy in (first, last))
    clear = change.low > 0 or change.high < 0
    what = "the interval excludes zero" if clear else "the interval includes zero, so this may be noise"
    numbers = (
        f"{before:.3g}",
        f"{after:.3g}",
        *(f"{end * scale:+.3g}" for end in (change.estimate, change.low, change.high)),
    )
    start, end, by, low, high = map(_minus, numbers)
    return f"{entry.title} goes from {start} ({first.name}) to {end} ({last.name}): {by}{unit} [{low}, {high}]; {what}."


def _cells(policy: Measured, policies: Sequence[Measured], columns: Sequence[Metric]) -> list[Cell]:
    return [
        cell(
            policy.metrics.get(entry.key),
            policy.differences.get(entry.key),
            entry,
            decimals([one.metrics.get(entry.key) for one in policies], share=entry.is_share),
        )
        for entry in columns
    ]


def _label_row(name: str, facts: dict[str, Any], training: dict[str, Any]) -> dict[str, str]:
    """One round of labels as text, in the order of the table's columns."""
    sample, label, pair = (facts.get(kind, {}) for kind in ("sample", "label", "pair"))
    last = training.get("last", {})
    agreement = label.get("agreement", {}).get("overall", {})
    left_out = {**label.get("left_out", {}), **pair.get("left_out", {})}
    return {
        "round": name,
        "prompts": str(sample.get("prompts", "–")),
        "responses": str(sample.get("responses", "–")),
        "unfinished": _share(sample.get("unfinished"), sample.get("responses")),
        "distinct-2": _number(sample.get("distinct_2"), share=True),
        "without a label": str(label.get("missing") or "–"),
        "pairs": str(pair.get("pairs", "–")),
        "left out": "; ".join(f"{reason.replace('_', ' ')}: {count}" for reason, count in left_out.items()) or "–",
        "longer is chosen": _number(pair.get("longer_chosen"), share=True),
        "length, chosen / rejected": f"{_number(pair.get('chosen_length'))} / {_number(pair.get('rejected_length'))}",
        "agreement with the reward": _interval(agreement),
        "suspected labels": _number(training.get("suspected"), share=True),
        "threshold τ": _number(last.get("suspect_threshold")),
        "reward margin h / de-coupled h̃, at the end": (
            f"{_number(last.get('reward_margin'))} / {_number(last['decoupled_margin'])}"
            if last.get("decoupled_margin") is not None
            else "–"
        ),
    }


def _rank_row(name: str, facts: dict[str, Any]) -> dict[str, str]:
    """What became of the original preferences in one round, as text."""
    rank, replace = facts.get("rank", {}), facts.get("replace", {})
    lengths, flips = rank.get("chosen_characters", {}), rank.get("known_flips", {})
    return {
        "round": name,
        "preferences": str(rank.get("rows", "–")),
        "kept": str(rank.get("kept", "–")),
        "dropped": str(rank.get("dropped", "–")),
        "not ranked": str(rank.get("not_ranked") or "–"),
        "margin below zero": _number(rank.get("contradicted"), share=True),
        "largest dropped margin": _number(rank.get("cut")),
        "characters of chosen, kept / dropped": f"{_number(lengths.get('kept'))} / {_number(lengths.get('dropped'))}",
        "known flips": str(flips.get("flips", "–")),
        "AUC of the loss for them": _interval(flips.get("auc", {})),
        "dropped rows that are flips": _interval(flips.get("precision", {})),
        "flips that are dropped": _interval(flips.get("recall", {})),
        "replaced": str(replace.get("replaced", "–")),
        "not replaced": "; ".join(f"{why}: {count}" for why, count in replace.get("not_replaced", {}).items()) or "–",
    }


def _known_columns(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """The rows without columns that say nothing in any of them."""
    said = {name for row in rows for name, value in row.items() if value.strip("– /")}
    return [{name: value for name, value in row.items() if name in said} for row in rows]


def _stage_row(stage: Any) -> dict[str, str]:
    cost = stage.facts.get("cost", {})
    return {
        "stage": stage.stage,
        "time": duration(stage.seconds),
        "attempts": str(stage.attempts),
        "cost": "; ".join(f"{count:,} {what}" for what, count in cost.items()) or "–",
        "started": stage.started,
    }


def _share(count: Any, of: Any) -> str:
    return f"{count / of:.0%}" if count is not None and of else "–"


def _number(value: Any, *, share: bool = False) -> str:
    if value is None or value != value:
        return "–"
    return _minus(f"{value:.0%}" if share else f"{value:.3g}")


def _minus(text: str) -> str:
    """Numbers with a minus sign instead of a hyphen."""
    return text.replace("-", MINUS)


def _interval(value: dict[str, Any]) -> str:
    if value.get("estimate") is None:
        return "–"
    ends = f" [{value['low']:.0%}, {value['high']:.0%}]" if value.get("low") is not None else ""
    return f"{value['estimate']:.0%}{ends}"


def _prompts(policies: Sequence[Measured]) -> list[tuple[str, list[tuple[str, str, str]]]]:
    """Each shown prompt with the answer and reward of every policy."""
    with_samples = [policy for policy in policies if policy.samples]
    if not with_samples:
        return []
    return [
        (
            visible_text(first["prompt"]),
            [
                (
                    policy.name,
                    visible_text(policy.samples[place]["completion"]),
                    f"{policy.samples[place]['reward']:.3g}",
                )
                for policy in with_samples
            ],
        )
        for place, first in enumerate(with_samples[0].samples)
    ]
