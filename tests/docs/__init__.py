"""A module for each page of docs/: what the page shows and says is done and compared."""
