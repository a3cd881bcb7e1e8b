"""httpx against a duplex route: with_httpx.py echo|upload URL [bytes]. Prints what it sees."""

import hashlib
import os
import sys

import httpx

mode, url, size = sys.argv[1], sys.argv[2], int((sys.argv + ["0"])[3])
PIECE = 65536


def pieces(digest):
    for _ in range(size // PIECE):
        piece = os.urandom(PIECE)
        digest.update(piece)
        yield piece


def echo():
    """All of the body is sent before anything is read, stream() or not."""
    sent, received = hashlib.sha256(), hashlib.sha256()
    with httpx.stream("POST", url, content=pieces(sent), timeout=None) as response:
        for piece in response.iter_raw():
            received.update(piece)
    print(size, sent.digest() == received.digest())


def upload():
    response = httpx.post(url, content=pieces(hashlib.sha256()), timeout=None)
    print(response.status_code, len(response.content) > 0)


globals()[mode]()
