"""The files of user code: the one that contains it, and those it imports from the same folder."""

import ast
from collections.abc import Iterator
from pathlib import Path


def file_of(spec: str) -> Path | None:
    """The file named by a specification of user code (see `user_code`), if it exists; no code is run.

    Args:
        spec: `path/to/file.py:name` or `package.module:name`, the latter as seen from the working directory.
    """
    place = spec.rpartition(":")[0]
    if place.endswith(".py"):
        path = Path(place).expanduser()
        return path.resolve() if path.is_file() else None
    if not all(part.isidentifier() for part in place.split(".")):
        return None
    return next((file.resolve() for file in _modules(Path.cwd(), place.split(".")) if file.stem != "__init__"), None)


def files_of(file: Path) -> dict[str, Path]:
    """A file of user code, and the files it imports from its folder or the working directory, recursively.

    Imports inside functions count too, dynamic imports do not. Installed packages count as one file each: their
    versions cover the rest.

    Returns:
        Name → file; names are relative to the folder of the file, or of its package, or to the working directory.
    """
    file = file.resolve()
    package = next(folder for folder in file.parents if not (folder / "__init__.py").is_file())
    roots = list(dict.fromkeys([file.parent, package, Path.cwd().resolve()]))
    found: dict[Path, None] = {}
    left = [file]
    while left:
        one = left.pop()
        if one not in found:
            found[one] = None
            left += [] if "site-packages" in one.parts else _imported(one, roots)
    return {_name(one, [package, *roots]): one for one in found}


def _name(file: Path, roots: list[Path]) -> str:
    root = next((root for root in roots if file.is_relative_to(root)), file.parent)
    return file.relative_to(root).as_posix()


def _imported(file: Path, roots: list[Path]) -> list[Path]:
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):  # running it reports the error
        return []
    found: list[Path] = []
    for node in ast.walk(tree):
        for places, names in _names(node, file, roots):
            modules = (list(_modules(root, names)) for root in places)
            found += next((files for files in modules if files), [])
    return [one.resolve() for one in found]


def _names(node: ast.AST, file: Path, roots: list[Path]) -> Iterator[tuple[list[Path], list[str]]]:
    """Folders in which to look for an imported module, and the parts of its name."""
    if isinstance(node, ast.Import):
        yield from ((roots, alias.name.split(".")) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        places = [file.parents[node.level - 1]] if 0 < node.level <= len(file.parents) else roots
        parts = node.module.split(".") if node.module else []
        yield places, parts
        yield from ((places, [*parts, alias.name]) for alias in node.names)


def _modules(root: Path, names: list[str]) -> Iterator[Path]:
    """The files read by importing a name below a folder: packages on the way and the module; empty if it fails."""
    files: list[Path] = []
    for depth in range(1, len(names) + 1):
        place = root.joinpath(*names[:depth])
        own = [file for file in (place / "__init__.py", place.with_suffix(".py")) if file.is_file()]
        if not own and not place.is_dir():
            return iter(())
        files += own[:1]
    return iter(files)
