"""Which preferences a run is evaluated on: those held out in training, or others on request."""

from dataclasses import dataclass, replace
from pathlib import Path

from popmargin.account import Step
from popmargin.config import DataConfig
from popmargin.data.goals import GoalFacts, asking
from popmargin.data.schema import Preferences
from popmargin.data.split import check_leak
from popmargin.errors import DataError, RunError, counted, first_few
from popmargin.training.account import reading_step
from popmargin.training.build import Run
from popmargin.training.fingerprints import Change, Record, Rows, prompt_digests
from popmargin.training.run_directory import RunDirectory
from popmargin.training.sides import load_side, read_split

_SHOWN = 5


@dataclass(frozen=True)
class HeldOut:
    """The data on which a run is evaluated.

    Attributes:
        preferences: the held-out preferences, in order.
        directory: the run, with the folder for the results.
        steps: the account of where they come from.
    """

    preferences: Preferences
    directory: RunDirectory
    steps: tuple[Step, ...]


def held_out(run: Run) -> HeldOut:
    """The preferences that a run is evaluated on.

    These are the ones held out in training, by id and content, even if the rest of the file has changed. With a
    `data.test` other than the run's own: all preferences in it, if none of its prompts was trained on; the results then
    go to a folder of their own, and no report mixes them with the run's.

    Args:
        run: as it is evaluated; see `Run.opened`.

    Raises:
        DataError: other data that shares prompts with the training data.
        RunError: the held-out preferences have changed.
    """
    directory, data = run.directory, run.data
    own = run.as_trained.data
    record, goal = Record.load(directory.path), goal_of_run(directory)
    if data.test != own.test and data.test is not None:
        return _others(directory, data, own, record, goal)
    if record is None:
        note = f"{directory.path} was made by an older version, which kept no record of its rows; the split is redone"
        split = read_split(data)
        if split.test.fingerprint() != directory.facts()["test_fingerprint"]:
            raise RunError(
                f"{directory.path} cannot be evaluated on its held-out preferences: {split.test.report.source} has "
                f"changed since training. Restore it, or evaluate on other data with --data.test FILE."
            )
        steps = [*split.steps[:-1], replace(split.steps[-1], notes=(*split.steps[-1].notes, note))]
        return HeldOut(split.test, directory, tuple(steps))
    return _recorded(directory, data, record, goal)


def goal_of_run(directory: RunDirectory) -> GoalFacts | None:
    """What a run was trained to be asked for; None where its data had no goals.

    Raises:
        RunError: the run has not finished.
    """
    stored = directory.facts().get("goal")
    return None if stored is None else GoalFacts.from_dict(stored)


def _recorded(directory: RunDirectory, data: DataConfig, record: Record, goal: GoalFacts | None) -> HeldOut:
    # Validation preferences replace the held-out ones, and come from the training file.
    split_off = data.test is None or data.validation_size > 0
    everything = asking(load_side(data, "train" if split_off else "test"), goal)
    stored, now = record.sides["test"], Rows.of(everything)
    place = {name: number for number, name in enumerate(now.ids)}
    gone = [name for name in stored.ids if name not in place]
    edited = [
        name for name, content in stored.by_id().items() if name in place and now.contents[place[name]] != content
    ]
    source = everything.report.source
    if gone or edited:
        raise RunError(
            f"{directory.path} cannot be evaluated on its held-out preferences: of {len(stored)}, "
            f"{Change(gone, [], edited)} in {source} now. Restore the file, or evaluate on other data with "
            f"--data.test FILE."
        )
    known = set(stored.ids) | ({*record.sides["train"].ids, *record.sides["aside"].ids} if split_off else set())
    new = [name for name in now.ids if name not in known]
    notes = ["held out when the run was trained, matched by id and content"]
    if new:
        notes.append(
            f"{source} has {counted(len(new), 'preference')} added since ({first_few(new)}); they are not measured"
        )
    if split_off:
        notes += _of_training(record.sides["train"], now, source)
    notes += _asked(goal)
    others = len(everything) - len(stored)
    step = Step(
        name="held out by the run",
        rows_in=len(everything),
        kept={"held out": len(stored)},
        left_out={"trained on, set aside, or added after training": others} if others else {},
        notes=tuple(notes),
    )
    chosen = everything.select([place[name] for name in stored.ids])
    return HeldOut(chosen, directory, (reading_step(everything.report), step))


def _asked(goal: GoalFacts | None) -> list[str]:
    return [] if goal is None else [f"{goal.note()}; rows that carry a goal keep it"]


def _of_training(trained: Rows, now: Rows, source: str) -> list[str]:
    """What has happened to the training preferences since; flipped labels are different content."""
    gone = [name for name in trained.ids if name not in set(now.ids)]
    return [f"{source} lacks {counted(len(gone), 'training preference')} ({first_few(gone)})"] if gone else []


def _others(
    directory: RunDirectory, data: DataConfig, own: DataConfig, record: Record | None, goal: GoalFacts | None
) -> HeldOut:
    preferences = asking(load_side(data, "test"), goal)
    source = preferences.report.source
    if record is not None and not Change.between(record.sides["test"], Rows.of(preferences)):
        return _recorded(directory, data, record, goal)  # the same ones from another place
    if record is None:
        check_leak(read_split(own).train, preferences)
    else:
        _refuse_leak(record.sides["train"], preferences)
    folder = f"evaluation-{Path(str(data.test)).stem}-{preferences.fingerprint()[:8]}"
    step = Step(
        name="other data, given for this evaluation",
        rows_in=len(preferences),
        kept={"held out": len(preferences)},
        notes=(f"no prompt in {source} was trained on; the results go to {directory.path / folder}", *_asked(goal)),
    )
    return HeldOut(preferences, replace(directory, measured=folder), (reading_step(preferences.report), step))


def _refuse_leak(trained: Rows, test: Preferences) -> None:
    first = dict(reversed(list(zip(trained.prompts, trained.ids, strict=True))))
    leaks = [(name, first[prompt]) for name, prompt in zip(test.ids, prompt_digests(test), strict=True)
             if prompt in first]  # fmt: skip
    if leaks:
        shown = "\n".join(f"  {ours} has the prompt of {theirs}" for ours, theirs in leaks[:_SHOWN])
        more = f"\n  … and {len(leaks) - _SHOWN} more" if len(leaks) > _SHOWN else ""
        raise DataError(
            f"{test.report.source}: {len(leaks)} of {counted(len(test), 'preference')} have a prompt that the run was "
            "trained "
            f"on:\n{shown}{more}\nRemove them, or use other data."
        )


def check_models(directory: RunDirectory, facts: dict[str, str]) -> None:
    """Check that start model, tokenizer and code are those the run was trained with.

    Args:
        directory: the run.
        facts: the current fingerprints.

    Raises:
        RunError: one differs; the message says which.
    """
    record = Record.load(directory.path)
    if record is None:
        return
    wrong = [name for name, value in facts.items() if record.facts.get(name) not in (None, value)]
    if wrong:
        raise RunError(
            f"{directory.path} was trained with different inputs. Changed: {'; '.join(sorted(wrong))}. Restore it. If "
            "a model has moved, give its new place with --model.path; to use another reward file, name it with "
            f"--evaluation.reward.{directory.says_where_code_is()}"
        )
