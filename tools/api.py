"""Compare the public API with earlier versions: `python -m tools.api` names the breaks that the changelog does not name.

`tools/api-1.0.json` is the API of version 1.0.0, at commit 43dea68, the last one before the changelog named changes.
It was written by `python -m tools.api --write tools/api-1.0.json FOLDER`, where FOLDER held that commit's files and, in
`web.py`, `__all__` with the one documented name, `routes`. CONTRIBUTING.md says when another file is added.
"""

import argparse
import copy
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import griffe

ROOT: Final = Path(__file__).parent.parent
PACKAGE: Final = "sprockets_amqp"
#: The documented modules; the public names of each are in its `__all__`.
MODULES: Final = ("", "web", "testing", "telemetry.prometheus", "telemetry.opentelemetry")


def surface(folder: Path) -> griffe.Module:
    """Return the public names of the package in the folder, with everything in them that can be called or read."""
    # Otherwise a package in the current folder would take precedence.
    search: dict[str, Any] = {"search_paths": [folder], "try_relative_path": False}
    package = griffe.load(PACKAGE, **search, allow_inspection=False, resolve_aliases=True)
    api = griffe.Module(PACKAGE)
    for path in MODULES:
        if (module := _found(package, path)) is None:
            continue
        into: griffe.Object = api
        for part in filter(None, path.split(".")):
            if part not in into.members:
                into.set_member(part, griffe.Module(part))
            into = _target(into.members[part])
        for name in module.exports or ():
            if not (member := _target(module.members[str(name)])).is_module:
                into.set_member(str(name), _bare(member, package))
    return api


def _found(package: griffe.Object | griffe.Alias, path: str) -> griffe.Object | None:
    found: griffe.Object | griffe.Alias | None = package
    for part in filter(None, path.split(".")):
        found = found.members.get(part) if found is not None else None
    return _target(found) if found is not None else None


def _target(member: griffe.Object | griffe.Alias) -> griffe.Object:
    found = member.final_target if isinstance(member, griffe.Alias) else member
    assert isinstance(found, griffe.Object)
    return found


def _bare(found: griffe.Object, package: griffe.Object | griffe.Alias) -> griffe.Object:
    """Return a copy with inherited members as its own, without private members and anything about its source."""
    bare = copy.copy(found)
    bare.docstring, bare.lineno, bare.endlineno = None, 0, 0
    bare.members = {}
    if isinstance(bare, griffe.Function):
        bare.parameters = griffe.Parameters(
            *(
                griffe.Parameter(each.name, kind=each.kind, default=_default(each.default, package))
                for each in bare.parameters
            )
        )
        bare.returns = None
    inherited = found.inherited_members if isinstance(found, griffe.Class) else {}
    for name, member in {**inherited, **found.members}.items():
        if name == "__init__" or not name.startswith("_"):
            bare.set_member(name, _bare(_target(member), package))
    return bare


def _default(default: str | griffe.Expr | None, package: griffe.Object | griffe.Alias) -> str | None:
    """Return the default as a value, however the constant is written; for a field of `Settings`, its first argument."""
    if isinstance(default, griffe.ExprCall) and str(default.function) == "_setting":
        (default, *_) = default.arguments
    if isinstance(default, griffe.ExprName):
        constant = _found(package, default.canonical_path.removeprefix(f"{PACKAGE}."))
        default = constant.value if isinstance(constant, griffe.Attribute) else default
    text = None if default is None else str(default)
    return text[:-2] if text and re.fullmatch(r"\d+\.0", text) else text


def breaks(old: griffe.Module, new: griffe.Module) -> Iterator[tuple[str, str]]:
    """Yield the path of each break, such as ``Client.publish``, and what it is."""
    for found in griffe.find_breaking_changes(old, new):
        yield found.obj.path.removeprefix(f"{PACKAGE}."), f"{found.kind.value}: {found.old_value} → {found.new_value}"


def unnamed(old: griffe.Module, new: griffe.Module, changelog: str) -> list[str]:
    """Return the breaks whose path the changelog does not name in backticks."""
    told = "\n".join(re.findall(r"`([^`]+)`", changelog))
    return [
        f"{path}: {what}" for path, what in breaks(old, new) if not re.search(rf"(?<![\w.]){re.escape(path)}\b", told)
    ]


def changes_since(version: str) -> str:
    """Return what the changelog says about versions later than this one."""
    text, found, _ = (ROOT / "CHANGELOG.md").read_text().partition(f"\n## {version}.0 ")
    assert found, f"CHANGELOG.md does not tell of {version}.0"
    return text


def main(arguments: list[str]) -> int:
    """Return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.api", description="Compare the public API with earlier ones")
    parser.add_argument(
        "folder", nargs="?", type=Path, default=ROOT, help="where the package is; default: this project"
    )
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the API to a file instead of comparing it")
    given = parser.parse_args(arguments)
    api = surface(given.folder)
    if given.write:
        given.write.write_text(api.as_json(indent=0, sort_keys=True) + "\n")
        return 0
    status = 0
    for path in sorted((ROOT / "tools").glob("api-*.json")):
        version = path.stem.removeprefix("api-")
        old = griffe.Module.from_json(path.read_text())
        for each in unnamed(old, api, changes_since(version)):
            print(f"not as in {version}, and not named in CHANGELOG.md: {each}", file=sys.stderr)
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
