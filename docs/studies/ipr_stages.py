"""The judges of ipr.py: a stage that lets one of them rank, and compares its choice with the gold reward."""

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from popmargin.data.conversation import prompt_key
from popmargin.data.responses import Responses
from popmargin.data.schema import Preferences
from popmargin.errors import DataError
from popmargin.files import whole_file
from popmargin.label.ranking.comparers import Comparer, load_comparer
from popmargin.label.ranking.rank import rank_responses
from popmargin.label.ranking.ranking_report import ranking_report
from popmargin.rewards.load import load_reward
from popmargin.rewards.rate_responses import rate_responses
from popmargin.rounds.plan import Work

GOLD, JUDGED = "gold", "judged"
"""Scores of the responses: the gold reward, and the judge's own where it gives one."""
SCORES = "scores"
"""The scheme that compares nothing: each response is scored once, and the highest and the lowest score are taken."""


def uniform(*parts: object) -> float:
    """A random number in (0, 1) that these parts decide."""
    text = "\x1f".join(map(str, parts))
    return (int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "big") + 0.5) / 2**64


def noisy_comparer(gold: Mapping[tuple[str, str], float], temperature: float, bias: float, seed: int) -> Comparer:
    """Says "first" with the probability σ((gold(first) − gold(second)) / temperature + bias); asked again, the same."""

    def compare(prompts: Sequence[Any], first: Sequence[Any], second: Sequence[Any]) -> list[Any]:
        answers: list[Any] = []
        for prompt, *sides in zip(*(map(prompt_key, texts) for texts in (prompts, first, second)), strict=True):
            gap = (gold[prompt, sides[0]] - gold[prompt, sides[1]]) / temperature + bias
            answers.append("first" if uniform(seed, prompt, *sides) < 1 / (1 + math.exp(-gap)) else "second")
        return answers

    return Comparer("noisy", compare)


def judge_stage(work: Work) -> dict[str, Any]:
    """Rank by every scheme; the pairs of the first one are written."""
    settings = work.settings
    drawn = Responses.load(work.inputs["responses"])
    responses = rate_responses(drawn[: settings["prompts"]], load_reward(settings["gold"]), name=GOLD).responses
    gold = dict(zip(_keys(responses), responses.score(GOLD).tolist(), strict=True))
    comparer, scored = _JUDGES[settings["judge"]](work, responses, gold)
    found: list[dict[str, Any]] = []
    for place, scheme in enumerate(settings["schemes"]):
        if scheme == SCORES:
            pairs, entry = scored.pairs("best_vs_worst", by=JUDGED), {"calls": len(gold)}
        else:
            name, _, orders = scheme.partition("/")
            ranking = rank_responses(
                responses, comparer.compare, scheme=name, seed=settings["seed"], orders=orders or "both",
                again=comparer.again,
            )  # fmt: skip
            try:
                pairs = ranking.preferences()
            except DataError as error:  # nothing but ties: a result, unless its pairs are to be trained on
                if not place:
                    raise DataError(f"judge '{settings['judge']}', {scheme}: {error}") from error
                pairs = None
            report = ranking_report(ranking).to_dict()
            entry = {key: report[key] for key in ("calls", "ties", "contradictions", "first_place")}
        if not place and pairs is not None:
            pairs.save(work.outputs["pairs"])
        found.append({"scheme": scheme, "ranked": len(responses), **entry, "prompts": against_gold(pairs, responses)})
        count = 0 if pairs is None else len(pairs)
        work.say(f"  {scheme}: {count} pairs of {len(responses)} prompts, {entry['calls']} calls")
    with whole_file(work.outputs["found"]) as partial:
        partial.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return {"pairs": {entry["scheme"]: sum(row["kept"] for row in entry["prompts"]) for entry in found}}


def against_gold(pairs: Preferences | None, responses: Responses) -> list[dict[str, Any]]:
    """What became of each prompt: whether a pair is left, whether chosen is the best by gold, the pair's share of the
    largest gap of gold, and whether chosen is worse than rejected. Prompts whose gold rewards are all equal are left
    out.
    """
    sides: dict[str, tuple[float, float]] = {}
    if pairs is not None:
        chosen, rejected = pairs.column(f"chosen_{GOLD}"), pairs.column(f"rejected_{GOLD}")
        sides = dict(zip(pairs.prompt_keys, zip(chosen.tolist(), rejected.tolist(), strict=True), strict=True))
    rows: list[dict[str, Any]] = []
    for key, gold in zip(responses.prompt_keys, np.split(responses.score(GOLD), np.cumsum(responses.counts)[:-1]),
                         strict=True):  # fmt: skip
        highest, lowest = float(gold.max()), float(gold.min())
        if highest == lowest:
            continue
        row: dict[str, Any] = {"prompt": hashlib.sha256(key.encode()).hexdigest()[:16], "kept": key in sides}
        if key in sides:
            best, worst = sides[key]
            row |= {"best": best == highest, "share": (best - worst) / (highest - lowest), "wrong": best < worst}
        rows.append(row)
    return rows


def _keys(responses: Responses) -> list[tuple[str, str]]:
    prompts = np.repeat(np.array(responses.prompt_keys, dtype=object), responses.counts)
    return list(zip(prompts, map(prompt_key, responses.texts), strict=True))


Made = tuple[Comparer, Responses]
"""What compares, and the responses with the judge's own scores."""
Gold = Mapping[tuple[str, str], float]


def _exact(work: Work, responses: Responses, _: Gold) -> Made:
    return load_comparer(work.settings["gold"]), responses.with_scores({JUDGED: responses.score(GOLD)})


def _noisy(work: Work, responses: Responses, gold: Gold) -> Made:
    temperature, seed = work.settings["temperature"], work.settings["seed"]
    # The difference of two Gumbel numbers is logistic: two scores differ as a comparison does, but for its bias.
    noise = [-math.log(-math.log(uniform(seed, "score", *key))) for key in _keys(responses)]
    scores = responses.score(GOLD) + temperature * np.array(noise)
    comparer = noisy_comparer(gold, temperature, work.settings["bias"], seed)
    return comparer, responses.with_scores({JUDGED: scores})


def _model(work: Work, responses: Responses, _: Gold) -> Made:
    comparer = load_comparer(
        work.settings["spec"], prompt=work.inputs["prompt"], progress=True, cache=work.folder / "answers.jsonl",
        dtype="bfloat16",
    )  # fmt: skip
    return comparer, responses


def _pointwise(work: Work, responses: Responses, _: Gold) -> Made:
    spec = f"model:{work.inputs['reward']}"
    return load_comparer(spec), rate_responses(responses, load_reward(spec), name=JUDGED).responses


_JUDGES: dict[str, Callable[[Work, Responses, Gold], Made]] = {
    "exact": _exact, "noisy": _noisy, "model": _model, "pointwise": _pointwise,
}  # fmt: skip


def load_found(file: Path) -> list[dict[str, Any]]:
    """What `judge_stage` found, an entry a scheme."""
    return json.loads(file.read_text(encoding="utf-8"))
