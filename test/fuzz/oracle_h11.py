"""h11 as an oracle. Reads messages from stdin and writes verdicts to stdout, each after its length in four bytes."""

import json
import struct
import sys

import h11


def read(message):
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(message)
    content = b''
    ended = False
    try:
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                ended = True
                connection.receive_data(b'')
            elif isinstance(event, h11.Data):
                content += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                trailers = {}
                for name, value in event.headers:
                    name, value = name.decode('latin1'), value.decode('latin1')
                    trailers[name] = trailers[name] + ', ' + value if name in trailers else value
                end = len(message) - len(connection.trailing_data[0])
                return dict(outcome='accepted', reason='', content=content.decode('latin1'), trailers=trailers, end=end)
            elif isinstance(event, h11.ConnectionClosed):
                return dict(outcome='incomplete', reason='no bytes', content='', trailers={}, end=-1)
    except h11.RemoteProtocolError as error:
        return dict(outcome='incomplete' if ended else 'refused', reason=str(error), content='', trailers={}, end=-1)


def main():
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    while True:
        head = source.read(4)
        if len(head) < 4:
            return
        text = json.dumps(read(source.read(struct.unpack('>I', head)[0]))).encode()
        sink.write(struct.pack('>I', len(text)) + text)
        sink.flush()


main()
