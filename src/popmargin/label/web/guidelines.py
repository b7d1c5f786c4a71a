"""The guidelines that annotators see unless a project has its own."""

from importlib.resources import files

from popmargin.data.questions import Kind


def guidelines_of(kind: Kind, *, images: bool = False) -> str:
    """Guidelines as Markdown, for a kind of task about texts or images.

    Example:
        >>> "image" in guidelines_of("rating", images=True), "image" in guidelines_of("rating")
        (True, False)
    """
    name = f"guidelines_{'images_' if images else ''}{kind}.md"
    return files("popmargin.label.web").joinpath(name).read_text(encoding="utf-8")
