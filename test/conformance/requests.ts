// The rules for the body of a request, as a table of what a client sends and how a server must react. Each row is
//
//   [rule, name, bytes of the whole request, outcome]
//
// where the rule is the section of RFC 9110 or RFC 9112. The limits are those of LIMITS. Where the RFC lets a recipient be
// lenient or strict, the outcome is the strict one.

export const LIMITS = { maxTrailerSize: 256, maxChunkExtensionSize: 64 }

export interface Accepted {
  accepted: true
  framing: 'none' | 'length' | 'chunked'
  content: string
  trailers: Record<string, string>
  /** The connection serves another request. */
  persistent: boolean
  /** Status codes of the interim responses before the final one. */
  interim: number[]
}

export interface Refused {
  accepted: false
  status: number
  /** Code of the plugin's error. Null if Node's parser must refuse the head, because the parsed head no longer shows the fault. */
  code: string | null
  /** Code of the error of our own reader of heads, if it differs: null if it accepts the head. */
  ours?: string | null
}

export type RequestCase = [rule: string, name: string, bytes: string, outcome: Accepted | Refused]

// Requests

const request = (version: string, lines: string[]): string => [`POST / HTTP/${version}`, 'Host: a', ...lines, '', ''].join('\r\n')
/** The head of a request with these field lines. */
const head = (...lines: string[]): string => request('1.1', lines)
const oldHead = (...lines: string[]): string => request('1.0', lines)
/** A request with this chunked body. */
const chunked = (body: string): string => head('Transfer-Encoding: chunked') + body
/** A request with this trailer section. */
const trailer = (...lines: string[]): string => chunked('5\r\nhello\r\n0\r\n' + [...lines, '', ''].join('\r\n'))
const HELLO = '5\r\nhello\r\n0\r\n\r\n'

// Outcomes

const accepted = (framing: Accepted['framing'], content: string, trailers: Record<string, string> = {}): Accepted =>
  ({ accepted: true, framing, content, trailers, persistent: true, interim: [] })
const noBody = accepted('none', '')
const length = (content: string): Accepted => accepted('length', content)
const chunks = (content: string, trailers?: Record<string, string>): Accepted => accepted('chunked', content, trailers)
const thenClose = (outcome: Accepted): Accepted => ({ ...outcome, persistent: false })
const after100 = (outcome: Accepted): Accepted => ({ ...outcome, interim: [100] })

const refused = (code: string, status = 400): Refused => ({ accepted: false, status, code: `FST_ERR_DUPLEX_${code}` })
const refusedByNode: Refused = { accepted: false, status: 400, code: null, ours: 'FST_ERR_DUPLEX_HEAD' }
const refusedByNodeAlone: Refused = { ...refusedByNode, ours: null }

export const requests: readonly RequestCase[] = [
  // 6: the presence of a body is signalled by Content-Length or Transfer-Encoding, whatever the method.
  ['9112 6', 'GET without a body', 'GET / HTTP/1.1\r\nHost: a\r\n\r\n', noBody],
  ['9112 6', 'GET with a length', 'GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello', length('hello')],
  ['9112 6', 'GET with chunks', 'GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n' + HELLO, chunks('hello')],
  ['9112 6', 'DELETE with a length', 'DELETE / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello', length('hello')],
  ['9112 6', 'OPTIONS with chunks', 'OPTIONS / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n' + HELLO, chunks('hello')],

  // 6.1: Transfer-Encoding = #transfer-coding, names in any case, with chunked last and once. A server that does not
  // understand a coding should answer 501.
  ['9112 6.1', 'chunked', head('Transfer-Encoding: chunked') + HELLO, chunks('hello')],
  ['9112 6.1', 'chunked in another case', head('TRANSFER-encoding: ChunkeD') + HELLO, chunks('hello')],
  ['9112 6.1', 'whitespace around the value', head('Transfer-Encoding: \t chunked \t') + HELLO, chunks('hello')],
  ['9112 6.1', 'no space before the value', head('Transfer-Encoding:chunked') + HELLO, chunks('hello')],
  ['9112 6.1', 'another coding before chunked', head('Transfer-Encoding: gzip, chunked') + HELLO, refused('TRANSFER_CODING', 501)],
  ['9112 6.1', 'another coding in an earlier line', head('Transfer-Encoding: gzip', 'Transfer-Encoding: chunked') + HELLO, refused('TRANSFER_CODING', 501)],
  ['9112 6.1', 'an unknown coding with a parameter', head('Transfer-Encoding: x;q="1", chunked') + HELLO, refused('TRANSFER_CODING', 501)],
  ['9112 6.1', 'identity, which is no longer a coding', head('Transfer-Encoding: identity, chunked') + HELLO, refused('TRANSFER_CODING', 501)],
  ['9112 6.1', 'chunked twice', head('Transfer-Encoding: chunked, chunked') + HELLO, refused('FRAMING')],
  ['9112 6.1', 'chunked in two lines', head('Transfer-Encoding: chunked', 'Transfer-Encoding: chunked') + HELLO, refused('FRAMING')],
  ['9112 6.1', 'no coding', head('Transfer-Encoding:') + HELLO, refused('FRAMING')],
  ['9112 6.1', 'an empty element before chunked', head('Transfer-Encoding: , chunked') + HELLO, refused('FRAMING')],
  ['9112 6.1', 'an empty element after chunked', head('Transfer-Encoding: chunked,') + HELLO, refused('FRAMING')],
  ['9112 6.1', 'a control byte before chunked', head('Transfer-Encoding: \vchunked') + HELLO, { ...refused('FRAMING'), ours: 'FST_ERR_DUPLEX_HEAD' }],
  ['9112 6.1', 'a byte above 0x7f before chunked', head('Transfer-Encoding: \xa0chunked') + HELLO, refused('FRAMING')],
  ['9112 6.1', 'quotes around chunked', head('Transfer-Encoding: "chunked"') + HELLO, refused('FRAMING')],
  ['9112 6.1', 'a space before the colon', head('Transfer-Encoding : chunked') + HELLO, refusedByNode],
  ['9112 6.1', 'the value in a folded line', head('Transfer-Encoding:\r\n chunked') + HELLO, refusedByNode],
  ['9112 6.1', 'a coding in a folded line', head('Transfer-Encoding: gzip,\r\n chunked') + HELLO, refusedByNode],
  ['9112 6.1', 'a bare LF after the line', head('Transfer-Encoding: chunked\nX: y') + HELLO, refusedByNode],
  ['9112 6.1', 'a bare CR in the line', head('Transfer-Encoding: chunked\rX: y') + HELLO, refusedByNode],
  ['9112 6.1', 'NUL in the value', head('Transfer-Encoding: chunked\0') + HELLO, refusedByNode],
  ['9112 6.1', 'HTTP/1.0', oldHead('Transfer-Encoding: chunked') + HELLO, refused('FRAMING')],
  ['9112 6.1', 'HTTP/1.0 with keep-alive', oldHead('Transfer-Encoding: chunked', 'Connection: keep-alive') + HELLO, refused('FRAMING')],
  ['9112 6.1', 'after Content-Length', head('Content-Length: 5', 'Transfer-Encoding: chunked') + HELLO, refused('FRAMING')],
  ['9112 6.1', 'before Content-Length', head('Transfer-Encoding: chunked', 'Content-Length: 5') + HELLO, refused('FRAMING')],
  ['9112 6.1', 'another coding, together with Content-Length', head('Transfer-Encoding: x, chunked', 'Content-Length: 5') + HELLO, refused('FRAMING')],

  // 6.2 and 9110 8.6: Content-Length = 1*DIGIT. A recipient may accept or refuse a list or repetition of one valid number.
  ['9112 6.2', 'a length', head('Content-Length: 5') + 'hello', length('hello')],
  ['9112 6.2', 'a length of 0', head('Content-Length: 0'), noBody],
  ['9112 6.2', 'whitespace around the number', head('Content-Length: \t5') + 'hello', length('hello')],
  ['9112 6.2', 'the name in another case', head('cONTENT-lENGTH: 5') + 'hello', length('hello')],
  ['9112 6.2', 'content of all kinds of bytes', head('Content-Length: 12') + '\0\r\n\r\n0\r\n\r\n\xff\x80', length('\0\r\n\r\n0\r\n\r\n\xff\x80')],
  ['9112 6.2', 'content that looks like a request', head('Content-Length: 19') + 'GET /smuggled HTTP/', length('GET /smuggled HTTP/')],
  ['9110 8.6', 'leading zeros', head('Content-Length: 0005') + 'hello', length('hello')],
  ['9110 8.6', 'no number', head('Content-Length:') + 'hello', refused('FRAMING')],
  ['9110 8.6', 'a plus', head('Content-Length: +5') + 'hello', refused('FRAMING')],
  ['9110 8.6', 'a minus', head('Content-Length: -5') + 'hello', refused('FRAMING')],
  ['9110 8.6', 'hexadecimal', head('Content-Length: 0x5') + 'hello', refused('FRAMING')],
  ['9110 8.6', 'a fraction', head('Content-Length: 5.0') + 'hello', refused('FRAMING')],
  ['9110 8.6', 'an exponent', head('Content-Length: 5e0') + 'hello', refused('FRAMING')],
  ['9110 8.6', 'an underscore', head('Content-Length: 0_5') + 'hello', refused('FRAMING')],
  ['9110 8.6', 'two numbers', head('Content-Length: 5 5') + 'hello', refused('FRAMING')],
  ['9110 8.6', 'a parameter', head('Content-Length: 5;a=b') + 'hello', refused('FRAMING')],
  ['9110 8.6', 'quotes', head('Content-Length: "5"') + 'hello', refused('FRAMING')],
  ['9110 8.6', 'a digit outside of ASCII', head('Content-Length: \xb2') + 'hello', refused('FRAMING')],
  ['9110 8.6', 'NUL after the number', head('Content-Length: 5\0') + 'hello', refusedByNode],
  ['9110 8.6', 'a bare CR after the number', head('Content-Length: 5\r') + 'hello', refusedByNode],
  ['9110 8.6', 'more than 2^53-1', head('Content-Length: 9007199254740992') + 'hello', refused('FRAMING')],
  ['9110 8.6', 'more than 2^64', head('Content-Length: 18446744073709551621') + 'hello', refused('FRAMING')],
  ['9110 8.6', 'a list of the same number', head('Content-Length: 5, 5') + 'hello', refusedByNodeAlone],
  ['9110 8.6', 'a list of two numbers', head('Content-Length: 5, 6') + 'hello', refused('FRAMING')],
  ['9110 8.6', 'the same number in two lines', head('Content-Length: 5', 'Content-Length: 5') + 'hello', refusedByNodeAlone],
  ['9110 8.6', 'two numbers in two lines', head('Content-Length: 5', 'Content-Length: 6') + 'hello', refused('FRAMING')],
  ['9110 8.6', 'a space before the colon', head('Content-Length : 5') + 'hello', refusedByNode],
  ['9110 8.6', 'the number in a folded line', head('Content-Length:\r\n 5') + 'hello', refusedByNode],

  // 6.3: how the length of a body is determined. A request without either field has no body. A request body is never
  // delimited by the end of the connection.
  ['9112 6.3', 'neither field', head(), noBody],
  ['9112 6.3', 'neither field, but a content type', head('Content-Type: text/plain'), noBody],
  ['9112 6.3', 'neither field in HTTP/1.0', oldHead('Connection: keep-alive'), noBody],
  ['9112 6.3', 'a length in HTTP/1.0', oldHead('Connection: keep-alive', 'Content-Length: 5') + 'hello', length('hello')],
  ['9112 6.3', 'a coding that is not chunked', head('Transfer-Encoding: gzip') + HELLO, refused('FRAMING')],
  ['9112 6.3', 'identity', head('Transfer-Encoding: identity') + HELLO, refused('FRAMING')],
  ['9112 6.3', 'chunked, but not last', head('Transfer-Encoding: chunked, gzip') + HELLO, refused('FRAMING')],
  ['9112 6.3', 'a name that ends with chunked', head('Transfer-Encoding: xchunked') + HELLO, refused('FRAMING')],
  ['9112 6.3', 'a name that begins with chunked', head('Transfer-Encoding: chunkedx') + HELLO, refused('FRAMING')],

  // 7.1: chunk = chunk-size [ chunk-ext ] CRLF chunk-data CRLF, chunk-size = 1*HEXDIG. Large numbers must not overflow.
  ['9112 7.1', 'no chunk', chunked('0\r\n\r\n'), chunks('')],
  ['9112 7.1', 'one chunk', chunked('5\r\nhello\r\n0\r\n\r\n'), chunks('hello')],
  ['9112 7.1', 'several chunks', chunked('5\r\nhello\r\n1\r\n \r\n5\r\nworld\r\n0\r\n\r\n'), chunks('hello world')],
  ['9112 7.1', 'hexadecimal in both cases', chunked('a\r\n0123456789\r\nA\r\nabcdefghij\r\n0\r\n\r\n'), chunks('0123456789abcdefghij')],
  ['9112 7.1', 'two digits', chunked('1A\r\nabcdefghijklmnopqrstuvwxyz\r\n0\r\n\r\n'), chunks('abcdefghijklmnopqrstuvwxyz')],
  ['9112 7.1', 'leading zeros, up to 16 digits', chunked('0000000000000005\r\nhello\r\n0000000000000000\r\n\r\n'), chunks('hello')],
  ['9112 7.1', 'content that looks like framing', chunked('7\r\n0\r\n\r\n\r\n\r\n0\r\n\r\n'), chunks('0\r\n\r\n\r\n')],
  ['9112 7.1', 'content that looks like a request', chunked('13\r\nGET /smuggled HTTP/\r\n0\r\n\r\n'), chunks('GET /smuggled HTTP/')],
  ['9112 7.1', 'content of all kinds of bytes', chunked('4\r\n\0\x7f\x80\xff\r\n0\r\n\r\n'), chunks('\0\x7f\x80\xff')],
  ['9112 7.1', 'no chunk-size', chunked('\r\nhello\r\n0\r\n\r\n'), refused('CHUNK')],
  ['9112 7.1', 'a plus', chunked('+5\r\nhello\r\n0\r\n\r\n'), refused('CHUNK')],
  ['9112 7.1', 'a minus', chunked('-0\r\n\r\n'), refused('CHUNK')],
  ['9112 7.1', '0x', chunked('0x5\r\nhello\r\n0\r\n\r\n'), refused('CHUNK')],
  ['9112 7.1', 'x', chunked('x5\r\nhello\r\n0\r\n\r\n'), refused('CHUNK')],
  ['9112 7.1', 'not a hexadecimal digit', chunked('g\r\nhello\r\n0\r\n\r\n'), refused('CHUNK')],
  ['9112 7.1', 'an underscore', chunked('1_0\r\nhello\r\n0\r\n\r\n'), refused('CHUNK')],
  ['9112 7.1', 'a fraction', chunked('5.0\r\nhello\r\n0\r\n\r\n'), refused('CHUNK')],
  ['9112 7.1', 'quotes', chunked('"5"\r\nhello\r\n0\r\n\r\n'), refused('CHUNK')],
  ['9112 7.1', 'a space before chunk-size', chunked(' 5\r\nhello\r\n0\r\n\r\n'), refused('CHUNK')],
  ['9112 7.1', 'a space after chunk-size', chunked('5 \r\nhello\r\n0\r\n\r\n'), refused('CHUNK')],
  ['9112 7.1', 'a tab after chunk-size', chunked('5\t\r\nhello\r\n0\r\n\r\n'), refused('CHUNK')],
  ['9112 7.1', 'a space within chunk-size', chunked('0 5\r\nhello\r\n0\r\n\r\n'), refused('CHUNK')],
  ['9112 7.1', 'VT after chunk-size', chunked('5\v\r\nhello\r\n0\r\n\r\n'), refused('CHUNK')],
  ['9112 7.1', 'NUL after chunk-size', chunked('5\0\r\nhello\r\n0\r\n\r\n'), refused('CHUNK')],
  ['9112 7.1', 'a byte above 0x7f as chunk-size', chunked('\xb5\r\nhello\r\n0\r\n\r\n'), refused('CHUNK')],
  ['9112 7.1', '17 digits', chunked('00000000000000005\r\nhello\r\n0\r\n\r\n'), refused('CHUNK')],
  ['9112 7.1', '2^53 bytes', chunked('20000000000000\r\nhello\r\n0\r\n\r\n'), refused('CHUNK')],
  ['9112 7.1', '2^64 - 1 bytes', chunked('ffffffffffffffff\r\nhello\r\n0\r\n\r\n'), refused('CHUNK')],
  ['9112 7.1', '2^64 + 5 bytes', chunked('10000000000000005\r\nhello\r\n0\r\n\r\n'), refused('CHUNK')],
  ['9112 7.1', '2^53 bytes in all', chunked('1\r\na\r\n1fffffffffffff\r\nhello\r\n0\r\n\r\n'), refused('CHUNK')],
  ['9112 7.1', 'LF after chunk-size', chunked('5\nhello\r\n0\r\n\r\n'), refused('CHUNK')],
  ['9112 7.1', 'CR after chunk-size', chunked('5\rhello\r\n0\r\n\r\n'), refused('CHUNK')],
  ['9112 7.1', 'CR CR LF after chunk-size', chunked('5\r\r\nhello\r\n0\r\n\r\n'), refused('CHUNK')],
  ['9112 7.1', 'LF CR after chunk-size', chunked('5\n\rhello\r\n0\r\n\r\n'), refused('CHUNK')],
  ['9112 7.1', 'chunk-data too long', chunked('5\r\nhello!\r\n0\r\n\r\n'), refused('CHUNK')],
  ['9112 7.1', 'chunk-data too short', chunked('5\r\nhell\r\n0\r\n\r\n'), refused('CHUNK')],
  ['9112 7.1', 'nothing after chunk-data', chunked('5\r\nhello0\r\n\r\n'), refused('CHUNK')],
  ['9112 7.1', 'LF after chunk-data', chunked('5\r\nhello\n0\r\n\r\n'), refused('CHUNK')],
  ['9112 7.1', 'CR after chunk-data', chunked('5\r\nhello\r0\r\n\r\n'), refused('CHUNK')],
  ['9112 7.1', 'CR CR LF after chunk-data', chunked('5\r\nhello\r\r\n0\r\n\r\n'), refused('CHUNK')],
  ['9112 7.1', 'CRLF twice after chunk-data', chunked('5\r\nhello\r\n\r\n0\r\n\r\n'), refused('CHUNK')],
  ['9112 7.1', 'LF after the last chunk', chunked('0\n\r\n'), refused('CHUNK')],
  ['9112 7.1', 'LF after the last of several', chunked('5\r\nhello\r\n0\n\n'), refused('CHUNK')],
  ['9112 7.1', 'CR alone after the last chunk', chunked('0\rX: y\r\n\r\n'), refused('CHUNK')],

  // 7.1.1: chunk-ext = *( BWS ";" BWS chunk-ext-name [ BWS "=" BWS chunk-ext-val ] ), the value a token or a quoted
  // string. Unknown extensions are ignored, and a server should limit their total size.
  ['9112 7.1.1', 'an extension', chunked('5;a\r\nhello\r\n0;b\r\n\r\n'), chunks('hello')],
  ['9112 7.1.1', 'values', chunked('5;a=b;c=d\r\nhello\r\n0;e=f\r\n\r\n'), chunks('hello')],
  ['9112 7.1.1', 'every byte a token may have', chunked("5;!#$%&'*+-.^_`|~09AZaz=!#$%&'*+-.^_`|~\r\nhello\r\n0\r\n\r\n"), chunks('hello')],
  ['9112 7.1.1', 'a quoted value', chunked('5;a="b ; = c"\r\nhello\r\n0\r\n\r\n'), chunks('hello')],
  ['9112 7.1.1', 'an empty quoted value', chunked('5;a="";b\r\nhello\r\n0\r\n\r\n'), chunks('hello')],
  ['9112 7.1.1', 'quoted pairs', chunked('5;a="\\" \\\\ \\a"\r\nhello\r\n0\r\n\r\n'), chunks('hello')],
  ['9112 7.1.1', 'a tab and bytes above 0x7f in quotes', chunked('5;a="\t\x80\xff\\\xe9"\r\nhello\r\n0\r\n\r\n'), chunks('hello')],
  ['9112 7.1.1', 'BWS around ; and =', chunked('5 \t; a \t= \tb ; c ; d = "e" ;f\r\nhello\r\n0 ; g\r\n\r\n'), chunks('hello')],
  ['9112 7.1.1', 'as many bytes as allowed', chunked(`1;${'a'.repeat(31)}\r\n.\r\n0;${'b'.repeat(31)}\r\n\r\n`), chunks('.')],
  ['9112 7.1.1', 'no name', chunked('5;\r\nhello\r\n0\r\n\r\n'), refused('CHUNK')],
  ['9112 7.1.1', 'a space for a name', chunked('5; \r\nhello\r\n0\r\n\r\n'), refused('CHUNK')],
  ['9112 7.1.1', 'no name before the next', chunked('5;;a\r\nhello\r\n0\r\n\r\n'), refused('CHUNK')],
  ['9112 7.1.1', 'no name, but a value', chunked('5;=b\r\nhello\r\n0\r\n\r\n'), refused('CHUNK')],
  ['9112 7.1.1', 'a quoted name', chunked('5;"a"\r\nhello\r\n0\r\n\r\n'), refused('CHUNK')],
  ['9112 7.1.1', 'no value', chunked('5;a=\r\nhello\r\n0\r\n\r\n'), refused('CHUNK')],
  ['9112 7.1.1', 'no value before the next', chunked('5;a=;b\r\nhello\r\n0\r\n\r\n'), refused('CHUNK')],
  ['9112 7.1.1', 'a space after a name', chunked('5;a \r\nhello\r\n0\r\n\r\n'), refused('CHUNK')],
  ['9112 7.1.1', 'a space after a value', chunked('5;a=b \r\nhello\r\n0\r\n\r\n'), refused('CHUNK')],
  ['9112 7.1.1', 'a space after a quoted value', chunked('5;a="b" \r\nhello\r\n0\r\n\r\n'), refused('CHUNK')],
  ['9112 7.1.1', 'two names', chunked('5;a b\r\nhello\r\n0\r\n\r\n'), refused('CHUNK')],
  ['9112 7.1.1', 'two values', chunked('5;a=b c\r\nhello\r\n0\r\n\r\n'), refused('CHUNK')],
  ['9112 7.1.1', 'two equals signs', chunked('5;a=b=c\r\nhello\r\n0\r\n\r\n'), refused('CHUNK')],
  ['9112 7.1.1', 'bytes after a quoted value', chunked('5;a="b"c\r\nhello\r\n0\r\n\r\n'), refused('CHUNK')],
  ['9112 7.1.1', 'a quote within a value', chunked('5;a=b"c"\r\nhello\r\n0\r\n\r\n'), refused('CHUNK')],
  ['9112 7.1.1', 'a quote that does not end', chunked('5;a="b\r\nhello\r\n0\r\n\r\n'), refused('CHUNK')],
  ['9112 7.1.1', 'CRLF in quotes', chunked('5;a="\r\n"\r\nhello\r\n0\r\n\r\n'), refused('CHUNK')],
  ['9112 7.1.1', 'LF in quotes', chunked('5;a="\n"\r\nhello\r\n0\r\n\r\n'), refused('CHUNK')],
  ['9112 7.1.1', 'CR after a backslash', chunked('5;a="\\\r\n"\r\nhello\r\n0\r\n\r\n'), refused('CHUNK')],
  ['9112 7.1.1', 'LF after a backslash', chunked('5;a="\\\n"\r\nhello\r\n0\r\n\r\n'), refused('CHUNK')],
  ['9112 7.1.1', 'NUL in quotes', chunked('5;a="\0"\r\nhello\r\n0\r\n\r\n'), refused('CHUNK')],
  ['9112 7.1.1', 'DEL in quotes', chunked('5;a="\x7f"\r\nhello\r\n0\r\n\r\n'), refused('CHUNK')],
  ['9112 7.1.1', 'a control byte in a name', chunked('5;a\x01\r\nhello\r\n0\r\n\r\n'), refused('CHUNK')],
  ['9112 7.1.1', 'a byte above 0x7f in a name', chunked('5;\xe9\r\nhello\r\n0\r\n\r\n'), refused('CHUNK')],
  ['9112 7.1.1', 'a byte above 0x7f in a value', chunked('5;a=\xe9\r\nhello\r\n0\r\n\r\n'), refused('CHUNK')],
  ['9112 7.1.1', 'a comma for a semicolon', chunked('5,a\r\nhello\r\n0\r\n\r\n'), refused('CHUNK')],
  ['9112 7.1.1', 'a folded extension', chunked('5;a\r\n ;b\r\nhello\r\n0\r\n\r\n'), refused('CHUNK')],
  ['9112 7.1.1', 'LF after a name', chunked('5;a\nhello\r\n0\r\n\r\n'), refused('CHUNK')],
  ['9112 7.1.1', 'LF after a value', chunked('5;a=b\nhello\r\n0\r\n\r\n'), refused('CHUNK')],
  ['9112 7.1.1', 'CR alone after a name', chunked('5;a\rhello\r\n0\r\n\r\n'), refused('CHUNK')],
  ['9112 7.1.1', 'LF in the extension of the last chunk', chunked('5\r\nhello\r\n0;a\n\r\n'), refused('CHUNK')],
  ['9112 7.1.1', 'more bytes than allowed', chunked(`5;${'a'.repeat(64)}\r\nhello\r\n0\r\n\r\n`), refused('CHUNK_EXTENSION_LIMIT', 413)],
  ['9112 7.1.1', 'more bytes than allowed in all', chunked(`1;${'a'.repeat(40)}\r\n.\r\n`.repeat(2) + '0\r\n\r\n'), refused('CHUNK_EXTENSION_LIMIT', 413)],
  ['9112 7.1.1', 'more whitespace than allowed', chunked(`5${' '.repeat(64)};a\r\nhello\r\n0\r\n\r\n`), refused('CHUNK_EXTENSION_LIMIT', 413)],

  // 7.1.2: trailer-section = *( field-line CRLF ), with the same field lines as in a head (5, 5.1, 5.2).
  ['9112 7.1.2', 'a field', trailer('X-Sum: 1'), chunks('hello', { 'x-sum': '1' })],
  ['9112 7.1.2', 'a field without any chunk', chunked('0\r\nX-Sum: 1\r\n\r\n'), chunks('', { 'x-sum': '1' })],
  ['9112 7.1.2', 'fields without a value', trailer('a:', 'b: \t '), chunks('hello', { a: '', b: '' })],
  ['9112 5.1', 'whitespace around the value', trailer('a:1', 'b: \t2\t 3 \t'), chunks('hello', { a: '1', b: '2\t 3' })],
  ['9110 5.5', 'bytes above 0x7f in the value', trailer('a: \x80\xff'), chunks('hello', { a: '\x80\xff' })],
  ['9110 5.6.2', 'every byte a name may have', trailer("!#$%&'*+-.^_`|~09AZaz: 1"), chunks('hello', { "!#$%&'*+-.^_`|~09azaz": '1' })],
  ['9112 7.1.2', 'as many bytes as allowed', trailer(`a: ${'b'.repeat(251)}`), chunks('hello', { a: 'b'.repeat(251) })],
  ['9112 7.1', 'LF for the empty line', chunked('5\r\nhello\r\n0\r\n\n'), refused('TRAILER')],
  ['9112 7.1', 'CR alone for the empty line', chunked('0\r\n\rX: y\r\n\r\n'), refused('TRAILER')],
  ['9112 7.1', 'a space in the empty line', chunked('0\r\n \r\n\r\n'), refused('TRAILER')],
  ['9112 7.1', 'a request for the empty line', chunked('0\r\nGET /smuggled HTTP/1.1\r\n\r\n'), refused('TRAILER')],
  ['9112 5', 'no colon', trailer('abc'), refused('TRAILER')],
  ['9112 5', 'no name', trailer(': b'), refused('TRAILER')],
  ['9112 5.1', 'a space before the colon', trailer('a : b'), refused('TRAILER')],
  ['9112 5.1', 'a space before the name', trailer(' a: b'), refused('TRAILER')],
  ['9112 5.1', 'a space in the name', trailer('a b: c'), refused('TRAILER')],
  ['9110 5.1', 'a byte above 0x7f in the name', trailer('\xe9: b'), refused('TRAILER')],
  ['9110 5.1', 'a control byte in the name', trailer('a\x01: b'), refused('TRAILER')],
  ['9112 5.2', 'a folded line', trailer('a: b', ' c'), refused('TRAILER')],
  ['9112 5.2', 'a line folded with a tab', trailer('a: b', '\tc'), refused('TRAILER')],
  ['9112 2.2', 'LF after the line', trailer('a: b\nc: d'), refused('TRAILER')],
  ['9112 2.2', 'LF after the last line', trailer('a: b\n'), refused('TRAILER')],
  ['9112 2.2', 'CR in the line', trailer('a: b\rc'), refused('TRAILER')],
  ['9112 2.2', 'CR CR LF after the line', trailer('a: b\r'), refused('TRAILER')],
  ['9110 5.5', 'NUL in the value', trailer('a: \0'), refused('TRAILER')],
  ['9110 5.5', 'a control byte in the value', trailer('a: \x01'), refused('TRAILER')],
  ['9110 5.5', 'DEL in the value', trailer('a: \x7f'), refused('TRAILER')],
  ['9112 7.1.2', 'more bytes than allowed', trailer(`a: ${'b'.repeat(252)}`), refused('TRAILER_LIMIT', 431)],
  ['9112 7.1.2', 'more bytes than allowed in all', trailer(...Array(5).fill(`a: ${'b'.repeat(58)}`)), refused('TRAILER_LIMIT', 431)],
  ['9112 7.1.2', 'a line that does not end', chunked(`0\r\na: ${'b'.repeat(300)}`), refused('TRAILER_LIMIT', 431)],

  // 9110 6.5: fields that are needed before the content must not be trailers: those for framing, routing, authentication
  // and request modifiers, and those that describe the content. Trailers are kept apart from the fields of the head,
  // whether Trailer announces them or not.
  ['9110 6.5', 'a field of the head again', head('Transfer-Encoding: chunked', 'X-Sum: 1') + '0\r\nX-Sum: 2\r\n\r\n', chunks('', { 'x-sum': '2' })],
  ['9110 6.5.1', 'fields that are not announced', trailer('Server-Timing: a', 'Digest: b'), chunks('hello', { 'server-timing': 'a', digest: 'b' })],
  ['9110 6.6.2', 'announced fields', head('Transfer-Encoding: chunked', 'Trailer: a, b', 'TE: trailers') + '0\r\nb: 2\r\na: 1\r\n\r\n', chunks('', { b: '2', a: '1' })],
  ['9110 6.6.2', 'announced fields that are not sent', head('Transfer-Encoding: chunked', 'Trailer: a') + HELLO, chunks('hello')],
  ['9110 6.5.2', 'repeated fields are joined', trailer('a: 1', 'b: 2', 'A:', 'a: 3'), chunks('hello', { a: '1, , 3', b: '2' })],
  ['9110 6.5.2', 'a field called __proto__', trailer('__proto__: 1'), chunks('hello', JSON.parse('{"__proto__":"1"}'))],
  ['9110 6.5.2', 'a field called constructor', trailer('constructor: 1', 'toString: 2'), chunks('hello', { constructor: '1', tostring: '2' } as Record<string, string>)],
  ...[
    'Transfer-Encoding: chunked', 'Content-Length: 5', 'Connection: close', 'Keep-Alive: timeout=1', 'Proxy-Connection: close', 'TE: trailers', 'Trailer: a', 'Upgrade: h2c',
    'Host: b', 'Forwarded: for=b', 'X-Forwarded-For: b', 'X-Forwarded-Host: b', 'X-Forwarded-Port: 1', 'X-Forwarded-Proto: https',
    'Authorization: Basic YTpi', 'Proxy-Authorization: Basic YTpi', 'WWW-Authenticate: Basic', 'Proxy-Authenticate: Basic', 'Cookie: a=b', 'Set-Cookie: a=b',
    'Cache-Control: no-cache', 'Expect: 100-continue', 'Max-Forwards: 1', 'Range: bytes=0-0', 'Content-Encoding: gzip', 'Content-Range: bytes 0-0/1', 'Content-Type: text/html'
  ].map((line): RequestCase => ['9110 6.5.1', `not a trailer: ${line}`, trailer('a: b', line), refused('TRAILER')]),

  // 7.2, 7.3: other codings are not implemented. If chunked follows them, the request is well formed all the same.
  ...['compress', 'deflate', 'gzip', 'x-gzip', 'X-Compress'].map((coding): RequestCase =>
    ['9112 7.2', coding, head(`Transfer-Encoding: ${coding}, chunked`) + HELLO, refused('TRANSFER_CODING', 501)]),
  // 7.4: TE is about the response, and does not affect the request.
  ['9112 7.4', 'TE', head('TE: trailers, deflate;q=0.5', 'Connection: TE', 'Transfer-Encoding: chunked') + HELLO, chunks('hello')],

  // 8: incomplete messages. The test cuts off every accepted row of this table, at every byte.

  // 9.3: persistence. A connection persists in HTTP/1.1 unless there is a close option, and in HTTP/1.0 only with
  // keep-alive. If there are both options, close wins.
  ['9112 9.3', 'HTTP/1.1, close', head('Connection: close', 'Content-Length: 5') + 'hello', thenClose(length('hello'))],
  ['9112 9.3', 'close in another case, in a list', head('Connection: x, CLOSE', 'Transfer-Encoding: chunked') + HELLO, thenClose(chunks('hello'))],
  ['9112 9.3', 'close in a second line', head('Connection: x', 'Connection: close', 'Content-Length: 5') + 'hello', thenClose(length('hello'))],
  ['9112 9.3', 'close without a body', head('Connection: close'), thenClose(noBody)],
  ['9112 9.3', 'close and keep-alive', head('Connection: close, keep-alive', 'Content-Length: 5') + 'hello', thenClose(length('hello'))],
  ['9112 9.3', 'keep-alive and close', head('Connection: keep-alive, close', 'Content-Length: 5') + 'hello', thenClose(length('hello'))],
  ['9112 9.3', 'HTTP/1.1, keep-alive', head('Connection: Keep-Alive', 'Content-Length: 5') + 'hello', length('hello')],
  ['9112 9.3', 'another option', head('Connection: not-close', 'Content-Length: 5') + 'hello', length('hello')],
  ['9112 9.3', 'close in another field', head('X-Connection: close', 'Content-Length: 5') + 'hello', length('hello')],
  ['9112 9.3', 'HTTP/1.0', oldHead('Content-Length: 5') + 'hello', thenClose(length('hello'))],
  ['9112 9.3', 'HTTP/1.0 without a body', oldHead(), thenClose(noBody)],
  ['9112 9.3', 'HTTP/1.0, close', oldHead('Connection: close', 'Content-Length: 5') + 'hello', thenClose(length('hello'))],
  ['9112 9.3', 'HTTP/1.0, close and keep-alive', oldHead('Connection: close, keep-alive', 'Content-Length: 5') + 'hello', thenClose(length('hello'))],

  // 9110 10.1.1: a server sends 100 before it reads the body, but not to HTTP/1.0, and not if there is no body.
  ['9110 10.1.1', 'Expect with a length', head('Expect: 100-continue', 'Content-Length: 5') + 'hello', after100(length('hello'))],
  ['9110 10.1.1', 'Expect with chunks', head('Expect: 100-Continue', 'Transfer-Encoding: chunked') + HELLO, after100(chunks('hello'))],
  ['9110 10.1.1', 'Expect and close', head('Expect: 100-continue', 'Connection: close', 'Content-Length: 5') + 'hello', thenClose(after100(length('hello')))],
  ['9110 10.1.1', 'Expect without a body', head('Expect: 100-continue'), noBody],
  ['9110 10.1.1', 'Expect in HTTP/1.0', oldHead('Expect: 100-continue', 'Connection: keep-alive', 'Content-Length: 5') + 'hello', length('hello')]
]
