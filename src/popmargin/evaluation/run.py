"""Evaluating a policy on held-out preferences and prompts, and storing the results in its run directory."""

import json
import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from popmargin.account import Step
from popmargin.config import EvaluationConfig
from popmargin.data.goals import check_goals, goal_facts
from popmargin.engine.scores import PairScores, scores_of
from popmargin.errors import ConfigError, RunError
from popmargin.evaluation.discriminative import DiscriminativeMetrics, discriminative_metrics
from popmargin.evaluation.elsewhere import Elsewhere
from popmargin.evaluation.generating import generate_and_score, generation_step
from popmargin.evaluation.generations import Generations
from popmargin.evaluation.generative import generative_metrics
from popmargin.evaluation.goal_sweep import GOALS, GoalSweep, goal_curve
from popmargin.evaluation.grown import grown
from popmargin.evaluation.held_out import check_models, held_out
from popmargin.evaluation.held_out_scores import held_out_scores
from popmargin.files import PARQUET, whole_file
from popmargin.generate.settings import own_settings
from popmargin.pop.edges import PopEdges
from popmargin.rewards.configured import AnyReward, Rewards, configured_rewards
from popmargin.tasks.base import TASKS
from popmargin.training.account import edge_step, encoding_step
from popmargin.training.build import Run
from popmargin.training.own_code import code_facts, code_of_reward, reward_facts
from popmargin.training.run_directory import RunDirectory
from popmargin.training.workspace import Workspace

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class HeldOutMargins:
    """Reward margins of held-out preferences, and the values they are compared with.

    Attributes:
        ids: preference ids (N,).
        clusters: (N,): the prompt, or the data's `cluster`.
        reward_margin: β·gap by the objective's own score (N,), reward units.
        strength: (N,), nan where unknown.
        longer_chosen: 1 where chosen has more tokens, ½ where equally many, otherwise 0 (N,); nan if responses have no
            length.
        reference_margin: the margin of the reference model's own log-probs by the same score (N,), reward units; nan if
            the score is a log-ratio, for which it is always 0.
    """

    ids: list[str]
    clusters: list[str]
    reward_margin: np.ndarray
    strength: np.ndarray
    longer_chosen: np.ndarray
    reference_margin: np.ndarray

    @property
    def of_reference(self) -> np.ndarray | None:
        """`reference_margin`; None if the score is a log-ratio."""
        return self.reference_margin if np.isfinite(self.reference_margin).all() else None

    @property
    def of_lengths(self) -> np.ndarray | None:
        """`longer_chosen`; None if responses have no length."""
        return self.longer_chosen if np.isfinite(self.longer_chosen).all() else None

    def save(self, path: Path) -> None:
        """Write a Parquet file."""
        table = pa.table({name: pa.array(values) for name, values in vars(self).items()})
        with whole_file(path, PARQUET) as partial:
            pq.write_table(table, partial)

    @staticmethod
    def load(path: Path) -> "HeldOutMargins":
        """Read what `save` wrote.

        Raises:
            RunError: there is no such file.
        """
        if not path.is_file():
            raise RunError(f"{path} does not exist. Evaluate the run with popmargin eval.")
        columns: dict[str, list[Any]] = pq.read_table(path).to_pydict()
        names = [field.name for field in fields(HeldOutMargins)]
        if list(columns) != names:
            raise RunError(f"{path} is from another version of popmargin. Evaluate the run again with popmargin eval.")
        ids, clusters, *arrays = (columns[name] for name in names)
        return HeldOutMargins(ids, clusters, *(np.array(values, dtype=float) for values in arrays))


def held_out_margins(model: Any, run: Run, workspace: Workspace, scores: PairScores | None = None) -> HeldOutMargins:
    """Score all held-out preferences under a trained model, or take what `held_out_scores` gave."""
    loss, data = run.loss, workspace.test
    scores = held_out_scores(model, run, workspace) if scores is None else scores
    gaps, reference_gaps = scores.gap.double().numpy(), np.full(len(data), np.nan)
    if loss.kind in ("logp", "mean_logp") and scores.logps is not None and (own := scores.logps.of_reference()):
        chosen, rejected = scores_of(loss.kind, own)
        reference_gaps = (chosen - rejected).double().numpy()
    chosen, rejected = data.encoded.sizes()
    longer = np.sign(chosen - rejected) / 2 + 0.5
    if not chosen.any() and not rejected.any():  # responses without a length
        longer = np.full(len(data), np.nan)
    margins, of_references = loss.beta * gaps, loss.beta * reference_gaps
    return HeldOutMargins(data.ids, data.clusters, margins, data.strength, longer, of_references)


def margin_metrics(margins: HeldOutMargins, edges: PopEdges | None) -> DiscriminativeMetrics:
    """Discriminative metrics of one run, with intervals."""
    return discriminative_metrics(
        reward_margin=margins.reward_margin,
        strength=margins.strength,
        clusters=margins.clusters,
        longer_chosen=margins.of_lengths,
        reference_margin=margins.of_reference,
        edges=edges.resolve(margins.ids) if edges is not None else None,
    )


def _test_edge_step(edges: PopEdges | None, workspace: Workspace) -> list[Step]:
    if edges is not None:
        return [replace(edge_step(edges, None, trained=False), name="held-out PoP edges")]
    unknown = int((~np.isfinite(workspace.test.strength)).sum())
    if not unknown:
        return []
    note = "no PoP edges are sampled between them, since some strengths are unknown; metrics by strength exclude these"
    count = len(workspace.test)
    return [Step(name="held-out strengths", rows_in=count, kept={"known": count - unknown},
                 left_out={"unknown": unknown}, notes=(note,))]  # fmt: skip


def evaluate_policy(
    policy: Any,
    run: Run,
    workspace: Workspace,
    *,
    rewards: Rewards | None,
    reference: Generations | None,
    baseline: Generations | None = None,
    progress: bool = False,
    earlier: Sequence[Step] = (),
    elsewhere: Elsewhere | None = None,
) -> dict[str, Any]:
    """Evaluate a policy and write margins, generations and metrics into its run directory.

    Args:
        policy: the policy to evaluate.
        run: the run it belongs to, where the results go.
        workspace: held-out data and reference.
        rewards: score generations; None generates nothing.
        reference: the reference model's generations on the same prompts.
        baseline: another run's generations, for win rates.
        progress: show progress bars.
        earlier: the account of the held-out preferences, if run.json does not have it.
        elsewhere: where the policy's generations come from; None samples them here.

    Returns:
        The contents of evaluation/metrics.json: intervals, reliability curve, counts, and the account.
    """
    settings, directory = run.evaluation, run.directory
    _check_sweep(settings, workspace, rewards)
    margins = held_out_margins(policy, run, workspace)
    margins.save(directory.evaluation / "margins.parquet")
    edges = workspace.test_edges(settings.pop_k, settings.seed)
    if edges is not None:
        edges.save(directory.evaluation / "edges.parquet")
    metrics = margin_metrics(margins, edges).to_dict()
    goal = goal_facts(workspace.test.preferences)
    if goal is not None:
        metrics["goal"] = goal.to_dict() | {"note": goal.note()}
    steps = _test_edge_step(edges, workspace)
    if reference is not None:
        steps.append(generation_step(reference, settings, workspace, "the reference"))
    if rewards is not None:
        if elsewhere is None:
            generations = generate_and_score(
                policy, settings, workspace, rewards, prompts=settings.prompts, progress=progress
            )
        else:
            folder = directory.evaluation
            generations = elsewhere.generations(settings, workspace, rewards, prompts=settings.prompts, folder=folder)
        generations.save(directory.evaluation / "generations.parquet")
        steps.append(_policy_step(generations, reference, settings, workspace))
        intervals = generative_metrics(generations, reference, baseline)
        metrics["intervals"] |= {name: interval.to_dict() for name, interval in intervals.items()}
        facts: dict[str, Any] = {"drawn": str(generations.drawn)}
        if "tokens" in workspace.task.provides:
            facts |= {"own_settings": own_settings(policy), "ends": workspace.task.ends(workspace.test.encoded)}
        facts |= {} if elsewhere is None else {"elsewhere": elsewhere.note}
        metrics["sampling"] = asdict(generations.drawn) | facts
        shutil.rmtree(directory.evaluation / GOALS, ignore_errors=True)  # of an earlier evaluation
        if settings.goals is not None:
            metrics["goals"] = _sweep(policy, run, workspace, rewards, progress=progress)
    workspace.tell(steps)
    metrics["account"] = [step.to_dict() for step in (*earlier, *steps)]
    metrics["intervals"] = dict(sorted(metrics["intervals"].items()))
    text = json.dumps(dict(sorted(metrics.items())), indent=1, allow_nan=False)
    with whole_file(directory.evaluation / "metrics.json") as partial:
        partial.write_text(text + "\n", encoding="utf-8")
    return metrics


def _policy_step(
    generations: Generations, reference: Generations | None, settings: EvaluationConfig, workspace: Workspace
) -> Step:
    """The account of the policy's generations, with a warning if they are far longer than the reference's."""
    step = generation_step(generations, settings, workspace, "the policy")
    said = None if reference is None else grown(generations.responses, reference.responses, "the reference")
    return step if said is None else replace(step, notes=(*step.notes, f"warning: {said}"))


def _check_sweep(settings: EvaluationConfig, workspace: Workspace, rewards: Rewards | None) -> None:
    check_goals(settings.goals, workspace.test.preferences)
    if settings.goals is not None and rewards is None:
        raise ConfigError("evaluation.goals (--goals): name the reward of the answers with --evaluation.reward.")


def _sweep(policy: Any, run: Run, workspace: Workspace, rewards: Rewards, *, progress: bool) -> dict[str, Any]:
    """Answer the same prompts at each of `evaluation.goals`, store the generations, and say what they show."""
    settings, first = run.evaluation, Rewards(rewards.first)

    def at(goal: float) -> Generations:
        count = settings.prompts
        return generate_and_score(policy, settings, workspace, first, prompts=count, goal=goal, progress=progress)

    sweep = GoalSweep({goal: at(goal) for goal in sorted(settings.goals or ())})
    sweep.save(run.directory.evaluation / GOALS)
    curve = goal_curve([sweep])
    return curve.to_dict() | {"note": curve.note()}


def evaluate_run(
    run: Run | str | Path,
    *,
    against: str | Path | None = None,
    reward: str | Callable[..., Any] | AnyReward | None = None,
    elsewhere: Elsewhere | None = None,
) -> dict[str, Any]:
    """Evaluate a finished run on exactly the preferences held out in training.

    Args:
        run: its run directory; or the run with other evaluation settings, or with other held-out data (`data.test`),
            whose results go to a folder of their own, from `Run.opened`.
        against: another evaluated run to compute a win rate against.
        reward: scores generations; None takes the run's own.
        elsewhere: where the policy's generations come from; None samples them here.

    Returns:
        As `evaluate_policy`.

    Raises:
        ConfigError: the run is a reward model, and generations are asked for; or they come from elsewhere, and no
            reward scores them, or other goals are to be asked for.
        DataError: other held-out data shares prompts with the training data.
        RunError: the run has not finished, its held-out preferences, models or code have changed, or the other run has
            no generations.
    """
    run = run if isinstance(run, Run) else Run.opened(run)
    path = run.directory.path
    run.directory.facts()
    run.directory.check_model()
    task = TASKS.get(run.task.name)
    if "generation" not in task.provides and (reward, against, elsewhere) != (None, None, None):
        raise ConfigError(f"{path} is {task.noun}: it generates nothing to score or to compare with a run.")
    if "images" in task.provides and elsewhere is not None:
        raise ConfigError(f"{path} makes images, and servers and files give texts: remove --server or --answers.")
    chosen = held_out(run)
    run = replace(run, directory=chosen.directory)
    directory, settings = run.directory, run.evaluation
    workspace = run.workspace(chosen.preferences)
    encoded = encoding_step(workspace.test.encoded.report, "held-out preferences")
    for copy in run.copies:
        _LOG.warning("%s: %s", path, copy)
    steps = [*chosen.steps, replace(encoded, notes=(*encoded.notes, *run.copies))]
    workspace.tell(steps)
    _check_models(run, workspace)
    rewards = configured_rewards(settings, images="images" in task.provides, first=reward)
    _check_sweep(settings, workspace, rewards)
    if elsewhere is not None and (rewards is None or settings.goals is not None):
        what = "name the reward that scores them, with" if rewards is None else "those at other goals are not: remove"
        field = "evaluation.reward" if rewards is None else "evaluation.goals"
        raise ConfigError(f"The responses come from {elsewhere.source}: {what} {field}.")
    if elsewhere is not None:
        elsewhere = elsewhere.asked(settings, workspace, directory.evaluation)
    reference = baseline = None
    if rewards is not None:
        reference = generate_and_score(None, settings, workspace, rewards, prompts=settings.prompts, progress=True)
        reference.save(directory.evaluation / "reference_generations.parquet")
    if against is not None:
        other = replace(directory, path=Path(against)).evaluation / "generations.parquet"
        if not other.is_file():
            raise RunError(f"{against} has no generations: evaluate it with a reward first (popmargin eval {against}).")
        baseline = Generations.load(other)
    policy = workspace.task.load(directory.model)
    return evaluate_policy(
        policy,
        run,
        workspace,
        rewards=rewards,
        reference=reference,
        baseline=baseline,
        progress=True,
        earlier=steps,
        elsewhere=elsewhere,
    )


def _check_models(run: Run, workspace: Workspace) -> None:
    directory = run.directory
    held_out = "held-out preferences"
    facts = workspace.task.fingerprints({held_out: workspace.test.encoded})
    tokens = {name: value for name, value in facts.items() if name.endswith(held_out)}
    facts = {name: value for name, value in facts.items() if name not in tokens}
    own, now = run.as_trained.evaluation, run.evaluation
    code, of_reward = run.code, reward_facts(now)
    if (now.reward, now.reward_options, now.also) != (own.reward, own.reward_options, own.also):  # others, on purpose
        code, of_reward = [one for one in code if one not in code_of_reward(now)], {}
    check_models(directory, facts | code_facts(code) | of_reward)
    if directory.measured == RunDirectory(directory.path).measured:  # other data has no stored tokens to compare with
        check_models(directory, tokens)
