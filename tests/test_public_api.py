"""`make lint` fails on a break of the public API that the changelog does not name."""

import shutil
import subprocess
from pathlib import Path
from typing import Final

import griffe
import pytest

from tools import api
from tools.documents import ROOT

OLD: Final = "api-1.0.json"

#: A break of each kind: a file, what is replaced in it, with what, and the path that is told.
BREAKS: Final = {
    "a name": ("__init__.py", '    "Changes",\n', "", "Changes"),
    "a name of a module": ("web/__init__.py", '["routes"]', "[]", "web.routes"),
    "a method": ("client.py", "def wait_for(", "def wait(", "Client.wait_for"),
    "an inherited method": ("errors.py", "def about(", "def regarding(", "ExchangeRefused.about"),
    "a method that is an attribute": ("hooks.py", "def cancel(self)", "cancel = 0\n    def c(self)", "Subscription.cancel"),
    "the name of a parameter": ("client.py", "subscribe(self, callback:", "subscribe(self, call:", "Client.subscribe"),
    "one more parameter": ("client.py", "def close(self)", "def close(self, limit: float)", "Client.close"),
    "a default": ("client.py", "timeout: float = DRAIN_LIMIT", "timeout: float = CLOSE_LIMIT", "Client.shutdown"),
    "the constant of a default": ("settings.py", "RECONNECT_DELAY: Final = 5", "RECONNECT_DELAY: Final = 6", "Client.__init__"),
    "a setting's default": ("settings.py", "_setting(60.0,", "_setting(61.0,", "Settings.__init__"),
    "an error's attribute": ("errors.py", "self.reply_code = reply_code", "pass", "ExchangeRefused.reply_code"),
}  # fmt: skip


@pytest.fixture(scope="module")
def old() -> griffe.Module:
    """The API of 1.0."""
    return griffe.Module.from_json((ROOT / "tools" / OLD).read_text())


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> griffe.Module:
    """The API with all these breaks, something new, and a private method that is gone."""
    folder = tmp_path_factory.mktemp("broken")
    shutil.copytree(ROOT / "sprockets_amqp", folder / "sprockets_amqp")
    for file, before, after, _ in (*BREAKS.values(), ("client.py", "def _pull(", "def pulled(", "")):
        path = folder / "sprockets_amqp" / file
        assert before in path.read_text()
        path.write_text(path.read_text().replace(before, after))
    return api.surface(folder)


def test_the_changelog_names_what_broke() -> None:
    """As `make lint` compares it."""
    assert api.main([]) == 0
    planned = subprocess.run(["make", "lint", "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "python -m tools.api\n" in planned and "codespell" in planned


def test_a_break_that_is_not_named_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With what it is and the version that it differs from; a version that the changelog does not know is a mistake."""
    monkeypatch.setattr(api, "ROOT", tmp_path)
    (tmp_path / "tools").mkdir()
    shutil.copy(ROOT / "tools" / OLD, tmp_path / "tools")
    changelog = (ROOT / "CHANGELOG.md").read_text()
    (tmp_path / "CHANGELOG.md").write_text(changelog.replace("`Client.tell_persistent_failure`", "Something"))
    assert api.main([str(ROOT)]) == 1
    assert "not as in 1.0, and not named in CHANGELOG.md: Client.tell_persistent_failure" in capsys.readouterr().err
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n")
    with pytest.raises(AssertionError, match=r"does not tell of 1\.0"):
        api.main([str(ROOT)])


@pytest.mark.parametrize("kind", BREAKS)
def test_a_break_of_any_kind_is_found(kind: str, old: griffe.Module, broken: griffe.Module) -> None:
    """And is accepted where the changelog names the same path, not one that only begins or ends alike."""
    path = BREAKS[kind][-1]
    assert path in paths(api.unnamed(old, broken, f"`x.{path}` `{path}s` {path}"))
    assert path not in paths(api.unnamed(old, broken, f"`{path}()`"))


def test_nothing_else_is_a_break(old: griffe.Module, broken: griffe.Module) -> None:
    """What is new is none, nor is a private method that is gone; each error has lost the method that it inherits."""
    errors = {name for name, each in old.members.items() if "about" in each.members}
    expected = {each[-1] for each in BREAKS.values()} | {f"{name}.about" for name in errors}
    # Both errors that have a reply code assign it alike.
    expected |= {"Client.tell_persistent_failure", "MessageReturned.reply_code"}
    assert {path for path, _ in api.breaks(old, broken)} == expected


def paths(told: list[str]) -> set[str]:
    """The paths of what was told."""
    return {each.partition(":")[0] for each in told}


def test_a_file_of_a_version_can_be_written_and_read(tmp_path: Path) -> None:
    """The API is the same as the one that was written."""
    assert api.main(["--write", str(tmp_path / "api.json")]) == 0
    written = griffe.Module.from_json((tmp_path / "api.json").read_text())
    now = api.surface(ROOT)
    assert [*api.breaks(written, now), *api.breaks(now, written)] == []
