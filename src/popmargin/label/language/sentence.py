"""A sentence for annotators: English where it is printed, in the project's language on a page."""

from popmargin.label.language.page_texts import ENGLISH, PageTexts, shipped


class Sentence:
    """What an error says to people, as its key and values.

    `DataError(Sentence("refused_archived"))` prints in English, and a page finds the sentence in the error's arguments.

    Example:
        >>> str(Sentence("refused_no_task"))
        'You have no such task.'
    """

    def __init__(self, key: str, **values: object) -> None:
        self.key = key
        self.values = values

    def __str__(self) -> str:
        return self.in_language(shipped(ENGLISH))

    def in_language(self, texts: PageTexts) -> str:
        """The sentence in a language."""
        return texts.said(self.key, **self.values)


def sentence_of(error: BaseException) -> Sentence | str:
    """What an error says: a sentence that can be translated, or else its message."""
    first = error.args[0] if error.args else None
    return first if isinstance(first, Sentence) else str(error)
