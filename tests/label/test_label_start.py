"""What label commands import: no model library, and no library of data sets unless they read one."""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest
from label_stores import preferences

from popmargin.cli.label import VERBS
from popmargin.cli.main import build_parser, main
from popmargin.label.projects.open_project import open_project
from popmargin.label.store.label_store import LabelStore

CODE = """
import json, sys
from popmargin.cli.main import main
seen, slow = {}, json.loads(sys.argv[2])
for words in json.loads(sys.argv[1]):
    before = set(sys.modules)
    code = main(words)
    loaded = [name for name in slow if name in sys.modules and type(sys.modules[name]).__module__ != "importlib.util"]
    verbs = [name for name in set(sys.modules) - before if name.startswith("popmargin.cli.label_")]
    seen[" ".join(words[1:3] if words[1] == "annotators" else words[1:2])] = [code, loaded, verbs]
print("\\n" + json.dumps(seen))
"""


HEAVY = ("torch", "transformers", "datasets", "peft", "accelerate", "pandas", "scipy", "matplotlib", "jinja2",
         "fastapi", "uvicorn", "alembic")  # fmt: skip
WITH_LABELS = ["pandas", "scipy"]
"""What Arrow itself loads where tables of labels are read."""
MAY_LOAD: dict[str, list[str]] = {
    "status": [],
    "set": [],
    "guidelines": [],
    "language": [],
    "annotators add": [],
    "annotators list": [],
    "annotators admit": [],
    "annotators adjudicate": [],
    "annotators quota": [],
    "annotators lead": [],
    "annotators weight": [],
    "annotators deactivate": [],
    "annotators activate": [],
    "annotators token": [],
    "annotators discard": [],
    "annotators forget": [],
    "token": [],
    "backup": [],
    "export": WITH_LABELS,
    "judge": WITH_LABELS,
    "next": [*WITH_LABELS, "jinja2"],
    "report": [*WITH_LABELS, "jinja2"],
}
"""Command -> the heavy modules that it may import; those before it in the list have run in the same process."""
NEED_MORE = {
    "import": "reads a data set",
    "import-labels": "reads a file of labels",
    "ask": "fits a scale",
    "assign": "chooses items by the columns of the data",
    "rank": "asks judges about a data set",
}
"""Commands that have to load what they work with."""


def test_no_command_loads_more_than_it_needs(tmp_path: Path) -> None:
    """A judge behind a server, which does not answer here, needs no torch; nothing here reads a data set."""
    db = str(tmp_path / "labels.db")
    with LabelStore.open(db) as store:
        open_project(store, preferences(3), kind="preference", say=lambda line: None)
    more = {
        "backup": [str(tmp_path / "copy.db")],
        "export": ["--out", str(tmp_path / "labels.jsonl")],
        "judge": [
            "--judge",
            "judge:x@http://127.0.0.1:1/v1",
            "--retries",
            "0",
            "--cache",
            str(tmp_path / "cache.jsonl"),
        ],
        "report": ["--out", str(tmp_path / "report.html")],
        "language": ["--of", "de"],
        "annotators list": [],
        "annotators weight": ["ann", "--to", "0.5"],
        "token": ["list"],
    }
    commands = []
    for name in MAY_LOAD:
        person = ["ann"] if name.startswith("annotators") else []
        where = [] if name == "language" else ["--db", db]  # a language is of no project
        commands.append(["label", *name.split(), *more.get(name, person), *where])
    words = [sys.executable, "-c", CODE, json.dumps(commands), json.dumps(HEAVY)]
    done = subprocess.run(words, capture_output=True, text=True)
    seen = json.loads(done.stdout.splitlines()[-1])
    assert {name: code for name, (code, _, _) in seen.items() if code} == {"judge": 2}, done.stderr
    too_much = {name: set(loaded) - set(MAY_LOAD[name]) for name, (_, loaded, _) in seen.items()}
    assert {name: more for name, more in too_much.items() if more} == {} and list(seen) == list(MAY_LOAD)
    own = {name: f"popmargin.cli.label_{name.split()[0]}" for name in seen}
    assert [name for name, (_, _, verbs) in seen.items() if set(verbs) - {own[name]}] == []
    assert sum(len(verbs) for _, _, verbs in seen.values()) == len(set(own.values()))


def test_help_and_completion_know_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing of a command is imported for the list of them, and all of it for what a shell completes."""
    action = next(found for found in label_parser()._actions if found.dest == "label_verb")
    assert list(action.choices) == list(VERBS) and "unknown" not in action.choices
    with pytest.raises(SystemExit):
        main(["label", "status", "--help"])
    said = capsys.readouterr().out
    assert "usage: popmargin label status [-h]" in said and "Show the progress of projects and annotators." in said
    with pytest.raises(SystemExit):
        main(["label", "statsu"])
    assert "Did you mean 'status'?" in capsys.readouterr().err
    assert main(["label", "status", "--jsn"]) == 2
    assert "Did you mean '--json'?" in capsys.readouterr().err
    assert main(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    assert "--lease-minutes" in script and "_label_import_labels" in script


def label_parser() -> argparse.ArgumentParser:
    return next(action for action in build_parser(["label"])._actions if action.dest == "verb").choices["label"]


def test_every_command_is_accounted_for() -> None:
    label = next(action for action in label_parser()._actions if action.dest == "label_verb").choices
    people = next(action for action in label["annotators"]._actions if action.dest == "annotators_verb").choices
    known = {*(name for name in label if name != "annotators"), *(f"annotators {name}" for name in people)}
    assert known == MAY_LOAD.keys() | NEED_MORE.keys()
