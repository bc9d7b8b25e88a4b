"""What was recorded, told in the terminal, and replayed in a page that opens from disk."""

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from playwright.async_api import Browser, expect

from sprockets_amqp import cli
from sprockets_amqp.recording.told import told
from sprockets_amqp.recording.trace import Line, Pull, Trace, initial_states, written
from sprockets_amqp.web.replay import page
from tests.support.browser import COLOURS, opened, text
from tests.test_judged import BEGAN, CHANNEL, CONNECT, ENDED, LOST, OPENED, OPENING, READY, pull

#: 2026-11-30 03:12:00 in the time zone of these tests.
TEN_PAST: Final = 1796004720.0
PERSISTENT: Final = Pull("outage", "outage_lasted", "counting", "persistent")
AGAIN: Final = pull("connect", "closed (retrying)", OPENING)
BACK: Final = pull("channel_opened", CHANNEL, "ready", Pull("outage", "outage_ended", "persistent", "calm"))
HOSTILE: Final = "</script><img src=x onerror=alert(1)>\x1b[31m\n\u202e"


@pytest.fixture(autouse=True)
def _zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An hour before UTC, so that it matters."""
    monkeypatch.setenv("TZ", "Etc/GMT-1")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def counters(**counts: int) -> dict[str, int]:
    """The counters that matter here."""
    names = ("published", "confirmed", "failed", "unconfirmed", "waiting", "stored", "not_ready")
    return {name: counts.get(name, 0) for name in names}


def incident(process: int = 7, shift: float = 0.0) -> Trace:
    """Ready, lost, refused, and ready again."""
    at = TEN_PAST + shift
    start = Line(at, states=initial_states(), client="amqp", process=process, run=f"amqp-{process}", part=1)
    steps: list[tuple[float, Pull | dict[str, int]]] = [
        (0.0, CONNECT),
        (0.1, OPENED),
        (0.2, READY),
        (1.2, counters(published=10, confirmed=9, unconfirmed=1)),
        (1.5, LOST._replace(reason=HOSTILE)),
        (2.2, counters(published=10, confirmed=9, waiting=4)),
        (3.5, PERSISTENT),
        (4.2, counters(published=10, confirmed=9, failed=40, not_ready=40)),
        (5.0, AGAIN),
        (5.1, OPENED),
        (5.2, pull("close", CHANNEL)),
        (5.3, BACK),
        (6.3, counters(published=25, confirmed=24, failed=40, not_ready=40)),
    ]
    lines = [
        Line(at + after, what) if isinstance(what, Pull) else Line(at + after, counters=what) for after, what in steps
    ]
    return Trace("amqp", process, [start, *lines])


def write(folder: Path, *traces: Trace) -> Path:
    """Write traces as a recorder does."""
    folder.mkdir(exist_ok=True)
    for trace in traces:
        (folder / f"amqp-20261130T031200.000000-{trace.process}-000001.jsonl").write_bytes(
            b"".join(map(written, trace.lines))
        )
    return folder


# In the terminal

DAY: Final = "-- 2026-11-30, UTC+0100\n"
TOLD: Final = f"""\
{DAY}03:12:00.000 client amqp begins in process 7
03:12:00.000 idle -> connecting       connect
03:12:00.200 connecting -> ready      channel_opened
03:12:00.200   a publish now goes out
03:12:01.500   10 published, 9 confirmed; now 1 unconfirmed
03:12:01.500 ready -> closed          connection_closed    </script><img src=x onerror=alert(1)>\\x1b[31m\\n\\u202e
03:12:01.500   a publish now waits
03:12:03.500   now 4 waiting
03:12:03.500 outage counting -> persistent outage_lasted
03:12:03.500   a publish now is refused
03:12:05.000   40 failed, 40 not ready
03:12:05.000 closed -> connecting     connect
03:12:05.300 connecting -> ready      channel_opened
03:12:05.300   a publish now goes out
03:12:06.300   15 published, 15 confirmed
03:12:06.300 the end of what is recorded: the connection is ready
"""


def test_the_changes_are_told_with_what_publishes_became(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And what becomes of a publish from then on; text from strangers cannot move the cursor."""
    assert cli.main(["replay", str(write(tmp_path / "trace", incident()))]) == 0
    assert capsys.readouterr().out == TOLD


def test_every_trigger_is_told_on_demand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The ignored ones, and those of the machines that follow."""
    assert cli.main(["replay", "--all", str(write(tmp_path / "trace", incident()))]) == 0
    out = capsys.readouterr().out
    assert f"\n03:12:05.200 connection.close: ignored while {CHANNEL}\n" in out
    assert f"\n03:12:00.000 connection.connect: idle -> {OPENING}\n03:12:00.000   outage.outage_began: calm ->" in out
    assert out.splitlines()[1] == (
        "03:12:00.000 file 1 of client amqp, process 7: connection idle, outage calm, renewal nothing to renew, "
        "outbox off, check no channel"
    )


def test_several_processes_are_told_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In the order of time, each line with its process."""
    folder = write(tmp_path / "trace", incident(7), incident(1234, 0.25))
    assert cli.main(["replay", *map(str, folder.iterdir())]) == 0
    day, *lines = capsys.readouterr().out.splitlines()
    assert f"{day}\n" == DAY
    assert sorted(lines, key=lambda line: line[:12]) == lines
    assert {line[13:22] for line in lines} == {"amqp 7   ", "amqp 1234"}
    assert DAY + "".join(f"{line[:12]}{line[22:]}\n" for line in lines if "amqp 7 " in line) == TOLD


@pytest.mark.parametrize(
    ("options", "first", "last"),
    [
        (["--from", "03:12:03"], "03:12:03.500", "03:12:06.300"),
        # What publishes became up to its end is told, too.
        (["--from", "3:12", "--to", "3:12:03"], "03:12:00.000", "03:12:02.200"),
        (["--from", "03:12:03.500", "--to", "03:12:04.9"], "03:12:03.500", "03:12:04.200"),
        (["--to", "2026-11-30T03:12:03.6"], "03:12:00.000", "03:12:03.500"),
        (["--from", "2026-11-30T02:12:03+00:00"], "03:12:03.500", "03:12:06.300"),
        (["--around", "3:13"], "03:12:00.000", "03:12:06.300"),
    ],
)
def test_a_part_is_cut_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], first: str, last: str
) -> None:
    """What publishes became before is not told."""
    assert cli.main(["replay", *options, str(write(tmp_path / "trace", incident()))]) == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    assert (lines[0][:12], lines[-1][:12]) == (first, last)
    assert sum("published" in line for line in lines) <= (2 if first == "03:12:00.000" else 1)


def test_of_a_time_without_a_date_the_latest_that_is_recorded_is_meant(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A recording may last for days."""
    trace = incident()
    later = [Line(line.at + 86_400 + 7200, line.pull, line.counters) for line in incident().lines[1:]]
    # It begins yesterday at 3:12, and ends today at 5:12.
    trace.lines.extend(line for line in later if line.counters)
    folder = str(write(tmp_path / "trace", trace))
    assert cli.main(["replay", "--around", "5:12", folder]) == 0
    assert "the end of what is recorded" in capsys.readouterr().out
    assert cli.main(["replay", "--around", "6:00", folder]) == 2
    assert capsys.readouterr().err == (
        "sprockets-amqp: nothing is recorded then: what is recorded is from 2026-11-30 03:12:00+01:00 to "
        "2026-12-01 05:12:06+01:00\n"
    )


def test_a_time_is_looked_for_around_each_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A client may not have run since then."""
    first, second = incident(7), incident(8, 2 * 86_400 + 3000)
    folder = str(write(tmp_path / "trace", first, second))
    assert cli.main(["replay", "--around", "3:12", folder]) == 0
    assert capsys.readouterr().out.startswith(DAY)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--from", "noon"], "'noon' is not a time: give 3:12"),
        (["--from", "25:00"], "'25:00' is not a time"),
        (["--from", "2026-13-01"], "'2026-13-01' is not a time"),
        (["--from", "3:13", "--to", "3:12"], "--from is after --to"),
        (["--around", "3:12", "--to", "3:12"], "--around and --from or --to are both given: use one of them"),
    ],
)
def test_bad_usage_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], words: str) -> None:
    """In words."""
    assert cli.main(["replay", *options, str(write(tmp_path / "trace", incident()))]) == 2
    assert words in capsys.readouterr().err


def test_nothing_that_is_recorded_is_told_as_such(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An empty folder, and one that is missing."""
    assert cli.main(["replay", str(tmp_path)]) == 2
    assert f"{tmp_path}: nothing is recorded there" in capsys.readouterr().err
    assert cli.main(["replay", str(tmp_path / "missing")]) == 1
    assert "No such file or directory" in capsys.readouterr().err


def test_refusals_are_told_also_while_nothing_else_happens() -> None:
    """Every ten seconds."""
    trace = incident()
    trace.lines = trace.lines[:10]
    at = trace.lines[-1].at
    trace.lines += [
        Line(at + each, counters=counters(published=10, confirmed=9, failed=40 + each, not_ready=40))
        for each in range(1, 25)
    ]
    lines = list(told([trace], 0, at + 100))
    assert [line[13:].strip() for line in lines if "failed" in line] == [
        "40 failed, 40 not ready",
        "10 failed",
        "10 failed",
        "4 failed",
    ]


def test_a_loop_that_was_blocked_is_told() -> None:
    """While the client is started, the counters are recorded once a second."""
    trace = incident()
    trace.lines.append(Line(trace.lines[-1].at + 30, counters=counters(published=25, confirmed=25)))
    assert [line[13:] for line in told([trace], 0, 1e11) if "nothing was recorded" in line] == [
        "nothing was recorded for 30.0 s: the loop was blocked, or the machine slept"
    ]


def test_a_clock_that_was_set_back_mixes_nothing_up() -> None:
    """The order of the lines counts."""
    trace = incident()
    trace.lines = [
        trace.lines[0],
        *(Line(line.at - index, line.pull, line.counters) for index, line in enumerate(trace.lines[1:])),
    ]
    lines = list(told([trace], 0, 1e11))
    assert [line[13:] for line in lines] == [line[13:] for line in TOLD.splitlines()]


# In a page


@pytest.fixture
def html(tmp_path: Path) -> str:
    """The address of the page for two processes."""
    path = tmp_path / "incident.html"
    folder = write(tmp_path / "trace", incident(7), incident(1234, 0.25))
    assert cli.main(["replay", "--html", str(path), str(folder)]) == 0
    return path.as_uri()


async def test_the_page_replays_step_by_step(browser: Browser, html: str) -> None:
    """With the keyboard, from disk, without a request to anywhere; the pictures show the states of each machine."""
    async with opened(browser, html, timezone_id="Etc/GMT-1") as page:
        assert await text(page, "#description") == "connecting (opening the connection)"
        await page.keyboard.press("ArrowRight")
        await page.keyboard.press("ArrowRight")
        assert await text(page, "#description") == "ready"
        assert await text(page, "#publish") == "a publish goes out"
        await expect(page.locator("#state-ready")).to_have_class(re.compile(r"\bpresent\b"))
        await expect(page.locator("#arrow-connecting-opening-the-channel-ready")).to_have_class(
            re.compile(r"\btaken\b")
        )
        await expect(page.locator("#outage-state-calm")).to_have_class(re.compile(r"\bpresent\b"))
        await page.keyboard.press("ArrowRight")
        assert await text(page, "#description") == "closed (retrying)"
        # What RabbitMQ said is text, and nothing else.
        assert (await text(page, "#reason")).startswith("</script><img src=x onerror=alert(1)>\\x1b")
        assert await text(page, "#time") == "2026-11-30 03:12:01.500"
        await page.keyboard.press("ArrowLeft")
        assert await text(page, "#description") == "ready"


async def test_the_page_goes_to_the_next_refusal(browser: Browser, html: str) -> None:
    """And says how many there were, and what became of a publish then."""
    async with opened(browser, html, timezone_id="Etc/GMT-1") as page:
        await page.keyboard.press("n")
        assert await text(page, "#description") == "closed (retrying)"
        assert await text(page, "#publish") == "a publish is refused"
        assert await text(page, "#time") == "2026-11-30 03:12:03.500"
        await expect(page.locator("#outage-state-persistent")).to_have_class(re.compile(r"\bpresent\b"))
        await expect(page.locator("#refusal")).to_be_disabled()
        await page.keyboard.press("Home")
        await page.locator("#refusal").click()
        assert await text(page, "#publish") == "a publish is refused"


async def test_the_page_plays_and_pauses(browser: Browser, html: str) -> None:
    """Faster or slower, up to the end."""
    async with opened(browser, html) as page:
        await page.keyboard.press("+")
        await page.keyboard.press("+")
        assert await page.locator("#speed").input_value() == "600\N{MULTIPLICATION SIGN}"
        await page.keyboard.press(" ")
        await expect(page.locator("#play")).to_be_disabled()
        assert await text(page, "#description") == "ready"
        assert await page.locator("#cursor").input_value() == "1000000"
        await page.keyboard.press("Home")
        for _ in range(4):
            await page.keyboard.press("-")
        await page.locator("#play").click()
        assert await text(page, "#play") == "Pause"
        await page.keyboard.press("ArrowRight")
        assert await text(page, "#play") == "Play"


async def test_the_page_shows_each_process(browser: Browser, html: str) -> None:
    """Each has a time line; a click on it goes there."""
    async with opened(browser, html) as page:
        assert await page.locator("canvas").count() == 2
        assert await page.locator("#trace option").all_inner_texts() == ["amqp 7", "amqp 1234"]
        lines = page.locator("canvas").nth(1)
        box = await lines.bounding_box()
        assert box is not None
        await lines.click(position={"x": box["width"] - 2, "y": 20})
        assert await page.locator("#trace").input_value() == "amqp 1234"
        assert await text(page, "#description") == "ready"
        await page.locator("#rows tr").first.click()
        assert await text(page, "#description") == OPENING


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_the_time_line_is_drawn_in_both_schemes(browser: Browser, html: str, scheme: str) -> None:
    """With an area for what was published, refused, and waiting, where it happened."""
    async with opened(browser, html, color_scheme=scheme) as page:
        colours = await page.evaluate(COLOURS)
        assert {"published", "refused", "waiting", "ready", "closed"} <= set(colours), colours
        assert "stored" not in colours
        assert colours["published"] < colours["refused"]


async def test_nothing_in_the_page_is_a_strangers_code(browser: Browser, tmp_path: Path) -> None:
    """Whatever is in the file: names, states, reasons."""
    trace = incident()
    trace.client = HOSTILE
    trace.lines[3] = Line(trace.lines[3].at, Pull(HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE, (BEGAN, ENDED)))
    path = tmp_path / "hostile.html"
    path.write_text(page([trace], 0, 1e11), encoding="utf-8")
    async with opened(browser, path.as_uri()) as shown:
        await shown.keyboard.press("End")
        assert await shown.locator("img").count() == 0
        assert HOSTILE[:9] in await text(shown, "#trace")


def test_where_nothing_changes_few_counters_are_in_the_page() -> None:
    """An idle client writes a line each second."""
    trace = incident()
    last = trace.lines[-1]
    trace.lines += [Line(last.at + each, counters=last.counters) for each in range(1, 50_000)]
    assert len(page([trace], trace.lines[0].at, trace.lines[-1].at)) < 250_000
