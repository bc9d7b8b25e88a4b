"""What users install: the sdist and the wheel, far from the checkout."""

import asyncio
import configparser
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import Final

import pytest

from tests.support.command import bare_environment
from tests.support.consume import declare_queue
from tools import matrix
from tools.rabbitmq import Node

#: What is built once is built by one of the workers.
pytestmark = pytest.mark.xdist_group("package")

ROOT: Final = Path(__file__).parent.parent
#: What a checkout has that no build needs.
LEFT_OUT: Final = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__")

#: A program that uses what is documented, for a type checker.
USES: Final = """
import asyncio
import sprockets_amqp as amqp
from tornado.web import Application, RequestHandler

class Events(amqp.PublishingMixin, RequestHandler):
    async def post(self) -> None:
        await self.amqp_publish("exchange", "key", self.request.body, {"content_type": "text/plain"}, timeout=1.0)

application = Application([("/", Events), *amqp.web.routes()])
installed: bool = amqp.install(application)

async def main(client: amqp.Client) -> None:
    published: asyncio.Future[None] = client.publish("exchange", "key", b"body", mandatory=False)
    try:
        await published
    except amqp.ExchangeRefused as error:
        code: int = error.reply_code
    state: amqp.State = client.state
"""
#: Programs with a mistake that types show, and what the checker says of each.
MISTAKES: Final = {
    "client.publish('exchange', 'key', 5)": "arg-type",
    "client.publish('exchange', 'key', b'', timeout='soon')": "arg-type",
    "amqp.Connection": "attr-defined",
}


def run(*command: object, cwd: Path) -> str:
    """Run a command; returns what it printed."""
    done = subprocess.run(
        [*map(str, command)],
        cwd=cwd,
        env=bare_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("package")
    shutil.copytree(ROOT, folder / "checkout", symlinks=True, ignore=LEFT_OUT)
    run(sys.executable, "-m", "build", "--outdir", folder / "dist", folder / "checkout", cwd=folder)
    return folder / "dist"


@pytest.fixture(scope="module")
def installed(package: Path) -> Path:
    """The Python of an empty environment in which the wheel was installed."""
    environment = package.parent / "environment"
    run(sys.executable, "-m", "venv", environment, cwd=package)
    python = environment / "bin" / "python"
    (wheel,) = package.glob("*.whl")
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", wheel, cwd=package)
    return python


def sources() -> set[str]:
    """Name the files of the package, those of the declaration included."""
    package = [path for path in (ROOT / "sprockets_amqp").rglob("*") if path.is_file()]
    declaration = (ROOT / "sprockets_amqp" / "states").glob("*.py")
    plugin = ROOT / "sprockets_amqp_pytest.py"
    return {str(path.relative_to(ROOT)) for path in (*package, *declaration, plugin) if "__pycache__" not in path.parts}


def test_the_wheel_and_the_sdist_hold_the_package(package: Path) -> None:
    """Every file of it, and nothing else that could be imported."""
    (wheel,), (sdist,) = package.glob("*.whl"), package.glob("*.tar.gz")
    in_wheel = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert in_wheel == sources()
    with tarfile.open(sdist) as archive:
        in_sdist = {name.partition("/")[2] for name in archive.getnames()}
    assert in_sdist >= sources() | {"README.md", "LICENSE", "setup.cfg", "pyproject.toml"}


def test_what_is_installed_works_outside_of_the_checkout(installed: Path, tmp_path: Path) -> None:
    """It is imported, has its files, and its command runs."""
    script = (
        "import sprockets_amqp, sys; from sprockets_amqp.web.page import STATIC; "
        "sprockets_amqp.Client('amqp://localhost'); print(sprockets_amqp.__file__, (STATIC / 'page.html').is_file())"
    )
    where, has_page = run(installed, "-W", "ignore", "-c", script, cwd=tmp_path).split()
    assert Path(where).is_relative_to(installed.parent.parent) and has_page == "True"
    assert "| trigger |" in run(installed.with_name("sprockets-amqp"), "diagram", "--print", "table", cwd=tmp_path)


def checked(installed: Path, program: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Check a program against what is installed, as its author would."""
    path = folder / "program.py"
    path.write_text(program)
    return subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--python-executable", installed, "--cache-dir", folder, path],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def test_its_types_are_seen(installed: Path, tmp_path: Path) -> None:
    """A program that uses it is checked strictly, and its mistakes are found."""
    done = checked(installed, USES, tmp_path)
    assert done.returncode == 0, done.stdout
    mistakes = "".join(f"    {line}\n" for line in MISTAKES)
    done = checked(installed, f"{USES}\ndef mistaken(client: amqp.Client) -> None:\n{mistakes}", tmp_path)
    assert [line.rpartition("[")[2].rstrip("]") for line in done.stdout.splitlines()[:-1]] == [*MISTAKES.values()]


def test_the_classifiers_are_true() -> None:
    """The versions of Python are those on which the whole suite is run; all of the matrix's systems are Linux.

    Whether it passed there is for the run to say. Asked here, one recorded failure would make the next run fail, too.
    """
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    classifiers = config["metadata"]["classifiers"]
    run = {str(row["python"]).rpartition(".")[0] for row in matrix.recorded()}
    assert set(re.findall(r"^Programming Language :: Python :: (3\.\d+)$", classifiers, re.MULTILINE)) == run
    assert re.findall(r"^Operating System :: (.*)$", classifiers, re.MULTILINE) == ["POSIX :: Linux"]


# sprockets.mixins.amqp, for dependencies that ask for it

#: Distributions that share the package `sprockets` with it, the first of which asks for it.
NEIGHBOURS: Final = (
    "sprockets.mixins.avro-publisher==3.0.1",
    "sprockets.http>=2.5",
    "sprockets.mixins.correlation>=3",
    "sprockets.mixins.mediatype>=3",
)
AVRO: Final = """
import asyncio, json, sys
import sprockets.http, sprockets.mixins.amqp, sprockets.mixins.correlation, sprockets.mixins.mediatype, sprockets_amqp
from sprockets.mixins import amqp, avro_publisher
from sprockets.mixins.amqp import AMQPException, PublishingMixin, install
from tornado.httpclient import AsyncHTTPClient
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application, RequestHandler

assert amqp is sprockets.mixins.amqp is sys.modules["sprockets.mixins.amqp"] is sprockets_amqp
assert PublishingMixin is sprockets_amqp.PublishingMixin
try:
    import sprockets.mixins.amqp.errors
except ModuleNotFoundError as error:
    assert "import names from sprockets.mixins.amqp" in str(error)
else:
    raise AssertionError("a second copy, whose exceptions nothing raises")

FIELDS = [{"name": "id", "type": "int"}, {"name": "who", "type": "string"}]
SCHEMA = {"type": "record", "name": "order", "fields": FIELDS}

class Schema(RequestHandler):
    def get(self) -> None:
        self.write(json.dumps(SCHEMA))

class Orders(avro_publisher.PublishingMixin, RequestHandler):
    async def post(self) -> None:
        await self.avro_amqp_publish(sys.argv[1], sys.argv[2], "order", {"id": 7, "who": "Ada"}, {"message_id": "o7"})

async def main() -> None:
    socket, port = bind_unused_port()
    settings = {"avro_schema_uri_format": f"http://127.0.0.1:{port}/%(name)s.avsc"}
    application = Application([(r"/order[.]avsc", Schema), ("/orders", Orders)], **settings)
    avro_publisher.install(application)
    server = HTTPServer(application)
    server.add_socket(socket)
    answer = await AsyncHTTPClient().fetch(f"http://127.0.0.1:{port}/orders", method="POST", body="")
    print(answer.code, application.amqp.counters.confirmed)
    await application.amqp.shutdown()
    server.stop()

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def beside(package: Path) -> Path:
    """The Python of an environment with the distribution of the old name, and with its neighbours."""
    folder = package.parent / "compat"
    shutil.copytree(ROOT / "compat", folder / "source", ignore=LEFT_OUT)
    run(sys.executable, "-m", "build", "--wheel", "--outdir", folder, folder / "source", cwd=package)
    environment = folder / "environment"
    run(sys.executable, "-m", "venv", environment, cwd=package)
    python = environment / "bin" / "python"
    wheels = [*package.glob("*.whl"), *folder.glob("*.whl")]
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wheels, *NEIGHBOURS, cwd=package)
    return python


def test_the_old_name_is_one_module_in_a_shared_package(beside: Path) -> None:
    """It brings no __init__.py that would hide what others have there, and pip finds all requirements met."""
    (wheel,) = beside.parents[2].glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert [name for name in names if ".dist-info/" not in name] == ["sprockets/mixins/amqp.py"]
    assert "No broken requirements found." in run(beside, "-m", "pip", "check", cwd=beside.parent)


async def test_a_dependency_that_asks_for_the_old_name_publishes(beside: Path, broker: Node) -> None:
    """sprockets.mixins.avro-publisher, unchanged: RabbitMQ has the datum, with its properties."""
    queue = await declare_queue(broker.url)
    program = (str(beside), "-c", AVRO, queue.exchange, queue.routing_key)
    process = await asyncio.create_subprocess_exec(
        *program, env={**bare_environment(), "AMQP_URL": broker.url}, stdout=PIPE, stderr=PIPE
    )
    out, err = await process.communicate()
    assert out.decode().strip() == "200 1", err.decode()
    (message,) = await queue.messages()
    assert message.body == b"\x0e\x06Ada"
    assert (message.properties.type, message.properties.message_id) == ("order", "o7")
