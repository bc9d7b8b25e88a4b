"""The table of the package's modules, from the layers in pyproject.toml and the modules' docstrings."""

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "sprockets_amqp"


def layers() -> list[list[str]]:
    """Return the names in each layer, from the highest to the lowest."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (contract,) = (each for each in settings["contracts"] if each["id"] == "layers")
    return [[name.strip() for name in layer.split("|")] for layer in contract["layers"]]


def table() -> str:
    """Write a row for each module, those of a package after the package; the lowest layer has number 1."""
    rows = [
        f"| {number} | `{path}` | {says(file)} |\n"
        for number, names in zip(range(len(layers()), 0, -1), layers(), strict=True)
        for name in sorted(names)
        for path, file in files(name)
    ]
    return "".join(["| layer | module | what it is |\n| --- | --- | --- |\n", *rows])


def files(name: str) -> Iterator[tuple[str, Path]]:
    """Yield the path of a module in the package, and its file; for a package, also those of its modules."""
    if (module := PACKAGE / f"{name}.py").exists():
        yield module.name, module
    else:
        for file in sorted((PACKAGE / name).rglob("*.py"), key=lambda each: each.relative_to(PACKAGE).parts):
            yield str(file.relative_to(PACKAGE)).replace("__init__.py", ""), file


def says(file: Path) -> str:
    """Return the first line of the module's docstring."""
    docstring = ast.get_docstring(ast.parse(file.read_text()))
    assert docstring, file
    return docstring.partition("\n")[0]
