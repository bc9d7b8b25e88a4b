"""README.md and the pages of docs/, as their readers use them: code is run, commands are typed, tables are read."""

import ast
import asyncio
import inspect
import re
import types
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple

from tornado.web import Application

import sprockets_amqp as amqp
from tools.documents import ROOT

SECONDS: Final = 240
_BLOCK: Final = re.compile(
    r"^#+ (?P<heading>[^\n]*)$|^(?P<indent> *)```(?P<language>[\w{}-]*)[^\n]*\n(?P<text>.*?)^ *```$",
    re.MULTILINE | re.DOTALL,
)


class Block(NamedTuple):
    """A block of code: the heading it stands under, its language, and its text."""

    heading: str
    language: str
    text: str


class Document:
    """A document by its path from the root of the project, such as ``docs/errors.md``."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.text = (ROOT / path).read_text()

    def blocks(self) -> list[Block]:
        """Every block of code, in order, under the nearest heading of any level."""
        result, heading = [], ""
        for match in _BLOCK.finditer(self.text):
            if match["heading"]:
                heading = match["heading"]
            else:
                result.append(Block(heading, match["language"], match["text"]))
        return result

    def block(self, heading: str, language: str, number: int = 0) -> str:
        """The block of this language under the heading; `number` counts them where there are several."""
        return [each.text for each in self.blocks() if (each.heading, each.language) == (heading, language)][number]

    def commands(self, heading: str) -> list[str]:
        """The lines of the shell blocks under the heading, without comments."""
        texts = [each.text for each in self.blocks() if (each.heading, each.language) == (heading, "sh")]
        return [line for text in texts for line in text.splitlines() if line and not line.startswith("#")]

    def section(self, heading: str) -> str:
        """What stands under the heading, up to the next one of any level."""
        found = re.search(
            rf"^#+ {re.escape(heading)}\n(.*?)(?=^#+ |\Z)", re.sub(r"^```.*?^```$", "", self.text, flags=_FLAGS), _FLAGS
        )
        assert found, f"{self.path} has no heading {heading!r}"
        return found[1]

    def rows(self, heading: str) -> list[list[str]]:
        """The first table under the heading, without its head."""
        section = self.section(heading)
        lines = section[section.index("\n| ") + 1 :].partition("\n\n")[0].splitlines()
        return [[cell.strip().strip("`") for cell in line.strip("|").split(" | ")] for line in lines[2:]]

    @asynccontextmanager
    async def run(self, heading: str, number: int = 0, **names: object) -> AsyncIterator[dict[str, Any]]:
        """Run the block of Python under the heading as a module that knows `names`; `await` may stand anywhere.

        Yields its names, and shuts the clients of its applications down.
        """
        namespace: dict[str, Any] = {"__name__": "document", **names}
        text = self.block(heading, "python", number)
        code = compile(text, self.path, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        try:
            async with asyncio.timeout(SECONDS):
                ended = types.FunctionType(code, namespace)()
                if inspect.isawaitable(ended):
                    await ended
            yield namespace
        finally:
            clients = {each for each in namespace.values() if isinstance(each, amqp.Client)}
            for application in {each for each in namespace.values() if isinstance(each, Application)}:
                clients.update(getattr(application, "amqp_clients", {}).values())
            for client in clients:
                await client.shutdown(5)


_FLAGS: Final = re.MULTILINE | re.DOTALL
