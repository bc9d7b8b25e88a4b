"""Parts that tests are made of: RabbitMQ nodes, a TCP proxy, a scripted broker. Nothing here uses the package."""
