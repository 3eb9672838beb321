"""What the host is and how busy it is, measured."""
