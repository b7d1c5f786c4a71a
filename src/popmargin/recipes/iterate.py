"""Iterative preference training: rounds of sampling, labelling and any objective, from any start (ours)."""

from dataclasses import field
from pathlib import Path
from typing import Any, Literal

from popmargin.bounds import Address, Count, NotNegative, Positive, Size
from popmargin.config import section
from popmargin.errors import ConfigError
from popmargin.recipes.base import recipe
from popmargin.rounds.plan import Output, Plan, Stage
from popmargin.rounds.rounds_config import RoundsConfig
from popmargin.rounds.stages.ask_people import add_people
from popmargin.rounds.stages.choose_prompts import add_choice
from popmargin.rounds.stages.label_responses import IMPLICIT, RANDOM, add_labels
from popmargin.rounds.stages.opening import Opening, open_plan, sampling_of
from popmargin.rounds.stages.pair_responses import add_pairs
from popmargin.rounds.stages.sample_responses import add_samples
from popmargin.rounds.stages.train_policy import add_training
from popmargin.rounds.stages.trained_models import start_model

PEOPLE = "people"


@section("recipe")
class IterateOptions:
    """Options of the general recipe.

    Attributes:
        rounds: how often to sample, label and train.
        seed_prompts: prompts with labels that are trained on first; 0 begins with the start model itself.
        prompts_per_round: prompts of each round; null shares the others evenly.
        samples: responses to each prompt.
        temperature: of sampling.
        top_p: of sampling.
        top_k: of sampling; 0 means all.
        max_new_tokens: longest response.
        labels: what labels the samples: `implicit`, `random`, `people`, or a reward or judge as `evaluation.reward`
            names it.
        label_options: of that reward or judge (as `evaluation.reward_options`); of a judge on a server also `price`, of
            a call, and `limit`, most calls of a round: further prompts are left out, and counted.
        pairs: which samples become preferences.
        min_gap: least gap of the label.
        unfinished: keep or drop pairs in which a response was cut at `max_new_tokens`.
        budget: label at most so many prompts in each round; null labels all. With `choose: pairs`: ask about so many
            pairs of preferences.
        choose: which ones: the prompts whose responses the policy tells apart least, or any; or, with `people` and
            `ask: pop`, the pairs of preferences that say most about the strength scale (`pairs`).
        batches: with `choose: pairs`: ask the budget in so many parts, each chosen from the answers to those before.
        store: with `people`: the label store, a file or database URL.
        project: with `people`: name of the projects, before the number of the round; null takes that of the folder.
        ask: with `people`: which of two responses is better, or which of two preferences (labelled by the implicit
            reward) is stronger; these PoP edges are then trained on.
        overlap: with `people`: people for each question.
        start: train each round from the previous policy, or again from the start model.
        reference: of each round's training: where it starts (`start`), or always the start model (`initial`).
        objective: of every training, as in a run's configuration. Objectives with PoP edges draw them from the gaps of
            the labels.
        epochs: of every training.
    """

    rounds: Size = 2
    seed_prompts: Count = 0
    prompts_per_round: Size | None = None
    samples: Size = 2
    temperature: Positive = 1.0
    top_p: Positive = 1.0
    top_k: Count = 0
    max_new_tokens: Size = 256
    labels: str = IMPLICIT
    label_options: dict[str, Any] = field(default_factory=dict[str, Any])
    pairs: Literal["best_vs_worst", "best_vs_random", "all"] = "best_vs_worst"
    min_gap: NotNegative = 0.0
    unfinished: Literal["keep", "drop"] = "keep"
    budget: Size | None = None
    choose: Literal["uncertain", "random", "pairs"] = "uncertain"
    batches: Size = 1
    store: Address | None = None
    project: str | None = None
    ask: Literal["preference", "pop"] = "preference"
    overlap: Size = 1
    start: Literal["previous", "initial"] = "previous"
    reference: Literal["start", "initial"] = "start"
    objective: dict[str, Any] = field(default_factory=lambda: {"name": "pop"})
    epochs: Positive = 1.0

    def __post_init__(self) -> None:
        if self.samples < 2:
            raise ConfigError("recipe.samples must be at least 2: a pair needs two responses.")
        if (self.labels == PEOPLE) != (self.store is not None):
            raise ConfigError("recipe.labels: people needs recipe.store, e.g. labels.db, and nothing else uses it.")
        if self.project is not None and self.labels != PEOPLE:
            raise ConfigError("recipe.project has no effect: it is for recipe.labels: people. Remove it.")
        if self.label_options and self.labels == PEOPLE:
            raise ConfigError("recipe.label_options has no effect: labels: people takes none. Remove it.")
        self._check_choice()
        implicit = self.labels == IMPLICIT or (self.labels == PEOPLE and self.ask == "pop")
        if implicit and not self.seed_prompts:
            raise ConfigError(
                "The implicit reward needs recipe.seed_prompts: that of an untrained policy is 0 for every response. "
                "Set it, or let something else label."
            )

    def _check_choice(self) -> None:
        """Check what is chosen within the budget.

        Raises:
            ConfigError: options that do not fit together.
        """
        if self.choose == "pairs":
            if (self.labels, self.ask) != (PEOPLE, "pop"):
                raise ConfigError(
                    "recipe.choose: pairs chooses what to ask people about two preferences, so it needs recipe.labels: "
                    "people and recipe.ask: pop. For edges from other labels, set base.pop.sampling: active and "
                    "base.pop.budget."
                )
            if self.budget is None or self.budget < self.batches:
                raise ConfigError("recipe.choose: pairs needs recipe.budget, with at least one question in each batch.")
        elif self.batches > 1:
            raise ConfigError("recipe.batches has no effect: it is for recipe.choose: pairs. Remove it.")


@recipe("iterate", options=IterateOptions)
def iterate(plan: Plan, config: RoundsConfig, options: IterateOptions) -> None:
    """Sample from the policy, have the samples labelled, train any objective on the pairs, and again.

    data → (seed/train) → for each round: sample → (choose) → label → pair → train; every policy is measured.
    """
    opening = open_plan(
        plan,
        config,
        own={"objective": "recipe.objective", "train.epochs": "recipe.epochs"},
        seed_prompts=options.seed_prompts,
        rounds=options.rounds,
        prompts_per_round=options.prompts_per_round,
    )
    base, data = opening.base, opening.data
    policy: Output | Path | str = start_model(base)
    if options.seed_prompts:
        seed = add_training(
            plan,
            "seed/train",
            base,
            inputs=opening.training(data["seed"]),
            changes={"objective": options.objective, "train": {"epochs": options.epochs}},
        )
        policy = seed["model"]
        opening.measure("seed", policy)
    for number in range(1, options.rounds + 1):
        labelled = _labelled(opening, config, options, number, policy)
        placed = opening.start if options.start == "initial" else _placed("model.path", policy)
        given: dict[str, Output | Path] = {"data.train": labelled["preferences"], "data.test": data["test"], **placed}
        changes: dict[str, Any] = {"objective": options.objective, "train": {"epochs": options.epochs}}
        if "edges" in labelled.outputs:
            given["pop.edges"] = labelled["edges"]
        if options.reference == "initial" and options.start == "previous":
            given |= _placed("reference.model", start_model(base))
            if isinstance(start_model(base), str):
                changes["reference"] = {"model": start_model(base)}
        trained = add_training(plan, f"round-{number}/train", base, inputs=given, changes=changes)
        policy = trained["model"]
        opening.measure(f"round-{number}", policy)


def _placed(key: str, model: Output | Path | str) -> dict[str, Output | Path]:
    """A model as an input; a name stands in the settings."""
    return {} if isinstance(model, str) else {key: model}


def _labelled(
    opening: Opening,
    config: RoundsConfig,
    options: IterateOptions,
    number: int,
    policy: Output | Path | str,
) -> Stage:
    """The stages of a round up to its preferences."""
    plan, base, name, seed = opening.plan, opening.base, f"round-{number}", config.seed + number
    responses = add_samples(
        plan,
        f"{name}/sample",
        base,
        policy=policy,
        prompts=opening.data[name],
        number=number,
        sampling=sampling_of(options),
        seed=seed,
        first=plan["round-1/sample"]["responses"] if number > 1 else None,
    )["responses"]
    start = start_model(base)

    def by(what: str, stage: str, of: Output) -> Output:
        return add_labels(
            plan,
            f"{name}/{stage}",
            base,
            responses=of,
            by=what,
            policy=policy,
            reference=start,
            options=options.label_options if what == options.labels else None,
            seed=seed,
        )["responses"]

    if options.budget is not None and options.choose != "pairs":
        scored = by(IMPLICIT, "score", responses)
        responses = add_choice(plan, f"{name}/choose", scored, budget=options.budget, choose=options.choose, seed=seed)[
            "responses"
        ]
    pairing: dict[str, Any] = {
        "pairs": options.pairs,
        "min_gap": options.min_gap,
        "drop_unfinished": options.unfinished == "drop",
        "seed": seed,
    }
    if options.labels != PEOPLE:
        return add_pairs(plan, f"{name}/pair", by(options.labels, "label", responses), **pairing)
    assert options.store is not None
    if options.ask == "pop":
        pairs = add_pairs(plan, f"{name}/pair", by(IMPLICIT, "label", responses), **pairing)
    else:  # people say which response is better; which one is shown as chosen until then means nothing
        pairs = add_pairs(plan, f"{name}/candidates", by(RANDOM, "order", responses), **pairing)
    store = options.store if "://" in options.store else str(Path(options.store).absolute())
    return add_people(
        plan,
        f"{name}/people",
        pairs["preferences"],
        store=store,
        project=f"{options.project or Path(config.output).name}-{name}",
        ask=options.ask,
        overlap=options.overlap,
        seed=seed,
        budget=options.budget if options.choose == "pairs" else None,
        batches=options.batches,
    )
