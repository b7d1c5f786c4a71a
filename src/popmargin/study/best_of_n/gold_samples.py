"""Samples with their gold rewards: those that reward models choose among, and those that preferences are made from.

Axis suffixes: S samples, P prompts.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from popmargin.data.conversation import Text, is_blank
from popmargin.data.responses import Responses
from popmargin.errors import DataError, counted
from popmargin.study.best_of_n.best_of_n_config import BestOfNConfig, SamplesConfig
from popmargin.study.budget.human_strengths import HumanStrengths, plain_text, rated_strengths

_NAME = "gold"
_HELD_BACK = 0.3  # share of the training prompts that measure in a rehearsal


@dataclass(frozen=True, kw_only=True)
class GoldSamples:
    """Samples that reward models choose among, those of a prompt one after the other.

    Attributes:
        texts: prompt and response of each sample (S).
        gold: what each is worth (S,).
        ends: where the samples of each prompt begin, and where the last ones end (P + 1,).
        clusters: of each prompt (P).
    """

    texts: list[tuple[str, str]]
    gold: Float64[np.ndarray, " S"]
    ends: Int64[np.ndarray, " Q"]
    clusters: list[str]

    @property
    def places(self) -> list[slice]:
        """The samples of each prompt."""
        return [slice(int(start), int(end)) for start, end in zip(self.ends[:-1], self.ends[1:], strict=True)]

    @property
    def fewest(self) -> int:
        """Samples of the prompt that has the fewest."""
        return int(np.diff(self.ends).min())


@dataclass(frozen=True, kw_only=True)
class Samples:
    """What a study reads.

    Attributes:
        measured: samples that are chosen among.
        strengths: all preferences between training samples of a prompt, with the log-odds of an annotator's label.
        raw: prompt and response of every sample as they were read, by their plain texts.
        facts: about both, for the report.
    """

    measured: GoldSamples
    strengths: HumanStrengths
    raw: dict[tuple[str, str], tuple[Text, Text]]
    facts: dict[str, str] = field(default_factory=dict[str, str])


def read_samples(config: BestOfNConfig) -> Samples:
    """Read both files, and score them.

    Raises:
        DataError: no such score; a prompt in both files; too few samples or prompts.
    """
    chosen = config.samples
    training, without = _scored(chosen.training, chosen)
    if config.rehearse:
        order = np.random.default_rng(config.seed).permutation(len(training))
        held = math.ceil(_HELD_BACK * len(training))
        measured, training, more = training.select(order[:held]), training.select(order[held:]), 0
    else:
        measured, more = _scored(chosen.measured, chosen)
    both = set(training.prompt_keys) & set(measured.prompt_keys)
    if both:
        raise DataError(
            f"{counted(len(both), 'prompt is', 'prompts are')} in {chosen.training} and in {chosen.measured}, such as "
            f"{min(both)[:40]!r}. Rewards must be measured on prompts that taught them nothing: sample other prompts."
        )
    strengths = rated_strengths(training.pairs("all", by=_NAME), agreement=chosen.agreement, name=chosen.training)
    samples = _gathered(measured, chosen.measured)
    raw = {(plain_text(prompt), plain_text(text)): (prompt, text) for part in (training, measured)
           for prompt, text in _each(part)}  # fmt: skip
    within = [float(samples.gold[place].std()) for place in samples.places]
    facts = {
        "Gold reward": f"{chosen.score or chosen.reward}; mean {samples.gold.mean():.3f}, standard deviation of the "
        f"samples of a prompt {np.mean(within):.3f}",
        "Chosen among": f"{counted(len(samples.gold), 'sample')} of {counted(len(samples.clusters), 'prompt')}, "
        f"{samples.fewest} or more each",
        "Preferences from": f"{counted(len(training.texts), 'sample')} of {counted(len(training), 'other prompt')}: "
        f"{counted(len(strengths.log_odds), 'preference')} whose gold rewards differ",
        "Left out": f"{counted(without + more, 'empty sample')}; {counted(strengths.facts['ties_left_out'], 'tie')}",
        "Labels": f"two annotators agree in {strengths.agreement:.1%}: a label is right with probability σ(difference "
        f"of the gold rewards / {strengths.facts['temperature']:.3f})",
    }  # fmt: skip
    return Samples(measured=samples, strengths=strengths, raw=raw, facts=facts)


def _scored(source: str, chosen: SamplesConfig) -> tuple[Responses, int]:
    """Samples with the score `gold`, without empty ones, and how many those were."""
    found = Responses.load(source)
    full = [not is_blank(text) for text in found.texts]
    empty = full.count(False)
    if empty:
        found = _without(found, full)
    if chosen.score is not None:
        gold = found.score(chosen.score)
    else:
        from popmargin.rewards.rate_responses import rate_responses

        assert chosen.reward is not None, "the configuration names one of both"
        plain = Responses(found.prompts, _by_prompt(found, found.texts))
        gold = rate_responses(plain, chosen.reward, name=_NAME).responses.score(_NAME)
    unknown = int(np.isnan(gold).sum())
    if unknown:
        raise DataError(
            f"{source}: {counted(unknown, 'sample has', 'samples have')} no gold reward. Leave out their prompts, or "
            "take a reward that scores everything."
        )
    columns: dict[str, Any] = {"cluster": found.column("cluster")} if "cluster" in found.column_names else {}
    made = Responses(found.prompts, _by_prompt(found, found.texts), {_NAME: gold}, columns=columns)
    few = [row for row, count in enumerate(made.counts) if count < 2]
    if few:
        raise DataError(
            f"{source}: {counted(len(few), 'prompt has', 'prompts have')} fewer than two samples, the first is prompt "
            f"{few[0]}: nothing to choose from. Draw two or more (`popmargin generate --n 32`)."
        )
    return made, empty


def _without(found: Responses, full: Sequence[bool]) -> Responses:
    """The same without some responses; prompts that have none left go with them."""
    ends = np.concatenate([[0], np.cumsum(found.counts)])
    kept = [[place for place in range(int(ends[row]), int(ends[row + 1])) if full[place]] for row in range(len(found))]
    rows = [row for row, places in enumerate(kept) if places]
    texts, prompts = found.texts, found.prompts
    flat = [place for row in rows for place in kept[row]]
    return Responses(
        [prompts[row] for row in rows],
        [[texts[place] for place in kept[row]] for row in rows],
        {name: found.score(name)[flat] for name in found.score_names},
        columns={name: [found.column(name)[row] for row in rows] for name in found.column_names},
    )


def _by_prompt(found: Responses, values: Sequence[Any]) -> list[list[Any]]:
    ends = np.concatenate([[0], np.cumsum(found.counts)])
    return [list(values[int(start) : int(end)]) for start, end in itertools.pairwise(ends)]


def _each(part: Responses) -> list[tuple[Text, Text]]:
    asked = [prompt for prompt, count in zip(part.prompts, part.counts, strict=True) for _ in range(int(count))]
    return list(zip(asked, part.texts, strict=True))


def _gathered(measured: Responses, source: str) -> GoldSamples:
    if len(measured) < 2:
        raise DataError(f"{source}: {counted(len(measured), 'prompt')}; a study needs hundreds, and two at least.")
    return GoldSamples(
        texts=[(plain_text(prompt), plain_text(text)) for prompt, text in _each(measured)],
        gold=measured.score(_NAME),
        ends=np.concatenate([[0], np.cumsum(measured.counts)]).astype(np.int64),
        clusters=measured.clusters,
    )
