"""Locations of the demo's files in the installed package."""

from pathlib import Path

_HERE = Path(__file__).parent


def demo_data_path() -> Path:
    """The Parquet file of rated completions."""
    return _HERE / "sentiment.parquet"


def demo_study_path() -> Path:
    """The study that `popmargin demo` runs."""
    return _HERE / "study.yaml"
