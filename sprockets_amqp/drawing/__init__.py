"""The declaration as pictures and tables."""
