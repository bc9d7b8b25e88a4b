"""The flight recorder: what a client did, on disk, and what can be told from it."""
