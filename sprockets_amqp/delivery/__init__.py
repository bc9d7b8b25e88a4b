"""The way of a message: how it is encoded, waits in line, goes out, and ends."""
