"""The ways to start an application, for their tests and the table in the documentation."""

import os
from typing import Final

MODULE, CONSTRUCTOR, BEFORE_RUN = "at module level", "in the constructor", "in before_run"
INSIDE, AFTER = "inside asyncio.run", "after the fork"

#: Where install() may be called, by what runs the application, and how many processes publish then.
WAYS: Final[dict[str, tuple[tuple[str, ...], int]]] = {
    "IOLoop.current().start()": ((MODULE, CONSTRUCTOR), 1),
    "asyncio.run": ((MODULE, CONSTRUCTOR, INSIDE), 1),
    "sprockets.http, number_of_procs 1": ((CONSTRUCTOR, BEFORE_RUN), 1),
    "sprockets.http, number_of_procs 2": ((CONSTRUCTOR, BEFORE_RUN), 2),
    "sprockets.http, number_of_procs 0": ((CONSTRUCTOR, BEFORE_RUN), os.cpu_count() or 1),
    "HTTPServer.start(2)": ((MODULE, CONSTRUCTOR, AFTER), 2),
    "fork_processes(2), IOLoop.current().start()": ((MODULE, CONSTRUCTOR, AFTER), 2),
    "fork_processes(2), asyncio.run": ((MODULE, CONSTRUCTOR, AFTER), 2),
}


def table() -> str:
    """Write the ways as a Markdown table."""
    head = "| the application is run by | `install()` is called | processes |\n| --- | --- | --- |\n"
    number = {1: "one", 2: "two"}
    rows = []
    for runner, (places, count) in WAYS.items():
        processes = "one per processor" if runner.endswith(" 0") else number[count]
        rows.append(f"| {_runner(runner)} | {', '.join(places)} | {processes} |\n")
    return head + "".join(rows)


def _runner(runner: str) -> str:
    if runner.startswith("sprockets.http"):
        return f"`sprockets.http.run()` with `number_of_procs` {runner[-1]}"
    return ", then ".join(f"`{part}`" for part in runner.split(", "))
