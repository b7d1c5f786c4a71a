"""The rooms of the house: imports go down, modules form no circle, and a file's name says what it holds.

Imports inside functions and under TYPE_CHECKING count like all others.
"""

import ast
import itertools
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import popmargin

SOURCE = Path(popmargin.__file__).parent
ROOT = SOURCE.parents[1]
ARCHITECTURE = ROOT / "docs" / "architecture.md"

ROOMS = [
    "errors", "files", "safe_reading", "listed_files", "yaml_file", "bounds", "account", "user_files",
    "code_permission", "user_code", "config_names",
    "config", "registry",
    "statistics",
    "data",
    "pop",
    "recommend",
    "margin", "objectives", "regularizers", "tokens", "margin_sources",
    "kernels", "engine", "models", "demo",
    "generate",
    "judges", "rewards",
    "tasks", "training", "evaluation",
    "report", "study",
    "label", "edge_sources",
    "rounds", "recipes",
    "losses", "api",
    "cli", "__main__",
]  # fmt: skip
"""From bottom to top: a room imports only from rooms before it. A new module or package needs its place here."""

TYPES_FROM_ABOVE: dict[tuple[str, str], str] = {}
"""(module, module of a room above it) -> why its type must be named there; under TYPE_CHECKING alone."""

SAME_NAME = {
    "__init__.py": "Python's name for a package",
    "base.py": "what a component of the room is, and its registry",
    "load.py": "from a specification to what it names: preferences, a reward, a labeller",
    "run.py": "one run: its configuration, its training, its evaluation",
    "preferences.py": "preferences: the settings of reading them, and their export from a label store",
    "account.py": "what rows went through: one step, those of a run",
    "head.py": "the language model's head on completion tokens, and its kernel",
    "compare.py": "the verb, and the study that it runs",
    "schema.py": "a schema: of preferences, and the verb that prints the configuration's",
    "responses.py": "several responses to a prompt: the layout of a file, and the object that verbs work on",
    "label_store.py": "the label store, and the edges that are read from it",
    "pop.py": "PoP edges: the section of the configuration, the component `pop` of its room, the verb",
    "spa.py": "SPA: the training loss, and the recipe of its rounds",
    "ropo.py": "ROPO: the training loss, and the recipe of its rounds",
    "items.py": "items: those that people label, and the task that recommends some",
    "images.py": "images as responses: their files, and the task of the models that make them",
    "pop_scale.py": "the objective `pop_scale`, and the verb that fits the same scale",
}
"""File names that stand in several rooms, and what they mean in all of them."""

WHOLE_CONFIGURATION = {
    "config": "where it is defined",
    "training.build": "the border: from the configuration to objects",
    "training.run": "one run's training begins with it",
    "training.inputs": "compares stored ones, and makes their paths absolute",
    "training.run_directory": "stores it",
    "api": "a front door", "cli": "a front door", "study": "a front door",
    "rounds": "a front door, for the trainings of its stages",
}  # fmt: skip
"""Rooms and modules that know the whole configuration of a run; all others take objects, or the section they read."""

Import = tuple[str, str, int, bool]  # module, imported module, line, under TYPE_CHECKING alone


def modules(source: Path) -> dict[str, Path]:
    """The dotted name of every module below a package, and its file."""
    found: dict[str, Path] = {}
    for path in sorted(source.rglob("*.py")):
        parts = path.relative_to(source.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(known: Mapping[str, Path]) -> Iterator[Import]:
    """Every import of one of these modules by another, wherever it stands."""
    package = min(known, key=len)
    for module, path in known.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        types = {
            id(inner)
            for node in ast.walk(tree)
            if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
            for statement in node.body
            for inner in ast.walk(statement)
        }
        home = module if path.name == "__init__.py" else module.rpartition(".")[0]
        for node in ast.walk(tree):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                above = home.split(".")[: len(home.split(".")) - node.level + 1] if node.level else []
                place = ".".join([*above, *([node.module] if node.module else [])])
                names = [f"{place}.{alias.name}" for alias in node.names]
            for name in names:
                while name not in known and "." in name:
                    name = name.rpartition(".")[0]
                if name in known and name not in (module, package):
                    yield module, name, getattr(node, "lineno", 0), id(node) in types


def room(module: str) -> str:
    return module.split(".")[1]


def upward(found: Iterator[Import] | list[Import], rooms: list[str], types: Mapping[tuple[str, str], str]) -> list[str]:
    """The imports that go up, but for types that are allowed to."""
    return [
        f"{module}, line {line}, imports {name}: '{room(name)}' lies above '{room(module)}'"
        for module, name, line, type_only in found
        if rooms.index(room(name)) > rooms.index(room(module)) and not (type_only and (module, name) in types)
    ]


def circle(found: Iterator[Import] | list[Import]) -> list[str]:
    """One circle of modules, if there is any."""
    graph: dict[str, set[str]] = defaultdict(set)
    for module, name, _, _ in found:
        graph[module].add(name)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_every_module_has_a_room() -> None:
    rooms = {room(module) for module in modules(SOURCE) if "." in module}
    assert rooms == set(ROOMS), "give it a place in ROOMS and a line in docs/architecture.md"
    assert len(ROOMS) == len(set(ROOMS))


def test_imports_go_down() -> None:
    found = list(imports(modules(SOURCE)))
    assert len(found) > 1000
    assert upward(found, ROOMS, TYPES_FROM_ABOVE) == []
    used = {(module, name) for module, name, _, type_only in found if type_only}
    assert not TYPES_FROM_ABOVE.keys() - used, "these exceptions are needed no more"


def test_modules_form_no_circle() -> None:
    assert circle(imports(modules(SOURCE))) == []


def test_the_picture_has_the_same_order_and_files_that_are_there() -> None:
    page = ARCHITECTURE.read_text(encoding="utf-8")
    picture = re.findall(r"^```mermaid\n(.*?)^```", page, re.S | re.M)[0]
    boxes = {name: re.findall(r"(\w+)(?:/|\.py)", text) for name, text in re.findall(r"(\w+)\[\"(.*)\"\]", picture)}
    packages = {path.parent.name for path in SOURCE.glob("*/__init__.py")}
    assert packages <= {name for rooms in boxes.values() for name in rooms} <= set(ROOMS)
    arrows = [re.split(r" --> ", line.strip()) for line in picture.splitlines() if "-->" in line]
    assert len(arrows) > 5
    down = [
        f"{low} --> {high}"
        for chain in arrows
        for low, high in itertools.pairwise(chain)
        if max(map(ROOMS.index, boxes[low])) >= min(map(ROOMS.index, boxes[high]))
    ]
    assert down == []
    done = "\n".join(line for line in page.splitlines() if not line.endswith(" planned |")).replace(
        "NAME.py", "__init__.py"
    )
    named = set(re.findall(r"`([\w/]+/\w+\.py)`", done))
    assert len(named) > 20
    assert [name for name in sorted(named) if not (SOURCE / name).exists() and not (ROOT / name).exists()] == []


def whole_configuration(known: Mapping[str, Path]) -> dict[str, list[int]]:
    """The modules that name `RunConfig`, or read `config` of a run, and the lines in which they do."""
    found: dict[str, list[int]] = defaultdict(list)
    for module, path in known.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = getattr(node, "id", "") or getattr(node, "name", "") or getattr(node, "attr", "")
            of_run = name == "config" and isinstance(node, ast.Attribute) and ast.unparse(node.value).endswith("run")
            if name == "RunConfig" or of_run:
                found[module].append(getattr(node, "lineno", 0))
    return dict(found)


def test_training_and_evaluation_take_objects_and_read_no_configuration() -> None:
    places = {module: module.partition(".")[2] for module in whole_configuration(modules(SOURCE))}
    allowed = {place: next((name for name in (place, place.partition(".")[0]) if name in WHOLE_CONFIGURATION), None)
               for place in places.values() if place}  # fmt: skip
    assert [place for place, name in allowed.items() if name is None] == []
    assert set(allowed.values()) == WHOLE_CONFIGURATION.keys(), "these know it no more"


def test_one_name_one_meaning() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for path in modules(SOURCE).values():
        places[path.name].append(str(path.relative_to(SOURCE)))
    several = {name: found for name, found in places.items() if len(found) > 1}
    unlisted = {name: found for name, found in several.items() if name not in SAME_NAME}
    assert not unlisted, "give one of them a name that says what it holds"
    assert SAME_NAME.keys() == several.keys(), "these names stand in one place only"


def test_the_checks_find_what_they_look_for(tmp_path: Path) -> None:
    """Upward and circular imports at the top, in functions, relative, of packages and of types."""
    house = tmp_path / "house"
    texts = {
        "__init__": "",
        "low/__init__": "",
        "low/one": "def f():\n    from house.high import thing\n",
        "low/two": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from house.high.thing import T\n",
        "low/three": "from ..high.thing import T\nimport house.high.other as other\n",
        "low/four": "from house.low import five\n",
        "low/five": "def g():\n    from .four import x\n",
        "high/__init__": "",
        "high/thing": "from house.low.two import x\nimport json\n",
        "high/other": "",
    }
    for name, text in texts.items():
        (house / name).parent.mkdir(parents=True, exist_ok=True)
        (house / f"{name}.py").write_text(text)
    found = list(imports(modules(house)))
    rooms, thing = ["low", "high"], "house.high.thing"
    assert upward(found, rooms, {}) == [
        "house.low.one, line 2, imports house.high.thing: 'high' lies above 'low'",
        "house.low.three, line 1, imports house.high.thing: 'high' lies above 'low'",
        "house.low.three, line 2, imports house.high.other: 'high' lies above 'low'",
        "house.low.two, line 3, imports house.high.thing: 'high' lies above 'low'",
    ]
    allowed = {("house.low.two", thing): "", ("house.low.one", thing): ""}  # a type alone may be excepted
    assert [line.split(",")[0] for line in upward(found, rooms, allowed)] == [
        "house.low.one", "house.low.three", "house.low.three"
    ]  # fmt: skip
    between = [edge for edge in found if {edge[0], edge[1]} == {"house.low.four", "house.low.five"}]
    assert set(circle(between)) == {"house.low.four", "house.low.five"}
    (house / "low" / "six.py").write_text("from config import RunConfig as C\ndef g(run):\n    return run.config\n")
    assert {module: sorted(lines) for module, lines in whole_configuration(modules(house)).items()} == {
        "house.low.six": [1, 3]
    }
    types = [edge for edge in found if {edge[0], edge[1]} == {"house.low.two", thing}]
    assert set(circle(types)) == {"house.low.two", thing}
    assert circle([edge for edge in found if edge[0] == "house.low.three"]) == []
