"""What label commands import: no model library, and no library of data sets unless they read one."""

import json
import subprocess
import sys
from pathlib import Path

from label_stores import preferences

from popmargin.label.projects.open_project import open_project
from popmargin.label.store.label_store import LabelStore

CODE = """
import json, sys
from popmargin.cli.main import main
seen, slow = {}, ("torch", "transformers", "datasets")
for words in json.loads(sys.argv[1]):
    code = main(words)
    loaded = [name for name in slow if name in sys.modules and type(sys.modules[name]).__name__ != "_LazyModule"]
    seen[" ".join(words[1:3])] = [code, loaded]
print("\\n" + json.dumps(seen))
"""


def test_no_command_loads_more_than_it_needs(tmp_path: Path) -> None:
    """A judge behind a server, which does not answer here, needs no torch; nothing here reads a data set."""
    db = str(tmp_path / "labels.db")
    with LabelStore.open(db) as store:
        open_project(store, preferences(3), kind="preference", say=lambda line: None)
    judge = "judge:x@http://127.0.0.1:1/v1"
    commands = [
        ["label", "status", "--db", db],
        ["label", "annotators", "add", "ann", "--db", db],
        ["label", "backup", str(tmp_path / "copy.db"), "--db", db],
        ["label", "export", "--db", db, "--out", str(tmp_path / "labels.jsonl")],
        ["label", "judge", "--db", db, "--judge", judge, "--retries", "0", "--cache", str(tmp_path / "cache.jsonl")],
    ]
    done = subprocess.run([sys.executable, "-c", CODE, json.dumps(commands)], capture_output=True, text=True)
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen == {
        "status --db": [0, []],
        "annotators add": [0, []],
        f"backup {tmp_path / 'copy.db'}": [0, []],
        "export --db": [0, []],
        "judge --db": [2, []],
    }, done.stderr
