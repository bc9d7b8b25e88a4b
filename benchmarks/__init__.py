"""What a publish costs, measured in turn against the peers that a user would pick.

``python -m benchmarks`` runs everything; ``benchmarks/README.md`` says how each number is taken.
"""
