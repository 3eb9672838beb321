"""CD images in a directory, on an NFS server or an SMB share."""
