"""Machines and disks in and out of the host, as files."""
