"""The faults that the client comes through, each caused for real; `matrix.py` makes the README's table of them."""
