"""Python's http.client against a duplex route: with_http_client.py talk|echo|upload URL [bytes]. Prints what it receives."""

import hashlib
import http.client
import sys
from urllib.parse import urlsplit

from body import CHUNK_SIZE, random_chunks

mode, url, size = sys.argv[1], urlsplit(sys.argv[2]), int((sys.argv + ["0"])[3])


def connect():
    return http.client.HTTPConnection(url.hostname, url.port)


def talk():
    """Frames chunks by hand: getresponse() returns when the head has arrived, and send() still works after that."""
    connection = connect()
    connection.putrequest("POST", url.path)
    connection.putheader("Transfer-Encoding", "chunked")
    connection.endheaders()

    def send(word):
        connection.send(b"%x\r\n%s\r\n" % (len(word), word))

    send(b"one")
    response = connection.getresponse()
    print(response.read1().decode())
    for word in (b"two", b"three"):
        send(word)
        print(response.read1().decode())
    connection.send(b"0\r\nX-Words: 3\r\n\r\n")
    print("end", len(response.read()))


def echo():
    """request() sends the whole body before anything is read."""
    sent, received = hashlib.sha256(), hashlib.sha256()
    connection = connect()
    connection.request("POST", url.path, random_chunks(size, sent), encode_chunked=True, headers={"Transfer-Encoding": "chunked"})
    response = connection.getresponse()
    while chunk := response.read(CHUNK_SIZE):
        received.update(chunk)
    print(size, sent.digest() == received.digest())


def upload():
    """A refusal during the upload breaks the pipe, but the response can still be read."""
    connection = connect()
    try:
        connection.request("POST", url.path, random_chunks(size, hashlib.sha256()), headers={"Content-Length": str(size)})
    except (BrokenPipeError, ConnectionResetError):
        print("broken")
    response = connection.getresponse()
    print(response.status, len(response.read()) > 0)


globals()[mode]()
