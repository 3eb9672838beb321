"""Storage drivers behind one protocol."""
