"""The declaration, proved: all that can happen to the machines is explored, and what must hold is shown to hold."""
