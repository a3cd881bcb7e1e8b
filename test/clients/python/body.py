"""The body that the clients send: random bytes, which also update a digest."""

import os

CHUNK_SIZE = 65536


def random_chunks(size, digest):
    for _ in range(size // CHUNK_SIZE):
        chunk = os.urandom(CHUNK_SIZE)
        digest.update(chunk)
        yield chunk
