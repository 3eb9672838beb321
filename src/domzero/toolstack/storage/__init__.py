"""Storage: repositories, their connections, disks, drives, and what keeps them in order."""
