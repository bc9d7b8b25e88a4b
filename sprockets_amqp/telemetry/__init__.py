"""Metrics and traces for monitoring systems; each module needs the extra of its name."""
