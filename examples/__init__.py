"""Applications that publish with sprockets_amqp, small enough to start from."""
