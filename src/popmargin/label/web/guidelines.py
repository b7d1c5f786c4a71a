"""The guidelines that annotators see unless a project has its own."""

from collections.abc import Sequence
from importlib.resources import files

from popmargin.data.questions import Kind
from popmargin.errors import counted
from popmargin.label.store.records import Criterion
from popmargin.label.web.wording import BETTER, question_of


def guidelines_of(
    kind: Kind, *, images: bool = False, wording: str = BETTER, criteria: Sequence[Criterion] = ()
) -> str:
    """Guidelines as Markdown, for a kind of task about texts or images, with the project's question.

    Example:
        >>> "image" in guidelines_of("rating", images=True), "image" in guidelines_of("rating")
        (True, False)
    """
    name = f"guidelines_{'images_' if images else ''}{kind}.md"
    text = files("popmargin.label.web").joinpath(name).read_text(encoding="utf-8")
    text = text.replace("{question}", question_of(kind, images=images, wording=wording))
    if not criteria:
        return text
    asked = "".join(f"\n- **{one.question}**" for one in criteria)
    return f"{text}\nEach task asks {counted(len(criteria), 'question')}; answer each by itself:\n{asked}\n"
