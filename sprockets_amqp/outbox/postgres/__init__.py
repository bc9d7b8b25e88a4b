"""The store in PostgreSQL: a table for all clients, whose boxes are owned by locks of their sessions."""
