"""The body that the clients send: so many random bytes, and their digest."""

import os

PIECE = 65536


def pieces(size, digest):
    for _ in range(size // PIECE):
        piece = os.urandom(PIECE)
        digest.update(piece)
        yield piece
