"""Any asyncio event loop: in debug mode, with eager tasks, and without add_reader()."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
from pamqp import commands

from tests.support.certificates import Authority
from tests.support.scripted import ScriptedBroker

SCRIPT = """
import asyncio, sys, warnings
import sprockets_amqp as amqp
url, ca, kind = sys.argv[1:]

def refuse(*_):
    raise NotImplementedError

class Bare(asyncio.SelectorEventLoop):
    add_reader = add_writer = refuse

async def main():
    loop = asyncio.get_running_loop()
    # A busy machine is no slow callback.
    loop.slow_callback_duration = 60
    loop.set_exception_handler(lambda _loop, context: print("escaped", context))
    if kind == "eager" and sys.version_info >= (3, 12):
        loop.set_task_factory(asyncio.eager_task_factory)
    files = {"tls_ca": ca} if url.startswith("amqps") else {}
    settings = {"reconnect_delay": 0.01, "max_reconnect_delay": 0.01, "enable_confirmations": False}
    client = amqp.Client(url, **settings, **files)
    await client.publish("", "q", bytes(3_000_000))
    client.connection.socket.shutdown(2)
    await client.wait_for(amqp.State.CLOSED, 20)
    await client.publish("", "q", bytes(10))
    await client.shutdown()
    client = amqp.Client("amqp://127.0.0.1:1", connection_attempts=1, reconnect_delay=9)
    await client.wait_for(amqp.State.CLOSED, 20)
    await client.shutdown()
    client = amqp.Client(url, **files)
    await asyncio.sleep(0)
    await client.shutdown()
    print(type(loop).__name__, len(asyncio.all_tasks()))

with asyncio.Runner(loop_factory=Bare if kind == "bare" else None) as runner:
    runner.run(main())
"""


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
@pytest.mark.parametrize("kind", ["usual", "debug", "eager", "bare"])
async def test_a_client_lives_on_it(tmp_path: Path, kind: str, secure: bool) -> None:
    """It connects, publishes, loses its connection, makes another, and leaves nothing: no warning, no traceback."""
    authority = Authority(tmp_path)
    async with ScriptedBroker(context=authority.server_context() if secure else None) as broker:
        broker.answers["Confirm.Select"] = commands.Confirm.SelectOk()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-X", "dev", "-W", "error", "-c", SCRIPT),
            *(broker.url(), str(authority.certificate), kind),
            env={**os.environ, "PYTHONASYNCIODEBUG": "1" if kind == "debug" else ""},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(process.communicate(), 60)
        lines = [line for line in err.decode().splitlines() if not line.startswith(("connection is", "ready"))]
        assert (process.returncode, lines) == (0, [])
        name, tasks = out.decode().split()
        assert (name == "Bare") is (kind == "bare")
        assert tasks == "1"
        bodies = [(await broker.peer()).published for _ in range(2)]
    assert [[len(message.body) for message in each] for each in bodies] == [[3_000_000], [10]]
