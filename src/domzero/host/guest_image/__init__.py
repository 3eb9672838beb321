"""Tiny Linux: a guest made on this machine from Debian's kernel and busybox, up in about two seconds under TCG.

`build` writes a kernel and a ramdisk; `domzero.host.guest_image.console` says what the guest prints on its first serial
line, so that a program can know that it booted, that its memory survived and that its disk did.
"""

from domzero.host.guest_image.build import ARGUMENTS, GuestImage, build
from domzero.host.guest_image.kernel import GuestImageError, GuestKernel, default_roots, find_kernel

__all__ = ["ARGUMENTS", "GuestImage", "GuestImageError", "GuestKernel", "build", "default_roots", "find_kernel"]
