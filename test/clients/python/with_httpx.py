"""httpx against a duplex route: with_httpx.py echo|upload URL [bytes]. Prints what it receives."""

import hashlib
import sys

import httpx

from body import random_chunks

mode, url, size = sys.argv[1], sys.argv[2], int((sys.argv + ["0"])[3])


def echo():
    """httpx sends the whole body before it reads anything, even with stream()."""
    sent, received = hashlib.sha256(), hashlib.sha256()
    with httpx.stream("POST", url, content=random_chunks(size, sent), timeout=None) as response:
        for chunk in response.iter_raw():
            received.update(chunk)
    print(size, sent.digest() == received.digest())


def upload():
    response = httpx.post(url, content=random_chunks(size, hashlib.sha256()), timeout=None)
    print(response.status_code, len(response.content) > 0)


globals()[mode]()
