"""Emoji of 32 × 32 pixels with prompts, the larger of the two shipped sets of pictures."""

from pathlib import Path


def emoji_path() -> Path:
    """The Parquet file: prompt, style, name, category, license, and the image as `{bytes, path}`, PNG.

    Example:
        >>> import pyarrow.parquet as pq
        >>> pq.read_table(emoji_path())["prompt"][0].as_py()
        'noto 1st place medal'
    """
    return Path(__file__).parent / "emoji32.parquet"
