"""What a Tornado application meets: installing a client, the mixin for request handlers, and their error responses."""
