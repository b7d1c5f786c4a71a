"""Reward-augmented preferences: every pair twice, each time under the goal of one of its responses.

Zhang et al. (ICML 2025, arXiv 2410.08067): under the goal g a response of score r is worth −(g − r)². So at the goal of
the chosen response it is preferred, and at the goal of the rejected one the other way round. The loss stays what it is.
"""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import datasets
import numpy as np
from jaxtyping import Float64

from popmargin.account import Step
from popmargin.data.conversation import prompt_key
from popmargin.data.exchange import NEGATED
from popmargin.data.goal_scores import STEP, Scale, goals_of
from popmargin.data.goals import FACTS, SCORES, GoalFacts, Place, asks_for_goal, goal_facts, with_goal, without_goal
from popmargin.data.schema import Preferences
from popmargin.errors import ConfigError, DataError, did_you_mean
from popmargin.files import digest

OVERALL = "Overall score"
REVERSED = "goal_reversed"
"""Column: whether the prompt asks for what was the rejected response."""
ORIGIN = "goal_of"
"""Column: the id of the preference that a row was made of."""
OWN = "own_"
"""Before the names of columns that keep what the data said of the pair: own_strength, own_margin."""
_RATINGS = ("chosen_rating", "rejected_rating")
_OWN_RATINGS = ("chosen_own_rating", "rejected_own_rating")


def augment(
    preferences: Preferences,
    *,
    scores: Mapping[str, str] | None = None,
    scale: Scale | Mapping[str, Scale] = None,
    step: float = STEP,
    half: bool = False,
    seed: int = 0,
    place: Place = "system",
) -> Preferences:
    """Preferences under goals: at that of the chosen response each pair as it is, at that of the other one reversed.

    Pairs whose two goals are printed alike are ties, two rows that contradict each other: they are left out and counted
    in the notes of the report. The strength of both rows of a pair is |chosen − rejected|, in the scores' own unit (of
    several attributes the Euclidean length); a margin keeps its value, a reversed row's is never negative. Ratings,
    which would contradict the reversed rows, stand in chosen_own_rating and rejected_own_rating. Further columns: the
    scores asked for, whether the row is reversed, the id it was made of, and the facts (see `popmargin.data.goals`).
    Rows of one prompt share a cluster, and splitting goes by the prompt without its goal.

    Args:
        preferences: without goals.
        scores: what is printed -> the name of its columns, "helpful" for chosen_helpful and rejected_helpful; None is
            the overall score, from the ratings.
        scale: of the scores, see `popmargin.data.goal_scores.goals_of`; for several attributes also by what is printed.
        step: of mapped goals.
        half: keep one of the two rows, drawn with the seed, for as many rows as pairs.
        seed: of `half`.
        place: of the goal in conversations; "user" for chat templates without a system role (see `place_for`).

    Returns:
        Two rows for each pair, next to each other.

    Raises:
        ConfigError: no such score, or a scale or step that is none.
        DataError: rows without scores, scores outside the scale, prompts that have a goal already, or only ties.

    Example:
        >>> from popmargin import load_preferences
        >>> pair = {"prompt": "x", "chosen": "good", "rejected": "bad", "chosen_rating": 9, "rejected_rating": 4.5}
        >>> rows = augment(load_preferences([pair]))
        >>> [(row["prompt"].split("\\n")[1], row["chosen"]) for row in (rows[0], rows[1])]
        [('Overall score: 9', 'good'), ('Overall score: 4.5', 'bad')]
    """
    _refuse_goals(preferences)
    names = dict(scores) if scores else {OVERALL: "rating"}
    found = {shown: _scores(preferences, name) for shown, name in names.items()}
    mapped = {
        shown: goals_of(values, _scale_of(shown, scale, names), step=step, name=names[shown], ids=preferences.ids)
        for shown, values in found.items()
    }
    facts = GoalFacts(tuple(names), tuple(about for _, about in mapped.values()), place)
    goals = np.stack([values for values, _ in mapped.values()], axis=-1)  # (2, N, attributes)
    own = np.stack(list(found.values()), axis=-1)
    lines = [[facts.line(row) for row in side] for side in goals]
    kept = [row for row, pair in enumerate(zip(*lines, strict=True)) if pair[0] != pair[1]]
    if not kept:
        raise DataError(
            f"{preferences.report.source}: all {len(preferences)} pairs are ties: both responses have the same goal, "
            f"such as '{lines[0][0]}'. Score them more finely, or lower the step." if len(preferences) else
            f"{preferences.report.source} has no preferences to augment."
        )  # fmt: skip
    pairs = preferences.select(kept)
    strength = np.sqrt(((own[0] - own[1]) ** 2).sum(axis=-1))[kept]
    rows = [_under_goals(pairs, goals[side][kept], facts, strength, reverse=bool(side)) for side in (0, 1)]
    together = datasets.concatenate_datasets([side.dataset for side in rows])
    order = [side * len(kept) + row for row in range(len(kept)) for side in _sides(pairs.ids[row], half, seed)]
    return Preferences(together.select(order), _report(preferences, goals[:, kept], len(order), facts))


def _refuse_goals(preferences: Preferences) -> None:
    taken = sorted({FACTS, SCORES, REVERSED, ORIGIN, *_OWN_RATINGS} & set(preferences.columns))
    if taken:
        raise DataError(
            f"{preferences.report.source} has a column '{taken[0]}': it was augmented already. Augment the preferences "
            "that it was made from."
        )
    start = 0
    for rows in preferences.batches("prompt"):
        for row, prompt in enumerate(rows["prompt"], start):
            if asks_for_goal(prompt):
                raise DataError(
                    f"{preferences.report.source}: the prompt of row {row} (id '{preferences.ids[row]}', column "
                    "'prompt') asks for a goal already. Augment the preferences that it was made from."
                )
        start += len(rows["prompt"])


def _scores(preferences: Preferences, name: str) -> Float64[np.ndarray, "2 N"]:
    """The scores of the chosen and of the rejected responses."""
    ways = [(f"chosen_{name}", f"rejected_{name}"), (f"{name}_chosen", f"{name}_rejected")]
    columns = next((pair for pair in ways if set(pair) <= set(preferences.columns)), None)
    if columns is None:
        known = [column.removeprefix("chosen_") for column in preferences.columns if column.startswith("chosen_")]
        raise ConfigError(
            f"{preferences.report.source} has no columns {' and '.join(ways[0])}. {did_you_mean(name, known)}"
        )
    values = np.stack([preferences.column(column) for column in columns])
    if values.ndim != 2:
        raise ConfigError(f"The column '{columns[0]}' holds several numbers a row. Name a column of single scores.")
    missing = np.flatnonzero(~np.isfinite(values).all(axis=0))
    if len(missing):
        raise DataError(
            f"{preferences.report.source}: {len(missing)} of {len(preferences)} rows have no number in "
            f"{' or '.join(columns)} (first: '{preferences.ids[missing[0]]}'). Rate them with popmargin data rate, or "
            "leave them out."
        )
    return values


def _scale_of(shown: str, scale: Scale | Mapping[str, Scale], names: Mapping[str, str]) -> Scale:
    if not isinstance(scale, Mapping):
        return scale
    for name in scale:
        if name not in names:
            raise ConfigError(f"The scale names '{name}', which is not scored. {did_you_mean(name, names)}")
    return scale.get(shown)


def _sides(name: str, half: bool, seed: int) -> Sequence[int]:
    """Which rows of a pair are kept: both, or one that the seed and the pair's id decide."""
    return [int(random.Random(f"{seed}\x1f{name}").random() < 0.5)] if half else [0, 1]


def _under_goals(
    pairs: Preferences, goals: Float64[np.ndarray, "N K"], facts: GoalFacts, strength: np.ndarray, *, reverse: bool
) -> Preferences:
    """The pairs under the goals of one of their sides."""
    prompts = [prompt for rows in pairs.batches("prompt") for prompt in rows["prompt"]]
    asked = [with_goal([prompt], row.tolist(), facts)[0] for prompt, row in zip(prompts, goals, strict=True)]
    named = [name for rows in pairs.batches("cluster") for name in rows["cluster"]]
    keys = zip(named, pairs.prompt_keys, strict=True)
    columns: dict[str, Any] = {
        "prompt": asked,
        "id": [f"{name}~reversed" for name in pairs.ids] if reverse else pairs.ids,
        "cluster": [name or _cluster(key) for name, key in keys],
        ORIGIN: pairs.ids,
        SCORES: goals,
        REVERSED: [reverse] * len(pairs),
        FACTS: facts.to_json(),
    }
    columns |= {own: pairs.column(name) for own, name in zip(_OWN_RATINGS, _RATINGS, strict=True)}
    for name in (name for name in NEGATED if name in pairs.columns):
        columns[OWN + name] = pairs.column(name)
    soft = pairs.soft_label
    made = pairs.with_columns(columns).swap([reverse] * len(pairs))
    held = {"strength": strength, "soft_label": soft, **dict.fromkeys(_RATINGS)}
    if "margin" in pairs.columns:
        margin = pairs.column("margin")
        held["margin"] = np.abs(margin) if reverse else margin
    return made.with_columns(held)


def _cluster(key: str) -> str:
    return f"prompt-{digest(key.encode('utf-8', 'surrogatepass'))[:16]}"


def _report(preferences: Preferences, goals: np.ndarray, rows: int, facts: GoalFacts) -> Any:
    """How the preferences were loaded, with what augmenting did."""
    ties = len(preferences) - goals.shape[1]
    step = Step(
        name="goals",
        rows_in=len(preferences),
        kept={f"augmented, in {rows} rows": goals.shape[1]},
        left_out={"ties, both goals printed alike": ties} if ties else {},
    )
    notes = [f"goals: {step.arithmetic}", *joint_notes(goals, facts.attributes)]
    notes += [f"{name}: scores {way}" for name, way in zip(facts.attributes, facts.ways, strict=True)]
    return replace(preferences.report, notes=(*preferences.report.notes, *notes))


def joint_notes(goals: Float64[np.ndarray, "2 N K"], attributes: Sequence[str]) -> list[str]:
    """How the goals of the two responses lie to each other, and their joint histogram where they are a mere switch.

    Where every goal of a chosen response lies above every goal of a rejected one, a goal says only which of two kinds
    of answer is meant, and a model can learn that without learning what scores mean.

    Args:
        goals: of the chosen (first) and the rejected responses.
        attributes: what is scored.

    Example:
        >>> for note in joint_notes(np.array([[[10.0], [9.0]], [[1.0], [1.5]]]), ["Overall score"]):
        ...     print(note)
        Overall score: goals of chosen 9 to 10, of rejected 1 to 1.5: a switch, which says no more than good or bad
          chosen 9, rejected 1: 1
          chosen 10, rejected 1: 1
    """
    notes: list[str] = []
    for place, name in enumerate(attributes):
        chosen, rejected = goals[0, :, place], goals[1, :, place]
        ends = [f"{side.min():g} to {side.max():g}" for side in (chosen, rejected)]
        note = f"{name}: goals of chosen {ends[0]}, of rejected {ends[1]}"
        if chosen.min() > rejected.max():
            cells = Counter(zip(np.floor(chosen).tolist(), np.floor(rejected).tolist(), strict=True))
            listed = [f"  chosen {one:g}, rejected {other:g}: {count}" for (one, other), count in sorted(cells.items())]
            note = "\n".join([f"{note}: a switch, which says no more than good or bad", *listed])
        notes.append(note)
    return notes


def without_goals(preferences: Preferences) -> Preferences:
    """The pairs that augmented preferences were made of: the transform reversed.

    Each pair once, the original response chosen, without goals, with its own id, ratings, strength and margin; ties,
    which were left out, are not there.

    Raises:
        DataError: they carry no goals.

    Example:
        >>> from popmargin import load_preferences
        >>> pair = {"prompt": "x", "chosen": "good", "rejected": "bad", "chosen_rating": 9, "rejected_rating": 4.5}
        >>> data = load_preferences([pair])
        >>> without_goals(augment(data))[0] == data[0]
        True
    """
    facts = goal_facts(preferences)
    if facts is None or REVERSED not in preferences.columns:
        raise DataError(f"{preferences.report.source} carries no goals to take away.")
    flags = [(origin, back) for rows in preferences.batches(ORIGIN, REVERSED) for origin, back in
             zip(rows[ORIGIN], rows[REVERSED], strict=True)]  # fmt: skip
    first: dict[str, int] = {}
    for row, (origin, back) in enumerate(flags):
        if origin not in first or not back:
            first[origin] = row
    pairs = preferences.select(list(first.values()))
    back = np.array([flags[row][1] for row in first.values()], dtype=bool)
    soft = pairs.soft_label
    pairs = pairs.swap(back)
    prompts = [without_goal(prompt, facts) for rows in pairs.batches("prompt") for prompt in rows["prompt"]]
    clusters = [name for rows in pairs.batches("cluster") for name in rows["cluster"]]
    named = [
        None if name == _cluster(key) else name for name, key in zip(clusters, map(prompt_key, prompts), strict=True)
    ]
    ratings = {name: pairs.column(own) for own, name in zip(_OWN_RATINGS, _RATINGS, strict=True)}
    own = {name: pairs.column(OWN + name) for name in NEGATED if OWN + name in pairs.columns}
    gone = (FACTS, SCORES, REVERSED, ORIGIN, *_OWN_RATINGS, *(OWN + name for name in own))
    columns: dict[str, Any] = {
        "prompt": prompts,
        "id": list(first),
        "cluster": named,
        "soft_label": soft,
        "strength": None,
    }
    return pairs.with_columns(columns | ratings | own | dict.fromkeys(gone))


def place_for(tokenizer: Any) -> Place:
    """Where a goal stands for a model: in the system message, or before the first user turn if its chat template has no
    system role, or leaves it out.

    Args:
        tokenizer: of transformers, with a chat template.
    """
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Are you there?"}]
    try:
        written = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    except Exception:  # templates raise what they like
        return "user"
    return "system" if "Be brief." in written else "user"
