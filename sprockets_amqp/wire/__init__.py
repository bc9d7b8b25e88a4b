"""The only code that leans on pika's insides: what goes over the wire and comes back, look-ups, URL options."""
