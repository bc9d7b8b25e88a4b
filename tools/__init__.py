"""What the tests, the demo and the benchmarks share, and what keeps the project's tables true."""
