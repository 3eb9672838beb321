"""What XenServer does: one file or small folder per class, one function per message."""
