"""Blobs: small files that clients attach to objects, kept beside the database."""
