"""Drives the codecs of disk formats over bytes in memory."""

from __future__ import annotations

from collections.abc import Iterable

from domzero.wire.disk_parts import PIECE, Blank, Decoder, Piece, Put, Size, Skip, Span, Want, Zeros

UNTOUCHED = 0xAA
"""What a disk that is filled holds where a stream says nothing."""


class ShortError(Exception):
    """The stream ended too soon."""


def decoded(decoder: Decoder, stream: bytes, disk: int) -> tuple[int | None, bytes]:
    """The size that the stream says, and a disk of that many bytes after it was filled. Raises `ShortError`."""
    content, position, size = bytearray((UNTOUCHED,)) * disk, 0, None
    try:
        step = next(decoder)
        while True:
            answer = b""
            match step:
                case Want(count, exact):
                    assert 0 < count <= PIECE
                    answer = stream[position : position + count]
                    if exact and len(answer) < count:
                        raise ShortError
                    position += len(answer)
                case Skip(count):
                    assert count > 0
                    if position + count > len(stream):
                        raise ShortError
                    position += count
                case Size():
                    size = step.size
                case Put(offset, data):
                    assert len(data) <= PIECE
                    assert offset >= 0
                    content[offset : offset + len(data)] = data
                case Blank(offset, length):
                    assert 0 <= offset <= offset + length <= disk
                    content[offset : offset + length] = bytes(length)
            step = decoder.send(answer)
    except StopIteration:
        return size, bytes(content)


def encoded(pieces: Iterable[Piece], disk: bytes) -> bytes:
    """The stream that the pieces make."""

    def bytes_of(piece: Piece) -> bytes:
        if isinstance(piece, Span):
            return disk[piece.offset : piece.offset + piece.length].ljust(piece.length, b"\0")
        return bytes(piece.length) if isinstance(piece, Zeros) else piece

    return b"".join(map(bytes_of, pieces))
