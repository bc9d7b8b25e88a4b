"""The faults that the client comes through, each caused for real; `tools/faults.py` makes a table of them."""
