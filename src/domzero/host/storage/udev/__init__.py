"""The drives that are plugged into this host."""
