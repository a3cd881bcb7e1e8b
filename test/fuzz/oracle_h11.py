"""h11 as an oracle. Reads messages from stdin and writes verdicts to stdout, each after its length in four bytes.

The first byte of a message says what it is: a request (s, r), or a response to GET, HEAD or CONNECT (G, H, C).
"""

import json
import struct
import sys

import h11

METHODS = {b'G': 'GET', b'H': 'HEAD', b'C': 'CONNECT'}


def open_connection(kind):
    if kind not in METHODS:
        return h11.Connection(h11.SERVER)
    connection = h11.Connection(h11.CLIENT)
    target = 'a:80' if kind == b'C' else '/'
    # Without an offer, h11 refuses any 101.
    connection.send(h11.Request(method=METHODS[kind], target=target, headers=[('Host', 'a'), ('Connection', 'upgrade'), ('Upgrade', 'x')]))
    connection.send(h11.EndOfMessage())
    return connection


def join(headers):
    fields = {}
    for name, value in headers:
        name, value = name.decode('latin1'), value.decode('latin1')
        fields[name] = fields[name] + ', ' + value if name in fields else value
    return fields


def read(kind, message):
    connection = open_connection(kind)
    connection.receive_data(message)
    content = b''
    head = dict(start='', fields={})
    ended = False

    def accepted(trailers):
        end = len(message) - len(connection.trailing_data[0])
        return dict(outcome='accepted', reason='', content=content.decode('latin1'), trailers=trailers, end=end, head=head)

    try:
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                ended = True
                connection.receive_data(b'')
            elif isinstance(event, h11.Request):
                start = event.method + b' ' + event.target + b' HTTP/' + event.http_version
                head = dict(start=start.decode('latin1'), fields=join(event.headers))
            elif isinstance(event, (h11.InformationalResponse, h11.Response)):
                start = '%d %s\n' % (event.status_code, event.reason.decode('latin1'))
                head = dict(start=head['start'] + start, fields=join(event.headers))
            elif isinstance(event, h11.Data):
                content += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                return accepted(join(event.headers))
            elif event is h11.PAUSED:
                return accepted({})
            elif isinstance(event, h11.ConnectionClosed):
                return dict(outcome='incomplete', reason='no bytes', content='', trailers={}, end=-1)
    except h11.RemoteProtocolError as error:
        return dict(outcome='incomplete' if ended else 'refused', reason=str(error), content='', trailers={}, end=-1)


def main():
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    while True:
        size = source.read(4)
        if len(size) < 4:
            return
        message = source.read(struct.unpack('>I', size)[0])
        text = json.dumps(read(message[:1], message[1:])).encode()
        sink.write(struct.pack('>I', len(text)) + text)
        sink.flush()


main()
