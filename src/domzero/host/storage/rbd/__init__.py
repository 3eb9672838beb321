"""Repositories in a Ceph pool."""
