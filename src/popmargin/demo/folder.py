"""Locations of the demo's files in the installed package."""

from pathlib import Path

_HERE = Path(__file__).parent


def demo_data_path() -> Path:
    """The Parquet file of rated completions."""
    return _HERE / "sentiment.parquet"


def demo_study_path() -> Path:
    """The study that `popmargin demo` runs."""
    return _HERE / "study.yaml"


def demo_rounds() -> dict[str, Path]:
    """The examples that `popmargin rounds NAME` runs on the embedded model and data, by name."""
    return {file.stem: file for file in sorted((_HERE / "rounds").glob("*.yaml"))}
