"""The outbox: messages that RabbitMQ does not accept now, kept on disk until it does."""
