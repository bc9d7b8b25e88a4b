"""Build what is uploaded to a package index: `make dist REPOSITORY=https://…`, the address where the repository is shown.

The tagged commit is built, not the working tree. An index shows the README without the files beside it, so its links
and images are made absolute, and the address is written into the metadata. Both happen in a copy.
"""

import configparser
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from tools.documents import ROOT

USAGE: Final = "give the address where the repository can be seen: make dist REPOSITORY=https://…"
DIST: Final = ROOT / "dist"

#: The targets of links and images in Markdown and HTML, except absolute ones and those within the page.
_TARGET: Final = re.compile(r'(?P<before>\]\(|(?:src|href)=")(?P<target>(?![a-z]+:|#)[^)"\s#]+)')
_IMAGES: Final = {".svg", ".png"}


class CannotRelease(Exception):
    """What is missing, and what to do about it."""


def absolute(text: str, repository: str, tag: str) -> str:
    """Return the document with its links and images pointing to the tag, with the paths that GitHub and GitLab use."""

    def replaced(match: re.Match[str]) -> str:
        target = match["target"]
        kind = "raw" if Path(target).suffix in _IMAGES else "tree" if (ROOT / target).is_dir() else "blob"
        return f"{match['before']}{repository}/{kind}/{tag}/{target}"

    return _TARGET.sub(replaced, text)


def urls(repository: str, tag: str) -> dict[str, str]:
    """Return the addresses for the metadata, under the names that indexes know."""
    return {
        "Source": repository,
        "Documentation": f"{repository}/blob/{tag}/docs/index.md",
        "Changelog": f"{repository}/blob/{tag}/CHANGELOG.md",
        "Issues": f"{repository}/issues",
    }


def version() -> str:
    """Return the version in setup.cfg. Raises CannotRelease unless the changelog begins with it and a date."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    number = config["metadata"]["version"]
    first = re.search(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    if first is None or not re.fullmatch(rf"{re.escape(number)} \(\d{{4}}-\d\d-\d\d\)", first[1]):
        raise CannotRelease(f"CHANGELOG.md does not begin with version {number} of setup.cfg and a date")
    return number


def check_tag(tag: str) -> None:
    """Raise CannotRelease if the commit is not tagged: the links point to the tag."""
    tags = run("git", "-C", ROOT, "tag", "--points-at", "HEAD").split()
    if tag not in tags:
        raise CannotRelease(f"the commit has no tag {tag}: run git tag {tag}, and push it after the release")


def copy(folder: Path) -> None:
    """Copy the files of the commit into the folder."""
    archive = folder.with_suffix(".tar")
    folder.mkdir()
    run("git", "-C", ROOT, "archive", "--output", archive, "HEAD")
    run("tar", "--extract", "--file", archive, "--directory", folder)


def address(folder: Path, repository: str, tag: str) -> None:
    """Write the repository's address into the copy's README and metadata."""
    readme, setup = folder / "README.md", folder / "setup.cfg"
    readme.write_text(absolute(readme.read_text(), repository, tag))
    lines = "".join(f"    {name} = {url}\n" for name, url in urls(repository, tag).items())
    setup.write_text(setup.read_text().replace("[metadata]\n", f"[metadata]\nproject_urls =\n{lines}", 1))


def run(*command: object) -> str:
    """Run a command and return what it printed; if it fails, raise CannotRelease with that."""
    done = subprocess.run(
        [*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        raise CannotRelease(f"{' '.join(map(str, command))} failed:\n{done.stdout}")
    return done.stdout


def release(repository: str) -> list[Path]:
    """Build the sdist and the wheel, check them as an index would, and return them in dist/."""
    if not re.fullmatch(r"https://[^\s/]+/\S+[^\s/]", repository):
        raise CannotRelease(f"{repository!r} is not the address of a repository; {USAGE}")
    number = version()
    check_tag(f"v{number}")
    with tempfile.TemporaryDirectory() as temporary:
        folder, built = Path(temporary, "sprockets_amqp"), Path(temporary, "dist")
        copy(folder)
        address(folder, repository, f"v{number}")
        run(sys.executable, "-m", "build", "--outdir", built, folder)
        files = sorted(built.iterdir())
        run(sys.executable, "-m", "twine", "check", "--strict", *files)
        DIST.mkdir(exist_ok=True)
        return [Path(shutil.copy(each, DIST)) for each in files]


def main(arguments: list[str]) -> int:
    """Return the exit status."""
    try:
        if len(arguments) != 1:
            raise CannotRelease(USAGE)
        files = release(arguments[0])
    except CannotRelease as error:
        print(error, file=sys.stderr)
        return 1
    for each in files:
        print(each.relative_to(ROOT))
    print("Upload them with twine upload, and push the tag.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
