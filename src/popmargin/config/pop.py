"""Settings of PoP edges, and of what scores their weaker side."""

from typing import Literal

from popmargin.bounds import Address, NotNegative, PartialShare, Seed, Share, Size
from popmargin.config.checked import section


@section("pop")
class PopConfig:
    """Where PoP edges come from, and the strength scale fitted from them, for objectives that need them.

    Attributes:
        edges: a file of edges (Parquet, JSONL or CSV), or a label store (`labels.db`, a project of it as
            `labels.db#name`, or a database's URL); null samples them from the strengths in the data.
        sampling: `iterative` (every preference is the stronger side of k edges), `random` (k·N random pairs) or
            `active` (ours: as many pairs, chosen to be informative about the strength scale).
        k: edges per preference.
        seed: seed of the sampling and its noise.
        flip: probability that a label is flipped.
        temperature: Bradley–Terry temperature of the label noise, in units of strength; 0 is exact.
        budget: maximum comparisons per preference in iterative sampling (null: all others), or total comparisons in
            active sampling (null: k·N).
        unmatched: preferences without a weaker partner: `keep` (margin 0) or `drop`.
        scale: a Parquet file of strengths from `popmargin pop scale`; null fits them from the edges.
        ridge: precision of the prior on fitted strengths.
    """

    edges: Address | None = None
    sampling: Literal["iterative", "random", "active"] = "iterative"
    k: Size = 1
    seed: Seed = 0
    flip: Share = 0.0
    temperature: NotNegative = 0.0
    budget: Size | None = None
    unmatched: Literal["keep", "drop"] = "keep"
    scale: str | None = None
    ridge: NotNegative = 0.1


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
