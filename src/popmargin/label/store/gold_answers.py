"""Known answers: which ones a kind of item may have, and how right an answer is beside one."""

from popmargin.data.questions import Kind, golds_of, is_order, orders_of, same_share
from popmargin.errors import DataError, counted, did_you_mean


def check_gold(gold: str, kind: Kind, scale: int | None, size: int, place: str) -> None:
    """Refuse a known answer that is none to an item.

    Args:
        gold: the answer.
        kind: of the item.
        scale: of the project.
        size: preferences in a ranking.
        place: where it is, for the message.

    Raises:
        DataError: it says what is expected.
    """
    if kind == "rank":
        if gold not in orders_of(size):
            example = ">".join(map(str, range(1, size + 1)))
            raise DataError(
                f"{place}: gold is {gold!r}, which is no order of {counted(size, 'preference')}. Give each number "
                f"once, the strongest first, such as '{example}'."
            )
        return
    known = golds_of(kind, scale)
    if gold not in known:
        raise DataError(f"{place}: gold is {gold!r}. {did_you_mean(gold, known)}")


def rightness(verdict: str | None, gold: str) -> float:
    """How right an answer is: 1 or 0, and of a ranking the share of its comparisons that are in the known order.

    Example:
        >>> rightness("second", "first"), rightness("2>1>3", "1>2>3"), rightness("unsure", "1>2>3")
        (0.0, 0.6666666666666667, 0.0)
    """
    if is_order(verdict) and is_order(gold):
        return same_share(str(verdict), gold)
    return float(verdict == gold)
