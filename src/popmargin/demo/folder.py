"""Locations of the demo's files in the installed package."""

from pathlib import Path

_HERE = Path(__file__).parent


def demo_data_path() -> Path:
    """The Parquet file of rated completions."""
    return _HERE / "sentiment.parquet"


def embedded_data(name: str) -> Path | None:
    """The file of embedded preferences, made first if need be; None for any other name.

    Args:
        name: as `data.train` takes it; one of `popmargin.config_names.EMBEDDED` for these.

    Raises:
        MissingExtraError: what makes it is not installed.
    """
    if name == "demo-digits":
        from popmargin.demo.images.digit_preferences import digits_data_path

        return digits_data_path()
    if name == "demo-emoji":
        from popmargin.demo.images.emoji_preferences import emoji_data_path

        return emoji_data_path()
    return demo_data_path() if name == "demo" else None


def demo_study_path() -> Path:
    """The study that `popmargin demo` runs."""
    return _HERE / "study.yaml"


def demo_rounds() -> dict[str, Path]:
    """The examples that `popmargin rounds NAME` runs on the embedded model and data, by name."""
    return {file.stem: file for file in sorted((_HERE / "rounds").glob("*.yaml"))}
