"""The store in a folder: a SQLite database for each client, and a thread that alone does anything to it."""
