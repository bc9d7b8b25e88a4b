"""A real browser, and pages in it that load nothing from elsewhere."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from playwright.async_api import Browser, Page, async_playwright, expect

CHROMIUM: Final = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)
#: Milliseconds that a page may take to show what it is to show.
PATIENCE: Final = 60_000


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """Chromium, without a window."""
    expect.set_options(timeout=PATIENCE)
    async with async_playwright() as playwright:
        started = await playwright.chromium.launch(executable_path="/usr/bin/chromium", args=CHROMIUM.split())
        yield started
        await started.close()


@asynccontextmanager
async def opened(browser: Browser, url: str, **options: Any) -> AsyncIterator[Page]:
    """A page that fails its test over any complaint of the browser's, and any request to elsewhere."""
    complaints: list[str] = []
    requested: list[str] = []
    context = await browser.new_context(**options)
    page = await context.new_page()
    page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requested.append(request.url))
    await page.goto(url)
    yield page
    await context.close()
    assert not complaints, complaints
    assert requested and all(its_url.startswith(url) for its_url in requested)


async def text(page: Page, css: str) -> str:
    """What stands there, as it is seen."""
    return " ".join((await page.locator(css).inner_text()).split())


#: Where on the first time line each colour is first seen, from the left.
COLOURS: Final = """() => {
  const canvas = document.querySelector("canvas");
  const style = getComputedStyle(canvas);
  const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", { willReadFrequently: true });
  copy.drawImage(canvas, 0, 0);
  const { data } = copy.getImageData(0, 0, canvas.width, canvas.height);
  const found = {};
  const seen = (top, bottom, name, variable) => {
    const wanted = style.getPropertyValue(variable).trim();
    const [red, green, blue] = [1, 3, 5].map((at) => parseInt(wanted.slice(at, at + 2), 16));
    for (let x = 0; x < canvas.width; x += 1) for (let y = top; y < bottom; y += 1) {
      const at = (y * canvas.width + x) * 4;
      if (data[at] === red && data[at + 1] === green && data[at + 2] === blue && !(name in found)) found[name] = x;
    }
  };
  ["ready", "closed"].forEach((name) => seen(0, 14, name, `--state-${name}`));
  ["published", "refused", "stored", "waiting"].forEach((name, index) => {
    seen(20 + index * 40, 20 + index * 40 + 34, name, `--area-${name}`);
  });
  return found;
}"""
