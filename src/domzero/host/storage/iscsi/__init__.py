"""iSCSI: a visitor of targets, the driver whose disks are their units, and the kernel's initiator."""
