"""What monitoring systems are told; each module needs the extra of its name."""
