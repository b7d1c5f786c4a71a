"""Preferences that hold the bytes of their images instead of the paths of files."""

from popmargin.data.image_arrow import image_array
from popmargin.data.images import COLUMNS, image_bytes
from popmargin.data.schema import Preferences


def with_embedded_images(preferences: Preferences) -> Preferences:
    """Preferences with the bytes of all their images, which then need no files; without images, unchanged.

    Raises:
        ImageError: a file is gone, or no longer the image that it was; names the row.

    Example:
        >>> from popmargin import load_preferences
        >>> data = load_preferences([{"prompt": "2+2?", "chosen": "4", "rejected": "5"}])
        >>> with_embedded_images(data) is data
        True
    """
    held = [name for name in COLUMNS if name in preferences.columns]
    columns: dict[str, object] = {}
    for name in held:
        side = name.removesuffix("_image")
        images = [
            {"bytes": image_bytes(row[name], name=row[side], where=f"Row {row['id']}, column '{name}'"), "path": None}
            for batch in preferences.batches("id", side, name)
            for row in (dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True))
        ]
        columns[name] = image_array(images)
    return preferences.with_columns(columns) if columns else preferences
