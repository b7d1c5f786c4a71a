"""Plans of stages: what is finished stays, what was killed goes on, what changed is refused."""

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from popmargin.errors import ConfigError, DataError, RunError
from popmargin.rounds import Plan, Work, run_plan
from popmargin.rounds.runner import states_of


def lines(work: Work) -> dict[str, int]:
    """Writes a number a line, one after the other, and goes on where it was killed."""
    part = work.folder / "part.txt"
    written = part.read_text().splitlines() if part.is_file() else []
    count, pause = work.settings["count"], work.settings.get("pause", 0.0)
    for number in range(len(written), count):
        time.sleep(pause)
        with part.open("a") as file:
            file.write(f"{number}\n")
    part.replace(work.outputs["lines"])
    with (work.folder.parent / "served.txt").open("a") as file:
        file.write(f"{work.folder.name} {os.getpid()}\n")
    return {"written_now": count - len(written)}


def joined(work: Work) -> None:
    text = "".join(path.read_text() for _, path in sorted(work.inputs.items()))
    work.outputs["text"].write_text(text + work.settings.get("end", ""))


def example(source: Path, *, count: int = 3, pause: float = 0.0, end: str = "") -> Plan:
    plan = Plan()
    parts = [
        plan.add(f"round-{r}", lines, settings={"count": count + r, "pause": pause}, outputs={"lines": "lines.txt"})
        for r in range(2)
    ]
    inputs = {f"part-{r}": part["lines"] for r, part in enumerate(parts)}
    plan.add("all/join", joined, inputs=inputs | {"source": source}, settings={"end": end}, outputs={"text": "all.txt"})
    return plan


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source.txt"
    path.write_text("s\n")
    return path


def test_finished_stages_are_kept(tmp_path: Path, source: Path) -> None:
    folder = tmp_path / "out"
    said: list[str] = []
    manifests = run_plan(example(source), folder, say=said.append)
    assert (folder / "all/join/all.txt").read_text() == "0\n1\n2\n" + "0\n1\n2\n3\n" + "s\n"
    assert said == ["[1/3] round-0", "[2/3] round-1", "[3/3] all/join"]
    assert manifests["round-1"].facts == {"written_now": 4}
    assert not list(folder.rglob("begun.json"))
    said.clear()
    again = run_plan(example(source), folder, say=said.append)
    assert said == []
    assert again == manifests


def test_until_a_stage(tmp_path: Path, source: Path) -> None:
    folder = tmp_path / "out"
    run_plan(example(source), folder, until="round-0", say=lambda _: None)
    states = states_of(example(source), folder)
    assert {name: state.standing for name, state in states.items()} == {
        "round-0": "finished", "round-1": "ready", "all/join": "waiting",
    }  # fmt: skip
    assert [stage.name for stage in example(source).until("all")] == ["round-0", "round-1", "all/join"]
    with pytest.raises(ConfigError, match=r"no stage 'round-3'.*round-"):
        run_plan(example(source), folder, until="round-3")


def test_a_killed_stage_goes_on(tmp_path: Path, source: Path) -> None:
    """A process is killed while it is at a stage; the next one does what is left, and ends with the same file."""
    folder = tmp_path / "out"
    process = multiprocessing.get_context("fork").Process(
        target=run_plan, args=(example(source, count=40, pause=0.02), folder), kwargs={"say": print}
    )
    process.start()
    part = folder / "round-0/part.txt"
    while not part.is_file() or len(part.read_text()) < 4:
        time.sleep(0.01)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert states_of(example(source, count=40, pause=0.02), folder)["round-0"].standing == "begun"
    said: list[str] = []
    manifests = run_plan(example(source, count=40, pause=0.02), folder, say=said.append)
    assert said[0] == "[1/3] round-0, going on"
    assert 0 < manifests["round-0"].facts["written_now"] < 40
    assert manifests["round-0"].attempts == 2
    assert (folder / "round-0/lines.txt").read_text() == "".join(f"{n}\n" for n in range(40))


def test_processes_share_the_stages(tmp_path: Path, source: Path) -> None:
    folder = tmp_path / "out"
    plan = example(source, count=10, pause=0.02)
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=run_plan, args=(plan, folder), kwargs={"say": print}) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    served = [line.split() for line in (folder / "served.txt").read_text().splitlines()]
    assert sorted(name for name, _ in served) == ["round-0", "round-1"]  # each once
    assert len({process for _, process in served}) == 2  # at the same time


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("settings", "count was 3, now 5"),
        ("input", "the input 'source' has changed"),
        ("output", "is not what the stage wrote"),
        ("gone", "is missing"),
        ("code", "it is done by"),
    ],
)
def test_what_changed_is_refused(tmp_path: Path, source: Path, change: str, sentence: str) -> None:
    folder = tmp_path / "out"
    run_plan(example(source), folder, say=lambda _: None)
    count, name = 3, "round-0"
    plan = example(source)
    if change == "settings":
        plan = example(source, count=5)
    elif change == "input":
        source.write_text("other\n")
        name = "all/join"
    elif change == "output":
        (folder / "round-1/lines.txt").write_text("7\n")
        name = "round-1"
    elif change == "gone":
        (folder / "round-1/lines.txt").unlink()
        name = "round-1"
    else:
        manifest = folder / "round-0/manifest.json"
        values = json.loads(manifest.read_text())
        manifest.write_text(json.dumps(values | {"function": "elsewhere.lines"}))
    before = {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    with pytest.raises(RunError, match=f"(?s)Stage '{name}'.*{sentence}.*--overwrite"):
        run_plan(plan, folder, say=lambda _: None)
    assert before == {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    said: list[str] = []
    run_plan(plan, folder, overwrite=True, say=said.append)
    assert f"{name}" in said[0]
    expected = "0\n1\n2\n3\n4\n0\n1\n2\n3\n4\n5\n" if change == "settings" else "0\n1\n2\n0\n1\n2\n3\n"
    assert (folder / "all/join/all.txt").read_text() == expected + source.read_text()
    repeated = {"settings": 3, "input": 1, "output": 1, "gone": 1, "code": 1}[change]
    assert len(said) == repeated  # what comes out the same has no consequences
    assert count == 3


def test_a_stage_that_fails_says_which(tmp_path: Path) -> None:
    def fails(work: Work) -> None:
        raise DataError("rows.jsonl, row 3: no prompt.")

    plan = Plan()
    plan.add("round-1/pair", fails, outputs={"rows": "rows.parquet"})
    with pytest.raises(DataError, match=r"stage 'round-1/pair': rows\.jsonl, row 3"):
        run_plan(plan, tmp_path / "out", say=lambda _: None)
    silent = Plan()
    silent.add("pair", lambda work: None, outputs={"rows": "rows.parquet"})
    with pytest.raises(RunError, match="did not write"):
        run_plan(silent, tmp_path / "other", say=lambda _: None)


def test_plans_are_checked(tmp_path: Path, source: Path) -> None:
    plan = Plan()
    first = plan.add("round-1/sample", lines, settings={"count": 1}, outputs={"lines": "lines.txt"})
    for name, sentence in (("Round 1", "cannot name"), ("round-1", "share the folder"), ("../up", "cannot name")):
        with pytest.raises(ConfigError, match=sentence):
            plan.add(name, lines)
    with pytest.raises(ConfigError, match="comes from 'elsewhere', which is not planned"):
        plan.add("b", lines, inputs={"x": Plan().add("elsewhere", lines, outputs={"o": "o"})["o"]})
    with pytest.raises(ConfigError, match=r"writes no 'line'.*lines"):
        _ = first["line"]
    with pytest.raises(ConfigError, match="not JSON"):
        plan.add("c", lines, settings={"count": {1, 2}})
    with pytest.raises(RunError, match="No such file"):
        missing = Plan()
        missing.add("join", joined, inputs={"x": tmp_path / "missing.txt"}, outputs={"text": "t"})
        run_plan(missing, tmp_path / "out", say=lambda _: None)
    with pytest.raises(RunError, match="not empty, and not a folder of rounds"):
        run_plan(plan, source.parent)


def test_finished_stages_are_taken_from_another_folder_where_they_are_the_same(tmp_path: Path, source: Path) -> None:
    first, second, said = tmp_path / "first", tmp_path / "second", list[str]()
    run_plan(example(source), first, say=said.append)
    (first / "round-1/lines.txt").write_text("edited since\n")
    said.clear()
    (second / ".round-0.1.part").mkdir(parents=True)  # of a copy that was killed
    (second / "plan.txt").touch()
    manifests = run_plan(example(source, end="."), second, reuse=[first], say=said.append)
    assert said == [f"[1/3] round-0, taken from {first}", "[2/3] round-1", "[3/3] all/join"]
    assert [manifests[name].taken_from for name in ("round-0", "round-1")] == [str(first), ""]
    assert (second / "all/join/all.txt").read_text() == "0\n1\n2\n" + "0\n1\n2\n3\n" + "s\n" + "."
    assert not list(second.glob("**/*.part"))
    said.clear()
    run_plan(example(source, end="."), second, say=said.append)  # it stays finished without the other folder
    assert said == []
    with pytest.raises(RunError, match="not a folder of rounds"):
        run_plan(example(source), tmp_path / "third", reuse=[tmp_path])
    (first / "round-0" / "manifest.json").write_text("{")  # says nothing of its stage, which is done here
    said.clear()
    run_plan(example(source), tmp_path / "third", reuse=[first], say=said.append)
    assert said[0] == "[1/3] round-0"
