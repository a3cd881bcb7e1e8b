"""httpx against a duplex route: with_httpx.py echo|upload URL [bytes]. Prints what it sees."""

import hashlib
import sys

import httpx

from body import pieces

mode, url, size = sys.argv[1], sys.argv[2], int((sys.argv + ["0"])[3])


def echo():
    """All of the body is sent before anything is read, stream() or not."""
    sent, received = hashlib.sha256(), hashlib.sha256()
    with httpx.stream("POST", url, content=pieces(size, sent), timeout=None) as response:
        for piece in response.iter_raw():
            received.update(piece)
    print(size, sent.digest() == received.digest())


def upload():
    response = httpx.post(url, content=pieces(size, hashlib.sha256()), timeout=None)
    print(response.status_code, len(response.content) > 0)


globals()[mode]()
