"""popmargin label language, and --language: texts are written, translated, checked and given to a project."""

import json
from pathlib import Path

import pytest

from popmargin.cli.main import main
from popmargin.label.language.page_texts import shipped
from popmargin.label.store.label_store import LabelStore


def test_texts_are_written_checked_and_given_to_a_project(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["label", "language", "--of", "de"]) == 0
    assert "skip: Überspringen" in capsys.readouterr().out
    assert main(["label", "language", "--write", "fr.yaml"]) == 0
    assert main(["label", "language", "--write", "fr.yaml"]) == 2
    assert "fr.yaml exists already" in capsys.readouterr().err
    text = Path("fr.yaml").read_text(encoding="utf-8").replace("lang: en\n", "lang: fr\n")
    Path("fr.yaml").write_text(text.replace("skip: Skip\n", "skip: Passer\n"), encoding="utf-8")
    assert main(["label", "language", "--check", "fr.yaml"]) == 0
    said = capsys.readouterr().out
    assert f"language fr, {len(shipped('en').by_key)} texts, complete" in said
    assert "as in English: dir, to_the_task" in said
    rows = [{"prompt": f"{i}?", "chosen": "a", "rejected": "b"} for i in range(3)]
    Path("data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ["label", "import", "data.jsonl", "--kind", "preference", "--db", "labels.db"]
    assert main([*command, "--language", "no.yaml"]) == 2
    assert "--language no.yaml: there is no such file" in capsys.readouterr().err and not Path("labels.db").exists()
    assert main([*command, "--language", "de"]) == 0
    assert main([*command, "--language", "fr.yaml"]) == 2
    assert "has other texts of its pages" in capsys.readouterr().err
    assert main(["label", "set", "--db", "labels.db", "--language", "fr.yaml"]) == 0
    said, err = capsys.readouterr()
    assert "language fr" in said and "language de → fr" in said and "guidelines stay as they were written" in err
    with LabelStore.open("labels.db") as store:
        project = store.project()
        assert project.guidelines.startswith("Sie sehen eine Anfrage") and '"skip": "Passer"' in project.language
    Path("fr.yaml").write_text(text.replace("{number}", "{nombre}"), encoding="utf-8")
    assert main(["label", "set", "--db", "labels.db", "--language", "fr.yaml"]) == 2
    assert "task: the place {number} is missing. In English: Task {number}" in capsys.readouterr().err
