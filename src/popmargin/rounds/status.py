"""Where the stages of a plan stand, for a user."""

from collections.abc import Iterator
from pathlib import Path

from popmargin.rounds.plan import Plan
from popmargin.rounds.runner import states_of
from popmargin.study.sharing import LOCKS, claimed


def status_lines(plan: Plan, folder: Path) -> Iterator[str]:
    """A line for each stage: its standing, seconds, attempts, and what has changed."""
    states = states_of(plan, folder)
    width = max((len(name) for name in states), default=0)
    done = sum(state.standing == "finished" for state in states.values())
    yield f"{folder}: {done} of {len(states)} stages are finished"
    for name, state in states.items():
        manifest = state.manifest
        extra = ""
        if state.standing == "finished" and manifest is not None:
            extra = f"{manifest.seconds:.1f} s"
        elif state.standing == "begun":
            extra = "running in another process" if _is_held(folder, name) else "was stopped, and will go on"
        elif state.standing == "changed":
            extra = "; ".join(state.changes)
        said = str(state.people) if state.standing == "asking" else f"{state.standing:<8}  {extra}"
        yield f"  {name:<{width}}  {said}".rstrip()


def _is_held(folder: Path, name: str) -> bool:
    with claimed(folder / LOCKS / f"{name.replace('/', '--')}.lock", wait=False) as free:
        return not free
