"""RabbitMQ nodes, a TCP proxy, a scripted broker and other parts that tests are made of; nothing here uses the package."""
