"""The connection to RabbitMQ: its life, its outages, its credentials, where it leads, and the one door to pika."""
