// Generates messages. They follow the grammar, with mutations that parsers are known to read differently. The same seed and
// number always give the same message.

import { randomFrom, seedOf } from '../support/random.ts'

/** The request that follows every message. */
export const NEXT = 'GET /next HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n'

/** `body`: a request whose body is of interest, which the plugin reads behind Node's parser. `request`, `response`: messages for our own readers, from their first byte on. */
export type Kind = 'body' | 'request' | 'response'

export interface Message {
  kind: Kind
  /** The method of the request, or of that which a response answers. */
  method: string
  /** The message, and NEXT after it. */
  bytes: string
  /** Offsets at which the bytes are split into segments. */
  cuts: number[]
}

const TOKENS = ['a', 'B-c', 'x', '0', "!#$%&'*+-.^_`|~", 'chunked']
const QUOTED = ['""', '"b"', '";"', '"="', '"\\""', '"\\\\"', '"\t\x80\xff"', '"0\\\r"', '"\r\n"', '"\n"', '"']
const FIELDS = ['X-Sum: 1', 'a:', 'a: b', 'A: c', 'b:  \t d \t', 'x-y: \x80', 'Digest: a=b, c', 'Content-Length: 5', 'Transfer-Encoding: chunked', 'Host: b', 'Trailer: a',
  'Authorization: b', 'Connection: close', 'a : b', ' a: b', ': b', 'a', '', 'a b: c', '\x80: b', 'a: \0', 'a: \x01', 'a: \x7f', 'a: b\r\n c', 'a: b\nc: d', 'a: b\rc', '__proto__: 1']
const LENGTHS = ['0', '5', '05', '+5', '-5', ' 5', '5 ', '5\t', '5, 5', '5,5', '5, 6', '5,', ',5', '0x5', '5.0', '5e0', '5_0', '"5"', '', '\xb2', '5\0', '5\v', '5;a', '5 5', '00000000000000000000005',
  '9007199254740991', '9007199254740992', '9223372036854775807', '9223372036854775808', '18446744073709551615', '18446744073709551621', '99999999999999999999999']
const CODINGS = ['chunked', 'Chunked', 'CHUNKED', ' chunked', 'chunked ', '\tchunked\t', 'chunked, chunked', 'chunked,chunked', 'gzip, chunked', 'gzip,chunked', 'chunked, gzip', 'gzip', 'identity',
  'identity, chunked', '', ',', ', chunked', 'chunked,', ',chunked,', 'xchunked', 'chunkedx', 'x chunked', 'chunked x', 'chunked;a', 'chunked;a=b', 'gzip;a="b, chunked"', '"chunked"', '\vchunked',
  '\xa0chunked', 'chunked\0', 'chunked\v', 'chunked\x0c', 'chun\tked', 'chu\r\n nked', 'gzip,\r\n chunked', '\r\n chunked', 'chunked\r', 'chunked\n', 'trailers, chunked', 'deflate, gzip, chunked']
const NAMES = { length: ['Content-Length', 'content-length', 'CONTENT-LENGTH', 'Content-Length ', ' Content-Length', 'Content_Length', 'Content-Length\0', 'Content-Length\t'], coding: ['Transfer-Encoding', 'transfer-encoding', 'TRANSFER-ENCODING', 'Transfer-Encoding ', ' Transfer-Encoding', 'Transfer_Encoding', 'Transfer-Encoding\t', 'X-Transfer-Encoding'] }
const SIZES = ['+5', '-5', ' 5', '5 ', '5\t', '0x5', '0X5', 'x5', '5h', '5.', '5_', '05', '00000005', '0000000000000005', '00000000000000005', '000000000000000000000000000000005', 'g', '', '"5"', '\xb5', '\0' + '5', '5\0', '5\v',
  '1fffffffffffff', '20000000000000', '7fffffffffffffff', '8000000000000000', 'ffffffffffffffff', '10000000000000005', 'fffffffffffffffff', '100000005', 'fffffffb']
const LINE_ENDS = ['\n', '\r', '\rX', '\r\0', '\r0', 'X\n', '\0\n', '\r\r\n', '\n\r', '\n\n', '\r\n\r\n', '', ' \r\n', '\t\r\n', '\0\r\n', '\x0b\r\n', '\x85']
const BYTES = ['\r', '\n', '\r\n', '\0', ' ', '\t', '\v', '\f', '\x7f', '\x80', '\x85', '\xa0', '\xff', '0', '1', '5', 'a', 'F', 'x', '+', '-', '_', ',', ';', '=', '"', '\\', ':', 'GET / HTTP/1.1\r\nHost: a\r\n\r\n', '0\r\n\r\n']

const METHODS = ['GET', 'POST', 'PUT', 'HEAD', 'DELETE', 'OPTIONS', 'PATCH', 'CONNECT', 'get', 'FOO', 'M-SEARCH', 'PRI', '', 'G T', 'GE\tT', 'G\xc9T', '"GET"', 'GET:', "!#$%&'*+-.^_`|~"]
const TARGETS = ['/', '/message', '/a?b=c&d', '/a/../b;c', '*', 'http://a/b', 'http://a', 'a:80', '//a/b', 'HTTP://a:81?b', '/%zz', '/<a>|{"b"}^`', '/a\\b', '/#b', '/a#', '/\xe9', '/a b', '/\t', '/\0', '/\x7f', '',
  'a', 'a/b', '?a', 'http:/a', 'http:///a', 'http://u@a/', 'http://[::1]:80/', 'http://[::g]/', 'http://a:x/', 'http://a:/', 'http://a\\b/', 'urn:a:b', 'https://a/#b', '*a', '[::1]:443', 'a:', 'a:0', 'a:65536', ':80', 'u@a:80', 'a b:80']
const VERSIONS = ['HTTP/1.1', 'HTTP/1.0', 'HTTP/2.0', 'HTTP/1.2', 'HTTP/0.9', 'HTTP/1.10', 'HTTP/11.1', 'HTTP/01.1', 'HTTP/1', 'HTTP/1.', 'HTTP/.1', 'http/1.1', 'HTTP /1.1', 'HTTP/1,1', 'HTTP/1.1 ', 'HTTP/1.1\t', 'ICE/1.0', '']
const HOSTS = ['a', 'a.example:80', '127.0.0.1', '[::1]', '[::1]:80', '', 'a:', 'A_b~c', '[::g]', 'a b', 'a,b', 'a, a', 'u@a', 'a/b', ':80', 'a:x', 'a:80:80', '%41', '%4', 'a%', '\xe9', '"a"', '[a', '::1', 'a\\b', 'a#b', 'a?b', '<a>']
const STATUSES = ['200', '404', '500', '201', '204', '304', '101', '299', '100', '103', '099', '600', '999', '2000', '20', '+20', '0x2', '2 0', '200.', '', ' 200', '1e2', '-200']
const REASONS = [' OK', ' Not Found', ' ', ' a b', ' \xe9', ' \t', '', '  two', '\tOK', ' a\0', ' \x7f', '\r', ' 1']

/** The message with this number. */
export function messageFrom (seed: number, number: number, kind: Kind): Message {
  const random = randomFrom(seedOf(seed, number))
  const below = (n: number): number => Math.floor(random() * n)
  const chance = (p: number): boolean => random() < p
  const pick = <T>(list: readonly T[]): T => list[below(list.length)]
  const repeat = (max: number, make: () => string): string => {
    let text = ''
    for (let left = below(max + 1); left > 0; left--) text += make()
    return text
  }
  // The probability of a mutation. Many messages have none.
  const oddity = pick([0, 0, 0.02, 0.1, 0.3])
  const whitespace = (): string => chance(0.15) ? repeat(2, () => pick([' ', '\t'])) : ''
  const lineEnd = (): string => chance(oddity / 2) ? pick(LINE_ENDS) : '\r\n'

  const extension = (): string => whitespace() + ';' + whitespace() + pick(TOKENS) + (chance(0.5) ? whitespace() + '=' + whitespace() + (chance(0.5) ? pick(TOKENS) : pick(chance(oddity) ? QUOTED : QUOTED.slice(0, 7))) : '')
  const extensions = (): string => chance(0.25) ? repeat(3, extension) : ''
  const content = (size: number): string => {
    if (chance(0.1)) return NEXT.repeat(2).slice(0, size)
    if (chance(0.1)) return '0\r\n\r\n'.repeat(size).slice(0, size)
    let text = ''
    for (let i = 0; i < size; i++) text += String.fromCharCode(below(256))
    return text
  }
  const size = (n: number): string => {
    if (chance(oddity)) return pick(SIZES)
    const digits = n.toString(16)
    return '0'.repeat(chance(0.1) ? below(16) : 0) + (chance(0.5) ? digits : digits.toUpperCase())
  }
  const chunk = (): string => {
    const n = pick([1, 2, 5, 5, 10, 17, 32])
    return size(n) + extensions() + lineEnd() + content(chance(oddity) ? below(20) : n) + lineEnd()
  }
  const field = (): string => pick(chance(oddity) ? FIELDS : FIELDS.slice(0, 7)) + lineEnd()
  const chunkedBody = (): string => repeat(4, chunk) + (chance(oddity / 4) ? '' : '0') + extensions() + lineEnd() + (chance(0.3) ? repeat(3, field) : '') + lineEnd()

  const length = below(20)
  let framing = pick(['chunked', 'chunked', 'chunked', 'length', 'none', 'both'])
  if (framing === 'none' && kind === 'body' && chance(0.7)) framing = 'chunked'
  if (framing === 'both' && chance(0.5)) framing = 'length'
  const lines: string[] = []
  if (framing === 'chunked' || framing === 'both') lines.push(`${chance(oddity) ? pick(NAMES.coding) : pick(NAMES.coding.slice(0, 3))}:${pick([' ', '', '\t'])}${chance(oddity) ? pick(CODINGS) : pick(CODINGS.slice(0, 6))}`)
  if (framing === 'length' || framing === 'both') lines.push(`${chance(oddity) ? pick(NAMES.length) : pick(NAMES.length.slice(0, 3))}:${pick([' ', '', '\t'])}${chance(oddity) ? pick(LENGTHS) : length}`)
  while (chance(oddity)) lines.push(chance(0.5) ? `${pick(NAMES.coding)}: ${pick(CODINGS)}` : `${pick(NAMES.length)}: ${pick(LENGTHS)}`)
  if (chance(0.1)) lines.push(`Connection: ${pick(['close', 'keep-alive', 'Close', 'x', 'close, keep-alive', 'keep-alive, close'])}`)
  if (chance(0.05)) lines.push('Trailer: a')
  if (chance(0.05)) lines.push('TE: trailers')
  if (chance(0.05)) lines.push(pick(FIELDS.slice(0, 7)))
  lines.sort(() => random() - 0.5)
  const isOdd = (): boolean => chance(oddity)
  const version = (): string => isOdd() ? pick(VERSIONS) : chance(0.06) ? 'HTTP/1.0' : 'HTTP/1.1'
  let method = pick(['POST', 'POST', 'PUT', 'GET', 'DELETE'])
  let start = `${method} /message HTTP/${chance(0.06) ? '1.0' : '1.1'}`
  let host = 'Host: a'
  if (kind === 'request') {
    method = isOdd() ? pick(METHODS) : pick(METHODS.slice(0, 8))
    const target = isOdd() ? pick(TARGETS) : method === 'CONNECT' ? 'a:80' : method === 'OPTIONS' && chance(0.5) ? '*' : pick(TARGETS.slice(0, 4))
    start = method + (isOdd() ? pick(['  ', '\t', '']) : ' ') + target + (isOdd() ? pick(['  ', '\t', '']) : ' ') + version()
    if (isOdd()) start = pick(['\r\n', '\r\n\r\n', '\n', ' ', '\r', '\0']) + start
    host = isOdd() ? pick(['', 'X: y\r\n']) + `${pick(['Host', 'HOST', 'Host ', ' Host', 'Hos'])}: ${pick(HOSTS)}` : `Host:${whitespace()}${pick(HOSTS.slice(0, 5))}${whitespace()}`
    if (isOdd()) host += `\r\nHost: ${pick(HOSTS)}`
    while (isOdd()) lines.push(pick(FIELDS))
    if (method === 'CONNECT' && chance(0.8)) framing = 'none'
    if (framing === 'none') lines.splice(0)
  } else if (kind === 'response') {
    method = pick(['GET', 'GET', 'GET', 'HEAD', 'CONNECT'])
    const interim = chance(0.1) ? `${version()} ${pick(['100 Continue', '103 Early Hints'])}\r\n${pick(['', 'Link: a\r\n', 'Connection: close\r\n'])}\r\n` : ''
    start = interim + version() + (isOdd() ? pick(['  ', '\t', '']) : ' ') + (isOdd() ? pick(STATUSES) : pick(STATUSES.slice(0, 8))) + (isOdd() ? pick(REASONS) : pick(REASONS.slice(0, 4)))
    host = 'Server: a'
    while (isOdd()) lines.push(pick(FIELDS))
  }
  // The start line of a request to a live server must be as it is, so that its route is found.
  const startLine = kind === 'body' ? start + '\r\n' : ''
  let rest = (kind === 'body' ? '' : start + lineEnd()) + host + lineEnd() + lines.map((line) => line + lineEnd()).join('') + lineEnd()
  const headSize = rest.length
  rest += framing === 'length' ? content(chance(oddity) ? below(20) : length) : framing === 'none' ? '' : chunkedBody()

  // Replaces some bytes at random, most of them in what is of interest.
  while (chance(oddity * 2)) {
    const at = chance(0.3) ? below(rest.length) : kind === 'body' ? headSize + below(Math.max(1, rest.length - headSize)) : below(headSize)
    rest = rest.slice(0, at) + (chance(0.7) ? pick(BYTES) : '') + rest.slice(at + pick([0, 0, 1, 1, 2]))
    if (chance(0.5)) break
  }
  let bytes = startLine + rest + NEXT
  if (chance(0.03)) bytes = bytes.slice(0, startLine.length + below(rest.length + 1))

  const cuts = Array.from({ length: pick([0, 0, 1, 1, 2, 8]) }, () => 1 + below(bytes.length - 1)).sort((a, b) => a - b)
  return { kind, method, bytes, cuts: [...new Set(cuts)] }
}
