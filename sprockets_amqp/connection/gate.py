"""The gate: what becomes of a publish now, as the connection, the outage and the outbox together declare it."""

from sprockets_amqp.outbox.model import OutboxModel
from sprockets_amqp.states import PublishOutcome

from .lifecycle import Lifecycle
from .outage import OutageModel


class Gate:
    """Answers the publisher, which the machines act on in turn: `watch` tells it which they are."""

    connection: Lifecycle
    outage: OutageModel
    outbox: OutboxModel

    def watch(self, connection: Lifecycle, outage: OutageModel, outbox: OutboxModel) -> None:
        """Answer for these from now on."""
        self.connection, self.outage, self.outbox = connection, outage, outbox
        states, stores = connection.machine, outbox.machine
        #: What becomes of a publish, for each combination of states that was met: each publish asks.
        self._outcomes: dict[object, PublishOutcome] = {}
        #: The states in which what waits is sent, in which stored messages are, and in which a new publish is, at once.
        #: Each publish asks: a tuple compares identities, a set would hash an Enum.
        self._sending = states.marked("sends")
        self._publishing = tuple(state for state, each in states.declared.items() if each.publish == "goes out")
        self._letting = tuple(state for state in stores.lasting if stores.made(state, "goes out") != "waits")
        self._passing = tuple(state for state in stores.lasting if stores.made(state, "goes out") == "goes out")

    @property
    def publish_outcome(self) -> PublishOutcome:
        """What becomes of a publish now."""
        states = self.connection.state, self.outage.state, self.outbox.state
        outcome = self._outcomes.get(states)
        if outcome is None:
            usual = self.connection.declared.publish
            assert usual is not None
            outcome = self._outcomes[states] = self.outbox.made(self.outage.made(usual))
        return outcome

    @property
    def accepts(self) -> bool:
        """Whether a message published now goes out, or may wait to."""
        return self.publish_outcome in {"goes out", "waits"}

    @property
    def sends(self) -> bool:
        """Whether waiting messages go out now."""
        return self.connection.state in self._sending and self.outbox.state in self._letting

    @property
    def sends_stored(self) -> bool:
        """Whether stored messages go out now: not while closing, when only what waits is sent."""
        return self.connection.state in self._publishing and self.outbox.state in self._letting

    @property
    def sends_new(self) -> bool:
        """Whether a message published now goes out at once."""
        return self.connection.state in self._publishing and self.outbox.state in self._passing

    @property
    def recovers(self) -> bool:
        """Whether the client is ready, or will be by itself; false once it was closed on request."""
        return self.connection.declared.publish != "is refused"

    @property
    def condition(self) -> str:
        """The state of the connection and the reason for it, in words."""
        return self.connection.condition

    @property
    def in_setup(self) -> bool:
        """Whether the caller is `setup`, before which nothing goes out."""
        return self.connection.in_setup

    def replace_channel(self, reason: str) -> None:
        """Have the channel replaced, as nothing is unconfirmed on it."""
        self.connection.schedule(self.connection.state, 0, self.connection.nacks_lasted, reason)

    def disowns(self, reply_code: int, reply_text: str) -> bool:
        """Return whether a refusal is about credentials that have expired; the connection is given up then."""
        return self.connection.disowns(reply_code, reply_text)
