"""Ways to find the best and the worst of several responses by comparing two at a time.

A scheme is a generator: it yields pairs to compare, is sent their outcomes, and returns (best, worst). It does not know
who compares, so a judge, many prompts at once and a person who answers a day later all use the same code (`replay`).
Iterative pairwise ranking is Chen et al. (2024, arXiv 2411.05875); the schemes are ours, since no details are public.
"""

import itertools
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from popmargin.errors import ConfigError, did_you_mean

Pair = tuple[int, int]
"""Two responses of a prompt, by their numbers."""
Outcome = Literal["first", "second", "tie", "unknown"]
"""Which of a pair is better; "unknown" where no answer could be read, which is neither a tie nor a loss."""
Scheme = Literal["champion", "pairs", "round_robin"]
SCHEMES: tuple[str, ...] = get_args(Scheme)

_Run = Generator[list[Pair], list[Outcome], Pair]
_TURNED: dict[Outcome, Outcome] = {"first": "second", "second": "first", "tie": "tie", "unknown": "unknown"}


@dataclass(frozen=True)
class Standing:
    """How far the ranking of one prompt's responses is.

    Attributes:
        wanted: pairs to compare next, all of them independent of each other; none at the end.
        played: pairs in the order of play with their outcomes; a pair that a scheme needs twice stands there twice.
        best, worst: at the end of the scheme; None before.
        direct: outcome of best against worst, once it is known.
    """

    wanted: tuple[Pair, ...]
    played: tuple[tuple[Pair, Outcome], ...]
    best: int | None = None
    worst: int | None = None
    direct: Outcome | None = None


def replay(scheme: Scheme, order: Sequence[int], known: Mapping[Pair, Outcome]) -> Standing:
    """Play a scheme with the outcomes that are known, up to the first pair that is not.

    At the end of a scheme best and worst are compared directly, if that has not happened.

    Args:
        scheme: champion, pairs or round_robin.
        order: numbers of the responses in the order of play (at least 2).
        known: outcome of each pair that was compared, named in either order.

    Raises:
        ConfigError: an unknown scheme.

    Example:
        >>> replay("champion", [2, 0, 1], {(2, 0): "second"}).wanted
        ((0, 1),)
        >>> end = replay("champion", [2, 0, 1], {(2, 0): "second", (0, 1): "first", (2, 1): "first"})
        >>> end.best, end.worst, end.direct
        (0, 1, 'first')
    """
    run = _scheme(scheme)(order)
    played: list[tuple[Pair, Outcome]] = []
    pairs = next(run)
    while True:
        found: list[tuple[Pair, Outcome | None]] = [(pair, outcome_of(known, pair)) for pair in pairs]
        wanted = tuple(pair for pair, outcome in found if outcome is None)
        if wanted:
            return Standing(wanted, tuple(played))
        outcomes: list[Outcome] = [outcome for _, outcome in found if outcome is not None]
        played += list(zip(pairs, outcomes, strict=True))
        try:
            pairs = run.send(outcomes)
        except StopIteration as end:
            best, worst = end.value
            break
    if best == worst:
        return Standing((), tuple(played), best, worst)
    direct = outcome_of(known, (best, worst))
    return Standing(((best, worst),) if direct is None else (), tuple(played), best, worst, direct)


def outcome_of(known: Mapping[Pair, Outcome], pair: Pair) -> Outcome | None:
    """What is known of a pair, in whichever order it was compared; None where it was not.

    Example:
        >>> outcome_of({(0, 1): "first"}, (1, 0))
        'second'
    """
    if pair in known:
        return known[pair]
    other = known.get(turned(pair))
    return None if other is None else _TURNED[other]


def turned(pair: Pair) -> Pair:
    """The pair named the other way round.

    Example:
        >>> turned((0, 1))
        (1, 0)
    """
    return pair[1], pair[0]


def comparisons_of(scheme: Scheme, responses: int) -> int:
    """How many comparisons a scheme plays for one prompt, without the direct one of best and worst.

    champion 2M − 3, pairs ⌈3M/2⌉ − 2 (the least possible), round robin M(M − 1)/2; twice as many calls in both orders.

    Example:
        >>> [comparisons_of(scheme, 8) for scheme in ("champion", "pairs", "round_robin")]
        [13, 10, 28]
    """
    _scheme(scheme)
    if scheme == "champion":
        return 2 * responses - 3
    return (3 * responses + 1) // 2 - 2 if scheme == "pairs" else all_pairs(responses)


def all_pairs(responses: int) -> int:
    """Pairs of so many responses: M(M − 1)/2."""
    return responses * (responses - 1) // 2


def won(games: Mapping[Pair, Outcome], count: int) -> list[float | None]:
    """Share of its comparisons that each of `count` responses won, a tie as half; None for one without any outcome.

    Example:
        >>> won({(0, 1): "first", (1, 2): "tie"}, 4)
        [1.0, 0.25, 0.5, None]
    """
    wins, games_of = [0.0] * count, [0] * count
    for pair, outcome in games.items():
        if outcome == "unknown":
            continue
        for number, name in zip(pair, ("first", "second"), strict=True):
            wins[number] += 0.5 if outcome == "tie" else float(outcome == name)
            games_of[number] += 1
    return [wins[number] / games_of[number] if games_of[number] else None for number in range(count)]


def _scheme(name: str) -> Callable[[Sequence[int]], _Run]:
    if name not in _RUNS:
        raise ConfigError(f"scheme is {name!r}. {did_you_mean(name, SCHEMES)}")
    return _RUNS[name]


def _champion(order: Sequence[int]) -> _Run:
    """The winner stays, a tie keeps the champion; then the worst likewise among the losers, in order of losing."""
    best, losers = yield from _stay(order, best=True)
    worst, _ = yield from _stay(losers, best=False)
    return best, worst


def _pairs(order: Sequence[int]) -> _Run:
    """Neighbours first; then the winners run for best and the losers for worst, an odd one out in both."""
    neighbours = list(zip(order[::2], order[1::2], strict=False))
    outcomes = yield neighbours
    ordered = [
        turned(pair) if outcome == "second" else pair for pair, outcome in zip(neighbours, outcomes, strict=True)
    ]
    left = [order[-1]] if len(order) % 2 else []
    best, _ = yield from _stay([winner for winner, _ in ordered] + left, best=True)
    worst, _ = yield from _stay([loser for _, loser in ordered] + left, best=False)
    return best, worst


def _round_robin(order: Sequence[int]) -> _Run:
    """Everybody against everybody: most and least won, the earlier in the order of play of equals."""
    games = list(itertools.combinations(order, 2))
    outcomes = yield games
    shares = won(dict(zip(games, outcomes, strict=True)), max(order) + 1)
    points = {number: 0.5 if (share := shares[number]) is None else share for number in order}
    best = max(order, key=lambda number: points[number])
    worst = min((number for number in order if number != best), key=lambda number: points[number])
    return best, worst


def _stay(players: Sequence[int], *, best: bool) -> Generator[list[Pair], list[Outcome], tuple[int, list[int]]]:
    """One player stays and meets each next one: who wins (loses, for the worst) stays. Who stayed, and the others."""
    staying, others = players[0], list[int]()
    for player in players[1:]:
        (outcome,) = yield [(staying, player)]
        if outcome == ("second" if best else "first"):
            staying, player = player, staying
        others.append(player)
    return staying, others


_RUNS: dict[str, Callable[[Sequence[int]], _Run]] = {
    "champion": _champion,
    "pairs": _pairs,
    "round_robin": _round_robin,
}
