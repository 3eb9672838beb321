"""Screens and serial lines of running machines, as streams of bytes for those who look at them."""
