"""Patches: updates of the toolstack itself, uploaded as signed bundles."""
