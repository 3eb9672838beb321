"""Updates of the toolstack itself, from signed bundles."""
