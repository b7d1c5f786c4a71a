"""Files that start a training on several devices: of accelerate, DeepSpeed and SLURM; see docs/scaling.md."""

from pathlib import Path

from popmargin.errors import ConfigError, did_you_mean

_FOLDER = Path(__file__).parent / "launch"


def launch_files() -> dict[str, Path]:
    """Their names -> where they are.

    Example:
        >>> list(launch_files())
        ['ddp.yaml', 'fsdp2.yaml', 'slurm.sh', 'zero2.json', 'zero3.json']
    """
    return {file.name: file for file in sorted(_FOLDER.iterdir())}


def launch_file(name: str) -> Path:
    """Where one is.

    Raises:
        ConfigError: there is none of that name.

    Example:
        >>> launch_file("zero3.json").read_text().startswith("{")
        True
    """
    known = launch_files()
    if name not in known:
        raise ConfigError(f"There is no launch file '{name}'. {did_you_mean(name, known)}")
    return known[name]
