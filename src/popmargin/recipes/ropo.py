"""ROPO's outer loop: train, drop the rows that the policy fits worst, sample replacements, train again (all ours)."""

from pathlib import Path
from typing import Any, Literal

from popmargin.bounds import Count, PartialShare, Positive, Size
from popmargin.config import section
from popmargin.errors import ConfigError
from popmargin.recipes.base import recipe
from popmargin.rounds.plan import Output, Plan
from popmargin.rounds.rounds_config import RoundsConfig
from popmargin.rounds.stages.fates import add_fates
from popmargin.rounds.stages.label_responses import IMPLICIT, add_labels
from popmargin.rounds.stages.opening import Opening, open_plan, sampling_of
from popmargin.rounds.stages.rank_rows import Filter, add_ranking
from popmargin.rounds.stages.replace_rows import add_replacements
from popmargin.rounds.stages.sample_responses import add_samples
from popmargin.rounds.stages.split_data import FLIPPED, add_halves
from popmargin.rounds.stages.train_policy import add_training
from popmargin.rounds.stages.trained_models import start_model


@section("recipe")
class RopoOptions:
    """Options of ROPO's loop. No code of its authors is known; every detail of the loop is ours.

    Attributes:
        rounds: rounds after the first training; each ranks all original preferences again.
        noise_share: f, the share of preferences to drop; 0 drops nothing, and shows the histogram to choose by.
        filter: what is dropped: the rows with the largest `loss`; or, as controls, as many at `random`, or the rows
            that are known to be wrong (`oracle`, whatever `noise_share`).
        known_flips: column of the data that is 1 where a label is known to be wrong, to measure the filter by; null
            takes the labels that `base.data.flip` has flipped.
        replace: for a prompt that lost its preference: the best against the worst of its samples, taken when the gap
            is at least the median gap of the kept ones (`best_worst`); the best sample against the original response
            with the lower implicit reward (`against_original`); or nothing (`none`).
        samples: responses sampled for such a prompt.
        temperature: of sampling.
        max_new_tokens: longest response.
        cross_fit: train on two halves, each of which ranks the rows of the other, so that no row is ranked by a policy
            that has seen it.
        objective: `ropo`, or `dpo` as a control.
        beta: reward units per nat.
        alpha: α of the ROPO loss, also of the ranking.
        epochs: of every training.
    """

    rounds: Count = 2
    noise_share: PartialShare = 0.0
    filter: Filter = "loss"
    known_flips: str | None = None
    replace: Literal["best_worst", "against_original", "none"] = "best_worst"
    samples: Size = 4
    temperature: Positive = 1.0
    max_new_tokens: Size = 256
    cross_fit: bool = False
    objective: Literal["ropo", "dpo"] = "ropo"
    beta: Positive = 0.1
    alpha: Positive = 14.0
    epochs: Positive = 1.0

    def __post_init__(self) -> None:
        if self.known_flips == "":
            raise ConfigError("recipe.known_flips is empty. Name a column of the data, or remove it.")
        if self.samples < 2 and self.replace == "best_worst":
            raise ConfigError("recipe.samples must be at least 2: `best_worst` pairs two samples.")
        if self.filter == "oracle" and self.noise_share:
            raise ConfigError("recipe.noise_share has no effect: filter: oracle drops the known flips. Remove it.")
        if self.filter == "random" and not self.noise_share:
            raise ConfigError("recipe.filter: random needs recipe.noise_share, the share to drop.")


@recipe("ropo", options=RopoOptions)
def ropo(plan: Plan, config: RoundsConfig, options: RopoOptions) -> None:
    """Train with a robust loss, drop the share of rows that fits worst, replace them, and train again from the start.

    data → round-0/train → for each round: rank → sample → label → replace → train; every policy is measured.
    """
    own = {"objective": "recipe.objective", "train.epochs": "recipe.epochs"}
    own |= {"data.soft_label_temperature": "nothing"}  # neither objective has soft labels, and replacements no ratings
    opening = open_plan(plan, config, own=own, known=options.known_flips)
    base, data = opening.base, opening.data
    known = options.known_flips or (FLIPPED if base.data.flip else None)
    if options.filter == "oracle" and known is None:
        raise ConfigError(
            "recipe.filter: oracle needs to know which labels are wrong: set base.data.flip, or recipe.known_flips to "
            "a column of the data that is 1 there."
        )
    halves = add_halves(plan, data["seed"], seed=config.seed) if options.cross_fit else None
    ranking: dict[str, Any] = {"name": "ropo", "beta": options.beta, "alpha": options.alpha}
    objective = ranking if options.objective == "ropo" else {"name": "dpo", "beta": options.beta}

    def trained(name: str, rows: Output) -> Output:
        return add_training(
            plan,
            name,
            base,
            inputs=opening.training(rows),
            changes={"objective": objective, "train": {"epochs": options.epochs}},
        )["model"]

    rows = data["seed"]
    rows_of = {half: halves[half] for half in ("a", "b")} if halves is not None else {}
    ranks: list[Output] = []
    replaced: list[Output] = []
    policy = trained("round-0/train", rows)
    opening.measure("round-0", policy)
    for number in range(1, options.rounds + 1):
        name = f"round-{number}"
        judges = {"policy": policy}
        if halves is not None:
            judges = {half: trained(f"{name}/half-{half}", part) for half, part in rows_of.items()}
        ranked = add_ranking(
            plan,
            f"{name}/rank",
            base,
            rows=data["seed"],
            policies=judges,
            halves=None if halves is None else {half: halves[half] for half in ("a", "b")},
            inputs=opening.start,
            noise_share=options.noise_share,
            objective=ranking,
            by=options.filter,
            known=known,
            seed=config.seed + number,
        )
        ranks.append(ranked["ranks"])
        if not options.noise_share and options.filter != "oracle":
            break  # nothing is dropped, so nothing would change
        rows = ranked["kept"]
        rows_of = {half: ranked[f"kept-{half}"] for half in rows_of}
        if options.replace != "none":
            rows = _replaced(opening, config, options, number, policy, ranked, start_model(base), replaced)
        policy = trained(f"{name}/train", rows)
        opening.measure(name, policy)
    if ranks:
        add_fates(plan, "rows", rows=data["seed"], ranks=ranks, replaced=replaced, known=known)


def _replaced(
    opening: Opening,
    config: RoundsConfig,
    options: RopoOptions,
    number: int,
    policy: Output,
    ranked: Any,
    start: Path | str,
    replaced: list[Output],
) -> Output:
    """Kept rows with the replacements of a round."""
    plan, base, name = opening.plan, opening.base, f"round-{number}"
    samples = add_samples(
        plan,
        f"{name}/sample",
        base,
        policy=policy,
        prompts=ranked["dropped"],
        number=number,
        sampling=sampling_of(options),
        seed=config.seed + number,
    )
    labelled = add_labels(
        plan,
        f"{name}/label",
        base,
        responses=samples["responses"],
        by=IMPLICIT,
        policy=policy,
        reference=start,
    )
    made = add_replacements(
        plan,
        f"{name}/replace",
        base,
        labelled=labelled["responses"],
        ranked=ranked,
        rule=options.replace,
        beta=options.beta,
        policy=policy,
        reference=start,
    )
    replaced.append(made["replacements"])
    return made["rows"]
