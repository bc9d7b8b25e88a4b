"""The way of a message: how it is encoded, waits in line, is sent, and ends."""
