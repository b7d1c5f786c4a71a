"""Splits of item sequences into training sequences and cases with one target each: by user, leave-one-out, by time."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Int

from popmargin.account import Step
from popmargin.data.ragged import Ragged
from popmargin.errors import ConfigError, DataError, counted
from popmargin.recommend.item_sequences import Catalogue, Sequences

SHARES = (0.8, 0.1, 0.1)
"""Training, validation and test users when the data do not say which are which."""


@dataclass(frozen=True)
class Cases:
    """Histories whose next item is to be recommended, one a user.

    Attributes:
        users: names (N,).
        histories: item numbers, oldest first, at least one each.
        targets: the number of the item that came next (N,).
    """

    users: tuple[str, ...]
    histories: Ragged
    targets: Int[np.ndarray, " N"]

    def __len__(self) -> int:
        return len(self.users)


@dataclass(frozen=True)
class Parts:
    """The parts of a split.

    Attributes:
        catalogue: the items; also those that only occur in validation or test.
        train: what a model may be trained on.
        known: all that is known without the test targets, each user once: the training sequences, whole validation
            sequences and test histories. For recipes that use them (`ItemKNNOptions.transductive`).
        valid, test: cases.
        account: where the users (or events) went.
        train_users: names of the users of `train`, whose first events a training sequence holds.
    """

    catalogue: Catalogue
    train: Ragged
    known: Ragged
    valid: Cases
    test: Cases
    account: tuple[Step, ...] = field(default=())
    train_users: tuple[str, ...] = ()


def split_by_user(data: Sequences, *, seed: int = 0, shares: tuple[float, float, float] = SHARES) -> Parts:
    """Users are training, validation or test users; the last item of a validation or test user is the target.

    The data's own `split` counts if there is one, as in PreferDiff's public files. Otherwise users are shuffled by the
    seed and cut at 8:1:1. A test user is unseen in training; only the history is given.

    Args:
        data: the sequences.
        seed: of the shuffle.
        shares: of training, validation and test users.

    Raises:
        ConfigError: shares that are not positive or do not add up to 1.
        DataError: a part is empty.

    Example:
        >>> data = Sequences.of([[1, 2], [2, 3], [3, 1]], splits=["train", "valid", "test"])
        >>> parts = split_by_user(data)
        >>> parts.train[0].tolist(), parts.test.histories[0].tolist(), parts.test.targets.tolist()
        ([1, 2], [3], [1])
    """
    if data.splits is not None:
        of_user = np.array(data.splits)
    else:
        if min(shares) <= 0 or abs(sum(shares) - 1) > 1e-9:
            raise ConfigError(f"shares are {shares}. Remedy: give three positive shares that add up to 1.")
        count = len(data)
        ends = [int(count * shares[0] + 1e-9), int(count * shares[0] + 1e-9) + int(count * shares[1] + 1e-9)]
        place = np.argsort(np.random.default_rng(seed).permutation(count))
        of_user = np.where(place < ends[0], "train", np.where(place < ends[1], "valid", "test"))
    numbers = {side: np.flatnonzero(of_user == side) for side in ("train", "valid", "test")}
    train = data.items.take(numbers["train"])
    (valid, valid_short), (test, test_short) = (_last_is_target(data, numbers[side]) for side in ("valid", "test"))
    kept = {"training users": len(train), "validation users": len(valid), "test users": len(test)}
    step = Step(name="split by user", rows_in=len(data), kept=kept, unit="users",
                left_out={"no history before the target": valid_short + test_short})  # fmt: skip
    whole = data.items.take(numbers["valid"])
    known = Ragged.concatenate([train, whole, test.histories])
    users = tuple(data.users[number] for number in numbers["train"])
    return _checked(Parts(data.catalogue, train, known, valid, test, (step,), users))


def leave_one_out(data: Sequences) -> Parts:
    """The last item of every user is the test target, the one before it the validation target.

    The history of a test case includes the validation target. Training sequences are what is left. Users with fewer
    than three items have training sequences alone.

    Raises:
        DataError: no user has three items.

    Example:
        >>> parts = leave_one_out(Sequences.of([[1, 2, 3, 4], [4, 1]]))
        >>> [sequence.tolist() for sequence in (parts.train[0], parts.train[1], parts.test.histories[0])]
        [[1, 2], [4, 1], [1, 2, 3]]
    """
    long = np.flatnonzero(data.items.lengths >= 3)
    cut = np.where(data.items.lengths >= 3, 2, 0)
    train = _first(data.items, data.items.lengths - cut)
    users = tuple(data.users[number] for number in long)
    known = _first(data.items, data.items.lengths - cut // 2)
    test = Cases(users, known.take(long), _item_at(data.items, long, -1))
    valid = Cases(users, train.take(long), _item_at(data.items, long, -2))
    kept = {"users with both targets": len(long), "training users alone": len(data) - len(long)}
    step = Step(name="leave one out", rows_in=len(data), kept=kept, unit="users")
    return _checked(Parts(data.catalogue, train, known, valid, test, (step,), data.users))


def split_by_time(data: Sequences, *, shares: tuple[float, float, float] = SHARES) -> Parts:
    """Two points in time, the same for all users: what came before the first is for training.

    The points are quantiles of the times of all events. A user's first event from the first point on (and before the
    second) is a validation target, the first one from the second point on a test target; all earlier events of the
    user are the history. So nothing later than a target is ever known, and items may be new in the test.

    Args:
        data: the sequences, with times.
        shares: of the events before the first point, between both, and after the second.

    Raises:
        ConfigError: shares that are not positive or do not add up to 1.
        DataError: the data have no times, or a part is empty.

    Example:
        >>> from popmargin.recommend.read_sequences import load_sequences
        >>> events = [("a", 1, 1), ("a", 2, 2), ("b", 2, 3), ("b", 1, 7), ("a", 1, 8), ("b", 2, 9), ("b", 1, 10)]
        >>> data = load_sequences([dict(zip(("user", "item", "time"), event)) for event in events])
        >>> parts = split_by_time(data, shares=(0.5, 0.2, 0.3))
        >>> parts.valid.users, parts.test.users, parts.test.histories[0].tolist()
        (('b',), ('a', 'b'), [1, 2])
    """
    if data.times is None:
        raise DataError("The data have no times. Remedy: name their column, or split by user or leave_one_out.")
    if min(shares) <= 0 or abs(sum(shares) - 1) > 1e-9:
        raise ConfigError(f"shares are {shares}. Remedy: give three positive shares that add up to 1.")
    ordered = np.sort(data.times)
    first, second = (float(ordered[int(len(ordered) * share)]) for share in (shares[0], shares[0] + shares[1]))
    user_T = np.repeat(np.arange(len(data)), data.items.lengths)
    before = [np.bincount(user_T[data.times < point], minlength=len(data)) for point in (first, second)]
    train, known = (_first(data.items, lengths) for lengths in before)
    some = np.flatnonzero(before[0])
    train, known = train.take(some), known.take(np.flatnonzero(before[1]))
    notes: list[str] = []
    cases: list[Cases] = []
    for name, history, end in (("validation", before[0], before[1]), ("test", before[1], data.items.lengths)):
        active = np.flatnonzero(end > history)
        wanted = active[history[active] > 0]
        users = tuple(data.users[number] for number in wanted)
        targets = data.items.values[data.items.offsets[wanted] + history[wanted]]
        cases.append(Cases(users, _first(data.items, history).take(wanted), targets))
        new = int((~np.isin(targets, train.values)).sum())
        notes.append(
            f"{name}: {counted(len(active), 'active user')}, {len(wanted)} with a history; "
            f"{counted(new, 'target')} not in training"
        )
    kept = {
        "before the first point": int(before[0].sum()),
        "between both": int((before[1] - before[0]).sum()),
        "after": int((data.items.lengths - before[1]).sum()),
    }
    step = Step(name="split by time", rows_in=len(user_T), kept=kept, notes=tuple(notes), unit="events")
    train_users = tuple(data.users[number] for number in some)
    return _checked(Parts(data.catalogue, train, known, cases[0], cases[1], (step,), train_users))


def _first(items: Ragged, lengths: np.ndarray) -> Ragged:
    """The first items of each sequence, as many as said."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    shift = np.repeat(items.offsets[:-1] - offsets[:-1], lengths)
    return Ragged(items.values[shift + np.arange(offsets[-1])], offsets)


def _item_at(items: Ragged, numbers: np.ndarray, place: int) -> np.ndarray:
    """The item at a place from the end (−1 is the last) of some sequences (N,)."""
    return items.values[items.offsets[numbers + 1] + place]


def _last_is_target(data: Sequences, numbers: np.ndarray) -> tuple[Cases, int]:
    """Cases of these users, and how many have no item before the target."""
    long = numbers[data.items.lengths[numbers] >= 2]
    users = tuple(data.users[number] for number in long)
    taken = data.items.take(long)
    return Cases(users, _first(taken, taken.lengths - 1), _item_at(data.items, long, -1)), len(numbers) - len(long)


def _checked(parts: Parts) -> Parts:
    sizes: Sequence[tuple[str, int]] = (
        ("training", len(parts.train)), ("validation", len(parts.valid)), ("test", len(parts.test))
    )  # fmt: skip
    empty = [name for name, size in sizes if not size]
    if empty:
        steps = "; ".join(step.arithmetic for step in parts.account)
        raise DataError(f"The {empty[0]} part is empty ({steps}). Remedy: give more users, or another split or share.")
    return parts
