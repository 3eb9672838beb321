"""What runs in the lab (`script/lab`): a virtual machine with a whole Debian kernel, root's rights and spare disks."""
