"""A caption, two images and a label for each, as in Pick-a-Pic."""

from popmargin.data.formats.base import COMMON, Format, Reader, Row
from popmargin.data.validate import Draft, RowError


def _read(row: Row, reader: Reader) -> list[Draft | RowError]:
    share = _share_of_second(row, reader)
    prompt = reader.text(row, "caption")
    first, second = reader.image(row, "image_0"), reader.image(row, "image_1")
    if share == 0.5:
        return [reader.tie(row, prompt, first, second, "label_0", soft_label=0.5)]
    chosen, rejected = (first, second) if share < 0.5 else (second, first)
    if share in (0.0, 1.0):
        return [reader.draft(row, prompt, chosen, rejected)]
    reader.notes["labels between 0 and 1 became soft labels, with strengths |2p − 1|"] += 1
    known = {"soft_label": max(share, 1 - share), "strength": abs(2 * share - 1)}
    return [reader.draft(row, prompt, chosen, rejected, **known)]


def _share_of_second(row: Row, reader: Reader) -> float:
    """The probability that the second image is better: the labels are 1 and 0, or ½ and ½."""
    if reader.value(row, "has_label") in (False, 0, "False", "false"):
        remedy = "nothing: nobody compared them."
        raise RowError("no_label", "the pair has no label.", remedy, column="has_label", fatal=False)
    first, second = reader.required_number(row, "label_0"), reader.required_number(row, "label_1")
    if min(first, second) < 0 or first + second <= 0:
        message = f"the labels are {first:g} and {second:g}, which name neither image."
        raise RowError("label", message, "write 1 and 0, 0 and 1, or 0.5 and 0.5.", column="label_0")
    return second / (first + second)


ENTRY = Format(
    "pick_a_pic",
    "a caption, two images and a label for each: 1 and 0, or ½ and ½ for a tie",
    ("caption", "image_0", "image_1", "label_0", "label_1"),
    _read,
    optional=("has_label", *(name for name in COMMON if name not in ("system", "prompt_input", "tools"))),
    absent=("chosen", "rejected"),
)
