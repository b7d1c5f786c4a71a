"""Running the rounds of a configuration, and writing their report."""

from collections.abc import Sequence
from pathlib import Path

from popmargin.config import dump_yaml, to_dict
from popmargin.errors import ConfigError, PopmarginError
from popmargin.files import whole_file
from popmargin.models.policies import process_count
from popmargin.rounds.page import write_rounds_report
from popmargin.rounds.plan import Plan
from popmargin.rounds.rounds_config import RoundsConfig
from popmargin.rounds.runner import run_plan, states_of
from popmargin.study.sharing import LOCKS, claimed


def run_rounds(
    config: RoundsConfig,
    plan: Plan,
    *,
    until: str | None = None,
    overwrite: bool = False,
    reuse: Sequence[Path] = (),
) -> Path:
    """Run the stages that are not finished, and write the report of all that are, also when it ends before the last.

    Args:
        config: of the rounds.
        plan: its stages (`popmargin.recipes.base.plan_of`).
        until: the last stage to run.
        overwrite: repeat stages whose inputs or settings have changed.
        reuse: folders of other rounds, whose finished stages are taken where they are the same.

    Returns:
        The path of the HTML report.

    Raises:
        ConfigError, DataError, RunError, WaitingError: see `run_plan`.
    """
    if process_count() > 1:
        raise ConfigError(
            "rounds does not run under torchrun. Start the same command several times, once per GPU: the processes "
            "share the stages."
        )
    folder = Path(config.output)
    try:
        run_plan(plan, folder, until=until, overwrite=overwrite, reuse=reuse)
    except (PopmarginError, KeyboardInterrupt):
        if _is_as_planned(plan, folder):  # a stage failed or was stopped, or people have to answer
            _report(config, plan, folder)
        raise
    return _report(config, plan, folder)


def _is_as_planned(plan: Plan, folder: Path) -> bool:
    """Whether some stage is finished, and none differs from the plan."""
    try:
        standings = {state.standing for state in states_of(plan, folder).values()}
    except PopmarginError:
        return False
    return "finished" in standings and "changed" not in standings


def _report(config: RoundsConfig, plan: Plan, folder: Path) -> Path:
    with claimed(folder / LOCKS / "report.lock", wait=True):
        with whole_file(folder / "rounds.yaml") as partial:
            partial.write_text(dump_yaml(to_dict(config)), encoding="utf-8")
        return write_rounds_report(config, plan, folder)
