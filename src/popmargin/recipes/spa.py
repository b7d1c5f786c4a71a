"""SPA: a few labels are spread over many prompts, with the policy's own implicit reward (Kim et al., ICLR 2025)."""

from dataclasses import field
from pathlib import Path
from typing import Any, Literal

from popmargin.bounds import Count, NotNegative, PartialShare, Positive, Size
from popmargin.config import section
from popmargin.errors import ConfigError
from popmargin.recipes.base import recipe
from popmargin.rounds.plan import Output, Plan
from popmargin.rounds.rounds_config import RoundsConfig
from popmargin.rounds.stages.label_responses import add_labels
from popmargin.rounds.stages.opening import open_plan, sampling_of
from popmargin.rounds.stages.pair_responses import add_pairs
from popmargin.rounds.stages.sample_responses import add_samples
from popmargin.rounds.stages.train_policy import add_training
from popmargin.rounds.stages.trained_models import start_model

_FEW = 2000  # seed preferences below which they are trained on for three epochs [code]


@section("recipe")
class SpaOptions:
    """Options of SPA; the marks say where a default comes from: the authors' code, or a summary of the paper.

    Attributes:
        rounds: rounds after the seed [second-hand: 3; the released script stops after 2]; 0 trains on the seed alone.
        seed_prompts: prompts with labels to begin with; null takes as many as a round.
        prompts_per_round: prompts without labels in each round; null shares the others evenly.
        samples: responses to each prompt [code].
        temperature: of sampling [code].
        top_p: of sampling [code].
        top_k: of sampling; 0 means all.
        max_new_tokens: longest response [code].
        labels: what labels the samples: `implicit` is SPA; `random` and a reward (`file.py:function` …) are controls.
        label_options: of that reward (as `evaluation.reward_options`); of a judge on a server also `price`, of a call,
            and `limit`, most calls of a round: further prompts are left out, and counted.
        judge_reference: reference of the implicit reward: the start model [code]; the previous policy, or none, are the
            variants that do worse in the paper.
        per_token: divide the implicit reward by the length in tokens (ours).
        unfinished: keep pairs in which a response was cut at `max_new_tokens`, or drop them (ours).
        pairs: best against the worst sample, or against a random other one [code].
        refine: self-refinement of the labels in the rounds' loss; without it, plain DPO (a control).
        beta: of DPO, in the seed and in the rounds [code].
        alpha: label smoothing of suspected labels [code].
        quantile: share of recent labels below which one is suspected [code].
        window: rows that this quantile is taken of, at least; nothing is suspected before so many were seen (ours).
        decoupling: λ of each round; later rounds take the last one [second-hand].
        seed_epochs: null takes 3 with fewer than 2,000 seed preferences, else 1 [code].
        epochs: of each round [code].
    """

    rounds: Count = 3
    seed_prompts: Size | None = None
    prompts_per_round: Size | None = None
    samples: Size = 2
    temperature: Positive = 0.7
    top_p: Positive = 1.0
    top_k: Count = 0
    max_new_tokens: Size = 300
    labels: str = "implicit"
    label_options: dict[str, Any] = field(default_factory=dict[str, Any])
    judge_reference: Literal["initial", "previous", "none"] = "initial"
    per_token: bool = False
    unfinished: Literal["keep", "drop"] = "keep"
    pairs: Literal["best_vs_worst", "best_vs_random"] = "best_vs_worst"
    refine: bool = True
    beta: Positive = 0.1
    alpha: NotNegative = 0.1
    quantile: PartialShare = 0.1
    window: Size = 256
    decoupling: list[NotNegative] = field(default_factory=lambda: [0.5, 0.25, 0.125])
    seed_epochs: Positive | None = None
    epochs: Positive = 1.0

    def __post_init__(self) -> None:
        if self.samples < 2:
            raise ConfigError("recipe.samples must be at least 2: a pair needs two responses.")
        if not self.decoupling:
            raise ConfigError("recipe.decoupling must name at least one λ, e.g. [0].")


@recipe("spa", options=SpaOptions)
def spa(plan: Plan, config: RoundsConfig, options: SpaOptions) -> None:
    """Spread a few labels over many prompts with the policy's own implicit reward, and refine them in training.

    data → seed/train → for each round: sample → label → pair → train; every policy is measured.
    """
    opening = open_plan(
        plan,
        config,
        own={"objective": "recipe.refine", "train.epochs": "recipe.epochs"},
        seed_prompts=options.seed_prompts,
        rounds=options.rounds,
        prompts_per_round=options.prompts_per_round,
    )
    base, data = opening.base, opening.data
    dpo = {"name": "dpo", "beta": options.beta}
    seed = add_training(
        plan,
        "seed/train",
        base,
        inputs=opening.training(data["seed"]),
        changes={"objective": dpo, "train": {"epochs": options.seed_epochs or 1.0}},
        epochs_if_few=None if options.seed_epochs else (_FEW, 3.0),
    )
    policy, before = seed["model"], None
    opening.measure("seed", policy)
    for number in range(1, options.rounds + 1):
        name = f"round-{number}"
        samples = add_samples(
            plan,
            f"{name}/sample",
            base,
            policy=policy,
            prompts=data[name],
            number=number,
            sampling=sampling_of(options),
            seed=config.seed + number,
            first=plan["round-1/sample"]["responses"] if number > 1 else None,
        )
        labelled = add_labels(
            plan,
            f"{name}/label",
            base,
            responses=samples["responses"],
            by=options.labels,
            policy=policy,
            reference=_judge_reference(options, start_model(base), before),
            per_token=options.per_token,
            options=options.label_options,
            seed=config.seed + number,
        )
        pairs = add_pairs(
            plan,
            f"{name}/pair",
            labelled["responses"],
            pairs=options.pairs,
            min_gap=0.0,
            drop_unfinished=options.unfinished == "drop",
            seed=config.seed + number,
        )
        trained = add_training(
            plan,
            f"{name}/train",
            base,
            inputs={"model.path": policy, "data.train": pairs["preferences"], "data.test": data["test"]},
            changes={"objective": _objective(options, number), "train": {"epochs": options.epochs}},
        )
        before, policy = policy, trained["model"]
        opening.measure(name, policy)


def _objective(options: SpaOptions, number: int) -> dict[str, Any]:
    """The loss of a round."""
    if not options.refine:
        return {"name": "dpo", "beta": options.beta}
    decoupling = options.decoupling[min(number, len(options.decoupling)) - 1]
    return {
        "name": "spa",
        "beta": options.beta,
        "alpha": options.alpha,
        "quantile": options.quantile,
        "window": options.window,
        "decoupling": decoupling,
    }


def _judge_reference(options: SpaOptions, start: Path | str, before: Output | None) -> Output | Path | str | None:
    """The reference of the implicit reward: a model, or None for plain log-probs.

    The previous policy is the one before the policy that judges; of the first round, that is the start model.
    """
    if options.judge_reference == "none":
        return None
    return start if options.judge_reference == "initial" or before is None else before
