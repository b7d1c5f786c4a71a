"""A study's numbers in words: what is clearly better, what is worse, and what does not differ clearly."""

from collections.abc import Mapping, Sequence

from popmargin.report.discoveries import differences, discovery_note, further_metrics, seeds_tell
from popmargin.report.metrics import FURTHER, is_further
from popmargin.report.results import ArmResult
from popmargin.statistics.intervals import Interval

_METRICS = {
    "accuracy": ("held-out accuracy", 100, " points"),
    "pop_accuracy": ("PoP accuracy", 100, " points"),
    "win_rate_reference": ("win rate against the reference", 100, " points"),
    "mean_reward": ("mean reward", 1, ""),
}


_FEW, _MANY = 4, 8
"""Arms beside the baseline from which on a sentence names only the two that differ most; the summary has all."""


def read_results(arms: Sequence[ArmResult], baseline: str) -> list[str]:
    """Sentences computed from the intervals of the paired differences.

    Args:
        arms: results of all arms.
        baseline: the arm they are compared with.

    Returns:
        One sentence per metric, one on each published and own PoP arm, one on what the intervals cover, and one on
        multiple comparisons.
    """
    base = next(arm for arm in arms if arm.name == baseline)
    others = [arm for arm in arms if arm.name != baseline]
    named = [*_METRICS, *further_metrics(arms)]
    sentences = [_compare(metric, base, others) for metric in named if _known(metric, others)]
    sentences += _on_methods(
        [arm for arm in others if arm.origin in ("published", "ours") and arm.differences and seeds_tell(arm, base)],
        base,
    )
    longer = base.metrics.get("accuracy_longer")
    if longer is not None and longer.estimate == longer.estimate:
        sentences.append(
            f"The baseline “longer wins” is right for {longer.estimate:.1%} of the held-out preferences; "
            f"{base.label} for {base.metrics['accuracy'].estimate:.1%}."
        )
    sentences.append(_seeds_sentence(base, others))
    note = discovery_note(differences(arms, baseline))
    return [*sentences, note] if note else sentences


def _seeds_sentence(base: ArmResult, others: Sequence[ArmResult]) -> str:
    single = [arm.label for arm in others if not seeds_tell(arm, base)]
    if len(single) == len(others):
        return (
            "One training seed: the intervals cover other prompts, not other seeds. Another seed may differ by more, "
            "so no difference is called clear."
        )
    counts = sorted({len(arm.seeds) for arm in (base, *others)})
    seeds = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    sentence = f"{seeds} training seeds: the intervals cover other prompts and other seeds."
    return (
        f"{sentence} {_join(single)} and {base.label} have one each, so they are not compared." if single else sentence
    )


def read_control(arm: str, control: str, found: Mapping[str, Interval], *, told: bool = True) -> str:
    """Whether a margin adds anything to training on the same edges.

    Args:
        arm: label of the arm with the margin.
        control: label of the arm on the same edges without it.
        found: paired differences, arm minus control.
        told: whether either has several seeds.
    """
    known = {metric: found[metric] for metric in (*_METRICS, *filter(is_further, found)) if metric in found}
    known = {metric: interval for metric, interval in known.items() if _finite(interval)}
    told_apart = {metric: interval for metric, interval in known.items() if _verdict(interval) != "unclear"}
    many = told and len(known) > len(_METRICS)  # with further rewards, only what is clear
    shown = told_apart if many else known
    amounts = "; ".join(f"{_described(metric)[0]} {_amount(metric, interval)}" for metric, interval in shown.items())
    clear = {_verdict(interval) for interval in known.values()} - {"unclear"}
    if not told:
        return (
            f"What the margin adds is unknown with one seed each: {arm} against {control}, which trains on the same "
            f"edges without it: {amounts}, over prompts only."
        )
    if not clear:
        listed = "" if many else f" ({amounts})"
        return (
            f"What the margin adds: {arm} cannot be told apart from {control}, which trains on the same edges without "
            f"it{listed}. Its difference from the baseline comes from which preferences are trained on."
        )
    rest = len(known) - len(shown)
    amounts += f"; unclear in {rest} more" if rest else ""
    return f"What the margin adds: {arm} against {control}, which trains on the same edges without it: {amounts}."


def read_reference(arm: ArmResult, added: Interval) -> str:
    """Training's effect if the untrained model already orders the responses.

    Args:
        arm: its score is not a log-ratio.
        added: paired difference in accuracy, arm minus its reference model in the same score.
    """
    own = arm.metrics["accuracy_reference"].estimate
    return (
        f"{arm.label} scores by the policy's own log-probs, by which the reference model is already right for "
        f"{own:.1%} of the held-out preferences; training adds {_amount('accuracy', added)}"
        f"{' over prompts only' if len(arm.seeds) == 1 else ''}."
    )


def _known(metric: str, arms: Sequence[ArmResult]) -> bool:
    return any(metric in arm.differences and _finite(arm.differences[metric]) for arm in arms)


def _finite(interval: Interval) -> bool:
    return interval.low == interval.low and interval.high == interval.high


def _compare(metric: str, base: ArmResult, others: Sequence[ArmResult]) -> str:
    title, _, _ = _described(metric)
    known = [arm for arm in others if metric in arm.differences and _finite(arm.differences[metric])]
    told = [arm for arm in known if seeds_tell(arm, base)]
    if not told:
        amounts = "; ".join(f"{arm.label} {_amount(metric, arm.differences[metric])}" for arm in _ends(metric, known))
        most = f"the largest and smallest of {len(known)}: " if len(known) >= _MANY else ""
        return f"{_upper(title)}, one run each against one of {base.label}, over prompts only: {most}{amounts}."
    better = [arm for arm in told if arm.differences[metric].low > 0]
    worse = [arm for arm in told if arm.differences[metric].high < 0]
    parts: list[str] = []
    if better:
        parts.append(f"higher for {_largest(metric, better, len(others))}")
    if worse:
        parts.append(f"lower for {_largest(metric, worse, len(others))}")
    if not parts:
        return f"{_upper(title)}: no arm differs clearly from {base.label}."
    unclear = len(told) - len(better) - len(worse)
    rest = f"; the other {unclear} cannot be told apart from it" if unclear else ""
    return f"{_upper(title)}, compared with {base.label}: {'; '.join(parts)}{rest}."


def _ends(metric: str, arms: Sequence[ArmResult]) -> list[ArmResult]:
    """All arms; if there are many, those with the largest and the smallest differences."""
    if len(arms) < _MANY:
        return list(arms)
    ordered = sorted(arms, key=lambda arm: -arm.differences[metric].estimate)
    return [*ordered[:2], *ordered[-2:]]


def _largest(metric: str, arms: Sequence[ArmResult], count: int) -> str:
    """Arms with their differences; if the study has many (`count`), the two largest."""
    ordered = sorted(arms, key=lambda arm: -abs(arm.differences[metric].estimate))
    shown = list(arms) if count < _MANY else ordered[:2]
    more = len(arms) - len(shown)
    amounts = ", ".join(f"{arm.label} ({_amount(metric, arm.differences[metric])})" for arm in shown)
    return f"{amounts} and {more} more" if more else amounts


def _on_methods(arms: Sequence[ArmResult], base: ArmResult) -> list[str]:
    """A sentence on each arm; if there are many, one on all of them."""
    if len(arms) <= _FEW:
        return [_pop_sentence(arm, base) for arm in arms]
    groups: dict[str, list[str]] = {}
    for arm in arms:
        wins, losses = _wins_and_losses(arm)
        kind = "trade one metric for another" if wins and losses else "only win" if wins else "only lose"
        groups.setdefault(kind if wins or losses else "differ in none", []).append(arm.label)
    words = "; ".join(f"{_join(labels)} {_verb(kind, len(labels))}" for kind, labels in groups.items())
    return [f"Among the metrics above, compared with {base.label}: {words}."]


def _verb(kind: str, count: int) -> str:
    if count > 1:
        return kind
    first, space, rest = kind.partition(" ")
    if first == "only":
        return f"only {rest.replace('win', 'wins').replace('lose', 'loses')}"
    return f"{first}s{space}{rest}"


def _wins_and_losses(arm: ArmResult) -> tuple[list[str], list[str]]:
    """What the metrics are called in which an arm is clearly better, and worse."""
    named = (*_METRICS, *further_metrics([arm]))
    verdicts = {metric: _verdict(arm.differences[metric]) for metric in named if _known(metric, [arm])}
    wins = [_described(m)[0] for m, verdict in verdicts.items() if verdict == "better"]
    return wins, [_described(m)[0] for m, verdict in verdicts.items() if verdict == "worse"]


def _pop_sentence(arm: ArmResult, base: ArmResult) -> str:
    wins, losses = _wins_and_losses(arm)
    if wins and not losses:
        return f"{arm.label} beats {base.label} on {_join(wins)} and loses on none of these metrics."
    if losses and not wins:
        return f"{arm.label} does not win here: it is clearly worse than {base.label} on {_join(losses)}."
    if wins and losses:
        return f"{arm.label} trades: better than {base.label} on {_join(wins)}, worse on {_join(losses)}."
    return f"{arm.label} does not win here: no clear difference from {base.label} on any of these metrics."


def _described(metric: str) -> tuple[str, int, str]:
    """What a metric is called, its scale and its unit; of a further reward, its name."""
    return _METRICS.get(metric) or (f"mean {metric.removeprefix(FURTHER).replace('_', ' ')}", 1, "")


def _verdict(interval: Interval) -> str:
    return "better" if interval.low > 0 else "worse" if interval.high < 0 else "unclear"


def _amount(metric: str, interval: Interval) -> str:
    _, scale, unit = _described(metric)
    digits = 1 if scale == 100 else 3
    nearest = scale * min(abs(interval.low), abs(interval.high))
    while interval.low * interval.high > 0 and digits < 8 and round(nearest, digits) == 0:
        digits += 1  # a clear difference is not shown as zero
    low, estimate, high = (f"{scale * value:+.{digits}f}" for value in (interval.low, interval.estimate, interval.high))
    return f"{estimate}{unit}, 95% {low} to {high}"


def _join(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _upper(text: str) -> str:
    return text[0].upper() + text[1:]
