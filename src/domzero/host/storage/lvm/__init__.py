"""Repositories of logical volumes, on local disks or on a unit of an iSCSI target."""
