"""A Prometheus of the tests' own."""

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import urlencode

from tests.support.http import fetch
from tests.support.waiting import LIMIT
from tools.rabbitmq import free_port

#: JSON is YAML, too.
EVERY: Final = {"scrape_interval": "200ms", "scrape_timeout": "200ms", "evaluation_interval": "200ms"}


class Prometheus:
    """Scrapes one target, and evaluates rules, until the block ends."""

    def __init__(self, folder: Path, target: str, rules: Path) -> None:
        self._folder = folder
        self._config = folder / "prometheus.yml"
        scrape = {"job_name": "application", "static_configs": [{"targets": [target]}]}
        config = {"global": EVERY, "rule_files": [str(rules)], "scrape_configs": [scrape]}
        self._config.write_text(json.dumps(config))
        self._url = ""
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        address = f"127.0.0.1:{free_port()}"
        self._url = f"http://{address}/api/v1"
        with (self._folder / "prometheus.log").open("w") as log:
            self._process = await asyncio.create_subprocess_exec(
                "prometheus",
                f"--config.file={self._config}",
                f"--storage.tsdb.path={self._folder / 'data'}",
                f"--web.listen-address={address}",
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.terminate()
        await self._process.wait()

    async def query(self, expression: str) -> dict[frozenset[tuple[str, str]], float]:
        """Evaluate an expression now: each series' labels, and its value."""
        data = await self._ask("query", query=expression)
        return {frozenset(each["metric"].items()): float(each["value"][1]) for each in data["result"]}

    async def raised(self) -> set[str]:
        """Name the alerts whose condition holds, for long enough or not yet."""
        return {alert["labels"]["alertname"] for alert in (await self._ask("alerts"))["alerts"]}

    async def until_raised(self, *names: str) -> None:
        """Wait until the conditions of all these alerts hold."""
        async with asyncio.timeout(LIMIT):
            while not await self.raised() >= set(names):
                await asyncio.sleep(0.05)

    async def until_over(self, name: str) -> None:
        """Wait until the condition of this alert does not hold."""
        async with asyncio.timeout(LIMIT):
            while name in await self.raised():
                await asyncio.sleep(0.05)

    async def _ask(self, what: str, **arguments: str) -> Any:
        async with asyncio.timeout(LIMIT):
            while True:
                # While it starts, it refuses connections, or answers 503.
                try:
                    answer = await fetch(f"{self._url}/{what}?{urlencode(arguments)}")
                except OSError:
                    answer = None
                if answer is not None and answer.code != 503:
                    assert answer.code == 200, answer.body
                    return json.loads(answer.body)["data"]
                await asyncio.sleep(0.05)
