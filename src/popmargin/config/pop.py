"""Settings of PoP edges, and of what scores their weaker side."""

from dataclasses import field
from typing import Literal

from popmargin.bounds import Address, NotNegative, PartialShare, RightShare, Seed, Share, Size
from popmargin.config.checked import section
from popmargin.config.named_weights import named_weights
from popmargin.errors import ConfigError


@section("pop.zero")
class ZeroConfig:
    """How many labels are right, which places zero on the strength scale (ours).

    At most one of three is given; without any, every preference is above zero, as if all labels were right.

    Attributes:
        right: share of the preferences whose label is right.
        agreement: how often a second annotator agrees with a label; r² + (1 − r)² if each is right with probability r.
        wrong: a column of the data that is 1 where somebody called the label wrong, 0 where right, and empty where
            nobody was asked.
    """

    right: RightShare | None = None
    agreement: RightShare | None = None
    wrong: str | None = None

    def __post_init__(self) -> None:
        given = [name for name in ("right", "agreement", "wrong") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ConfigError(f"pop.zero has {' and '.join(given)}; give one of them.")


@section("pop")
class PopConfig:
    """Where PoP edges come from, and the strength scale fitted from them, for objectives that need them.

    Attributes:
        edges: a file of edges (Parquet, JSONL or CSV), or a label store (`labels.db`, a project of it as
            `labels.db#name`, or a database's URL); null samples them from the strengths in the data.
        without: names of annotators, separated by commas, whose labels among the `edges` are left out.
        weights: how much each label of some annotators counts among the `edges`, above 0 and at most 1, in the place of
            what the label store says, as `anna=0.5, bob=0.8`.
        pool: `dawid-skene` makes one edge of all votes on a pair in a label store, each labeller counting by how often
            it is right; null takes one edge a label.
        sampling: `iterative` (every preference is the stronger side of k edges), `random` (k·N random pairs), `chain`
            (ours: as many pairs, each of which shares a preference with the one before) or `active` (ours: as many,
            chosen to be informative about the strength scale).
        strength: what sampled edges compare: `signed`, by how much the preferred response is better, negative where it
            is worse; `unsigned`, its absolute value; or `before_flip`, the same as `signed` by somebody who saw the
            preferences before `data.flip` (ours).
        k: edges per preference.
        seed: seed of the sampling and its noise.
        flip: probability that a label is flipped.
        temperature: Bradley–Terry temperature of the label noise, in units of strength; 0 is exact.
        budget: maximum comparisons per preference in iterative sampling (null: all others), or total comparisons in
            active sampling (null: k·N).
        unmatched: preferences without a weaker partner: `keep` (margin 0) or `drop`.
        scale: a Parquet file of strengths from `popmargin pop scale`; null fits them from the edges.
        ridge: precision of the prior on fitted strengths.
        zero: what places zero on the strength scale, so that preferences below it are turned round.
    """

    edges: Address | None = None
    without: str | None = None
    weights: str | None = None
    pool: Literal["dawid-skene"] | None = None
    sampling: Literal["iterative", "random", "chain", "active"] = "iterative"
    strength: Literal["signed", "unsigned", "before_flip"] = "signed"
    k: Size = 1
    seed: Seed = 0
    flip: Share = 0.0
    temperature: NotNegative = 0.0
    budget: Size | None = None
    unmatched: Literal["keep", "drop"] = "keep"
    scale: str | None = None
    ridge: NotNegative = 0.1
    zero: ZeroConfig = field(default_factory=lambda: ZeroConfig())

    def __post_init__(self) -> None:
        if self.without is not None and self.edges is None:
            raise ConfigError(
                "pop.without leaves out annotators of pop.edges, which is not given. Give it, or remove this."
            )

        for name in ("weights", "pool"):
            if getattr(self, name) is not None and self.edges is None:
                raise ConfigError(f"pop.{name} is for labels in pop.edges, which is not given. Give it, or omit this.")
        if self.weights is not None and self.pool is not None:
            raise ConfigError("pop.pool finds out itself how much each labeller's votes count: remove pop.weights.")
        _ = self.weight_of

    @property
    def weight_of(self) -> dict[str, float]:
        """Annotator -> weight, from `weights`.

        Raises:
            ConfigError: a part of it is no name with a weight, or somebody has two.
        """
        parts = filter(None, (part.strip() for part in (self.weights or "").split(",")))
        return named_weights(parts, setting="pop.weights", without="pop.without")

    @property
    def left_out(self) -> tuple[str, ...]:
        """The names in `without`."""
        return tuple(name.strip() for name in (self.without or "").split(",") if name.strip())


@section("target")
class TargetConfig:
    """What scores the weaker side of an edge.

    Attributes:
        kind: `ema` (Polyak-averaged policy, as published), `policy` (the detached policy), or `bank` (ours: a running
            average of each preference's own gap, updated whenever it is scored; no second network).
        tau: decay of the average, once per optimizer step for `ema`, once per scoring for `bank` (use 0.5 or less
            there, since a preference is rarely scored).
    """

    kind: Literal["ema", "policy", "bank"] = "ema"
    tau: PartialShare | None = None

    @property
    def decay(self) -> float:
        """`tau`, or the kind's default: 0.99 for the network, 0 (the latest gap) for the bank."""
        return self.tau if self.tau is not None else (0.99 if self.kind == "ema" else 0.0)
