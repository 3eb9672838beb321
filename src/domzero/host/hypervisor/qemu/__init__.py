"""Domains as QEMU processes: one process, one directory and one QMP connection per domain."""
