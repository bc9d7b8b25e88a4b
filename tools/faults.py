"""The table of faults, from the tests that cause them."""

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parent.parent / "tests"

#: Every fault that a publisher must survive, by its number in the tests' marks.
FAULTS = {
    1: "connection closed by an operator",
    2: "RabbitMQ application restarted",
    3: "broker killed (kill -9)",
    4: "node drained for maintenance",
    5: "listeners suspended",
    6: "memory alarm",
    7: "disk alarm",
    8: "close() while blocked",
    9: "blocked too long",
    10: "connection killed while blocked",
    11: "exchange missing",
    12: "exchange deleted mid-stream",
    13: "permission revoked",
    14: "user or vhost deleted",
    15: "password changed",
    16: "connection or channel limit",
    17: "queue full",
    18: "unroutable",
    19: "TCP reset",
    20: "end of stream",
    21: "black hole",
    22: "broker frozen",
    23: "torn frames",
    24: "half a frame, then silence",
    25: "latency",
    26: "frozen during the handshake",
    27: "DNS fails or hangs",
    28: "no descriptors, no threads",
    29: "broker out of descriptors",
    30: "TLS: expired, untrusted, wrong host, plain server, hang, no client certificate, cut",
    31: "malformed frames, wrong protocol",
    32: "channel.flow",
    33: "odd confirms",
    34: "no publisher confirms offered",
    35: "bodies up to RabbitMQ's limit, and beyond",
    36: "headers larger than a frame",
    37: "wrong types and values",
    38: "cancelled futures",
    39: "callbacks that raise",
    40: "event loop blocked",
    41: "close() in every state, twice, and during a delay",
    42: "leader of a quorum queue killed",
    43: "quorum lost",
    44: "the client's node killed, in a cluster",
}


def seen() -> dict[int, list[str]]:
    """Return, for each fault, what an application sees: the first lines of its tests' docstrings."""
    found: dict[int, list[str]] = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.AsyncFunctionDef, ast.FunctionDef, ast.ClassDef)):
                for number in _marks(node):
                    found.setdefault(number, []).append(" ".join((ast.get_docstring(node) or "").split()))
    return found


def _marks(node: ast.AsyncFunctionDef | ast.FunctionDef | ast.ClassDef) -> list[int]:
    marks = (re.fullmatch(r"pytest\.mark\.fault\((\d+)\)", ast.unparse(each)) for each in node.decorator_list)
    return [int(mark[1]) for mark in marks if mark]


def table() -> str:
    """Return the matrix as Markdown."""
    rows = [f"| {number} | {FAULTS[number]} | {' '.join(texts)} |" for number, texts in sorted(seen().items())]
    return "".join(f"{row}\n" for row in ["| | fault | what your application sees |", "|---|---|---|", *rows])
