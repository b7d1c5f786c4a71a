"""The guidelines that annotators see unless a project has its own."""

from importlib.resources import files

from popmargin.data.questions import Kind
from popmargin.label.web.wording import BETTER, question_of


def guidelines_of(kind: Kind, *, images: bool = False, wording: str = BETTER) -> str:
    """Guidelines as Markdown, for a kind of task about texts or images, with the project's question.

    Example:
        >>> "image" in guidelines_of("rating", images=True), "image" in guidelines_of("rating")
        (True, False)
    """
    name = f"guidelines_{'images_' if images else ''}{kind}.md"
    text = files("popmargin.label.web").joinpath(name).read_text(encoding="utf-8")
    return text.replace("{question}", question_of(kind, images=images, wording=wording))
