"""The guidelines that annotators see unless a project has its own."""

from collections.abc import Sequence

from popmargin.data.questions import Kind
from popmargin.label.language.page_texts import ENGLISH, texts_of
from popmargin.label.store.records import Criterion
from popmargin.label.web.wording import BETTER, question_of


def guidelines_of(
    kind: Kind,
    *,
    images: bool = False,
    wording: str = BETTER,
    criteria: Sequence[Criterion] = (),
    language: str = ENGLISH,
) -> str:
    """Guidelines as Markdown, for a kind of task about texts or images, with the project's question.

    Example:
        >>> "image" in guidelines_of("rating", images=True), "image" in guidelines_of("rating")
        (True, False)
    """
    texts = texts_of(language)
    question = {} if kind == "rating" else {"question": question_of(kind, images=images, wording=wording, texts=texts)}
    text = texts.said(f"guidelines_{'images_' if images else ''}{kind}", **question)
    if not criteria:
        return text
    asked = "\n".join(f"- **{one.question}**" for one in criteria)
    return f"{text}\n{texts.said('guidelines_criteria', questions=asked)}"
