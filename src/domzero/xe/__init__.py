"""The commands of `xe`, as the host carries them out: a client of the API that lives beside it."""
