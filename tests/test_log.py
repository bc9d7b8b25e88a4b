"""What an operator reads: a line for each thing that happens, and the end of an outage at the level of its start."""

import logging

import pytest

from tests.support.memory import Broker, in_memory

broker = in_memory


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[int, str]]:
    """Level and text of what the lifecycle logged since the last look."""
    found = [(record.levelno, record.getMessage()) for record in caplog.records if record.name.endswith("lifecycle")]
    caplog.clear()
    return found


@pytest.fixture(autouse=True)
def _at_info(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "sprockets_amqp")


def test_the_first_ready_names_the_node(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    """With its port; it is news and no trouble."""
    broker.ready("amqp://broker:5673")
    assert lines(caplog) == [(logging.INFO, "ready, on broker:5673")]


def test_the_end_of_an_outage_is_told_with_its_length(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    """From the loss on, as a warning like the loss, and over as many attempts as it took."""
    broker.ready()
    caplog.clear()
    broker.peer.lose()
    broker.clock.advance(2)
    broker.peer.refuse()
    broker.clock.advance(10.3)
    broker.open()
    [lost, refused, again] = lines(caplog)
    assert "StreamLostError" in lost[1] and "; trying broker:5672 in " in lost[1]
    assert "Connection refused" in refused[1] and "; trying broker:5672 in " in refused[1]
    assert again == (logging.WARNING, "ready again after 12.3 s, on broker:5672")


def test_a_first_ready_that_took_attempts_ends_their_warnings(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    """It was not ready before, and its port stands behind the brackets of its address."""
    broker.client("amqp://[::1]")
    broker.clock.turn()
    broker.peer.refuse()
    broker.clock.advance(1.5)
    broker.open()
    [refused, ready] = lines(caplog)
    assert "; trying [::1]:5672 in " in refused[1]
    assert ready == (logging.WARNING, "ready after 1.5 s, on [::1]:5672")


def test_the_end_of_an_alarm_is_told_with_its_length(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    """The connection stayed, and publishing was impossible all the same."""
    broker.ready()
    caplog.clear()
    broker.peer.stall(stalled=True)
    broker.peer.deliver()
    broker.clock.advance(60)
    broker.peer.stall(stalled=False)
    broker.peer.deliver()
    assert lines(caplog)[-1] == (logging.WARNING, "ready again after 60.0 s, on broker:5672")


def test_connecting_again_on_request_is_no_outage(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    """The time that it was closed on request counts for nothing, and is no reason either."""
    client = broker.ready()
    client.close()
    broker.open()
    broker.clock.advance(60)
    caplog.clear()
    client.connect()
    assert client.condition == "connection is Connecting"
    broker.open()
    assert lines(caplog) == [(logging.INFO, "ready, on broker:5672")]
