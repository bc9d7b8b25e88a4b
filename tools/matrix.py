"""Run the tests on other systems, each created empty: `make matrix`, or `python3 -m tools.matrix [SYSTEM ...]`.

A system is a folder that debootstrap fills from an apt mirror with nothing but python3, make and git. Each run uses a
copy of it, in namespaces of its own, and leaves nothing behind: the last commit is cloned into it, and `make demo` and
`make test` do the rest, as on a new machine. Needs root, and nothing beyond the standard library.

Ubuntu is here for its Python, 3.12, which no release of Debian has.

The system debian-13-pika-next has pika's coming version: `make matrix SYSTEMS=debian-13-pika-next PIKA=path`, with the
path of a checkout of pika's main branch outside of this project.
"""

from __future__ import annotations

import argparse
import configparser
import contextlib
import dataclasses
import datetime as dt
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

ROOT = Path(__file__).parent.parent
RECORD = Path(__file__).with_name("matrix.json")
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sprockets_amqp"
#: Debian's own mirror, for a machine whose apt knows none.
MIRROR = "http://deb.debian.org/debian/"
PACKAGES = "python3,make,git,ca-certificates"
#: Ubuntu's mirror, and the package with the keys that sign it, which Debian does not have, with its SHA-256.
UBUNTU = "http://archive.ubuntu.com/ubuntu/"
KEYS = f"{UBUNTU}pool/main/u/ubuntu-keyring/ubuntu-keyring_2023.11.28.1_all.deb"
KEYS_HASH = "36de43b15853ccae0028e9a767613770c704833f82586f28eb262f0311adb8a8"
KEYRING = "usr/share/keyrings/ubuntu-archive-keyring.gpg"
#: Seconds after which a system is created anew.
MAX_AGE = 7 * 86400
#: Variables that say how registries are reached, and whether this is CI.
PASSED_ON = re.compile(r"CI|PIP_INDEX_URL|PIP_DEFAULT_TIMEOUT|\w+_proxy", re.IGNORECASE)

#: The parts of this machine's configuration by which registries are reached.
CONFIGURATION = ("etc/hosts", "etc/resolv.conf", "etc/pip.conf", "usr/local/share/ca-certificates")

#: Runs in namespaces of its own, so that nothing it mounts or starts outlives it; $1: the system's folder.
INSIDE = """
set -eu
mount --rbind /dev "$1/dev"
mount -t proc proc "$1/proc"
mount -t sysfs sysfs "$1/sys"
mkdir -p "$1/root/.cache/pip" "$2"
mount --bind "$2" "$1/root/.cache/pip"
chroot "$1" update-ca-certificates >/dev/null 2>&1
shift 2
exec "$@"
"""


@dataclasses.dataclass(frozen=True)
class System:
    """A release of Debian or Ubuntu, and what differs in a run on it."""

    name: str
    suite: str
    #: Shell commands between the installation and the tests.
    before: str = ""
    #: The shell command that runs the tests.
    tests: str = "make test"
    ubuntu: bool = False


def lowest() -> str:
    """Return pip requirements for the lowest versions that setup.cfg allows of what users install."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    wanted = [
        config["options"]["install_requires"],
        *(config["options.extras_require"][x] for x in ("cli", "diagrams")),
    ]
    found = re.findall(r"^([\w-]+) >=([\d.]+)", "\n".join(wanted), re.MULTILINE)
    return " ".join(f"{name}=={version}" for name, version in found)


#: The folder of pika's checkout in a system. Last and without dependencies: it may call itself an earlier version.
PIKA = "pika"
PIKA_NEXT = f".venv/bin/pip install --quiet --disable-pip-version-check --no-deps --force-reinstall /{PIKA}"

#: Makes every Python of the environment use uvloop's loops.
UVLOOP = (
    ".venv/bin/pip install --quiet --disable-pip-version-check uvloop && "
    "echo 'import asyncio, uvloop; asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())' "
    '>"$(echo .venv/lib/python3*/site-packages)/uvloop_everywhere.pth"'
)


#: Chromium is a snap on Ubuntu, which needs a running system.
WITHOUT_BROWSER = (
    ".ci/setup broker postgres diagrams terminal prometheus git curl && "
    ".venv/bin/python -m pytest --numprocesses 3 --dist loadgroup -m 'not browser'"
)


def systems() -> dict[str, System]:
    """Return the systems by their names."""
    pinned = f".venv/bin/pip install --quiet --disable-pip-version-check {lowest()}"
    every = (
        System("debian-12", "bookworm"),
        System("debian-13", "trixie"),
        System("debian-unstable", "unstable"),
        System("ubuntu-24.04", "noble", tests=f"make .venv/.dev && {WITHOUT_BROWSER}", ubuntu=True),
        System("debian-12-lowest", "bookworm", pinned),
        System("debian-12-uvloop", "bookworm", UVLOOP),
        System("debian-13-pika-next", "trixie", PIKA_NEXT),
    )
    return {each.name: each for each in every}


class CannotRun(Exception):
    """What is missing, and what to do about it."""


def check_machine() -> None:
    """Raise CannotRun if no system can be created."""
    if os.geteuid() != 0:
        raise CannotRun("only root can create other systems: run sudo make matrix, or make test for this system")
    for program in ("debootstrap", "unshare", "chroot"):
        if shutil.which(program) is None:
            raise CannotRun(f"{program} is missing: run apt-get install debootstrap util-linux")


def mirror() -> str:
    """Return where this machine's apt gets Debian from."""
    command = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Label: Debian"]
    try:
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    except (OSError, subprocess.CalledProcessError):
        printed = []
    return printed[0] if printed else MIRROR


def keyring() -> Path:
    """Return the file with the keys of Ubuntu's archive; it comes from there, and has to be the one known here."""
    kept = CACHE / "ubuntu"
    if not (kept / KEYRING).exists():
        with urllib.request.urlopen(KEYS, timeout=60) as answer:  # noqa: S310 - it is http
            package = answer.read()
        if hashlib.sha256(package).hexdigest() != KEYS_HASH:
            raise CannotRun(f"{KEYS} is not the package that is known here")
        kept.mkdir(parents=True, exist_ok=True)
        (kept / "keys.deb").write_bytes(package)
        run("dpkg-deb", "--extract", str(kept / "keys.deb"), str(kept))
    return kept / KEYRING


def make_base(system: System) -> Path:
    """Create the empty system of a release, unless there is a fresh one; return its folder."""
    suite = system.suite
    base = CACHE / "systems" / suite
    if base.exists() and time.time() - base.stat().st_mtime < MAX_AGE:
        return base
    shutil.rmtree(base, ignore_errors=True)
    unfinished = base.with_name(f"{suite}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.parent.mkdir(parents=True, exist_ok=True)
    say(f"creating {suite} ...")
    # An older debootstrap does not know a later release; all of Ubuntu's are made alike.
    more = ("--components=main,universe", f"--keyring={keyring()}") if system.ubuntu else ()
    source = (UBUNTU, "gutsy") if system.ubuntu else (mirror(),)
    run("debootstrap", "--variant=minbase", f"--include={PACKAGES}", *more, suite, str(unfinished), *source)
    unfinished.touch()
    unfinished.rename(base)
    return base


def configure(folder: Path) -> None:
    """Make the system reach registries as this machine does."""
    for name in CONFIGURATION:
        source, target = Path("/", name), folder / name
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
        elif source.exists():
            target.unlink(missing_ok=True)
            shutil.copy(source, target)
    dumped = subprocess.run(["apt-config", "dump", "Acquire"], capture_output=True, text=True, check=False).stdout
    kept = [line for line in dumped.splitlines() if "::IndexTargets" not in line]
    (folder / "etc/apt/apt.conf.d/90matrix").write_text("\n".join([*kept, ""]))


def run(*command: str) -> None:
    """Run a command and show its output; raises CannotRun if it fails."""
    if subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode:
        raise CannotRun(f"failed: {' '.join(command)}")


def inside(folder: Path, command: str, *, quiet: bool = False) -> subprocess.CompletedProcess[str]:
    """Run a shell command in the system, in the project's folder; with ``quiet``, its output is returned."""
    variables = [f"{name}={value}" for name, value in os.environ.items() if PASSED_ON.fullmatch(name)]
    return subprocess.run(
        [
            *("unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", INSIDE, "inside"),
            *(str(folder), str(CACHE / "pip"), "chroot", str(folder)),
            *("/usr/bin/env", "-i", "HOME=/root", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", *variables),
            *("sh", "-c", f"cd /src && {command}"),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if quiet else None,
        text=True,
        check=False,
    )


VERSIONS = """.venv/bin/python -c '
import json, platform, pika, tornado
from tools.rabbitmq import version
told = {"python": platform.python_version(), "rabbitmq": ".".join(map(str, version()))}
print(json.dumps(told | {"pika": pika.__version__, "tornado": tornado.version}))'"""


@contextlib.contextmanager
def made(system: System) -> Iterator[Path]:
    """Make a copy of the system with the last commit in it; yields its folder."""
    base = make_base(system)
    with tempfile.TemporaryDirectory(prefix="sprockets-amqp-", ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary, system.suite)
        run("cp", "--archive", "--reflink=auto", str(base), str(folder))
        configure(folder)
        run("git", "clone", "--quiet", "--no-hardlinks", str(ROOT), str(folder / "src"))
        yield folder


def test(system: System, pika: Path | None) -> dict[str, object]:
    """Run demo and tests on a copy of the system; return its row of the table."""
    with made(system) as folder:
        if pika is not None:
            run("git", "clone", "--quiet", "--no-hardlinks", str(pika), str(folder / PIKA))
        say(f"{system.name}: make demo")
        demo = inside(folder, "make demo").returncode
        if system.before:
            say(f"{system.name}: {system.before}")
            demo = demo or inside(folder, f"make .venv/.dev && {system.before}").returncode
        say(f"{system.name}: {system.tests}")
        began = time.monotonic()
        status = inside(folder, f"export PYTEST_ADDOPTS=--junitxml=/results.xml; {system.tests}").returncode
        seconds = round(time.monotonic() - began)
        told = inside(folder, VERSIONS, quiet=True).stdout
        return {
            "system": system.name,
            **(json.loads(told) if told else {}),
            **count(folder / "results.xml", status, demo),
            "seconds": seconds,
            "commit": printed("git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"),
            "date": f"{dt.datetime.now(dt.UTC):%Y-%m-%d}",
        }


def count(results: Path, status: int, demo: int) -> dict[str, int]:
    """Count what passed and failed; a failure outside of any test counts as one."""
    suite = ET.parse(results).getroot().find("testsuite") if results.exists() else None  # noqa: S314 - pytest wrote it
    of = (
        {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}
        if suite is not None
        else {}
    )
    bad = of.get("failures", 0) + of.get("errors", 0)
    passed = of.get("tests", 0) - bad - of.get("skipped", 0)
    return {"passed": passed, "failed": bad + bool(demo) + bool(status and not bad)}


def printed(*command: str) -> str:
    """Return what a command prints."""
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def table(rows: list[dict[str, object]]) -> str:
    """Write the rows as a table of Markdown."""
    names = ("system", "python", "rabbitmq", "pika", "tornado", "passed", "failed", "seconds")
    heads = ("system", "Python", "RabbitMQ", "pika", "Tornado", "passed", "failed", "seconds")
    lines = [heads, tuple("---" for _ in heads), *(tuple(str(row.get(name, "")) for name in names) for row in rows)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def recorded() -> list[dict[str, object]]:
    """Return the rows of the last run on each system, in the order of `systems`."""
    rows = json.loads(RECORD.read_text()) if RECORD.exists() else []
    by_name = {row["system"]: row for row in rows}
    return [by_name[name] for name in systems() if name in by_name]


def record(rows: list[dict[str, object]]) -> None:
    """Replace the recorded rows of the same systems, one row a line."""
    by_name = {row["system"]: row for row in [*recorded(), *rows]}
    lines = ",\n".join(json.dumps(by_name[name]) for name in systems() if name in by_name)
    RECORD.write_text(f"[\n{lines}\n]\n")


def say(line: str) -> None:
    """Tell the person who is waiting."""
    print(f"== {line}", flush=True)


def main() -> int:
    """Run the named systems, or all; return the exit status."""
    known = systems()
    parser = argparse.ArgumentParser(prog="make matrix", description="Run the tests on other systems.")
    parser.add_argument(
        "systems", nargs="*", metavar="SYSTEM", choices=[[], *known], help=f"default: all of {', '.join(known)}"
    )
    parser.add_argument("--pika", type=Path, help="a checkout of pika's main branch, for debian-13-pika-next")
    parser.add_argument("--record", action="store_true", help=f"keep the results in {RECORD.relative_to(ROOT)}")
    options = parser.parse_args()
    chosen = options.systems or [name for name in known if options.pika or known[name].before != PIKA_NEXT]
    try:
        check_machine()
        if options.pika is None and any(known[name].before == PIKA_NEXT for name in chosen):
            raise CannotRun("debian-13-pika-next needs a checkout of pika: make matrix SYSTEMS=... PIKA=path")
        if printed("git", "-C", str(ROOT), "status", "--porcelain"):
            say("testing the last commit, without uncommitted changes")
        rows = [test(known[name], options.pika) for name in chosen]
    except CannotRun as error:
        print(f"make matrix: {error}", file=sys.stderr)
        return 2
    if options.record:
        record(rows)
    print(table(rows), flush=True)
    passed, failed = (sum(int(str(row[name])) for row in rows) for name in ("passed", "failed"))
    print(f"{passed} passed, {failed} failed", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
