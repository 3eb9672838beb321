"""Repositories whose disks are image files in a directory: layers, formats, and the media that directories are on."""
