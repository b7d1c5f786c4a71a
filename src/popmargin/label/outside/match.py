"""Which item of a project a label from elsewhere is about: by ids, by texts, or by both."""

from typing import Any

from popmargin.data.messages import as_values
from popmargin.data.questions import SIDES, Kind
from popmargin.label.outside.outside_label import LeftOut, OutsideLabel
from popmargin.label.store.label_store import LabelStore
from popmargin.label.store.records import Project

Found = tuple[int, bool]
"""The item, and whether it names the two sides the other way round."""
_NO_ITEM = "import the preferences with the same ids or texts, or name the columns: --column id=…"


class Matcher:
    """Finds the items of one kind in a project.

    Args:
        store: the store.
        project: whose items.
        kind: of the items.
    """

    def __init__(self, store: LabelStore, project: Project, kind: Kind) -> None:
        columns = store.preference_columns(project.id)
        read = zip(*(columns[name] for name in ("id", "prompt", "chosen", "rejected")), strict=True)
        self._kind: Kind = kind
        self._texts = {key: (_plain(prompt), _plain(one), _plain(other)) for key, prompt, one, other in read}
        self._by_ids: dict[tuple[str, str | None], list[tuple[int, bool, str]]] = {}
        self._by_texts: dict[tuple[str, ...], list[Found]] = {}
        for batch in store.items(project.id):
            for row in batch.to_pylist():
                if row["kind"] == kind:
                    self._add(row["item"], row["first"], row["second"], row["response"])

    def _add(self, item: int, first: str, second: str | None, side: str | None) -> None:
        prompt, chosen, rejected = self._texts[first]
        if self._kind == "rating":
            text = chosen if side == "chosen" else rejected
            self._by_ids.setdefault((first, side), []).append((item, False, first))
            self._by_ids.setdefault((first, None), []).append((item, False, first))
            self._by_texts.setdefault((prompt, text), []).append((item, False))
            return
        self._by_ids.setdefault((first, second), []).append((item, False, first))
        if second is not None:
            self._by_ids.setdefault((second, first), []).append((item, True, first))
            return
        for texts, turned in (((chosen, rejected), False), ((rejected, chosen), True)):
            self._by_texts.setdefault((prompt, *texts), []).append((item, turned))

    def find(self, label: OutsideLabel) -> Found | LeftOut:
        """The item of a label, or why there is none."""
        if self._kind == "pop":
            return self._pair(label)
        names = ("prompt", "response") if self._kind == "rating" else ("prompt", "response_a", "response_b")
        given = [label.texts.get(name) for name in names]
        texts = None if None in given else tuple(_plain(text) for text in given)
        of_texts = None if texts is None else self._by_texts.get(texts, [])
        for key in label.ids:
            found = self._by_ids.get((key, label.side if self._kind == "rating" else None))
            if found is None:
                continue
            items = [(item, turned) for item, turned, _ in found]
            if of_texts is not None:
                both = [found for found in of_texts if found[0] in {item for item, _ in items}]
                return both[0] if both else self._other_texts(label, key)
            if len(items) > 1:
                sides = " or ".join(SIDES)
                message = f"'{key}' has two responses, and nothing says which one was rated."
                return _left_out(
                    label, "several items", message, f"add the response's text, or a column side: {sides}."
                )
            return items[0]
        if of_texts:
            if len({item for item, _ in of_texts}) > 1:
                message = "several items have these texts."
                return _left_out(label, "several items", message, "add the id: --column id=…")
            return of_texts[0]
        named = f"id '{label.ids[0]}'" if label.ids else "these texts" if texts is not None else "no id and no texts"
        return _left_out(label, "no such item", f"the project asks nothing about {named}.", _NO_ITEM)

    def _pair(self, label: OutsideLabel) -> Found | LeftOut:
        for first in label.ids:
            for second in label.second_ids:
                found = self._by_ids.get((first, second))
                if found is not None:
                    return found[0][0], found[0][1]
        if not label.ids or not label.second_ids:
            message = "it does not name the two preferences that were compared."
            return _left_out(label, "no such item", message, "give their ids as first and second.")
        message = f"the project does not compare '{label.ids[0]}' with '{label.second_ids[0]}'."
        return _left_out(label, "no such item", message, _NO_ITEM)

    def _other_texts(self, label: OutsideLabel, key: str) -> LeftOut:
        message = f"the texts are not those that the project has under '{key}'."
        return _left_out(label, "other texts", message, "correct the id, or leave out the texts if they were cut.")


def _left_out(label: OutsideLabel, reason: str, message: str, remedy: str) -> LeftOut:
    return LeftOut(place=label.place, reason=reason, message=message, remedy=remedy)


def _plain(text: Any) -> str:
    """A text for comparing: of messages their contents, without differences in white space at ends of lines."""
    if isinstance(text, str) and text[:1] == "[":
        text = as_values(text)
    if isinstance(text, list):
        turns: list[Any] = text
        text = "\n".join(str(turn.get("content")) if isinstance(turn, dict) else str(turn) for turn in turns)
    return "\n".join(line.rstrip() for line in str(text).strip().splitlines())
