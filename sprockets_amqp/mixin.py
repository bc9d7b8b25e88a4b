"""The mixin for request handlers."""

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .client import Client

if TYPE_CHECKING:
    from tornado.web import Application


class PublishingMixin:
    """Adds publishing to a `tornado.web.RequestHandler`; its application needs `install()`."""

    application: "Application"

    def amqp_publish(
        self,
        exchange: str,
        routing_key: str,
        body: bytes | str,
        properties: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = None,
        mandatory: bool = True,
    ) -> "asyncio.Future[None]":
        """Publish a message, as `Client.publish` does, with the handler's ``correlation_id`` where it has one.

        Raises:
            RuntimeError: `install()` was not called for the application.
        """
        client = getattr(self.application, "amqp", None)
        if not isinstance(client, Client):
            raise RuntimeError("the application has no AMQP client: call sprockets_amqp.install(application) first")
        correlation_id = getattr(self, "correlation_id", None)
        if correlation_id:
            properties = {"correlation_id": str(correlation_id), **(properties or {})}
        return client.publish(exchange, routing_key, body, properties, timeout=timeout, mandatory=mandatory)
