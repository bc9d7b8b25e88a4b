"""Readiness, liveness and the live page, in a browser, against real brokers."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Browser, expect
from tornado.web import Application

import sprockets_amqp as amqp
from sprockets_amqp import Client, State, StateChange, web
from sprockets_amqp.hooks import HISTORY_LENGTH
from sprockets_amqp.web import page as live_page
from sprockets_amqp.web import status
from tests.support.browser import COLOURS, opened, text
from tests.support.http import fetch, served
from tests.support.leaks import no_leaks
from tools.rabbitmq import Node

#: Nobody listens there.
GONE = "amqp://guest:guest@127.0.0.1:1/"


@asynccontextmanager
async def shown(url: str, prefix: str = "/amqp", **settings: Any) -> AsyncIterator[tuple[str, Client]]:
    """An application that shows its client; yields the beginning of its URLs and the client."""
    application = Application([*web.routes(prefix)])
    quick = {"reconnect_delay": 0.2, "max_reconnect_delay": 0.5}
    amqp.install(application, url=url, on_return_callback=print, **{**quick, **settings})
    client: Client = application.amqp  # type: ignore[attr-defined]
    try:
        async with served(application) as base:
            yield base + prefix, client
    finally:
        await client.shutdown(5)


async def probe(url: str) -> tuple[int, dict[str, Any]]:
    """The status and the document that a probe answers."""
    response = await fetch(url)
    assert response.headers["Cache-Control"] == "no-store"
    return response.code, json.loads(response.body)


# Readiness and liveness


async def test_ready_and_live_while_publishes_go_out(broker: Node) -> None:
    """Both answer 200 and say what is behind it."""
    async with shown(broker.url) as (base, client):
        await client.publish("", "nobody", b"")
        code, document = await probe(f"{base}/ready")
        assert code == 200
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", document.pop("since"))
        assert document == {
            "state": "ready",
            "substate": "",
            "ready": True,
            "live": True,
            "trigger": "channel_opened",
            "reason": "",
            "broker": f"127.0.0.1:{broker.port}/%2F",
            "counters": {**dict.fromkeys(status.COUNTERS, 0), "published": 1, "confirmed": 1, "returned": 1},
        }
        assert (await probe(f"{base}/live"))[0] == 200


async def test_not_ready_but_live_while_rabbitmq_blocks(node: Node) -> None:
    """Publishes would wait; a restart would not help."""
    async with shown(node.url) as (base, client):
        await client.wait_for(State.READY, 30)
        await node.ctl("set_vm_memory_high_watermark", "0")
        pending = client.publish("", "nobody", b"")
        await client.wait_for(State.BLOCKED, 30)
        code, document = await probe(f"{base}/ready")
        assert (code, document["state"], document["reason"]) == (503, "blocked", "low on memory")
        assert (await probe(f"{base}/live"))[0] == 200
        await node.ctl("set_vm_memory_high_watermark", "0.4")
        await pending
        assert (await probe(f"{base}/ready"))[0] == 200


async def test_not_ready_but_live_while_the_broker_is_away() -> None:
    """The reason is the trouble, also while the client connects again."""
    async with shown(f"{GONE}?retry_delay=0") as (base, client):
        await client.wait_for(State.CLOSED, 30)
        await client.wait_for(State.CONNECTING, 30)
        code, document = await probe(f"{base}/ready")
        assert code == 503 and "refused" in document["reason"]
        assert (await probe(f"{base}/live"))[0] == 200


async def test_neither_ready_nor_live_once_closed_for_good(broker: Node) -> None:
    """Nothing but a restart, or connect(), brings it back."""
    async with shown(broker.url) as (base, client):
        await client.wait_for(State.READY, 30)
        await client.shutdown()
        for path in ("ready", "live"):
            code, document = await probe(f"{base}/{path}")
            assert (code, document["state"], document["substate"]) == (503, "closed", "stopped")


async def test_not_ready_while_requests_in_flight_hold_up_shutdown(broker: Node) -> None:
    """A load balancer sends nothing more, while what was taken is still published."""
    async with shown(broker.url) as (base, client):
        await client.wait_for(State.READY, 30)
        client.in_flight.add(client)
        stopping = asyncio.create_task(client.shutdown())
        await asyncio.sleep(0)
        code, document = await probe(f"{base}/ready")
        assert (code, document["state"], document["live"]) == (503, "ready", True)
        client.in_flight.discard(client)
        await stopping


@pytest.mark.parametrize("path", ["/ready", "/live", "/", "/page.js", "/lifecycle.css"])
async def test_head_is_answered_without_a_body(broker: Node, path: str) -> None:
    """Some load balancers ask that way."""
    async with shown(broker.url) as (base, client):
        await client.wait_for(State.READY, 30)
        response = await fetch(base + path, "HEAD")
        assert (response.code, response.body) == (200, b"")


@pytest.mark.parametrize("path", ["/ready", "/live", "/", "/events"])
async def test_an_application_without_a_client_says_what_is_missing(path: str) -> None:
    """503 and the call that is missing."""
    async with served(Application([*web.routes()])) as base:
        response = await fetch(f"{base}/amqp{path}")
        assert response.code == 503
        assert "install" in json.loads(response.body)["reason"]


@pytest.mark.parametrize("prefix", ["", "/internal/rabbit.mq"])
async def test_the_routes_have_the_prefix_that_they_are_given(broker: Node, prefix: str) -> None:
    """The page's links are relative to it."""
    async with shown(broker.url, prefix) as (base, _):
        response = await fetch(base if prefix else f"{base}/")
        assert (response.code, urlsplit(response.effective_url).path) == (200, f"{prefix}/")
        assert (await fetch(f"{base}/page.css")).code == 200
        assert (await fetch(f"{base}/page.html")).code == 404
        assert (await fetch(f"{base.removesuffix(prefix)}/internal/rabbitxmq/ready")).code == 404


# What is shown


async def test_no_answer_shows_credentials(node: Node) -> None:
    """Neither the user nor the password of the URL is on any page."""
    await node.add_user("web-reader", "s3cret")
    async with shown(node.url_for("web-reader", "s3cret")) as (base, client), events(f"{base}/events") as stream:
        await client.wait_for(State.READY, 30)
        answers = [json.dumps(await anext(stream))]
        answers += [(await fetch(base + path)).body.decode() for path in ("/", "/ready", "/live")]
        assert not [answer for answer in answers if "s3cret" in answer or "web-reader" in answer]


async def test_an_ipv6_broker_is_named_in_brackets() -> None:
    """So that the port can be told from the address."""
    async with shown("amqp://guest:guest@[::1]:1/a%2fb") as (base, _):
        assert (await probe(f"{base}/ready"))[1]["broker"] == "[::1]:1/a%2Fb"


async def test_a_hundred_changes_are_kept_from_the_first_on(broker: Node) -> None:
    """The oldest go, when there are more."""
    async with shown(broker.url) as (base, client):
        await client.wait_for(State.READY, 30)
        assert [change.dest for change in client.history] == [State.CONNECTING, State.READY]
        changes = [StateChange(State.READY, State.BLOCKED, "flow_stopped", f"number {n}", n) for n in range(150)]
        for change in changes:
            client._hooks.announce(change)
        assert list(client.history) == changes[-HISTORY_LENGTH:]
        assert (await fetch(f"{base}/")).body.decode().count("flow_stopped</code>") == HISTORY_LENGTH


async def test_each_picture_is_drawn_once(broker: Node) -> None:
    """However often the page is loaded while the client is in one substate."""
    async with shown(broker.url) as (base, client):
        await client.wait_for(State.READY, 30)
        live_page._picture.cache_clear()
        pages = {(await fetch(f"{base}/")).body.partition(b"<svg")[2].partition(b"</svg>")[0] for _ in range(3)}
        assert (len(pages), live_page._picture.cache_info().misses) == (1, 1)


# The stream


@asynccontextmanager
async def events(url: str) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
    """Yield the documents of a stream of events, as they come; the stream is left at the end."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=2**20)
    # HTTP/1.0 has no chunks: the events come as they are.
    writer.write(f"GET {parts.path} HTTP/1.0\r\n\r\n".encode())

    async def documents() -> AsyncIterator[dict[str, Any]]:
        while line := await reader.readline():
            if line.startswith(b"data: "):
                yield json.loads(line.removeprefix(b"data: "))

    try:
        yield documents()
    finally:
        writer.close()
        await writer.wait_closed()


def dests(document: dict[str, Any]) -> list[str]:
    """Where the changes of an event lead."""
    return [change["dest"] for change in document["changes"]]


async def test_the_stream_begins_with_all_and_goes_on_with_what_is_new(node: Node) -> None:
    """No change is told twice, none is left out."""
    async with shown(node.url) as (base, client):
        await client.wait_for(State.READY, 30)
        async with events(f"{base}/events") as stream:
            first = await anext(stream)
            assert (dests(first), first["outcome"]) == (["connecting", "ready"], "goes out")
            await node.ctl("close_all_connections", "bye")
            told: list[str] = []
            while told[-1:] != ["ready"]:
                told += dests(await anext(stream))
            assert told == ["closed", "connecting", "ready"]


async def test_so_many_pages_may_follow_and_no_more(broker: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """One more is answered 503, with when to try again; there is room again when one has left."""
    monkeypatch.setattr(live_page, "MAX_STREAMS", 2)
    async with shown(broker.url) as (base, _), events(f"{base}/events") as stays:
        await anext(stays)
        async with events(f"{base}/events") as leaves:
            await anext(leaves)
            refused = await fetch(f"{base}/events")
            assert (refused.code, refused.headers["Retry-After"]) == (503, "3")
            assert json.loads(refused.body) == {"reason": "2 pages follow the client already: try again later"}
        while True:
            async with events(f"{base}/events") as again:
                if await anext(again, None) is not None:
                    break
        await anext(stays)


async def test_the_stream_tells_counters_without_a_change(broker: Node) -> None:
    """Within a second or so."""
    async with shown(broker.url) as (base, client):
        await client.wait_for(State.READY, 30)
        async with events(f"{base}/events") as stream:
            assert (await anext(stream))["counters"]["confirmed"] == 0
            await client.publish("", "nobody", b"")
            following = await anext(stream)
            assert (following["counters"]["confirmed"], following["changes"]) == (1, [])


async def test_a_stream_on_which_nothing_happens_still_says_so(broker: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Proxies end connections on which nothing moves."""
    monkeypatch.setattr(live_page, "HEARTBEAT", 0.1)
    monkeypatch.setattr(live_page, "TICK", 0.1)
    async with shown(broker.url) as (base, client):
        await client.wait_for(State.READY, 30)
        async with events(f"{base}/events") as stream:
            first, second = await anext(stream), await anext(stream)
            assert first.pop("now") < second.pop("now")
            assert first.pop("changes") and not second.pop("changes")
            assert first == second


async def test_a_reader_that_leaves_leaves_nothing(broker: Node) -> None:
    """Neither subscription, task nor timer."""
    async with no_leaks(), shown(broker.url) as (base, client):
        await client.wait_for(State.READY, 30)
        before = len(client._hooks._subscriptions)
        tasks = asyncio.all_tasks()
        async with events(f"{base}/events") as stream:
            await anext(stream)
            assert len(client._hooks._subscriptions) == before + 1
        if left := asyncio.all_tasks() - tasks:
            await asyncio.wait(left)
        assert len(client._hooks._subscriptions) == before


@pytest.mark.parametrize("url", ["ready", "away"])
async def test_the_stream_ends_when_the_client_is_closed_for_good(broker: Node, url: str) -> None:
    """It does not keep the process from ending, in whatever state the client was."""
    async with shown(broker.url if url == "ready" else GONE) as (base, client):
        await client.wait_for(State.READY if url == "ready" else State.CLOSED, 30)
        async with events(f"{base}/events") as stream:
            await anext(stream)
            await client.shutdown()
            documents = [document async for document in stream]
            assert (documents[-1]["state"], documents[-1]["live"]) == ("closed", False)


# In a browser


async def test_the_page_turns_when_the_broker_stops_and_comes_back_with_it(node: Node, browser: Browser) -> None:
    """Without being loaded again, and in RabbitMQ's words."""
    async with shown(node.url, timeout=1) as (base, client):
        await client.wait_for(State.READY, 30)
        async with opened(browser, base) as page:
            lit = page.locator("#picture .state.present")
            await expect(page.locator("#state")).to_have_text(re.compile("Ready.*a publish goes out"))
            await expect(page.locator("#link")).to_have_text("Live")
            await expect(lit).to_have_id("state-ready")
            await page.evaluate("document.body.dataset.kept = 'since the page was loaded'")

            await node.stop()
            await expect(page.locator("#card")).to_have_attribute("data-outcome", "is refused")
            await expect(lit).to_have_id(re.compile("state-(closed|connecting)"))
            await expect(page.locator("#publish")).to_have_text("a publish is refused: not ready for more than 1 s")
            lost = page.get_by_role("row").filter(has_text="CONNECTION_FORCED")
            await expect(lost).to_contain_text(re.compile("ready → closed\\s*connection_closed\\s*\\(320\\)"))

            await node.start()
            await expect(page.locator("#card")).to_have_attribute("data-outcome", "goes out")
            await expect(lit).to_have_id("state-ready")
            await expect(page.locator("#counter-reconnects")).to_have_text("1")
            await client.publish("", "nobody", b"")
            await expect(page.locator("#counter-confirmed")).to_have_text("1")
            assert re.match(r"For \d+ s, since \d{4}-", await text(page, ".since"))
            assert await page.locator("#rows tr").count() == len(client.history)
            assert await page.evaluate("document.body.dataset.kept")


async def test_headline_and_picture_say_the_same_of_a_publish(browser: Browser, tmp_path: Path) -> None:
    """Refused in a persistent outage, stored with an outbox; a state that is left is as before."""
    for settings, outcome in (({}, "is refused"), ({"outbox": tmp_path}, "is stored")):
        quick: dict[str, Any] = {"timeout": 0.5, "connection_attempts": 1, "reconnect_delay": 60, **settings}
        async with shown(GONE, max_reconnect_delay=60, **quick) as (base, client), opened(browser, base) as page:
            await expect(page.locator("#card")).to_have_attribute("data-outcome", outcome)
            lit = page.locator("#state-closed-retrying")
            await expect(lit).to_have_class("substate present")
            await expect(lit.locator(".outcome")).to_have_text(f"publish {outcome}")
            await expect(lit.locator(".box")).to_have_class(f"box {outcome.replace(' ', '-')}")
            await expect(page.locator("#next")).to_have_text(re.compile(r"Next attempt in \d+ s"))
            await page.reload()
            await expect(lit.locator(".outcome")).to_have_text(f"publish {outcome}")
            await client.shutdown()
            await expect(page.locator("#state-closed-stopped")).to_have_class("substate present")
            await expect(lit.locator(".outcome")).to_have_text("publish waits")
            await expect(lit.locator(".box")).to_have_class("box waits")
            await expect(page.locator("#next")).to_be_empty()


async def test_each_page_names_its_client_and_links_to_the_others(browser: Browser) -> None:
    """Whatever the prefix."""
    application = Application([*web.routes("/internal/amqp")])
    for name in ("amqp", "audit", "third"):
        amqp.install(application, url=GONE, name=name)
    async with served(application) as base, opened(browser, f"{base}/internal/amqp/") as page:
        await expect(page.locator("#client")).to_have_text("amqp")
        for here, others in (("third", ["amqp", "audit"]), ("audit", ["amqp", "third"]), ("amqp", ["audit", "third"])):
            await page.get_by_role("link", name=here, exact=True).click()
            await expect(page.locator("#client")).to_have_text(here)
            await expect(page.locator(".others a")).to_have_text(others)
            await expect(page).to_have_title(re.compile(rf" · {here} · RabbitMQ connection$"))
    for client in application.amqp_clients.values():  # type: ignore[attr-defined]
        await client.shutdown(1)


async def test_the_page_has_a_time_line(browser: Browser, broker: Node) -> None:
    """Of the state since the client was made, and of what was published since the page was opened."""
    async with shown(broker.url) as (base, client), opened(browser, base) as page:
        await client.publish("", "nobody", b"an event")
        await expect(page.locator("#counter-published")).to_have_text("1")
        colours = await page.evaluate(COLOURS)
        assert {"ready"} <= set(colours) <= {"ready", "published"}
        await client.publish("", "nobody", b"another")
        await expect(page.locator("#counter-published")).to_have_text("2")
        while "published" not in await page.evaluate(COLOURS):
            await page.evaluate("() => new Promise((go) => requestAnimationFrame(go))")


async def test_the_page_follows_the_substate(browser: Browser) -> None:
    """In words and in the picture, also where it moves within a state, which is no change that hooks are told of."""
    hang_up = asyncio.Event()

    async def stall(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await hang_up.wait()
        writer.close()

    server = await asyncio.start_server(stall, "127.0.0.1", 0)
    url = f"amqp://guest:guest@127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    patient: dict[str, Any] = {"connection_attempts": 1, "reconnect_delay": 600, "max_reconnect_delay": 600}
    async with server, shown(url, **patient) as (base, client), opened(browser, base) as page:

        async def shows(words: str, state: str, substate: str) -> None:
            await expect(page.locator("#state strong")).to_have_text(words)
            await expect(page.locator("#picture .state.present")).to_have_id(state)
            await expect(page.locator("#picture .substate.present")).to_have_id(substate)

        opening = "state-connecting-opening-the-connection"
        await shows("Connecting · opening the connection", "state-connecting", opening)
        hang_up.set()
        await shows("Closed · retrying", "state-closed", "state-closed-retrying")
        assert (await probe(f"{base}/ready"))[1]["substate"] == "retrying"
        changes = len(client.history)
        await client.shutdown()
        await shows("Closed · stopped", "state-closed", "state-closed-stopped")
        assert len(client.history) == changes
        await page.reload()
        await shows("Closed · stopped", "state-closed", "state-closed-stopped")


async def test_a_state_without_substates_is_shown_alone(broker: Node, browser: Browser) -> None:
    """After a substate was: its words and its light are gone."""
    async with shown(broker.url) as (base, client):
        await client.wait_for(State.READY, 30)
        async with opened(browser, base) as page:
            await expect(page.locator("#link")).to_have_text("Live")
            await client.shutdown()
            await expect(page.locator("#state strong")).to_have_text("Closed · stopped")
            client.connect()
            await expect(page.locator("#state strong")).to_have_text("Ready")
            await expect(page.locator("#picture .present")).to_have_id("state-ready")


async def test_what_the_broker_says_is_shown_and_not_obeyed(node: Node, browser: Browser) -> None:
    """Markup in its words is text, on a page that was there before, and on one that is loaded after."""
    words = "<img src=x onerror=alert(1)></script><b>bold</b>"
    async with shown(node.url) as (base, client):
        await client.wait_for(State.READY, 30)
        async with opened(browser, base) as page:
            await expect(page.locator("#link")).to_have_text("Live")
            await node.ctl("close_all_connections", words)
            await expect(page.locator("#rows")).to_contain_text(words)
            await page.reload()
            await expect(page.locator("#rows")).to_contain_text(words)
            assert await page.locator("#rows img, #rows b").count() == 0


async def test_without_javascript_the_page_is_a_snapshot_that_loads_again(broker: Node, browser: Browser) -> None:
    """State, counters and changes stand in the page itself."""
    async with shown(broker.url) as (base, client):
        await client.publish("", "nobody", b"")
        async with opened(browser, base, java_script_enabled=False) as page:
            content = await page.content()
            assert '<meta http-equiv="refresh" content="5">' in content
            for expected in ("Ready", "a publish goes out", "channel_opened", "snapshot"):
                assert expected in await text(page, "main")
            assert await text(page, "#counter-published") == "1"


async def test_the_page_fits_a_phone(broker: Node, browser: Browser) -> None:
    """Only the picture is wider than the screen, and shows the present state in its frame."""
    async with shown(broker.url) as (base, client):
        await client.wait_for(State.READY, 30)
        phone = {"viewport": {"width": 360, "height": 740}, "is_mobile": True}
        async with opened(browser, base, **phone) as page:
            await expect(page.locator("#link")).to_have_text("Live")
            assert await page.evaluate("document.documentElement.scrollWidth") <= 360
            frame = await page.locator("#picture").bounding_box()
            state = await page.locator("#state-ready .box").bounding_box()
            assert frame and state
            assert frame["x"] <= state["x"] and state["x"] + state["width"] <= frame["x"] + frame["width"]


async def test_the_page_speaks_to_a_screen_reader(broker: Node, browser: Browser) -> None:
    """The state is a live region, the elapsed time is not; the rest has headings, roles and names, on a phone too."""
    async with shown(broker.url) as (base, client):
        await client.wait_for(State.READY, 30)
        async with opened(browser, base, viewport={"width": 360, "height": 740}) as page:
            await expect(page.locator("#link")).to_have_text("Live")
            await expect(page.get_by_role("status").first).to_contain_text("Ready")
            assert await page.locator("[role=status] #elapsed").count() == 0
            for name in ("Messages", "Lifecycle", "Recent changes"):
                await expect(page.get_by_role("heading", name=name)).to_have_count(1)
            picture = page.get_by_role("img", name="The life of the connection to RabbitMQ")
            await expect(picture).to_have_accessible_name(re.compile("In ready, a publish goes out"))
            table = page.get_by_role("table", name="Recent changes")
            headers = table.get_by_role("columnheader")
            assert await headers.all_text_contents() == ["Time (UTC)", "Change", "Trigger", "Reason"]
            await expect(table.get_by_role("row")).to_have_count(3)


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_the_page_is_readable_in_light_and_dark(broker: Node, browser: Browser, scheme: str) -> None:
    """Text has a contrast of 4.5 to 1 at least (WCAG 2.2, 1.4.3) against what is behind it."""
    async with shown(broker.url) as (base, client):
        await client.wait_for(State.READY, 30)
        async with opened(browser, base, color_scheme=scheme) as page:
            await expect(page.locator("#link")).to_have_text("Live")
            dark = sum(await page.evaluate(_COLOURS, ["body", "backgroundColor"])) < 384
            assert dark is (scheme == "dark")
            for outcome in ("goes out", "waits", "is refused"):
                await page.evaluate("outcome => { document.querySelector('#card').dataset.outcome = outcome }", outcome)
                for css in ("#publish", "#link", "#broker", ".counters dt", "td.at", "th"):
                    ink = await page.evaluate(_COLOURS, [css, "color"])
                    paper = await page.evaluate(_COLOURS, [css, "backgroundColor"])
                    assert contrast(ink, paper) >= 4.5, (css, outcome, ink, paper)


#: The colour of an element, or the first one behind it that lets nothing through.
_COLOURS = """([css, property]) => {
  for (let element = document.querySelector(css); element; element = element.parentElement) {
    const colour = getComputedStyle(element)[property].match(/[0-9.]+/g).map(Number);
    if (colour.length === 3 || colour[3] > 0) return colour.slice(0, 3);
  }
}"""


def contrast(ink: list[float], paper: list[float]) -> float:
    """The contrast of two colours as WCAG 2.2 defines it."""

    def luminance(colour: list[float]) -> float:
        parts = [c / 255 / 12.92 if c <= 10.31 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    light, dark = sorted((luminance(ink), luminance(paper)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


async def test_the_page_says_when_the_client_was_closed_for_good(broker: Node, browser: Browser) -> None:
    """And shows when somebody connects it again."""
    async with shown(broker.url) as (base, client):
        await client.wait_for(State.READY, 30)
        async with opened(browser, base) as page:
            await expect(page.locator("#link")).to_have_text("Live")
            await client.shutdown()
            await expect(page.locator("#link")).to_contain_text("Closed on request")
            await expect(page.locator("#publish")).to_have_text("a publish is refused")
            client.connect()
            await expect(page.locator("#link")).to_have_text("Live")
            await expect(page.locator("#state")).to_contain_text("Ready")


async def test_the_page_says_when_the_application_is_gone(broker: Node, browser: Browser) -> None:
    """What it shows then is old, and looks so."""
    context = await browser.new_context()
    page = await context.new_page()
    async with shown(broker.url) as (base, client):
        await client.wait_for(State.READY, 30)
        await page.goto(base)
        await expect(page.locator("#link")).to_have_text("Live")
    await expect(page.locator("#link")).to_contain_text("The application is not responding")
    await expect(page.locator("body")).to_have_class("stale")
    await context.close()


async def test_the_policy_lets_nothing_inline_or_foreign_run(broker: Node, browser: Browser) -> None:
    """A script that gets into the page is not run."""
    async with shown(broker.url) as (base, client):
        await client.wait_for(State.READY, 30)
        response = await fetch(f"{base}/")
        policy = response.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy
        assert b"<style" not in response.body and b" style=" not in response.body
        assert re.findall(rb"<script[^>]*>", response.body) == [
            b'<script src="timeline.js" defer>',
            b'<script src="page.js" defer>',
        ]
        assert not re.search(rb'(src|href)="(https?:)?//', response.body)
        page = await browser.new_page()
        await page.goto(base)
        async with page.expect_console_message(lambda message: "Content Security Policy" in message.text):
            await page.evaluate(_INTRUDE)
        assert await page.evaluate("document.body.dataset.intruded") is None


#: Puts a script into the page, as somebody would who got markup into it.
_INTRUDE = """() => {
  const script = document.createElement("script");
  script.textContent = "document.body.dataset.intruded = 'yes'";
  document.body.append(script);
}"""


def test_the_package_offers_its_handlers_by_name() -> None:
    """`amqp.web` needs no import of its own, and its files are in the package."""
    assert amqp.web is web
    assert {path.name for path in live_page.STATIC.iterdir()} == {
        "page.html",
        "page.css",
        "page.js",
        "timeline.css",
        "timeline.js",
        "replay.html",
        "replay.css",
        "replay.js",
        "icon.svg",
    }
