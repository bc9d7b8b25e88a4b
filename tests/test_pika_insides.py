"""What is used of pika's insides: it is there, does what ours rely on, and is used nowhere else."""

import ast
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pika
import pytest
from pika.connection import Connection as PikaConnection
from pika.heartbeat import HeartbeatChecker
from tornado.ioloop import IOLoop

from sprockets_amqp.wire.connection import Connection
from sprockets_amqp.wire.pika_insides import INSIDES, RETOLD, STRAY, url_options
from tests.support.wire import BODY_MAX, ours

PACKAGE: Final = Path(__file__).parent.parent / "sprockets_amqp"
PIKA: Final = Path(pika.__file__).parent
#: Where pika's insides may be used, by what of them.
USERS: Final = {"pika_insides.py", "connection.py"}
LISTED: Final = {name for _, name, _ in INSIDES}
#: Modules of pika that are not documented.
UNDOCUMENTED: Final = ("pika.adapters.utils", "pika.data", "pika.callback", "pika.heartbeat", "pika.tcp_socket_opts")


def body_of(function: Any) -> str:
    """Return the code of a function, comments and docstring apart."""
    [definition] = ast.parse(inspect.cleandoc("\n" + inspect.getsource(function))).body
    assert isinstance(definition, ast.FunctionDef)
    has_docstring = ast.get_docstring(definition) is not None
    return "\n".join(map(ast.unparse, definition.body[has_docstring:]))


def found(place: str, name: str) -> bool:
    """Tell whether a module or class of pika has an attribute, be it that its instances get it."""
    try:
        thing: Any = importlib.import_module(place)
    except ModuleNotFoundError:
        module, _, attribute = place.rpartition(".")
        thing = getattr(importlib.import_module(module), attribute)
    if name.endswith("*"):
        return any(each.startswith(name[:-1]) for each in dir(thing))
    bases = [base for base in getattr(thing, "__mro__", ()) if base.__module__.startswith("pika")]
    return hasattr(thing, name) or any(f"self.{name} =" in inspect.getsource(base) for base in bases)


@pytest.mark.parametrize(("place", "name"), [(place, name) for place, name, _ in INSIDES])
def test_the_installed_pika_has_what_is_listed(place: str, name: str) -> None:
    """Another version of pika that lacks something fails here, by its name."""
    assert found(place, name)


def test_a_name_that_pika_lacks_is_noticed() -> None:
    """The check looks."""
    assert not found("pika.connection.Connection", "_no_such_thing")
    assert not found("pika.connection.URLParameters", "_no_such_*")


@pytest.mark.parametrize(
    ("function", "parameters"),
    [
        (PikaConnection._adapter_connect_stream, ["self"]),  # type: ignore[attr-defined]
        (PikaConnection._adapter_disconnect_stream, ["self"]),  # type: ignore[attr-defined]
        (PikaConnection._adapter_emit_data, ["self", "data"]),  # type: ignore[attr-defined]
        (PikaConnection._adapter_call_later, ["self", "delay", "callback"]),  # type: ignore[attr-defined]
        (PikaConnection._adapter_remove_timeout, ["self", "timeout_id"]),  # type: ignore[attr-defined]
        (PikaConnection._adapter_add_callback_threadsafe, ["self", "callback"]),  # type: ignore[attr-defined]
        (PikaConnection._on_stream_connected, ["self"]),  # type: ignore[attr-defined]
        (PikaConnection._process_frame, ["self", "frame_value"]),  # type: ignore[attr-defined]
        (PikaConnection._on_stream_terminated, ["self", "error"]),  # type: ignore[attr-defined]
        (PikaConnection._terminate_stream, ["self", "error"]),  # type: ignore[attr-defined]
        (pika.channel.Channel._send_method, ["self", "method", "content"]),  # type: ignore[attr-defined]
    ],
)
def test_pika_has_the_methods_that_ours_stand_in_for_or_call(function: Any, parameters: list[str]) -> None:
    """With the parameters that they have."""
    assert list(inspect.signature(function).parameters) == parameters


def test_an_adapter_has_no_more_to_do() -> None:
    """These are all that pika leaves to it, and ours has them."""
    assert PikaConnection.__abstractmethods__ == {name for name in LISTED if name.startswith("_adapter_")}
    assert not Connection.__abstractmethods__


def test_pika_decodes_frames_and_processes_them_as_ours_does() -> None:
    """It counts their octets, where heartbeats look, and does nothing else with them."""
    reading = body_of(PikaConnection._on_data_available)  # type: ignore[attr-defined]
    assert reading.count("self._process_frame(frame_value)") == 1
    assert "self.bytes_received +=" in inspect.getsource(PikaConnection)
    assert "return self._connection.bytes_received" in inspect.getsource(
        HeartbeatChecker.bytes_received_on_connection.fget  # type: ignore[attr-defined]
    )


def test_pika_splits_bodies_where_ours_does() -> None:
    """The body of a frame is as long as was negotiated, less eight octets around it."""
    io_loop = IOLoop(make_current=False)
    connection, _ = ours(io_loop)
    assert connection._body_max_length == BODY_MAX
    assert "self._body_max_length" in body_of(PikaConnection._send_message)  # type: ignore[attr-defined]
    io_loop.close()


def test_the_options_of_a_url_are_pikas() -> None:
    """Those that pika documents are among them."""
    assert {"heartbeat", "ssl_options", "client_properties", "channel_max"} <= url_options()


@pytest.mark.parametrize("name", RETOLD)
def test_pika_logs_what_is_left_out_of_its_log(name: str) -> None:
    """Each of the texts is one of the module that logs it: another version that words it otherwise fails here."""
    source = ast.parse(inspect.getsource(importlib.import_module(name)))
    texts = {node.value for node in ast.walk(source) if isinstance(node, ast.Constant)}
    assert texts >= RETOLD[name]


@pytest.mark.parametrize("name", STRAY)
def test_pika_logs_of_stray_frames_what_is_bounded(name: str) -> None:
    """In these words."""
    source = ast.parse(inspect.getsource(importlib.import_module(name)))
    assert {node.value for node in ast.walk(source) if isinstance(node, ast.Constant)} >= STRAY[name]


# And nowhere else


def private_names() -> set[str]:
    """Collect the names with an underscore that pika defines or assigns."""
    names = set()
    for path in PIKA.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                names.add(node.name)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                names.add(node.attr)
    return {name for name in names if name.startswith("_") and not name.startswith("__")}


def uses(tree: ast.AST, private: set[str]) -> Iterator[str]:
    """Yield what the code uses of pika's insides: names on other objects, and undocumented modules."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in private:
            if not (isinstance(node.value, ast.Name) and node.value.id in {"self", "cls"}):
                yield node.attr
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            yield from (module for module in modules if module.startswith(UNDOCUMENTED))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in private:
            yield node.value


def test_no_other_module_uses_pikas_insides() -> None:
    """A private name of pika's, or one of its undocumented modules, is used in its own place only."""
    private = private_names()
    others = {
        path.name: used
        for path in PACKAGE.rglob("*.py")
        if path.name not in USERS and (used := set(uses(ast.parse(path.read_text()), private)))
    }
    # asyncio has the same name for another thing.
    assert others == {"place.py": {"_loop"}}


def test_what_is_used_is_listed() -> None:
    """In the modules that may use pika's insides, each such name is one of the list."""
    private = private_names()
    for name in USERS:
        tree = ast.parse((PACKAGE / "wire" / name).read_text())
        used = {each for each in uses(tree, private) if each in private}
        ours_too = {
            node.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and node.attr in private
        }
        assert used - ours_too <= LISTED, name


def test_what_our_connection_uses_of_its_own_base_is_listed() -> None:
    """Our connection is pika's: what it calls or reads of itself and does not define is pika's, too."""
    tree = ast.parse((PACKAGE / "wire" / "connection.py").read_text())
    names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    defined = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    set_here = {
        node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
    }
    assert (names & private_names()) - (defined - LISTED) - (set_here - LISTED) <= LISTED


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("connection._transport.abort()", {"_transport"}),
        ("getattr(connection, '_transport')", {"_transport"}),
        ("from pika.adapters.utils.io_services_utils import x", {"pika.adapters.utils.io_services_utils"}),
        ("from pika import data", {"pika.data"}),
        ("self._transport = None", set()),
    ],
)
def test_the_scan_finds_such_names(code: str, found: set[str]) -> None:
    """Each way to use them is seen; names of our own objects are ours."""
    used = set(uses(ast.parse(code), private_names()))
    assert {name for name in used if name != "pika.adapters.utils.io_services_utils.x"} == found
