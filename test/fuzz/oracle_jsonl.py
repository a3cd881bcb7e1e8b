"""Python's json as an oracle for JSON Lines. Reads bodies from stdin and writes what is in them to stdout, each after its length in
four bytes: for each item its offset, and its value or what is wrong with it."""

import json
import math
import struct
import sys


def number(text):
    """A double, as in JavaScript. JSON has no infinity."""
    value = float(text)
    return value if math.isfinite(value) else '%sInfinity' % ('-' if value < 0 else '')


def constant(name):
    raise ValueError('%s is no JSON' % name)


def load(line):
    try:
        return {'value': json.loads(line.decode('utf-8', 'strict'), parse_int=number, parse_float=number, parse_constant=constant)}
    except RecursionError:
        return {'error': 'recursion'}
    except UnicodeDecodeError:
        return {'error': 'utf-8'}
    except ValueError as error:
        return {'error': str(error)}


def read(body):
    items = []
    offset = 0
    if body.startswith(b'\xef\xbb\xbf'):
        offset = 3
    for line in body[offset:].split(b'\n'):
        content = line[:-1] if line.endswith(b'\r') else line
        if content.strip(b' \t\r') != b'':
            items.append(dict(load(content), offset=offset))
        offset += len(line) + 1
    return items


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
