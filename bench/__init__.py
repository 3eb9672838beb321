"""Benchmarks: `script/bench`, or `python -m bench`. See RESULTS.md for what they found."""
