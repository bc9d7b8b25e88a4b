"""Where RabbitMQ is, and how to log in: the setting ``url``, or what the function given in its place returns."""

import asyncio
import inspect
import math
import random
import sys
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote, unquote

import pika

from sprockets_amqp.access import Access
from sprockets_amqp.errors import AMQPException
from sprockets_amqp.settings import Settings
from sprockets_amqp.text import shown
from sprockets_amqp.urls import hide_password, node_name, node_parameters, split
from sprockets_amqp.wire.login import ByCertificate

from .attempts import Attempts

#: Seconds that the function may take.
CALL_LIMIT: Final = 10.0

#: Called when the function has returned: with None, or with what is wrong.
Tell = Callable[[AMQPException | None], object]


@dataclass(frozen=True)
class Node:
    """One node; two are equal if their host, port and vhost are."""

    host: str
    port: int
    vhost: str
    url: str = field(compare=False, repr=False)
    parameters: pika.URLParameters = field(compare=False, repr=False)


class Address:
    """What is known about the nodes, which is next, and the call to the function that returns them.

    Attributes:
        url: the URL as given or last returned; None until the function has returned one.
        attempts: decides which node is next.
        lifetime: seconds for which the credentials were valid when they were returned; infinite if they do not expire.
    """

    def __init__(self, settings: Settings, loop: asyncio.AbstractEventLoop) -> None:
        self.url: str | None = None
        self.attempts: Attempts[Node] = Attempts([], settings.reconnect_delay, settings.max_reconnect_delay)
        self._settings = settings
        self._loop = loop
        self._call: asyncio.Task[None] | None = None
        self.lifetime = math.inf
        #: When the credentials expire, in the loop's time.
        self._valid_until = math.inf
        #: The passwords of the current and the previous answer.
        self._passwords: deque[list[str]] = deque(maxlen=2)
        #: The node last tried with TLS files, and the parameters with their contents.
        self._used: tuple[Node | None, pika.URLParameters | None] = (None, None)
        #: The last answer's parameters for the connected node or, if it does not name that one, for its first node.
        self._answered: pika.URLParameters | None = None
        if isinstance(settings.url, str):
            self._take(settings.url, math.inf)

    # What is known

    @property
    def parameters(self) -> pika.URLParameters | None:
        """pika's parameters for the node that is connected or tried next; None if none is known."""
        node, (used, parameters) = self.attempts.node, self._used
        if node is None:
            return None
        return parameters if node is used else node.parameters

    @property
    def next_step(self) -> str:
        """Say what the next attempt begins with."""
        return f"calling {self.function}" if self.is_due else f"trying {self.node_name}"

    @property
    def node_name(self) -> str:
        """Name the node that is connected or tried next."""
        parameters = self.parameters
        return node_name(parameters) if parameters is not None else "a node that is not known yet"

    @property
    def function(self) -> str:
        """The function's name."""
        return self._settings.shown_url

    @property
    def is_due(self) -> bool:
        """Whether to call the function before the next attempt."""
        return not isinstance(self._settings.url, str) and (self.attempts.due or self.valid_for <= 0)

    @property
    def user(self) -> str | None:
        """The user's name in the last answer."""
        return getattr(self._answered and self._answered.credentials, "username", None)

    @property
    def password(self) -> str:
        """The password in the last answer."""
        return str(getattr(self._answered and self._answered.credentials, "password", ""))

    @property
    def expires(self) -> bool:
        """Whether the credentials expire."""
        return self.lifetime < math.inf

    @property
    def valid_for(self) -> float:
        """How many more seconds the credentials are valid."""
        return self._valid_until - self._loop.time()

    # What is done

    def prepare(self) -> pika.URLParameters:
        """Return the parameters for an attempt on the next node, with its TLS files read afresh.

        Raises:
            AMQPException: a file cannot be used; the error names it.
        """
        node = self.attempts.node
        assert node is not None
        if node.parameters.ssl_options is None and not self._settings.tls.given:
            return node.parameters
        try:
            [read] = node_parameters(node.url, self._settings.tls, self._settings.auth)
        except ValueError as error:
            raise AMQPException().saying(str(error)) from None
        read = self._named(read, node.parameters.connection_attempts)
        self._used = node, read
        return read

    def call(self, tell: Tell, *, for_connection: bool = False) -> None:
        """Call the function, take over its answer, and call ``tell``; after `stop_call` neither happens.

        With ``for_connection`` the answer is for the open connection, and does not change which node is next.
        """
        answers: list[object] = []
        # An eager task factory would call the function within a transition.
        self._call = task = asyncio.Task(self._append(answers), loop=self._loop)
        task.add_done_callback(lambda _task: self._on_done(task, answers, tell, for_connection))

    def stop_call(self) -> None:
        """Cancel the call, if it has not returned yet."""
        task, self._call = self._call, None
        if task is not None:
            task.cancel()

    async def _append(self, answers: list[object]) -> None:
        """Append what the function returns or raises: asyncio logs results and errors of tasks, secrets included."""
        function = self._settings.url
        assert not isinstance(function, str)
        try:
            answer = function()
            answers.append(await answer if inspect.isawaitable(answer) else answer)
        except Exception as error:
            answers.append(error)

    def _on_done(self, task: "asyncio.Task[None]", answers: list[object], tell: Tell, for_connection: bool) -> None:
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if task is not self._call:
            return
        self._call = None
        [answer] = [error] if error is not None else answers
        if isinstance(answer, BaseException):
            problem = self._problem(answer)
        else:
            problem = self._take_answer(answer, for_connection)
        tell(AMQPException().saying(f"{self.function} {problem}") if problem else None)

    def _problem(self, error: BaseException) -> str:
        """Say what the function raised; its text only if it is this package's, which an application raises to show it.

        Other exceptions may quote a secret that this client has never seen, and tracebacks even more.
        """
        text = str(error) if isinstance(error, AMQPException) else ""
        for password in sorted({each for answer in self._passwords for each in answer}, key=len, reverse=True):
            text = text.replace(password, "***")
        name, said = type(error).__name__, shown(" ".join(hide_password(text).split()))
        return f"raised {name}: {said}" if said else f"raised {name}"

    def _take_answer(self, answer: object, for_connection: bool) -> str:
        """Take over the answer; return what is wrong with it, or the empty string."""
        valid_for = math.inf
        if isinstance(answer, Access):
            given: object = answer.valid_for
            answer = answer.url
            if given is not None:
                if isinstance(given, bool) or not isinstance(given, int | float) or not 0 < given <= sys.float_info.max:
                    return "returned a valid_for that is not a number of seconds above 0"
                valid_for = float(given)
        if not isinstance(answer, str):
            return f"returned an object of type {type(answer).__name__} instead of a URL"
        try:
            self._take(answer, valid_for, for_connection)
        except ValueError as error:
            return f"returned a URL that cannot be used: it {error}"
        return ""

    def _take(self, url: str, valid_for: float, for_connection: bool = False) -> None:
        parsed = node_parameters(url, auth=self._settings.auth)
        if valid_for < math.inf and any(isinstance(each.credentials, ByCertificate) for each in parsed):
            raise ValueError("has auth=external, and a certificate cannot be renewed while connected: omit valid_for")
        # Each of several nodes is tried once, so that the next one's turn comes soon.
        attempts = self._settings.connection_attempts if len(parsed) == 1 else 1
        nodes = [
            Node(each.host, each.port, each.virtual_host, its_url, self._named(each, attempts))
            for its_url, each in zip(split(url), parsed, strict=True)
        ]
        self.url = url
        self.lifetime, self._valid_until = valid_for, self._loop.time() + valid_for
        self._passwords.append([each for node in nodes for each in _spellings(node.parameters)])
        self._answered = next((node for node in nodes if node == self.attempts.node), nodes[0]).parameters
        if not for_connection:
            # In random order, so that clients spread over the nodes.
            self.attempts.replace(random.sample(nodes, len(nodes)))

    def _named(self, parameters: pika.URLParameters, attempts: int) -> pika.URLParameters:
        parameters.connection_attempts = attempts
        properties = dict(parameters.client_properties or {})
        properties.setdefault("connection_name", self._settings.default_app_id or "sprockets_amqp")
        parameters.client_properties = properties
        return parameters


def _spellings(parameters: pika.URLParameters) -> Iterator[str]:
    """Yield the forms in which a password may be written."""
    password = getattr(parameters.credentials, "password", "")
    for each in {password, quote(password, safe=""), quote(password), unquote(password), repr(password)[1:-1]}:
        if each:
            yield each
