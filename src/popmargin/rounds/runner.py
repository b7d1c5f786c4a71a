"""Runs a plan: finished stages are kept, a killed one goes on, changed ones are refused, processes share the work."""

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from popmargin.errors import PopmarginError, RunError, WaitingError
from popmargin.files import whole_file
from popmargin.rounds.manifest import BEGUN, FINISHED, MARK, Manifest, State, fingerprint, state_of, where
from popmargin.rounds.plan import Plan, Stage, Work
from popmargin.rounds.reuse import check_reused, is_plan, take_finished
from popmargin.study.sharing import LOCKS, claimed
from popmargin.training.run_directory import versions
from popmargin.user_code import running


def say(message: str) -> None:
    """Progress for a user, on stderr so that stdout stays clean."""
    print(message, file=sys.stderr, flush=True)


def run_plan(
    plan: Plan,
    folder: str | Path,
    *,
    until: str | None = None,
    overwrite: bool = False,
    reuse: Sequence[Path] = (),
    say: Callable[[str], None] = say,
) -> dict[str, Manifest]:
    """Do all stages that are not finished.

    A stage that was killed is called again, in its folder as it was left. Several processes can run the same plan in
    the same folder: each takes a stage whose inputs are there.

    Args:
        plan: the stages.
        folder: of the plan; made when missing.
        until: the last stage to do; None does all.
        overwrite: delete and repeat stages whose inputs or settings have changed, and go on from there.
        reuse: folders of other plans; a finished stage of the same name, inputs and settings is copied from there.
        say: is told what happens.

    Returns:
        The manifests of the finished stages, by name.

    Raises:
        ConfigError: there is no stage `until`.
        RunError: a finished or begun stage is not what is planned, a stage fails or does not write its outputs, or the
            folder holds something else.
        WaitingError: nothing is left to do before people have answered.

    Example:
        >>> plan = Plan()
        >>> write = plan.add("write", lambda work: work.outputs["text"].write_text("hi") and None,
        ...                  outputs={"text": "text.txt"})
        >>> run_plan(plan, "runs/hi", say=print)["write"].outputs.keys()
        [1/1] write
        dict_keys(['text'])
    """
    folder, stages = Path(folder), plan.until(until)
    _check_folder(folder)
    check_reused(reuse)
    if not overwrite:
        refuse_changed(states_of(plan, folder))
    with whole_file(folder / MARK) as unfinished:
        unfinished.write_text("".join(f"{stage.name}\n" for stage in plan), encoding="utf-8")
    places = {stage.name: place for place, stage in enumerate(stages, 1)}
    while True:
        states = states_of(stages, folder)
        left = [stage for stage in stages if states[stage.name].standing != "finished"]
        if not left:
            return {name: state.manifest for name, state in states.items() if state.manifest is not None}
        able = [stage for stage in left if states[stage.name].standing not in ("waiting", "asking")]
        if not able:
            raise WaitingError(next(waiting_lines(states)))
        attempt = partial(_try, folder=folder, places=places, overwrite=overwrite, reuse=reuse, say=say)
        done = [stage for stage in able if attempt(stage, wait=False)]
        if not done:  # other processes are at all of them
            attempt(able[0], wait=True)


def states_of(stages: Plan | Sequence[Stage], folder: Path) -> dict[str, State]:
    """Where each stage stands."""
    finished: set[str] = set()
    states: dict[str, State] = {}
    for stage in stages:
        states[stage.name] = state = state_of(stage, folder, finished)
        finished |= {stage.name} if state.standing == "finished" else set()
    return states


def waiting_lines(states: dict[str, State]) -> Iterator[str]:
    """A sentence for each stage that waits for people."""
    for name, state in states.items():
        if state.standing == "asking" and state.people is not None:
            yield f"{name}: {state.people}. {state.people.how}"


def refuse_changed(states: dict[str, State]) -> None:
    """Before any work: what lies in the folder must be what is planned.

    Raises:
        RunError: it names the stage and what differs.
    """
    for name, state in states.items():
        if state.standing == "changed":
            raise RunError(
                f"Stage '{name}' is not what is planned now:\n"
                + "".join(f"  {change}\n" for change in state.changes)
                + "Choose another folder (--output), or pass --overwrite to repeat this stage and those that follow "
                "from it."
            )


def _check_folder(folder: Path) -> None:
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not is_plan(folder):
        raise RunError(f"{folder} is not empty, and not a folder of rounds. Choose another one.")


def _try(
    stage: Stage,
    *,
    folder: Path,
    places: dict[str, int],
    overwrite: bool,
    reuse: Sequence[Path],
    say: Callable[[str], None],
    wait: bool,
) -> bool:
    """Do a stage unless another process is at it; says whether it was done here."""
    with claimed(folder / LOCKS / f"{stage.name.replace('/', '--')}.lock", wait=wait) as mine:
        if not mine:
            return False
        before = {value.stage for value in stage.inputs.values() if not isinstance(value, Path)}
        state = state_of(stage, folder, before)  # another process may have finished it by now
        if state.standing in ("finished", "asking"):
            return False
        if state.standing == "changed":
            if not overwrite:
                refuse_changed({stage.name: state})
            shutil.rmtree(folder / stage.name)
            state = replace(state, manifest=None)
        place = f"[{places[stage.name]}/{len(places)}] {stage.name}"
        if state.manifest is None and (other := take_finished(stage, state, folder, reuse)) is not None:
            say(f"{place}, taken from {other}")
            return True
        say(place if state.manifest is None else f"{place}, going on")
        _do(stage, folder, state, say)
        return True


def _check_facts(facts: dict[str, Any]) -> None:
    try:
        json.dumps(facts)
    except (TypeError, ValueError) as error:
        raise RunError(f"it returned facts that are not JSON ({error}). Return plain numbers and texts.") from error


def _do(stage: Stage, folder: Path, state: State, say: Callable[[str], None]) -> None:
    own = folder / stage.name
    if state.planned is None:
        raise AssertionError(f"stage '{stage.name}' has no inputs yet")
    begun = replace(
        state.planned,
        versions=versions(),
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        attempts=1 + (state.manifest.attempts if state.manifest is not None else 0),
    )
    begun.save(own / BEGUN)
    outputs = {name: own / path for name, path in stage.outputs.items()}
    inputs = {name: where(value, folder) for name, value in stage.inputs.items()}
    started = time.perf_counter()
    try:
        with running("function"):
            facts = dict(stage.function(Work(own, inputs, stage.settings, outputs, say, stage.how)) or {})
            _check_facts(facts)
    except PopmarginError as error:
        raise type(error)(f"stage '{stage.name}': {error}") from error
    missing = [path for path in outputs.values() if not path.exists()]
    if missing:
        raise RunError(f"stage '{stage.name}' did not write {missing[0]}.")
    seconds = round(time.perf_counter() - started, 3)
    made = {name: fingerprint(path) for name, path in outputs.items()}
    replace(begun, outputs=made, facts=facts, seconds=seconds).save(own / FINISHED)
    (own / BEGUN).unlink()
