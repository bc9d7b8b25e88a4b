"""The code in the documents, as mypy --strict sees it: readers paste it into typed applications."""

import dataclasses
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Final

import pytest

import sprockets_amqp as amqp
from sprockets_amqp.client import Arguments
from sprockets_amqp.delivery.encoding import PROPERTY_NAMES
from sprockets_amqp.settings import MoreSettings
from tests.docs.test_all import READERS_OWN, undefined
from tests.support.documents import Document
from tools.documents import ROOT, documents

#: What is the reader's own, by name, as each block that needs it is given it.
OWN: Final = {
    "application": "application: Application",
    "handlers": "handlers: list[tuple[str, type[RequestHandler]]]",
    "client": "client: Client",
    "body": "body: bytes",
    "CLIENT_SECRET": "CLIENT_SECRET: str",
    "TOKEN_URL": "TOKEN_URL: str",
    "VAULT_ADDR": "VAULT_ADDR: str",
    "VAULT_TOKEN": "VAULT_TOKEN: str",
    "KEY_PASSWORD": "KEY_PASSWORD: str",
    "Events": "class Events(RequestHandler): ...",
    "fetch": "async def fetch(application: Application, path: str, body: str) -> HTTPResponse: ...",
}
IMPORTS: Final = """\
from sprockets_amqp import Client
from tornado.httpclient import HTTPResponse
from tornado.web import Application, RequestHandler
"""


def as_module(text: str) -> str:
    """Return a block as a module: ``await`` stands in a coroutine function, and the reader's own is there."""
    given = "\n".join(OWN[name] for name in sorted(undefined(text)))
    try:
        compile(text, "block", "exec")
    except SyntaxError:
        text = f"async def block() -> None:\n{textwrap.indent(text, '    ')}"
    return f"{IMPORTS if given else ''}\n{given}\n{text}"


def mypy(*paths: Path) -> str:
    """Return what mypy --strict finds."""
    arguments = ["--strict", "--no-error-summary", "--disable-error-code=empty-body", "--config-file="]
    arguments.append(f"--cache-dir={paths[0].parent / 'cache'}")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *arguments, *map(str, paths)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    return done.stdout + done.stderr


def test_the_code_of_all_documents_is_typed(tmp_path: Path) -> None:
    """Each block of Python is; sprockets.http is distributed without annotations."""
    paths = []
    for document in documents():
        page = Document(str(document.relative_to(ROOT)))
        texts = [each.text for each in page.blocks() if each.language == "python"]
        for number, text in enumerate(texts):
            path = tmp_path / f"{document.stem.lower().replace('-', '_')}_{number}.py"
            path.write_text(as_module(textwrap.dedent(text)))
            paths.append(path)
    assert len(paths) > 40
    found = [line for line in mypy(*paths).splitlines() if '"sprockets' not in line and "running_mypy" not in line]
    assert found == []


WRONG: Final = """\
from typing import Any
from tornado.web import Application, RequestHandler
import sprockets_amqp as amqp

app = Application()
amqp.install(app, time_out=5)
amqp.install(app, timeout="soon")
amqp.Client("amqp://h", max_waitin=5)
amqp.Client.from_environment(outbox=5)
properties: amqp.Properties = {"delivery_mod": 2}
amqp.client_of(app, "audit").publish("a", "b", b"", time_out=5)
"""
RIGHT: Final = """\
from pathlib import Path
from typing import Any
from tornado.web import Application
import sprockets_amqp as amqp

app = Application()
amqp.install(app, timeout=5, url=lambda: "amqp://h", on_ready_callback=print, outbox=Path("x"))
amqp.install(app, name="audit", setup=None, tls_ca="x")
amqp.Client("amqp://h", timeout=5, max_message_size=None)
amqp.Client.from_environment(name="audit", timeout=5)
properties: amqp.Properties = {"delivery_mode": 2, "headers": {"a": 1}}
mine: dict[str, Any] = {"type": "t"}
for each in (amqp.client_of(app), amqp.client_of(app, "audit")):
    each.publish("a", "b", b"", properties)
    each.publish("a", "b", bytearray(b""), mine)
    each.publish("a", "b", "", {"delivery_mode": 2}, timeout=0)
"""


def test_a_misspelt_setting_is_seen_and_a_right_one_is_none(tmp_path: Path) -> None:
    """By mypy, line by line, for each way to make a client, and for properties."""
    wrong, right = tmp_path / "wrong.py", tmp_path / "right.py"
    wrong.write_text(WRONG)
    right.write_text(RIGHT)
    found = mypy(wrong, right)
    assert "right.py" not in found, found
    lines = [number for number, line in enumerate(WRONG.splitlines(), 1) if number > 5]
    assert [number for number in lines if f"wrong.py:{number}: error" not in found] == [], found


def test_the_types_have_every_setting_and_property() -> None:
    """None is missing, and none is made up."""
    settings = {field.name for field in dataclasses.fields(amqp.Settings)}
    assert settings <= Arguments.__annotations__.keys()
    assert MoreSettings.__annotations__.keys() <= settings
    assert tuple(amqp.Properties.__annotations__) == PROPERTY_NAMES


def test_what_is_the_readers_own_has_a_type() -> None:
    """Each name of it."""
    assert OWN.keys() == READERS_OWN


@pytest.mark.parametrize("given", ["await client.flush()", "print(client)"])
def test_a_block_is_made_a_module(given: str) -> None:
    """Whether it awaits or not."""
    assert "client: Client" in as_module(given)
    compile(as_module(given), "module", "exec")
