"""Applications that publish with sprockets_amqp, small enough to begin from."""
