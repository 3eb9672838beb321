"""What a report about a problem tells of the machine."""
