"""Python's http.client against a duplex route: with_http_client.py talk|echo|upload URL [bytes]. Prints what it sees."""

import hashlib
import http.client
import sys
from urllib.parse import urlsplit

from body import PIECE, pieces

mode, url, size = sys.argv[1], urlsplit(sys.argv[2]), int((sys.argv + ["0"])[3])


def connect():
    return http.client.HTTPConnection(url.hostname, url.port)


def talk():
    """getresponse() returns as soon as the head is there, and send() still works after it: framed by hand."""
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
    """request() sends all before anything is read."""
    sent, received = hashlib.sha256(), hashlib.sha256()
    connection = connect()
    connection.request("POST", url.path, pieces(size, sent), encode_chunked=True, headers={"Transfer-Encoding": "chunked"})
    response = connection.getresponse()
    while piece := response.read(PIECE):
        received.update(piece)
    print(size, sent.digest() == received.digest())


def upload():
    """A refusal while the body is sent breaks the pipe; the response is there all the same."""
    connection = connect()
    try:
        connection.request("POST", url.path, pieces(size, hashlib.sha256()), headers={"Content-Length": str(size)})
    except (BrokenPipeError, ConnectionResetError):
        print("broken")
    response = connection.getresponse()
    print(response.status, len(response.read()) > 0)


globals()[mode]()
