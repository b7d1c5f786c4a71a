"""Labels of judges and rewards beside those of people: a model does not outvote a person."""

from typing import Any, Literal, get_args

import pyarrow as pa
import pyarrow.compute

from popmargin.errors import ConfigError
from popmargin.label.export.judged_wrong import DECIDED

pc: Any = pyarrow.compute
Models = Literal["fill", "equal"]
"""Labels of models: "fill" leaves them out where a person has decided the item; "equal" counts them like a person's."""


def people_first(labels: Any, models: Models) -> Any:
    """The labels that count.

    Args:
        labels: as of `LabelStore.labels`, with item, annotator_kind and verdict.
        models: what to do with those of models. A person who is unsure has not decided.

    Raises:
        ConfigError: an unknown value of `models`.
    """
    if models not in get_args(Models):
        raise ConfigError(f"models is {models!r}; choose {', '.join(get_args(Models))}.")
    if models == "equal":
        return labels
    person = pc.equal(labels["annotator_kind"], "person")
    decided = pc.or_(
        pc.is_in(labels["verdict"], value_set=pa.array([*DECIDED, "wrong", "both_bad"])),
        pc.match_substring(labels["verdict"], ">"),
    )
    items = labels.filter(pc.and_(person, decided))["item"].unique()
    return labels.filter(pc.or_(person, pc.invert(pc.is_in(labels["item"], value_set=items))))
