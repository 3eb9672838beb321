"""The host class: what this machine is, and what can be done with it as a whole."""
