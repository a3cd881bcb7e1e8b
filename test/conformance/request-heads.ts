// The rules for the head of a request, as a table like that in requests.ts. Each row is
//
//   [rule, name, bytes of the head, outcome]
//
// The framing fields are in requests.ts. Where the RFC lets a recipient be lenient or strict, the outcome is the strict one.

import type { RequestHead } from '../../types/transfer.d.ts'

/** What must be read. The fields only where the row is about them. */
export type ReadHead = Pick<RequestHead, 'method' | 'target' | 'form' | 'host' | 'minorVersion'> & { accepted: true, fields?: Record<string, string> }

export interface RefusedHead {
  accepted: false
  /** Code of the error. */
  code: string
}

export type HeadCase = [rule: string, name: string, bytes: string, outcome: ReadHead | RefusedHead]

/** The limit for one head, in bytes. */
export const MAX_HEAD_SIZE = 300

const head = (requestLine: string, ...lines: string[]): string => [requestLine, ...lines, '', ''].join('\r\n')
/** A head with this target. */
const to = (target: string, method = 'GET'): string => head(`${method} ${target} HTTP/1.1`, 'Host: a')
/** A head with these field lines. */
const withLines = (...lines: string[]): string => head('GET / HTTP/1.1', 'Host: a', ...lines)
/** A head with these lines about the host. */
const hosts = (...lines: string[]): string => head('GET / HTTP/1.1', ...lines)

const read = (differing: Partial<ReadHead> = {}): ReadHead => ({ accepted: true, method: 'GET', target: '/', form: 'origin', host: 'a', minorVersion: 1, ...differing })
const fields = (others: Record<string, string>): ReadHead => read({ fields: { host: 'a', ...others } })
const host = (value: string): ReadHead => read({ host: value, fields: { host: value } })
const absolute = (target: string, host: string): ReadHead => read({ target, host, form: 'absolute' })
const refused = (code: string): RefusedHead => ({ accepted: false, code: `FST_ERR_DUPLEX_${code}` })
const noHead = refused('HEAD')

export const requestHeads: readonly HeadCase[] = [
  // 2.2: lines end with CRLF. One empty line before the request-line is skipped.
  ['9112 2.2', 'an empty line before the request', '\r\n' + to('/'), read()],
  ['9112 2.2', 'two empty lines before the request', '\r\n\r\n' + to('/'), noHead],
  ['9112 2.2', 'LF before the request', '\n' + to('/'), noHead],
  ['9112 2.2', 'CR before the request', '\r' + to('/'), noHead],
  ['9112 2.2', 'a space before the request', ' ' + to('/'), noHead],
  ['9112 2.2', 'LF after the request-line', 'GET / HTTP/1.1\nHost: a\r\n\r\n', noHead],
  ['9112 2.2', 'LF after a field', withLines('b: c\nd: e'), noHead],
  ['9112 2.2', 'LF for all line ends', 'GET / HTTP/1.1\nHost: a\n\n', noHead],
  ['9112 2.2', 'LF for the empty line', 'GET / HTTP/1.1\r\nHost: a\r\n\n', noHead],
  ['9112 2.2', 'CR CR LF after the request-line', 'GET / HTTP/1.1\r\r\nHost: a\r\n\r\n', noHead],
  ['9112 2.2', 'CR CR LF for the empty line', 'GET / HTTP/1.1\r\nHost: a\r\n\r\r\n\r\n', noHead],
  ['9112 2.2', 'LF CR after the request-line', 'GET / HTTP/1.1\n\rHost: a\r\n\r\n', noHead],
  ['9112 2.2', 'CR alone in the request-line', 'GET / HTTP/1.1\rHost: a\r\n\r\n', noHead],
  ['9112 2.2', 'CR alone in a field', withLines('b: c\rd: e'), noHead],
  ['9112 2.2', 'CR at the end of a field', withLines('b: c\r'), noHead],
  ['9112 2.2', 'a space before the first field', 'GET / HTTP/1.1\r\n Host: a\r\n\r\n', noHead],
  ['9112 2.2', 'a space in the empty line', 'GET / HTTP/1.1\r\nHost: a\r\n \r\n\r\n', noHead],

  // 2.3: HTTP-version = HTTP-name "/" DIGIT "." DIGIT
  ['9112 2.3', 'HTTP/1.0', head('GET / HTTP/1.0', 'Host: a'), read({ minorVersion: 0 })],
  ['9112 2.3', 'HTTP/2.0', head('GET / HTTP/2.0', 'Host: a'), refused('VERSION')],
  ['9112 2.3', 'the preface of HTTP/2', head('PRI * HTTP/2.0') + 'SM\r\n\r\n', refused('VERSION')],
  ['9112 2.3', 'HTTP/0.9', head('GET / HTTP/0.9', 'Host: a'), refused('VERSION')],
  ['9112 2.3', 'HTTP/1.2', head('GET / HTTP/1.2', 'Host: a'), refused('VERSION')],
  ['9112 2.3', 'no minor version', head('GET / HTTP/1', 'Host: a'), noHead],
  ['9112 2.3', 'two digits', head('GET / HTTP/1.10', 'Host: a'), noHead],
  ['9112 2.3', 'a leading zero', head('GET / HTTP/01.1', 'Host: a'), noHead],
  ['9112 2.3', 'another case', head('GET / http/1.1', 'Host: a'), noHead],
  ['9112 2.3', 'another protocol', head('GET / ICE/1.0', 'Host: a'), noHead],
  ['9112 2.3', 'no version', head('GET /', 'Host: a'), noHead],
  ['9112 2.3', 'a space behind the version', head('GET / HTTP/1.1 ', 'Host: a'), noHead],

  // 3: request-line = method SP request-target SP HTTP-version. 3.1: method = token
  ['9112 3.1', 'a method of our own', to('/', "aZ09!#$%&'*+-.^_`|~"), read({ method: "aZ09!#$%&'*+-.^_`|~" })],
  ['9112 3.1', 'a method in lower case is another one', to('/', 'get'), read({ method: 'get' })],
  ['9112 3.1', 'no method', head(' / HTTP/1.1', 'Host: a'), noHead],
  ['9112 3.1', 'a method with a colon', to('/', 'GE:T'), noHead],
  ['9112 3.1', 'a byte above 0x7f in the method', to('/', 'G\xc9T'), noHead],
  ['9112 3.1', 'a control byte in the method', to('/', 'G\0T'), noHead],
  ['9112 3.1', 'quotes around the method', to('/', '"GET"'), noHead],
  ['9112 3', 'two spaces behind the method', head('GET  / HTTP/1.1', 'Host: a'), noHead],
  ['9112 3', 'two spaces behind the target', head('GET /  HTTP/1.1', 'Host: a'), noHead],
  ['9112 3', 'a tab behind the method', head('GET\t/ HTTP/1.1', 'Host: a'), noHead],
  ['9112 3', 'a tab behind the target', head('GET /\tHTTP/1.1', 'Host: a'), noHead],
  ['9112 3', 'no target', head('GET HTTP/1.1', 'Host: a'), noHead],
  ['9112 3', 'a response', head('HTTP/1.1 200 OK', 'Host: a'), noHead],

  // 3.2: request-target. No whitespace is allowed in it.
  ['9112 3.2', 'a space in the target', to('/a b'), noHead],
  ['9112 3.2', 'a tab in the target', to('/a\tb'), noHead],
  ['9112 3.2', 'VT in the target', to('/a\vb'), noHead],
  ['9112 3.2', 'NUL in the target', to('/a\0'), noHead],
  ['9112 3.2', 'DEL in the target', to('/a\x7f'), noHead],
  ['9112 3.2', 'a byte above 0x7f in the target', to('/\xe9'), noHead],
  ['9112 3.2', 'a fragment', to('/a#b'), noHead],
  ['9112 3.2.1', 'a path with a query', to('/a/b?c=d&e?/'), read({ target: '/a/b?c=d&e?/' })],
  ['9112 3.2.1', 'a path that begins with two slashes', to('//b/c'), read({ target: '//b/c' })],
  ['9112 3.2.1', 'a path with what clients should encode, and do not', to('/<a>{"b"}|\\^`%zz'), read({ target: '/<a>{"b"}|\\^`%zz' })],
  ['9112 3.2.1', 'an empty path', to('?a'), noHead],
  ['9112 3.2.1', 'a relative path', to('a/b'), noHead],
  ['9112 3.2.2', 'a URI', to('http://b/c?d'), absolute('http://b/c?d', 'b')],
  ['9112 3.2.2', 'a URI without a path', to('http://b'), absolute('http://b', 'b')],
  ['9112 3.2.2', 'a URI with a query and no path', to('http://b?c'), absolute('http://b?c', 'b')],
  ['9112 3.2.2', 'a URI with a port', to('HTTP://b:81/'), absolute('HTTP://b:81/', 'b:81')],
  ['9112 3.2.2', 'a URI with an address', to('https://[::1]:81/'), absolute('https://[::1]:81/', '[::1]:81')],
  ['9112 3.2.2', 'a URI with another scheme', to('ws+x.y-z://b/'), absolute('ws+x.y-z://b/', 'b')],
  ['9112 3.2.2', 'a URI in HTTP/1.0 without Host', head('GET http://b/ HTTP/1.0'), { ...absolute('http://b/', 'b'), minorVersion: 0 }],
  ['9112 3.2.2', 'a URI without a host', to('http:///c'), noHead],
  ['9112 3.2.2', 'a URI with only a port', to('http://:80/'), noHead],
  ['9112 3.2.2', 'a URI without an authority', to('urn:a:b'), noHead],
  ['9112 3.2.2', 'a URI with a malformed address', to('http://[::g]/'), noHead],
  ['9112 3.2.2', 'a URI with a malformed scheme', to('1http://b/'), noHead],
  ['9112 3.2.2', 'a URI with a fragment', to('http://b/#c'), noHead],
  ['9112 3.2.2', 'a URI with a backslash in its host', to('http://b\\c/'), noHead],
  ['9110 4.2.4', 'a URI with userinfo', to('http://u:p@b/'), noHead],
  ['9112 3.2.3', 'CONNECT to a name', to('b.example:443', 'CONNECT'), read({ method: 'CONNECT', target: 'b.example:443', form: 'authority', host: 'b.example:443' })],
  ['9112 3.2.3', 'CONNECT to an address', to('[::1]:443', 'CONNECT'), read({ method: 'CONNECT', target: '[::1]:443', form: 'authority', host: '[::1]:443' })],
  ['9112 3.2.3', 'CONNECT without a port', to('b.example', 'CONNECT'), refused('AUTHORITY')],
  ['9112 3.2.3', 'CONNECT with an empty port', to('b.example:', 'CONNECT'), refused('AUTHORITY')],
  ['9112 3.2.3', 'CONNECT to port 0', to('b.example:0', 'CONNECT'), refused('AUTHORITY')],
  ['9112 3.2.3', 'CONNECT to port 65536', to('b.example:65536', 'CONNECT'), refused('AUTHORITY')],
  ['9112 3.2.3', 'CONNECT with a path', to('/', 'CONNECT'), refused('AUTHORITY')],
  ['9112 3.2.3', 'CONNECT with a URI', to('http://b:80/', 'CONNECT'), refused('AUTHORITY')],
  ['9112 3.2.3', 'CONNECT with userinfo', to('u@b:80', 'CONNECT'), refused('AUTHORITY')],
  ['9112 3.2.3', 'CONNECT to everything', to('*', 'CONNECT'), refused('AUTHORITY')],
  ['9112 3.2.3', 'a host and a port, with another method', to('b.example:443'), noHead],
  ['9110 9.3.6', 'CONNECT with a length', head('CONNECT b:80 HTTP/1.1', 'Host: a', 'Content-Length: 0'), refused('FRAMING')],
  ['9110 9.3.6', 'CONNECT with chunks', head('CONNECT b:80 HTTP/1.1', 'Host: a', 'Transfer-Encoding: chunked'), refused('FRAMING')],
  ['9112 3.2.4', 'OPTIONS for the server', to('*', 'OPTIONS'), read({ method: 'OPTIONS', target: '*', form: 'asterisk' })],
  ['9112 3.2.4', 'the server, with another method', to('*'), noHead],
  ['9112 3.2.4', 'more than an asterisk', to('*/', 'OPTIONS'), noHead],

  // 3.2: exactly one Host in HTTP/1.1, and a valid one.
  ['9112 3.2', 'a name', hosts('Host: b.example'), host('b.example')],
  ['9112 3.2', 'a name and a port', hosts('hOST:\t b.example:8080 \t'), host('b.example:8080')],
  ['9112 3.2', 'an address', hosts('Host: 127.0.0.1'), host('127.0.0.1')],
  ['9112 3.2', 'an address in brackets', hosts('Host: [::1]:80'), host('[::1]:80')],
  ['9112 3.2', 'a host that does not come first', hosts('b: c', 'Host: a'), read({ fields: { b: 'c', host: 'a' } })],
  ['9112 3.2', 'an empty host', hosts('Host:'), host('')],
  ['9112 3.2', 'an empty host, and a target that has one', head('GET http://b/ HTTP/1.1', 'Host:'), refused('HOST')],
  ['9112 3.2', 'no host', hosts(), refused('HOST')],
  ['9112 3.2', 'no host, and a target that has one', head('GET http://b/ HTTP/1.1'), refused('HOST')],
  ['9112 3.2', 'no host in HTTP/1.0', head('GET / HTTP/1.0'), read({ minorVersion: 0, host: '', fields: {} })],
  ['9112 3.2', 'two hosts', hosts('Host: a', 'Host: b'), refused('HOST')],
  ['9112 3.2', 'the same host twice', hosts('Host: a', 'Host: a'), refused('HOST')],
  ['9112 3.2', 'a host, and an empty one', hosts('Host: a', 'Host:'), refused('HOST')],
  ['9112 3.2', 'two hosts in HTTP/1.0', head('GET / HTTP/1.0', 'Host: a', 'Host: b'), refused('HOST')],
  ['9112 3.2', 'a list of hosts', hosts('Host: a, b'), refused('HOST')],
  ['9112 3.2', 'a host with userinfo', hosts('Host: u@b'), refused('HOST')],
  ['9112 3.2', 'a host with a path', hosts('Host: b/c'), refused('HOST')],
  ['9112 3.2', 'a port without a host', hosts('Host: :80'), refused('HOST')],
  ['9112 3.2', 'a port that is no number', hosts('Host: b:x'), refused('HOST')],
  ['9112 3.2', 'a byte above 0x7f in the host', hosts('Host: \xe9'), refused('HOST')],
  ['9112 3.2', 'a name like Host', hosts('Host: a', 'Hosts: b', 'X-Host: c'), read({ fields: { host: 'a', hosts: 'b', 'x-host': 'c' } })],

  // 5: field-line = field-name ":" OWS field-value OWS
  ['9112 5', 'fields', withLines('B: 1', 'c-D:2'), fields({ b: '1', 'c-d': '2' })],
  ['9112 5', 'a field without a value', withLines('b:', 'c: \t '), fields({ b: '', c: '' })],
  ['9112 5', 'a colon in the value', withLines('b: c: d'), fields({ b: 'c: d' })],
  ['9110 5.2', 'repeated fields are joined', withLines('b: 1', 'c: 2', 'B: 3'), fields({ b: '1, 3', c: '2' })],
  ['9113 8.2.3', 'cookies are joined with a semicolon', withLines('Cookie: b=1', 'Cookie: c=2'), fields({ cookie: 'b=1; c=2' })],
  ['9110 5.5', 'blanks and bytes above 0x7f in the value', withLines('b: \t c\t d\x80\xff \t'), fields({ b: 'c\t d\x80\xff' })],
  ['9110 5.6.2', 'every byte a name may have', withLines("!#$%&'*+-.^_`|~09AZaz: 1"), fields({ "!#$%&'*+-.^_`|~09azaz": '1' })],
  ['9110 5.1', 'names that objects have', withLines('__proto__: 1', 'constructor: 2', 'toString: 3'), fields(JSON.parse('{"__proto__":"1","constructor":"2","tostring":"3"}'))],
  ['9112 5', 'no colon', withLines('b'), noHead],
  ['9112 5', 'no name', withLines(': b'), noHead],
  ['9112 5.1', 'a space before the colon', withLines('b : c'), noHead],
  ['9112 5.1', 'a tab before the colon', withLines('b\t: c'), noHead],
  ['9112 5.1', 'a space in the name', withLines('b c: d'), noHead],
  ['9110 5.1', 'a byte above 0x7f in the name', withLines('\xe9: b'), noHead],
  ['9110 5.1', 'a control byte in the name', withLines('b\x01: c'), noHead],
  ['9110 5.1', 'a separator in the name', withLines('b(c): d'), noHead],
  ['9112 5.2', 'a folded field', withLines('b: c', ' d'), noHead],
  ['9112 5.2', 'a field folded with a tab', withLines('b: c', '\td: e'), noHead],
  ['9112 5.2', 'a folded Host', hosts('Host:', ' a'), noHead],
  ['9110 5.5', 'NUL in the value', withLines('b: \0'), noHead],
  ['9110 5.5', 'a control byte in the value', withLines('b: \x01'), noHead],
  ['9110 5.5', 'DEL in the value', withLines('b: \x7f'), noHead],

  // 2.3 of RFC 9110: limits are for the recipient to choose. The empty line counts, and so does the one before the request.
  ['9110 2.3', 'a head as long as allowed', withLines(`b: ${'c'.repeat(MAX_HEAD_SIZE - 32)}`), fields({ b: 'c'.repeat(MAX_HEAD_SIZE - 32) })],
  ['9110 2.3', 'a head that is too long', withLines(`b: ${'c'.repeat(MAX_HEAD_SIZE - 31)}`), refused('HEAD_LIMIT')],
  ['9110 2.3', 'a head that is too long by its empty line before', '\r\n' + withLines(`b: ${'c'.repeat(MAX_HEAD_SIZE - 32)}`), refused('HEAD_LIMIT')],
  ['9110 2.3', 'a request-line that does not end', `GET /${'b'.repeat(MAX_HEAD_SIZE)}`, refused('HEAD_LIMIT')],
  ['9110 2.3', 'a bare LF behind the limit', withLines(`b: ${'c'.repeat(MAX_HEAD_SIZE)}\n`), refused('HEAD_LIMIT')]
]
