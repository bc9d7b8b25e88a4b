"""A Tornado application on a port of 127.0.0.1, and what asks it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tornado.httpclient import AsyncHTTPClient, HTTPResponse
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application


@asynccontextmanager
async def served(application: Application) -> AsyncIterator[str]:
    """Serve the application; yields the beginning of its URLs."""
    server = HTTPServer(application)
    sockets = bind_sockets(0, "127.0.0.1")
    server.add_sockets(sockets)
    try:
        yield f"http://127.0.0.1:{sockets[0].getsockname()[1]}"
    finally:
        server.stop()
        await server.close_all_connections()


async def fetch(url: str, method: str = "GET", body: str | None = None, *, follow: bool = True) -> HTTPResponse:
    """Return the answer, whatever its status."""
    client = AsyncHTTPClient(force_instance=True)
    try:
        return await client.fetch(url, method=method, body=body, raise_error=False, follow_redirects=follow)
    finally:
        client.close()
