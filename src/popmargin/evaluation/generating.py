"""Responses of a model to held-out prompts: sampled, scored, and accounted for."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from popmargin.account import Step
from popmargin.config import EvaluationConfig
from popmargin.data.goal_tokens import refuse_cut_prompts
from popmargin.data.goals import best_prompts, bodies, distinct_rows, goal_facts
from popmargin.data.responses import Responses
from popmargin.errors import counted
from popmargin.evaluation.generations import Generations
from popmargin.rewards.configured import Rewards
from popmargin.training.workspace import Workspace


@dataclass
class PromptSet:
    """Distinct held-out prompts to generate for, in data order.

    Attributes:
        prompts: as they are asked; of runs that were trained on goals, for the best goal.
        bodies: the same without goals, as rewards and other runs see them.
        clusters: what depends on each other.
    """

    prompts: list[Any]
    bodies: list[Any]
    clusters: list[str]

    @staticmethod
    def of(workspace: Workspace, count: int | None) -> "PromptSet":
        """The first `count` distinct held-out prompts; None for all."""
        preferences = workspace.test.preferences
        prompts, plain, clusters = best_prompts(preferences), list(bodies(preferences)), preferences.clusters
        rows = distinct_rows(preferences, count)
        return PromptSet([prompts[row] for row in rows], [plain[row] for row in rows], [clusters[row] for row in rows])


def generate_and_score(
    policy: Any,
    settings: EvaluationConfig,
    workspace: Workspace,
    rewards: Rewards,
    *,
    prompts: int | None,
    progress: bool = False,
) -> Generations:
    """Responses to held-out prompts with their rewards, and their log-ratio to the reference if it is known.

    Args:
        policy: samples the responses; None for the reference.
        settings: how to sample.
        workspace: prompts, tokenizer and reference model.
        rewards: score them.
        prompts: number of prompts; None for all.
        progress: show a progress bar.
    """
    task = workspace.task
    chosen = PromptSet.of(workspace, prompts)
    goal = goal_facts(workspace.test.preferences)
    if goal is not None:
        refuse_cut_prompts(task.prompt_lengths(chosen.prompts), task.room_for_prompts(settings))
    samples = task.sample(policy, chosen.prompts, workspace.test.encoded, settings, progress=progress)
    repeated = [prompt for prompt in chosen.bodies for _ in range(settings.samples)]
    scores = rewards.scores(repeated, samples.texts, samples.images)
    if samples.log_ratio is not None:
        scores["kl"] = samples.log_ratio
    asked = {} if goal is None or goal.best is None else {"goal": [goal.line(goal.best)] * len(chosen.bodies)}
    responses = Responses(
        chosen.bodies,
        [samples.texts[start : start + settings.samples] for start in range(0, len(samples.texts), settings.samples)],
        {name: values for name, values in scores.items() if not np.isnan(values).all()},
        tokens=samples.lengths,
        finished=samples.finished,
        fields={} if samples.images is None else {"image": list(samples.images)},
        columns={"cluster": chosen.clusters, **asked},
    )
    return Generations(responses, samples.drawn, (*samples.notes, *rewards.notes()))


def generation_step(generations: Generations, settings: EvaluationConfig, workspace: Workspace, whose: str) -> Step:
    """The account of generations: prompts used and truncated, completions truncated and empty."""
    everyone, asked = PromptSet.of(workspace, None), len(generations.responses)
    counts = _cut_and_empty(generations, settings, workspace, everyone.prompts[:asked])
    more = len(everyone.prompts) - asked
    goal = goal_facts(workspace.test.preferences)
    return Step(
        name=f"generations of {whose}",
        rows_in=len(everyone.prompts),
        kept={"answered": asked},
        left_out={"not used, beyond evaluation.prompts": more} if more else {},
        notes=(
            *(() if goal is None else (goal.note(),)),
            *(f"{what}: {count} of {of}" for what, (count, of) in counts.items() if count),
            *generations.notes,
        ),
        unit="prompts",
    )


def _cut_and_empty(
    generations: Generations, settings: EvaluationConfig, workspace: Workspace, prompts: list[Any]
) -> dict[str, tuple[int, int]]:
    """What -> how many of how many; nothing for images, whose notes say what happened to their prompts."""
    responses, task = generations.responses, workspace.task
    if generations.of_images:
        return {}
    room, answers = task.room_for_prompts(settings), len(responses.texts)
    return {
        f"prompts truncated to the {counted(room, 'token')} that fit beside the answer": (
            int((task.prompt_lengths(prompts) > room).sum()),
            len(prompts),
        ),
        f"answers cut at evaluation.max_new_tokens {settings.max_new_tokens}": (
            int(responses.unfinished.sum()),
            answers,
        ),
        "empty answers": (sum(not str(text).strip() for text in responses.texts), answers),
    }
