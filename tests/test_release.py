"""`make dist` builds what an index shows well: links in the README work, and the metadata names the repository."""

import email
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Final

import pytest
from readme_renderer import markdown

from tests.support.command import bare_environment
from tests.support.documents import Document
from tools import release
from tools.documents import ROOT

REPOSITORY: Final = "https://example.org/amqp/sprockets_amqp"
#: What a checkout has that no repository holds.
LEFT_OUT: Final = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__", "_build")
#: Every link and image of a document.
TARGETS: Final = re.compile(r'\]\(([^)\s]+)\)|src="([^"]+)"')


def targets(text: str) -> list[str]:
    """Where the document's links and images lead."""
    return ["".join(found) for found in TARGETS.findall(text)]


def git(folder: Path, *arguments: str) -> None:
    """Run git as somebody who has no settings."""
    who = ("-c", "user.name=nobody", "-c", "user.email=nobody@example.org")
    subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of the project, in which a release is committed and not tagged."""
    folder = tmp_path_factory.mktemp("release") / "repository"
    shutil.copytree(ROOT, folder, symlinks=True, ignore=LEFT_OUT)
    changelog = folder / "CHANGELOG.md"
    (number,) = re.findall(r"^version = (.*)$", (ROOT / "setup.cfg").read_text(), re.MULTILINE)
    changelog.write_text(f"# Changelog\n\n## {number} (2026-01-01)\n\n{changelog.read_text()}")
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "A release")
    return folder


def make_dist(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Do in the repository what `make dist` does."""
    return subprocess.run(
        [sys.executable, "-m", "tools.release", *arguments],
        cwd=folder,
        env=bare_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def test_the_readme_leads_to_the_repository() -> None:
    """Pages, folders, and images as a file that can be shown; what is absolute stays."""
    before = Document("README.md").text
    after = release.absolute(before, REPOSITORY, "v1")
    relative = [target for target in targets(before) if not target.startswith("https://")]
    assert relative
    for target in relative:
        kind = {".svg": "raw", "": "tree"}.get(Path(target.partition("#")[0]).suffix, "blob")
        kind = "blob" if target == "LICENSE" else kind
        assert f"{REPOSITORY}/{kind}/v1/{target}" in targets(after), target
    assert [target for target in targets(after) if not target.startswith("https://")] == []
    assert {target for target in targets(before) if target.startswith("https://")} <= set(targets(after))
    assert "[here](#there)" in release.absolute("[here](#there)", REPOSITORY, "v1")


def test_an_index_shows_the_readme() -> None:
    """With the renderer of PyPI, which twine asks, too: the picture is there, and every link is absolute."""
    shown = markdown.render(release.absolute(Document("README.md").text, REPOSITORY, "v1"))
    assert shown is not None
    assert f'<img src="{REPOSITORY}/raw/v1/diagrams/lifecycle.svg"' in shown
    links = re.findall(r'(?:href|src)="([^"]+)"', shown)
    assert len(links) > 30
    # The renderer gives headings links to themselves.
    assert {link for link in links if not link.startswith("https://")} <= {
        link for link in links if link.startswith("#user-content-")
    }


def test_without_an_address_it_says_what_to_do() -> None:
    """And so it does where that is none, or has a slash at its end, which would be doubled."""
    for arguments in ((), ("example.org",), ("https://example.org",), (f"{REPOSITORY}/",)):
        done = make_dist(ROOT, *arguments)
        assert done.returncode == 1
        assert "make dist REPOSITORY=https://" in done.stdout


def test_a_changelog_without_the_version_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The version and a date stand first."""
    (tmp_path / "setup.cfg").write_text("[metadata]\nversion = 2.0.0\n")
    monkeypatch.setattr(release, "ROOT", tmp_path)
    for heading in ("Unreleased", "2.0.0", "1.0.0 (2026-01-01)", "2.0.0 (soon)"):
        (tmp_path / "CHANGELOG.md").write_text(f"# Changelog\n\n## {heading}\n\n## 2.0.0 (2026-01-01)\n")
        with pytest.raises(release.CannotRelease, match=r"version 2\.0\.0"):
            release.version()
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## 2.0.0 (2026-01-01)\n")
    assert release.version() == "2.0.0"


@pytest.mark.package
@pytest.mark.xdist_group("package")
def test_a_release_is_built_of_the_tagged_commit(repository: Path) -> None:
    """The index's own check has passed; the checkout is as it was, and what is not committed is not in it."""
    done = make_dist(repository, REPOSITORY)
    assert (done.returncode, "has no tag v" in done.stdout) == (1, True), done.stdout
    (number,) = re.findall(r"has no tag v(\S+):", done.stdout)
    git(repository, "tag", f"v{number}")
    (repository / "sprockets_amqp" / "unfinished.py").touch()
    done = make_dist(repository, REPOSITORY)
    assert done.returncode == 0, done.stdout

    (wheel,), (sdist,) = (repository / "dist").glob("*.whl"), (repository / "dist").glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (path,) = (name for name in names if name.endswith("METADATA"))
        metadata = email.message_from_bytes(archive.read(path))
    assert metadata["Version"] == number
    assert dict(url.split(", ") for url in metadata.get_all("Project-URL", [])) == {
        "Source": REPOSITORY,
        "Documentation": f"{REPOSITORY}/blob/v{number}/docs/index.md",
        "Changelog": f"{REPOSITORY}/blob/v{number}/CHANGELOG.md",
        "Issues": f"{REPOSITORY}/issues",
    }
    # The metadata is UTF-8, which email takes for something else.
    text = metadata.get_payload(decode=True)
    assert isinstance(text, bytes)
    assert text.decode().strip() == release.absolute(Document("README.md").text, REPOSITORY, f"v{number}").strip()
    assert "sprockets_amqp/unfinished.py" not in names
    assert "sprockets_amqp/states/connection.py" in names
    with tarfile.open(sdist) as unpacked:
        assert f"sprockets_amqp-{number}/sprockets_amqp/states/connection.py" in unpacked.getnames()
    assert (repository / "README.md").read_text() == Document("README.md").text
    assert (repository / "setup.cfg").read_text() == (ROOT / "setup.cfg").read_text()
