"""Tests of Tiny Linux: how it is made, and what it does on a real QEMU."""
