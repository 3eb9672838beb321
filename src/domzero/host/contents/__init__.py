"""Disks as sequences of bytes, for up- and downloads."""
