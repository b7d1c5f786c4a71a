"""A lead's month over the JSON API, with every figure of its report computed a second time.

Import, pilot, new guidelines, eight annotators of known quality of whom one clicks without reading, a judge,
adjudication, appended rows, export, training. The script knows every answer, since its annotators gave it, and compares
what the report says with `lead_month_figures.py`, which uses numpy alone. It prints the figures and exits with 1 if one
differs, or if the report has a number that is not computed again.

    python benchmarks/lead_month.py --rows 60 --more 20 --folder month
"""

import argparse
import json
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from lead_month_answers import VALUES, Answer
from lead_month_compare import beside, numbers
from lead_month_figures import criteria_figures, figures
from lead_month_models import calibrated_chances, pooled, soft_labels
from popmargin.cli.main import main as popmargin
from popmargin.label.store.database import Database
from popmargin.label.store.label_store import LabelStore
from popmargin.label.web.app import create_app
from popmargin.label.web.serve import listen, server_of

SKILLS = {"anna": 0.95, "ben": 0.92, "cleo": 0.9, "dora": 0.87, "emil": 0.84, "fred": 0.8, "gina": 0.75, "zack": 0.5}
"""Share of right answers; zack always takes the left response."""
TIES = 0.06
JUDGE = '''
def score(prompts, completions):
    """Reads the quality of a response, with an error that depends on its text alone."""
    return [int(text.split()[1]) + {error} * (sum(map(ord, text)) % {other} - {other} // 2) / 3 for text in completions]
'''
JUDGES = {"judge": JUDGE.format(error=40, other=7), "second": JUDGE.format(error=60, other=5)}
"""Two models, whose errors have little to do with each other."""


def rows_of(start: int, count: int, random: np.random.Generator) -> list[dict[str, str]]:
    """Rows whose texts say how good they are; the better one is chosen or rejected by chance."""
    rows: list[dict[str, str]] = []
    for number in range(start, start + count):
        good, bad = sorted((int(value) for value in random.choice(100, 2, replace=False)), reverse=True)
        texts = [f"quality {good} of {number}", f"quality {bad} of {number}"]
        chosen = int(random.integers(2))
        rows.append(
            {"id": f"r{number}", "prompt": f"Task {number}?", "chosen": texts[chosen], "rejected": texts[1 - chosen]}
        )
    return rows


def better(row: dict[str, str]) -> str:
    """The verdict that is true of a row."""
    return "first" if int(row["chosen"].split()[1]) > int(row["rejected"].split()[1]) else "second"


class Person:
    """An annotator's program: the API, a skill, and the log of what was answered."""

    def __init__(self, site: str, name: str, token: str, skill: float, month: "Month") -> None:
        self.client = httpx.Client(base_url=site, headers={"Authorization": f"Bearer {token}"}, timeout=300)
        self.name, self.skill, self.month = name, skill, month
        self.version: int | None = None
        self.seen: set[str] = set()
        self.given = 0

    def answer(self, *, adjudicated: bool = False) -> bool:
        """Answer the next task; False if there is none."""
        got = self.client.get("/api/next").raise_for_status().json()
        if got["guidelines"] is not None:
            self.version = got["guidelines"]["version"]
            self.client.post("/api/guidelines", json={"version": self.version}).raise_for_status()
        task = got["task"]
        if task is None:
            return False
        row = self.month.by_prompt[task["left"]["prompt"]]
        shown = [response["text"] for response in task["left"]["responses"]]
        verdict = self._verdict(row, shown)
        choice = "tie" if verdict == "tie" else "left" if row[SIDE[verdict]] == shown[0] else "right"
        self.given += 1
        body = {"assignment": task["assignment"], "choice": choice, "request": f"{self.name}-{self.given:06}"}
        self.client.post("/api/labels", json=body).raise_for_status()
        said = Answer(
            self.name, row["id"], verdict, choice == "left", self.version, row["id"] in self.seen, adjudicated,
            day=self.month.calendar.day,
        )  # fmt: skip
        self.month.log.append(said)
        self.seen.add(row["id"])
        return True

    def _verdict(self, row: dict[str, str], shown: list[str]) -> str:
        if self.name == "zack":
            return "first" if row["chosen"] == shown[0] else "second"
        random, true = self.month.random, better(row)
        if self.skill < 1 and random.random() < TIES:
            return "tie"
        return true if random.random() < self.skill else "second" if true == "first" else "first"


SIDE = {"first": "chosen", "second": "rejected"}


class Calendar:
    """The store's clock: a real one that the month moves on by days."""

    def __init__(self) -> None:
        self.ahead = timedelta(0)
        self.start = datetime(2026, 3, 2, 8, tzinfo=UTC) - datetime.now(UTC)

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.start + self.ahead

    def pass_days(self, days: int) -> None:
        """Go on with the labelling so many days later."""
        self.ahead += timedelta(days=days)

    @property
    def day(self) -> str:
        """Today, as the report writes it."""
        return self().date().isoformat()


class Month:
    """The lead's program."""

    def __init__(self, site: str, token: str, db: str, seed: int, calendar: Calendar) -> None:
        self.site, self.db, self.calendar = site, db, calendar
        self.lead = httpx.Client(base_url=f"{site}/api/lead", headers={"Authorization": f"Bearer {token}"}, timeout=300)
        self.random = np.random.default_rng(seed)
        self.by_prompt: dict[str, dict[str, str]] = {}
        self.log: list[Answer] = []
        self.people: dict[str, Person] = {}
        self.place = self.criteria = ""

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """A request of the lead; what is refused ends the script with the reason."""
        answer = self.lead.request(method, self.place + path, json=body)
        if answer.is_error:
            raise SystemExit(f"{method} {self.place}{path}: {answer.text}")
        return answer.json()

    def know(self, rows: list[dict[str, str]]) -> list[dict[str, str]]:
        """Rows that tasks will show."""
        self.by_prompt |= {row["prompt"]: row for row in rows}
        return rows

    def hire(self, name: str, skill: float) -> int:
        """Add a person; returns their number."""
        made = self.ask("POST", "/annotators", {"name": name})
        self.people[name] = Person(self.site, name, made["token"], skill, self)
        return made["id"]

    def label(self, most: int | None = None) -> None:
        """People answer in random order until nothing is left, or so many answers are there."""
        working = [name for name in self.people if name != "judith"]
        while working and (most is None or len(self.log) < most):
            name = working[int(self.random.integers(len(working)))]
            if not self.people[name].answer():
                working.remove(name)


def live(month: Month, rows: int, more: int, folder: Path) -> None:
    """All that happens in the month."""
    new = {"name": "month", "kind": "preference", "overlap": 3, "repeat_share": 0.1, "grades": False, "seed": 1}
    data = month.know(rows_of(0, rows, month.random))
    month.place = f"/projects/{month.ask('POST', '/projects', new | {'rows': data})['project']}"
    ids = {name: month.hire(name, SKILLS[name]) for name in ("anna", "zack")}
    for who in ids.values():  # the pilot
        month.ask("PATCH", f"/annotators/{who}", {"quota": 6})
    month.label()
    month.calendar.pass_days(3)
    month.ask("PUT", "/guidelines", {"text": "The **number** in a response says how good it is."})
    for who in ids.values():
        month.ask("PATCH", f"/annotators/{who}", {"quota": -1})
    ids |= {name: month.hire(name, skill) for name, skill in SKILLS.items() if name not in ids}
    month.label(most=rows * 2)
    habits = month.ask("GET", "/report")["habits"]
    worst = max(habits, key=lambda name: abs(2 * habits[name]["left"] - habits[name]["decided"]))
    assert worst == "zack", habits
    month.ask("PATCH", f"/annotators/{ids[worst]}", {"discarded": True})
    month.people.pop(worst).client.close()
    month.calendar.pass_days(5)
    month.label()
    for name, code in JUDGES.items():
        (folder / f"{name}_of_month.py").write_text(code, encoding="utf-8")
        judge = f"{folder / f'{name}_of_month.py'}:score"
        assert popmargin(["label", "judge", "--db", month.db, "--judge", judge, "--name", name]) == 0
        scores = _scores(code, [row[side] for row in data for side in SIDE.values()])
        for row in data:
            gap = scores[row["chosen"]] - scores[row["rejected"]]
            verdict = "tie" if gap == 0 else "first" if gap > 0 else "second"
            month.log.append(Answer(name, row["id"], verdict, False, None, model=True))
    judith = month.hire("judith", 1.0)
    month.ask("PATCH", f"/annotators/{judith}", {"adjudicator": True})
    while month.people["judith"].answer(adjudicated=True):
        pass
    month.calendar.pass_days(12)
    month.ask("POST", "/rows", {"rows": data[:3] + month.know(rows_of(rows, more, month.random))})
    month.label()
    judge_over_http(month)


def judge_over_http(month: Month) -> None:
    """A model of the lead's own, which gives its confidence, and is too sure of it."""
    labels: list[dict[str, Any]] = []
    for one in month.ask("GET", "/items?limit=1000"):
        row = next(row for row in month.by_prompt.values() if row["id"] == one["first"])
        gap = int(row["chosen"].split()[1]) - int(row["rejected"].split()[1]) + 60 * (one["item"] % 5 - 2) / 2
        verdict, sure = "first" if gap > 0 else "second", round(1 / (1 + math.exp(-abs(gap) / 10)), 6)
        number = one["item"]
        labels.append({"item": number, "verdict": verdict, "confidence": sure, "request": f"sure-{number:06}"})
        month.log.append(Answer("sure", row["id"], verdict, False, None, model=True, confidence=sure))
    month.ask("POST", "/judges", {"name": "sure", "labels": labels})


def ask_by_criteria(month: Month, rows: int) -> dict[str, list[tuple[str, str, str]]]:
    """A second project, with two questions about each task; criterion -> (who, row, verdict)."""
    data, place = month.know(rows_of(5000, rows, month.random)), month.place
    asked = [{"name": "short", "question": "Which is shorter?"}, {"name": "good", "question": "Which is better?"}]
    new = {"name": "criteria", "kind": "preference", "overlap": 2, "criteria": asked, "rows": data}
    month.place = ""
    month.criteria = f"/projects/{month.ask('POST', '/projects', new)['project']}"
    said: dict[str, list[tuple[str, str, str]]] = {"short": [], "good": []}
    for name, skill in (("hana", 0.9), ("ivo", 0.8), ("jane", 0.7)):
        month.place = month.criteria
        token = month.ask("POST", "/annotators", {"name": name})["token"]
        with httpx.Client(base_url=month.site, headers={"Authorization": f"Bearer {token}"}, timeout=300) as client:
            while (got := client.get("/api/next").raise_for_status().json())["task"] is not None:
                if got["guidelines"] is not None:
                    client.post("/api/guidelines", json={"version": got["guidelines"]["version"]}).raise_for_status()
                task, choices = got["task"], dict[str, str]()
                row = month.by_prompt[task["left"]["prompt"]]
                shown = [response["text"] for response in task["left"]["responses"]]
                for criterion, answers in said.items():
                    right = better(row) if month.random.random() < skill else "tie"
                    left = row[SIDE.get(right, "chosen")] == shown[0]
                    choices[criterion] = "tie" if right == "tie" else "left" if left else "right"
                    answers.append((name, row["id"], right))
                body = {"assignment": task["assignment"], "choices": choices, "request": f"{name}-{row['id']}-{0:06}"}
                client.post("/api/labels", json=body).raise_for_status()
    month.place = place
    return said


def _scores(code: str, texts: list[str]) -> dict[str, float]:
    made: dict[str, Any] = {}
    exec(code, made)
    return dict(zip(texts, made["score"](texts, texts), strict=True))


def compared(month: Month, folder: Path, base: str | None) -> list[tuple[str, float, float]]:
    """Figure, as the report or a file says, as computed here; a number of the report that is not computed differs."""
    report = month.ask("GET", "/report")
    project = month.ask("GET", "")
    month.log, table = measured(month)
    counting = [one for one in month.log if one.who != "zack"]
    whole, without = figures(month.log), figures(counting) | {"without": math.nan}
    table += beside(numbers({name: value for name, value in report.items() if name != "without"}), whole)
    table += [(f"without.{name}", *pair) for name, *pair in beside(numbers(report["without"]), without)]
    asked = [one for one in counting if not (one.model or one.repeat or one.adjudicated)]
    table.append(("labels_done", project["labels_done"], len(asked)))
    table.append(("items", project["items"], len(month.by_prompt)))
    said = ask_by_criteria(month, 12)
    answer = month.lead.get(f"{month.criteria}/report").raise_for_status().json()
    table += beside(numbers({"criteria": answer["criteria"]}), criteria_figures(said))
    table += _exported(month, counting, folder, base)
    return table


def measured(month: Month) -> tuple[list[Answer], list[tuple[str, float, float]]]:
    """The log with the numbers of items and the seconds that the server has measured, from the exported labels."""
    place = f"/api/lead{month.place}/export/history.jsonl"
    labels = [json.loads(line) for line in month.lead.get(f"{month.site}{place}").text.splitlines()]
    known = {(one["annotator"], one["first"], one["repeat_of"] is not None): one for one in labels}
    log: list[Answer] = []
    for one in month.log:
        own = known[one.who, one.row, one.repeat]
        seconds = math.nan if own["seconds"] is None else own["seconds"]
        log.append(replace(one, item=own["item"], seconds=seconds))
    return log, [("history", float(len(labels)), float(len(month.log)))]


def _exported(month: Month, counting: list[Answer], folder: Path, base: str | None) -> list[tuple[str, float, float]]:
    """Soft labels of the exported preferences, and the rows that training takes."""
    expected = soft_labels(counting)
    ties = sum(value == 0.5 for value in expected.values())
    file = folder / "preferences.jsonl"
    answer = month.lead.get(f"{month.site}/api/lead{month.place}/export/preferences.jsonl").raise_for_status()
    file.write_bytes(answer.content)
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    first = {row["id"]: row["chosen"] for row in month.by_prompt.values()}
    table = [("exported rows", float(len(rows)), float(len(expected) - ties))]
    for row in rows:
        turned = row["chosen"] != first[row["id"]]
        said = row["soft_label"]
        if said is None:  # a turned row says only that its new chosen response is better
            table.append((f"direction.{row['id']}", float(turned), float(expected[row["id"]] < 0.5)))
        else:
            table.append((f"soft_label.{row['id']}", 1 - said if turned else said, expected[row["id"]]))
    table += _pooled(month, counting, folder) + _calibrated(month, counting, folder)
    if base is not None:
        run = folder / "run"
        words = ["--model.path", base, "--data.train", str(file), "--objective.name", "cdpo", "--output", str(run)]
        words += ["--train.epochs", "1", "--train.batch_size", "8"]
        assert popmargin(["train", *words]) == 0
        account = json.loads((run / "run.json").read_text(encoding="utf-8"))["account"][0]
        table.append(("trained rows", float(account["rows_in"]), float(len(rows))))
    return table


def _pooled(month: Month, counting: list[Answer], folder: Path) -> list[tuple[str, float, float]]:
    """Soft labels pooled over people and models: people decide, and show how often each model is right."""
    file = folder / "pooled.jsonl"
    words = ["label", "export", "--db", month.db, "--project", "month", "--as", "preferences", "--pool", "dawid-skene"]
    assert popmargin([*words, "--adjudication", "ignore", "--out", str(file)]) == 0
    votes = [one for one in counting if not (one.repeat or one.adjudicated)]
    of_people = pooled([(one.row, one.who, one.verdict) for one in votes if not one.model])
    chances = pooled([(one.row, one.who, one.verdict) for one in votes if one.model], of_people) | of_people
    table: list[tuple[str, float, float]] = []
    first = {row["id"]: row["chosen"] for row in month.by_prompt.values()}
    for row in (json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()):
        if row["soft_label"] is not None:
            said = row["soft_label"] if row["chosen"] == first[row["id"]] else 1 - row["soft_label"]
            expected = chances[row["id"]]["first"] + chances[row["id"]].get("tie", 0.0) / 2
            table.append((f"pooled.{row['id']}", said, expected))
    return table


def _calibrated(month: Month, counting: list[Answer], folder: Path) -> list[tuple[str, float, float]]:
    """Soft labels with the chances that a model's confidences are worth, counted beside people's votes."""
    file, others = folder / "calibrated.jsonl", ("zack", *JUDGES)
    words = ["label", "export", "--db", month.db, "--project", "month", "--as", "preferences", "--calibrate"]
    words += ["--models", "equal", "--adjudication", "ignore", "--without", *others, "--out", str(file)]
    votes = [one for one in counting if not (one.repeat or one.adjudicated or one.who in JUDGES)]
    chances = calibrated_chances("sure", votes)
    if not chances:  # a month too short to calibrate, which the command says
        assert popmargin(words) == 2
        return []
    assert popmargin(words) == 0
    first = {row["id"]: row["chosen"] for row in month.by_prompt.values()}
    table: list[tuple[str, float, float]] = []
    for row in (json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()):
        if row["soft_label"] is not None:
            said = row["soft_label"] if row["chosen"] == first[row["id"]] else 1 - row["soft_label"]
            of_row = [one for one in votes if one.row == row["id"]]
            own = [chances[one.row] if one.model else (1 + VALUES[one.verdict]) / 2 for one in of_row]
            table.append((f"calibrated.{row['id']}", said, float(np.mean(own))))
    return table


@contextmanager
def served(store: LabelStore) -> Iterator[str]:
    """The annotator's server in a thread; gives its address."""
    with listen("127.0.0.1", 0) as listening:
        server = server_of(create_app(store))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(20)


def run(folder: Path, rows: int, more: int, seed: int, base: str | None) -> int:
    """The month, and the table; 1 if a figure differs."""
    folder.mkdir(parents=True, exist_ok=True)
    db = str(folder / "labels.db")
    if Path(db).exists():
        raise SystemExit(f"{db} exists. Give an empty --folder.")
    calendar = Calendar()
    with LabelStore(Database(db), clock=calendar) as store, served(store) as site:
        month = Month(site, store.api_tokens.add("lead", "lead")[1], db, seed, calendar)
        try:
            live(month, rows, more, folder)
            table = compared(month, folder, base)
        finally:
            for client in (month.lead, *(person.client for person in month.people.values())):
                client.close()
    wrong = 0
    print(f"{'figure':<48} {'report':>14} {'independent':>14}")
    for name, said, value in table:
        same = (math.isnan(said) and math.isnan(value)) or math.isclose(said, value, rel_tol=1e-7, abs_tol=1e-9)
        wrong += not same
        print(f"{name:<48} {said:>14.8g} {value:>14.8g}{'' if same else '  DIFFERS'}")
    print(f"{len(table)} figures, {wrong} of them different; {len(month.log)} answers")
    return int(wrong > 0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A lead's month over the API, checked figure by figure.")
    parser.add_argument("--rows", type=int, default=60, help="rows at first")
    parser.add_argument("--more", type=int, default=20, help="rows appended")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", help="train this base model on the export")
    parser.add_argument("--folder", type=Path, default=Path("month"), help="where the store and the files go")
    given = parser.parse_args()
    raise SystemExit(run(given.folder, given.rows, given.more, given.seed, given.model))
