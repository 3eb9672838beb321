"""Sending files to servers that somebody names."""
