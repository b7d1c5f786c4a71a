"""Names of columns in a text with commas, as options and forms take them."""


def column_names(text: str) -> tuple[str, ...]:
    """The column names in a text with commas between them, each once.

    Example:
        >>> column_names("stance, source,stance")
        ('stance', 'source')
    """
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
