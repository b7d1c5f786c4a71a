"""Pushing exported preferences to a hub, as Parquet with their data card; only where this is asked for."""

import tempfile
from pathlib import Path

from popmargin.data.schema import Preferences
from popmargin.errors import ConfigError, RunError


def check_name(name: str) -> None:
    """Raise a ConfigError unless a data set on the hub can have this name."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise ConfigError(f"--push-to-hub {name}: {error} Give NAME or USER/NAME.") from error


def push(preferences: Preferences, card: str, name: str, *, public: bool = False) -> str:
    """Write a data set on the hub that the environment names (`HF_ENDPOINT`), in one commit; returns its address.

    Args:
        preferences: its split `train`.
        card: its README.md.
        name: NAME, or USER/NAME.
        public: everybody can read a new one; an existing one stays as it is.

    Raises:
        RunError: the hub refuses it, or cannot be reached.
    """
    from httpx import HTTPError
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    api = HfApi()
    with tempfile.TemporaryDirectory() as folder:
        preferences.save(Path(folder, "data", "train-00000-of-00001.parquet"))
        Path(folder, "README.md").write_text(card, encoding="utf-8")
        try:
            made = api.create_repo(name, repo_type="dataset", private=not public, exist_ok=True)
            api.upload_folder(
                repo_id=made.repo_id, folder_path=folder, repo_type="dataset", commit_message="Export of popmargin"
            )
        except (HfHubHTTPError, HTTPError, OfflineModeIsEnabled, OSError) as error:
            raise RunError(
                f"{name} could not be written on {api.endpoint}: {' '.join(str(error).split())} Sign in with `hf auth "
                "login` or set HF_TOKEN, and check the name. The export on this disk is whole."
            ) from error
    return str(made)
