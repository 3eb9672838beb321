"""Finding the kernel that a machine's own disk is to be booted with."""
