// The rules for the body of a response, as a table like that in requests.ts. Each row is
//
//   [rule, name, method of the request, bytes of the whole response, outcome]
//
// The grammar of chunks and trailers is tested in requests.ts, because the same reader reads both.

export interface Received {
  accepted: true
  /** Status codes of all heads, those of interim responses first. */
  statuses: number[]
  content: string
  trailers: Record<string, string>
  /** Whether the response ends by its framing, or with the connection. */
  ends: 'itself' | 'connection'
}

export interface NotReceived {
  accepted: false
  /** Code of the plugin's error. */
  code: string
}

export type ResponseCase = [rule: string, name: string, method: string, bytes: string, outcome: Received | NotReceived]

const head = (status: string, ...lines: string[]): string => [`HTTP/1.1 ${status}`, ...lines, '', ''].join('\r\n')
const OK = (...lines: string[]): string => head('200 OK', ...lines)
const HELLO = '5\r\nhello\r\n0\r\n\r\n'

const received = (content: string, trailers: Record<string, string> = {}, statuses = [200]): Received =>
  ({ accepted: true, statuses, content, trailers, ends: 'itself' })
const noBody = (...statuses: number[]): Received => received('', {}, statuses)
const untilClose = (content: string): Received => ({ ...received(content), ends: 'connection' })
const refused = (code: string): NotReceived => ({ accepted: false, code: `FST_ERR_DUPLEX_${code}` })

export const responses: readonly ResponseCase[] = [
  // 6.3, item 1: these end with the head, whatever its fields say.
  ['9112 6.3', 'to HEAD, with a length', 'HEAD', OK('Content-Length: 5'), noBody(200)],
  ['9112 6.3', 'to HEAD, chunked', 'HEAD', OK('Transfer-Encoding: chunked'), noBody(200)],
  ['9112 6.3', 'to HEAD, without either field', 'HEAD', OK(), noBody(200)],
  ['9112 6.3', '204', 'GET', head('204 No Content'), noBody(204)],
  ['9112 6.3', '204 with a length', 'GET', head('204 No Content', 'Content-Length: 5'), noBody(204)],
  ['9112 6.3', '304 with a length', 'GET', head('304 Not Modified', 'Content-Length: 5'), noBody(304)],
  ['9112 6.3', '304, chunked', 'GET', head('304 Not Modified', 'Transfer-Encoding: chunked'), noBody(304)],
  ['9110 15.2', 'an interim response', 'POST', head('100 Continue') + OK('Content-Length: 5') + 'hello', received('hello', {}, [100, 200])],
  ['9110 15.2', 'interim responses with fields', 'GET', head('103 Early Hints', 'Link: </a>') + head('103 ', 'Link: </b>') + OK('Transfer-Encoding: chunked') + HELLO, received('hello', {}, [103, 103, 200])],
  ['9110 15.2', 'an interim response with a length', 'GET', head('102 Processing', 'Content-Length: 5') + OK('Content-Length: 0'), noBody(102, 200)],
  ['9110 15.2', 'an interim response that asks to close', 'GET', head('103 Early Hints', 'Connection: close') + OK('Content-Length: 5') + 'hello', received('hello', {}, [103, 200])],
  ['9110 15.2', 'an interim response, then no body', 'HEAD', head('103 Early Hints') + OK('Content-Length: 5'), noBody(103, 200)],

  // 6.3, items 3 to 6: chunked, or with a length.
  ['9112 6.3', 'chunked', 'GET', OK('Transfer-Encoding: chunked') + HELLO, received('hello')],
  ['9112 6.3', 'chunked, an error status', 'GET', head('404 Not Found', 'Transfer-Encoding: chunked') + HELLO, received('hello', {}, [404])],
  ['9112 7.1.1', 'chunked with extensions', 'GET', OK('Transfer-Encoding: Chunked') + '5 ; a = "\\""\r\nhello\r\n0;b\r\n\r\n', received('hello')],
  ['9112 7.1.2', 'chunked with trailers', 'GET', OK('Transfer-Encoding: chunked') + '5\r\nhello\r\n0\r\na: 1\r\nA: 2\r\n\r\n', received('hello', { a: '1, 2' })],
  ['9112 6.3', 'a length', 'GET', OK('Content-Length: 5') + 'hello', received('hello')],
  ['9112 6.3', 'a length of 0', 'GET', OK('Content-Length: 0'), noBody(200)],
  ['9110 8.6', 'the same length twice', 'GET', OK('Content-Length: 5', 'Content-Length: 5') + 'hello', received('hello')],
  ['9110 8.6', 'a list of the same length', 'GET', OK('Content-Length: 5, 5') + 'hello', received('hello')],
  ['9112 6.3', 'a length in HTTP/1.0', 'GET', 'HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello', received('hello')],
  ['9112 4', 'no reason', 'GET', 'HTTP/1.1 200 \r\nContent-Length: 5\r\n\r\nhello', received('hello')],

  // 6.3, item 8: without either field, the body ends with the connection.
  ['9112 6.3', 'neither field', 'GET', OK() + 'hello', untilClose('hello')],
  ['9112 6.3', 'neither field, and no content', 'GET', OK(), untilClose('')],
  ['9112 6.3', 'neither field in HTTP/1.0', 'GET', 'HTTP/1.0 200 OK\r\n\r\nhello', untilClose('hello')],

  // Whatever could be read in two ways is refused.
  ['9112 6.1', 'chunked together with a length', 'GET', OK('Transfer-Encoding: chunked', 'Content-Length: 5') + HELLO, refused('FRAMING')],
  ['9112 6.1', 'chunked in HTTP/1.0', 'GET', 'HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n' + HELLO, refused('FRAMING')],
  ['9112 6.1', 'another coding before chunked', 'GET', OK('Transfer-Encoding: gzip, chunked') + HELLO, refused('TRANSFER_CODING')],
  ['9112 6.3', 'another coding', 'GET', OK('Transfer-Encoding: gzip') + 'hello', refused('FRAMING')],
  ['9112 6.3', 'chunked, but not last', 'GET', OK('Transfer-Encoding: chunked', 'Transfer-Encoding: gzip') + HELLO, refused('FRAMING')],
  ['9112 6.3', 'two lengths', 'GET', OK('Content-Length: 5', 'Content-Length: 6') + 'hello', refused('FRAMING')],
  ['9110 8.6', 'no length', 'GET', OK('Content-Length:') + 'hello', refused('FRAMING')],
  ['9110 8.6', 'a length with a sign', 'GET', OK('Content-Length: +5') + 'hello', refused('FRAMING')],
  ['9110 8.6', 'a length of 2^53', 'GET', OK('Content-Length: 9007199254740992') + 'hello', refused('FRAMING')],
  ['9112 7.1', 'a malformed chunk', 'GET', OK('Transfer-Encoding: chunked') + '5\nhello\r\n0\r\n\r\n', refused('CHUNK')],
  ['9110 6.5.1', 'a framing field as a trailer', 'GET', OK('Transfer-Encoding: chunked') + '0\r\nContent-Length: 5\r\n\r\n', refused('TRAILER')],
  ['9110 15.2', 'an interim response in HTTP/1.0', 'GET', 'HTTP/1.0 100 Continue\r\n\r\n' + OK('Content-Length: 5') + 'hello', refused('HEAD')],
  ['9110 15.2', '101 in HTTP/1.0', 'GET', 'HTTP/1.0 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n', refused('HEAD')],
  ['9112 4', 'another protocol', 'GET', 'HTTP/2 200 OK\r\n\r\n', refused('HEAD')],
  ['9112 4', 'the protocol in another case', 'GET', 'http/1.1 200 OK\r\n\r\n', refused('HEAD')],
  ['9112 4', 'no space after the status', 'GET', 'HTTP/1.1 200\r\n\r\n', refused('HEAD')],
  ['9112 4', 'a status of four digits', 'GET', 'HTTP/1.1 2000 OK\r\n\r\n', refused('HEAD')],
  ['9112 4', 'a status out of range', 'GET', 'HTTP/1.1 999 x\r\n\r\n', refused('HEAD')],
  ['9112 4', 'NUL in the reason', 'GET', 'HTTP/1.1 200 \0\r\n\r\n', refused('HEAD')],
  ['9112 2.2', 'LF after the status line', 'GET', 'HTTP/1.1 200 OK\na: b\r\n\r\n', refused('HEAD')],
  ['9112 2.2', 'LF after a field', 'GET', OK('a: b\nContent-Length: 5') + 'hello', refused('HEAD')],
  ['9112 2.2', 'CR in a field', 'GET', OK('a: b\rc') + 'hello', refused('HEAD')],
  ['9112 5.1', 'a space before the colon', 'GET', OK('Content-Length : 5') + 'hello', refused('HEAD')],
  ['9112 5.2', 'a folded field', 'GET', OK('a: b', ' c') + 'hello', refused('HEAD')],
  ['9112 2.2', 'a space before the first field', 'GET', OK(' a: b') + 'hello', refused('HEAD')],
  ['9112 4', 'a malformed head after an interim one', 'GET', head('100 Continue') + 'HTTP/1.1 x\r\n\r\n', refused('HEAD')],
  ['9112 2.3', 'a head that is too long', 'GET', OK(`a: ${'b'.repeat(300)}`), refused('HEAD_LIMIT')]
]
