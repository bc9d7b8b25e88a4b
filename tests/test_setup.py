"""`.ci/setup` installs what is missing, and leaves nothing behind that keeps services from starting."""

import asyncio
import os
import signal
import stat
from pathlib import Path
from typing import Final

import pytest

from tests.support.waiting import until

SETUP: Final = Path(__file__).parent.parent / ".ci" / "setup"

#: Stands for apt-get: says so, shows the policy that it met, waits to be told to go on, and installs tmux.
APT_GET: Final = """#!/bin/sh
[ "$1" = update ] && exit 0
echo "$$" >>"$SETUP_ROOT/runs"
"$SETUP_ROOT/usr/sbin/policy-rc.d"; echo "policy $?" >>"$SETUP_ROOT/policies"
read -r _ <"$SETUP_ROOT/go_on"
printf '#!/bin/sh\\n' >"$SETUP_ROOT/bin/tmux"; chmod 755 "$SETUP_ROOT/bin/tmux"
"""


class System:
    """A system in a folder, that lacks tmux."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.policy = folder / "usr/sbin/policy-rc.d"
        self.policy.parent.mkdir(parents=True)
        (folder / "bin").mkdir()
        os.mkfifo(folder / "go_on")
        apt_get = folder / "bin/apt-get"
        apt_get.write_text(APT_GET)
        apt_get.chmod(stat.S_IRWXU)
        for tool in (
            "sh",
            "id",
            "printf",
            "grep",
            "mkdir",
            "flock",
            "setsid",
            "sleep",
            "rm",
            "mktemp",
            "tail",
            "chmod",
        ):
            found = next(path for path in (Path("/bin", tool), Path("/usr/bin", tool)) if path.exists())
            (folder / "bin" / tool).symlink_to(found)

    async def run(self) -> asyncio.subprocess.Process:
        """Start the script."""
        environment = {"PATH": str(self.folder / "bin"), "SETUP_ROOT": str(self.folder)}
        return await asyncio.create_subprocess_exec(
            SETUP, "terminal", env=environment, stderr=asyncio.subprocess.PIPE, start_new_session=True
        )

    async def installing(self) -> None:
        """Wait until apt-get runs."""
        await asyncio.to_thread(self._go_on, "")

    async def go_on(self) -> None:
        """Let apt-get install."""
        await asyncio.to_thread(self._go_on, "now\n")

    def _go_on(self, words: str) -> None:
        # Opening waits for the reader.
        descriptor = os.open(self.folder / "go_on", os.O_WRONLY)
        os.write(descriptor, words.encode())
        self.held = descriptor
        if words:
            os.close(descriptor)

    def read(self, name: str) -> list[str]:
        """Return the lines of a file."""
        path = self.folder / name
        return path.read_text().splitlines() if path.exists() else []

    async def without_policy(self) -> None:
        """Wait until the policy is gone."""
        await until(lambda: not self.policy.exists())


@pytest.fixture
def system(tmp_path: Path) -> System:
    """A system of the test's own."""
    return System(tmp_path)


async def test_services_are_forbidden_while_it_installs_and_not_after(system: System) -> None:
    """What is installed does not start, and the file that said so is gone."""
    setup = await system.run()
    await system.go_on()
    assert await setup.wait() == 0
    assert system.read("policies") == ["policy 101"]
    await system.without_policy()
    again = await system.run()
    assert await again.wait() == 0
    assert len(system.read("runs")) == 1


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
async def test_a_script_that_is_killed_leaves_no_policy(system: System, number: signal.Signals) -> None:
    """Nor one that still forbids: it does not, from the moment when the script is gone."""
    setup = await system.run()
    await system.installing()
    assert system.policy.exists()
    os.kill(setup.pid, number)
    if number is signal.SIGKILL:
        # The others reach a shell only when what it waits for has ended.
        await system.without_policy()
    os.killpg(setup.pid, signal.SIGKILL)
    await setup.wait()
    os.close(system.held)
    await system.without_policy()


async def test_a_script_that_is_killed_at_once_leaves_no_policy(system: System) -> None:
    """What removes the policy has left the script's process group before there is one, however long that takes."""
    setsid = system.folder / "bin/setsid"
    real = setsid.readlink()
    setsid.unlink()
    setsid.write_text(f'#!/bin/sh\nsleep 0.5\nexec {real} "$@"\n')
    setsid.chmod(stat.S_IRWXU)
    setup = await system.run()
    await system.installing()
    assert system.policy.exists()
    os.killpg(setup.pid, signal.SIGKILL)
    await setup.wait()
    os.close(system.held)
    await system.without_policy()


async def test_two_at_once_install_once_and_leave_no_policy(system: System) -> None:
    """The second waits for the first, and finds everything there."""
    setups = [await system.run(), await system.run()]
    await system.go_on()
    assert [await setup.wait() for setup in setups] == [0, 0]
    assert len(system.read("runs")) == 1
    await system.without_policy()


async def test_the_administrators_policy_stays(system: System) -> None:
    """A file of another's is neither changed nor removed."""
    system.policy.write_text("#!/bin/sh\nexit 104\n")
    system.policy.chmod(stat.S_IRWXU)
    setup = await system.run()
    await system.go_on()
    assert await setup.wait() == 0
    assert system.read("policies") == ["policy 104"]
    assert "exit 104" in system.policy.read_text()
