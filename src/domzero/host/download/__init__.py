"""Fetching files from servers that are not to be trusted."""
