"""Warnings from the log of a training: what goes wrong without an error, in words, with what to try.

A watcher reads lines of `metrics.jsonl`, and nothing else: it changes no number, and waits for no device. That of
lengths reads what has been sampled, of which training itself has none. They are listed in docs/guards.md.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from popmargin.training.loss import Loss

Line = Mapping[str, Any]

LOST_SHARE, LOST_NATS = 1.0, 10.0
"""Chosen responses may lose this share of what they cost under the reference, and this many nats, whichever is more."""
KL_PER_TOKEN = 5.0
"""Nats per token; the estimate of one batch may be far above this by chance, that of several not."""
MOVED_NATS, STILL_NATS = 0.1, 1e-4
"""A policy has moved, and a target has not, if their mean gaps are beyond, and within, these."""
NEARLY_ALL = 0.99
"""A share that counts as all."""
FLAT_REWARD = 30.0
"""Reward units: a log-sigmoid beyond this is 0 to fp32's last bit but one, and so is its gradient."""
GROWN, GROWN_TOKENS, MORE_CUT = 2.0, 10, 0.25
"""Responses may become this many times as long, or this many tokens longer, whichever is more; and this further share
of them may be cut, which hides how long they would be."""


@dataclass(frozen=True, kw_only=True)
class Watcher:
    """What is watched.

    Attributes:
        reads: entries of a line; lines without them are passed over.
        wrong: whether a line shows it.
        lines: how many lines must show it, one after the other.
        says: what it is and what to try, with entries of the line in braces.
    """

    reads: tuple[str, ...]
    wrong: Callable[[Line], bool]
    lines: int
    says: str

    def said(self, line: Line) -> str | None:
        """What a line of the log that shows it gives rise to; None for any other."""
        if any(name not in line for name in self.reads) or not self.wrong(line):
            return None
        return self.says.format(**line)


def _lost(line: Line) -> bool:
    had = abs(line["chosen_logps"] - line["chosen_logratio"])
    return -line["chosen_logratio"] > max(LOST_NATS, LOST_SHARE * had)


LIKELIHOOD = Watcher(
    reads=("chosen_logps", "chosen_logratio"),
    wrong=_lost,
    lines=3,
    says="chosen responses have lost more log-prob than they had (chosen_logratio {chosen_logratio:.1f} nats, "
    "chosen_logps {chosen_logps:.1f}). Try a lower train.learning_rate, or the regularizer budget or sft.",
)
KL = Watcher(
    reads=("kl_estimate",),
    wrong=lambda line: line["kl_estimate"] > KL_PER_TOKEN,
    lines=3,
    says="the policy has gone far from its reference (kl_estimate {kl_estimate:.1f} nats per token). Try a lower "
    "train.learning_rate, a larger objective.beta, or fewer epochs.",
)
CLIPPED = Watcher(
    reads=("target_margin_clipped",),
    wrong=lambda line: line["target_margin_clipped"] >= NEARLY_ALL,
    lines=10,
    says="nearly all target margins are clipped (target_margin_clipped {target_margin_clipped:.2f}), so they no longer "
    "say which preference is how strong. Try a larger margin_max, or a lower margin_min, of objective or margin.",
)
FLAT = Watcher(
    reads=("reward_margin",),
    wrong=lambda line: abs(line["reward_margin"]) > FLAT_REWARD and "d_std" not in line,  # images have their own
    lines=10,
    says="rewards differ by {reward_margin:.0f} reward units on average, where the loss is flat, or a straight line. "
    "Try a smaller objective.beta or train.learning_rate.",
)
SCALES = Watcher(
    reads=("tau_at_max",),
    wrong=lambda line: line["tau_at_max"] >= NEARLY_ALL,
    lines=10,
    says="nearly all rows have the largest scale (tau_at_max {tau_at_max:.2f}), as if it were fixed. Try a larger "
    "objective.tau_max or objective.rho0.",
)


def _multiplier(most: float) -> Watcher:
    return Watcher(
        reads=("lambda",),
        wrong=lambda line: line["lambda"] >= NEARLY_ALL * most,
        lines=3,
        says="the multiplier has reached its bound (lambda {lambda:.4g}), where the preferences hardly count. "
        "Try a smaller objective.lambda_lr, the ascent step, or edges with fewer errors.",
    )


def _still(line: Line) -> bool:
    moved = max(abs(line["chosen_logratio"]), abs(line["rejected_logratio"])) > MOVED_NATS
    size = max(abs(line["target_margin_mean"]), line["target_margin_std"])
    return moved and size < STILL_NATS and line["target_margin_clipped"] == 0


TARGET = Watcher(
    reads=("chosen_logratio", "rejected_logratio", "target_margin_mean", "target_margin_std", "target_margin_clipped"),
    wrong=_still,
    lines=20,
    says="the target does not move although the policy does (target_margin_mean {target_margin_mean:.1g} nats): this "
    "is training without margins. Try a smaller target.tau.",
)
TOKENS = Watcher(
    reads=("tokens_kept",),
    wrong=lambda line: line["tokens_kept"] >= 1.0,
    lines=20,
    says="the token selector keeps every token. Try a larger train.learning_rate, or a smaller tokens.tolerance: "
    "tokens on which policy and reference agree are kept.",
)


def _grown(line: Line) -> bool:
    longest = max(GROWN * line["tokens_before"], line["tokens_before"] + GROWN_TOKENS)
    return line["tokens"] > longest or line["cut"] - line["cut_before"] > MORE_CUT


LENGTH = Watcher(
    reads=("tokens", "tokens_before", "cut", "cut_before", "before"),
    wrong=_grown,
    lines=1,
    says="responses have grown from {tokens_before:.0f} tokens ({before}; {cut_before:.0%} were cut) to {tokens:.0f} "
    "({cut:.0%} are cut). Try an objective on mean log-probs, such as simpo, a larger objective.beta, fewer epochs, or "
    "labels that do not prefer length.",
)
"""Reads mean tokens of sampled responses, and the share of those that reached the longest that may be sampled, now and
before; `before` says when or whose that was. Evaluations and rounds ask it."""


def watchers_of(loss: Loss) -> list[Watcher]:
    """What is watched in a training.

    Args:
        loss: whose options say what is on purpose.
    """
    found = [LIKELIHOOD, KL, CLIPPED, FLAT, TARGET, SCALES]
    if loss.tokens is not None and getattr(loss.tokens[1], "share", 0.0) < 1:
        found.append(TOKENS)
    most = getattr(loss.options, "lambda_max", None)
    return found if most is None else [*found, _multiplier(float(most))]


class Watch:
    """The watchers of a training; each speaks once.

    Args:
        watchers: what is watched.

    Example:
        >>> watch = Watch([KL])
        >>> [watch.see({"step": step, "kl_estimate": 9.0})[:1] for step in (1, 2)]
        [[], []]
        >>> watch.see({"step": 3, "kl_estimate": 9.0})[0].split(" (")[0]
        'step 3: the policy has gone far from its reference'
        >>> watch.see({"step": 4, "kl_estimate": 9.0})
        []
    """

    def __init__(self, watchers: Sequence[Watcher]) -> None:
        self._count = [0] * len(watchers)
        self._watchers = watchers

    def see(self, line: Line) -> list[str]:
        """The sentences that a line of the log gives rise to; with `step`."""
        said: list[str] = []
        for place, watcher in enumerate(self._watchers):
            done = self._count[place] >= watcher.lines
            if done or any(name not in line for name in watcher.reads):
                continue
            self._count[place] = self._count[place] + 1 if watcher.wrong(line) else 0
            if self._count[place] >= watcher.lines:
                said.append(f"step {line['step']}: {watcher.says.format(**line)}")
        return said

    def see_all(self, lines: Iterable[Line]) -> list[str]:
        """The sentences that several lines give rise to."""
        return [sentence for line in lines for sentence in self.see(line)]
