"""Responses of a model to held-out prompts: sampled, scored, and accounted for."""

from typing import Any

import numpy as np

from popmargin.account import Step
from popmargin.config import EvaluationConfig
from popmargin.data.conversation import prompt_key
from popmargin.data.goal_tokens import refuse_cut_prompts
from popmargin.data.goals import goal_facts
from popmargin.data.responses import Responses
from popmargin.errors import counted
from popmargin.evaluation.generations import Generations
from popmargin.evaluation.prompt_set import PromptSet
from popmargin.rewards.configured import Rewards
from popmargin.training.workspace import Workspace


def generate_and_score(
    policy: Any,
    settings: EvaluationConfig,
    workspace: Workspace,
    rewards: Rewards,
    *,
    prompts: int | None,
    goal: float | None = None,
    progress: bool = False,
) -> Generations:
    """Responses to held-out prompts with their rewards, and their log-ratio to the reference if it is known.

    Args:
        policy: samples the responses; None for the reference.
        settings: how to sample.
        workspace: prompts, tokenizer and reference model.
        rewards: score them.
        prompts: number of prompts; None for all.
        goal: to ask for, of runs that were trained on goals. Each completion then has random numbers of its own, the
            same at every goal, and no log-ratio is measured. None asks for the best one.
        progress: show a progress bar.
    """
    task = workspace.task
    chosen = PromptSet.of(workspace, prompts, goal)
    facts = goal_facts(workspace.test.preferences)
    if facts is not None and "tokens" in task.provides:
        refuse_cut_prompts(task.prompt_lengths(chosen.prompts), task.room_for_prompts(settings))
    own = {} if goal is None else {"keys": [prompt_key(body) for body in chosen.bodies], "log_ratio": False}
    samples = task.sample(policy, chosen.prompts, workspace.test.encoded, settings, progress=progress, **own)
    repeated = [prompt for prompt in chosen.bodies for _ in range(settings.samples)]
    scores = rewards.scores(repeated, samples.texts, samples.images)
    if samples.log_ratio is not None:
        scores["kl"] = samples.log_ratio
    scores_asked = None if facts is None else facts.best if goal is None else facts.alike(goal)
    asked = {} if facts is None or scores_asked is None else {"goal": [facts.line(scores_asked)] * len(chosen.bodies)}
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
            int(responses.unfinished.sum()) if "finished" in responses.field_names else 0,
            answers,
        ),
        "empty answers": (sum(not str(text).strip() for text in responses.texts), answers),
    }
