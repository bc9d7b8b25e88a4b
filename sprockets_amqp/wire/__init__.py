"""The only code that relies on pika's internals: what goes over the wire and comes back, look-ups, URL options."""
