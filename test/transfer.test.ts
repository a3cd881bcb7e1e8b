// The pure readers and writers, byte for byte. Every reader case runs whole, byte by byte and at every two-way split,
// each with bytes behind the message that must stay untouched.

import t from 'tap'
import { randomInt } from 'node:crypto'
import { type BodyReader, CloseReader, LengthReader } from '../lib/transfer/body-reader.ts'
import { type Part, bodyWriter, gather } from '../lib/transfer/body-writer.ts'
import { ChunkedReader } from '../lib/transfer/chunked-reader.ts'
import { writeTrailers } from '../lib/transfer/field-lines.ts'
import { bodyReader, framingFields, receivedFraming, requestFraming, responseFraming } from '../lib/transfer/framing.ts'
import { ResponseHeadReader } from '../lib/transfer/head-reader.ts'
import { asksToClose, writeInterimHead, writeRequestHead, writeResponseHead } from '../lib/transfer/head-writer.ts'
import { nodeReads } from './oracle.ts'

const LIMITS = { maxTrailerSize: 256, maxChunkExtensionSize: 64 }
const BEHIND = 'GET /next HTTP/1.1\r\n\r\n'

interface Outcome {
  content: string
  trailers: Record<string, string>
  error: string | null
  done: boolean
  rest: string
}

/** Feeds a reader the pieces, then the end of the connection if `end`. */
function feed (reader: BodyReader, pieces: Buffer[], end = false): Outcome {
  let content = ''
  let rest = ''
  for (const piece of pieces) {
    if (reader.done || reader.error !== null) {
      rest += piece.toString('latin1')
      continue
    }
    content += reader.read(piece).toString('latin1')
    if (reader.done) rest += piece.toString('latin1', reader.consumed)
  }
  if (end && reader.error === null) reader.end()
  const error = reader.error as (Error & { code: string }) | null
  return { content, trailers: { ...reader.trailers }, error: error?.code ?? null, done: reader.done, rest }
}

/** All segmentations under test: whole, byte by byte, every split in two. */
function * segmentations (bytes: string): Generator<Buffer[]> {
  const buffer = (): Buffer => Buffer.from(bytes, 'latin1')
  yield [buffer()]
  yield Array.from(buffer(), (byte) => Buffer.of(byte))
  for (let i = 1; i < bytes.length; i++) yield [buffer().subarray(0, i), buffer().subarray(i)]
}

const accepted: [string, string, string, Record<string, string>?][] = [
  ['no chunk', '0\r\n\r\n', ''],
  ['one chunk', '5\r\nhello\r\n0\r\n\r\n', 'hello'],
  ['several chunks', '5\r\nhello\r\n1\r\n \r\n5\r\nworld\r\n0\r\n\r\n', 'hello world'],
  ['hexadecimal in both cases', 'a\r\n0123456789\r\nA\r\nabcdefghij\r\n0\r\n\r\n', '0123456789abcdefghij'],
  ['leading zeros, up to 16 digits', '0000000000000005\r\nhello\r\n0000000000000000\r\n\r\n', 'hello'],
  ['content that looks like framing', '7\r\n0\r\n\r\n\r\n\r\n0\r\n\r\n', '0\r\n\r\n\r\n'],
  ['an extension', '5;a\r\nhello\r\n0;b\r\n\r\n', 'hello'],
  ['an extension with a value', '5;a=b;c=d\r\nhello\r\n0\r\n\r\n', 'hello'],
  ['an extension with a quoted value', '5;a="b ; \\" = \\\\ \t\xe9"\r\nhello\r\n0\r\n\r\n', 'hello'],
  ['an extension with an empty quoted value', '5;a="";b\r\nhello\r\n0\r\n\r\n', 'hello'],
  ['BWS around ; and =', '5 \t; a \t= \tb ; c ; d = "e" ;f\r\nhello\r\n0\r\n\r\n', 'hello'],
  ['a trailer', '5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n', 'hello', { 'x-sum': '1' }],
  ['trailers, one twice, one empty', '0\r\na: 1\r\nb:\r\nA: \t2 3\t \r\n\r\n', '', { a: '1, 2 3', b: '' }],
  ['a trailer called __proto__', '0\r\n__proto__: 1\r\n\r\n', '', JSON.parse('{"__proto__":"1"}')]
]

const refused: [string, string, string][] = [
  ['no chunk-size', '\r\n', 'CHUNK'],
  ['a sign', '+5\r\nhello\r\n0\r\n\r\n', 'CHUNK'],
  ['a minus', '-0\r\n\r\n', 'CHUNK'],
  ['0x', '0x5\r\nhello\r\n0\r\n\r\n', 'CHUNK'],
  ['an underscore', '1_0\r\nhello\r\n0\r\n\r\n', 'CHUNK'],
  ['a blank before chunk-size', ' 5\r\nhello\r\n0\r\n\r\n', 'CHUNK'],
  ['a blank after chunk-size', '5 \r\nhello\r\n0\r\n\r\n', 'CHUNK'],
  ['17 digits', '00000000000000005\r\nhello\r\n0\r\n\r\n', 'CHUNK'],
  ['2^53 bytes', '20000000000000\r\n', 'CHUNK'],
  ['2^53 bytes in all', '1\r\na\r\n1fffffffffffff\r\n', 'CHUNK'],
  ['LF after chunk-size', '5\nhello\r\n0\r\n\r\n', 'CHUNK'],
  ['CR after chunk-size', '5\rhello\r\n0\r\n\r\n', 'CHUNK'],
  ['CR CR LF after chunk-size', '5\r\r\nhello\r\n0\r\n\r\n', 'CHUNK'],
  ['chunk-data too long', '5\r\nhello!\r\n0\r\n\r\n', 'CHUNK'],
  ['chunk-data too short', '5\r\nhell\r\n0\r\n\r\n', 'CHUNK'],
  ['LF after chunk-data', '5\r\nhello\n0\r\n\r\n', 'CHUNK'],
  ['CR alone after chunk-data', '5\r\nhello\r0\r\n\r\n', 'CHUNK'],
  ['NUL in chunk-size', '5\0\r\nhello\r\n0\r\n\r\n', 'CHUNK'],
  ['an extension without a name', '5;\r\nhello\r\n0\r\n\r\n', 'CHUNK'],
  ['an extension with = but no name', '5;=b\r\nhello\r\n0\r\n\r\n', 'CHUNK'],
  ['an extension without its value', '5;a=\r\nhello\r\n0\r\n\r\n', 'CHUNK'],
  ['a blank at the end of extensions', '5;a \r\nhello\r\n0\r\n\r\n', 'CHUNK'],
  ['a blank at the end of a value', '5;a=b \r\nhello\r\n0\r\n\r\n', 'CHUNK'],
  ['a blank at the end of a quoted value', '5;a="b" \r\nhello\r\n0\r\n\r\n', 'CHUNK'],
  ['two names', '5;a b\r\nhello\r\n0\r\n\r\n', 'CHUNK'],
  ['two values', '5;a=b c\r\nhello\r\n0\r\n\r\n', 'CHUNK'],
  ['bytes behind a quoted value', '5;a="b"c\r\nhello\r\n0\r\n\r\n', 'CHUNK'],
  ['LF after an extension', '5;a\nhello\r\n0\r\n\r\n', 'CHUNK'],
  ['LF after a value', '5;a=b\nhello\r\n0\r\n\r\n', 'CHUNK'],
  ['a control byte in a name', '5;a\x01\r\nhello\r\n0\r\n\r\n', 'CHUNK'],
  ['CRLF in a quoted value', '5;a="\r\n"\r\nhello\r\n0\r\n\r\n', 'CHUNK'],
  ['LF behind a backslash', '5;a="\\\n"\r\nhello\r\n0\r\n\r\n', 'CHUNK'],
  ['DEL in a quoted value', '5;a="\x7f"\r\nhello\r\n0\r\n\r\n', 'CHUNK'],
  ['too many bytes of extensions', `5;${'a'.repeat(64)}\r\nhello\r\n0\r\n\r\n`, 'CHUNK_EXTENSION_LIMIT'],
  ['too many bytes of extensions in all', `1;${'a'.repeat(40)}\r\n.\r\n`.repeat(2) + '0\r\n\r\n', 'CHUNK_EXTENSION_LIMIT'],
  ['LF after the last chunk', '0\n\r\n', 'CHUNK'],
  ['LF for the empty line', '0\r\n\n', 'TRAILER'],
  ['CR alone for the empty line', '0\r\n\ra: b\r\n\r\n', 'TRAILER'],
  ['a trailer without a colon', '0\r\nabc\r\n\r\n', 'TRAILER'],
  ['a trailer without a name', '0\r\n: b\r\n\r\n', 'TRAILER'],
  ['a blank before the colon', '0\r\na : b\r\n\r\n', 'TRAILER'],
  ['a folded trailer', '0\r\na: b\r\n c\r\n\r\n', 'TRAILER'],
  ['LF in a trailer', '0\r\na: b\nc: d\r\n\r\n', 'TRAILER'],
  ['CR in a trailer', '0\r\na: b\rc\r\n\r\n', 'TRAILER'],
  ['NUL in a trailer', '0\r\na: \0\r\n\r\n', 'TRAILER'],
  ['a framing field', '0\r\nContent-Length: 5\r\n\r\n', 'TRAILER'],
  ['a routing field', '0\r\nHost: a\r\n\r\n', 'TRAILER'],
  ['an authentication field', '0\r\nauthorization: a\r\n\r\n', 'TRAILER'],
  ['a cookie', '0\r\nCookie: a\r\n\r\n', 'TRAILER'],
  ['too many bytes of trailers', '0\r\n' + `a: ${'b'.repeat(58)}\r\n`.repeat(5) + '\r\n', 'TRAILER_LIMIT'],
  ['a trailer that does not end', `0\r\na: ${'b'.repeat(300)}`, 'TRAILER_LIMIT']
]

t.test('chunked bodies that are right', async (t) => {
  for (const [name, bytes, content, trailers = {}] of accepted) {
    for (const pieces of segmentations(bytes + BEHIND)) {
      t.strictSame(feed(new ChunkedReader(LIMITS), pieces), { content, trailers, error: null, done: true, rest: BEHIND }, name)
    }
    for (let size = 0; size < bytes.length; size++) {
      const cut = feed(new ChunkedReader(LIMITS), [Buffer.from(bytes.slice(0, size), 'latin1')], true)
      t.equal(cut.error, 'FST_ERR_DUPLEX_TRUNCATED', `${name}, cut after ${size} bytes`)
      t.notOk(cut.done)
    }
  }
})

t.test('chunked bodies that are wrong', async (t) => {
  for (const [name, bytes, code] of refused) {
    let first: Outcome | null = null
    for (const pieces of segmentations(bytes)) {
      const outcome = feed(new ChunkedReader(LIMITS), pieces)
      t.equal(outcome.error, `FST_ERR_DUPLEX_${code}`, name)
      t.notOk(outcome.done, name)
      first ??= outcome
      t.equal(outcome.content, first.content, `${name}: the content before it, however it is cut`)
    }
  }
})

t.test('blanks in a trailer cost no more than other bytes', async (t) => {
  // A pattern with two runs of optional blanks took a third of a second for these, and four times that for twice as many.
  const line = (size: number): Buffer => Buffer.from(`0\r\na:${' '.repeat(size)}\x01\r\n\r\n`)
  const outcome = feed(new ChunkedReader({ ...LIMITS, maxTrailerSize: 1e6 }), [line(999_000)])
  t.equal(outcome.error, 'FST_ERR_DUPLEX_TRAILER')
  t.strictSame(feed(new ChunkedReader(LIMITS), [Buffer.from('0\r\na: \t \r\nb:\t c d \t\r\n\r\n')]).trailers, { a: '', b: 'c d' })
})

t.test('limits are exact', async (t) => {
  const extension = (size: number): string => `0;${'a'.repeat(size - 1)}\r\n\r\n`
  t.equal(feed(new ChunkedReader(LIMITS), [Buffer.from(extension(64))]).done, true)
  t.equal(feed(new ChunkedReader(LIMITS), [Buffer.from(extension(65))]).error, 'FST_ERR_DUPLEX_CHUNK_EXTENSION_LIMIT')
  const blank = '0 ;a\r\n\r\n'
  t.equal(feed(new ChunkedReader({ ...LIMITS, maxChunkExtensionSize: 3 }), [Buffer.from(blank)]).done, true)
  t.equal(feed(new ChunkedReader({ ...LIMITS, maxChunkExtensionSize: 2 }), [Buffer.from(blank)]).error, 'FST_ERR_DUPLEX_CHUNK_EXTENSION_LIMIT')
  t.equal(feed(new ChunkedReader({ ...LIMITS, maxChunkExtensionSize: 0 }), [Buffer.from(blank)]).error, 'FST_ERR_DUPLEX_CHUNK_EXTENSION_LIMIT')
  const trailer = (size: number): string => `0\r\na:${'b'.repeat(size - 4)}\r\n\r\n`
  t.equal(feed(new ChunkedReader(LIMITS), [Buffer.from(trailer(256))]).done, true)
  t.equal(feed(new ChunkedReader(LIMITS), [Buffer.from(trailer(257))]).error, 'FST_ERR_DUPLEX_TRAILER_LIMIT')
})

t.test('content comes before the body is complete, in one piece per read, in place', async (t) => {
  const reader = new ChunkedReader(LIMITS)
  t.equal(String(reader.read(Buffer.from('5\r\nhel'))), 'hel')
  const piece = Buffer.from('lo\r\n1\r\n!\r\n0\r\na: b')
  const content = reader.read(piece)
  t.equal(String(content), 'lo!')
  t.equal(content.buffer, piece.buffer)
  t.notOk(reader.done)
  t.equal(reader.read(Buffer.from('\r\n\r\n')).length, 0)
  t.ok(reader.done)
})

t.test('chunked, compared with the parser of Node on random bodies in random pieces', async (t) => {
  for (let round = 0; round < 500; round++) {
    let body = ''
    let wire = ''
    for (let left = randomInt(8); left > 0; left--) {
      const chunk = 'x'.repeat(randomInt(40)) + randomInt(1e9)
      body += chunk
      wire += chunk.length.toString(16).padStart(randomInt(1, 5), '0') + (randomInt(4) ? '' : ';e="\\"q"') + '\r\n' + chunk + '\r\n'
    }
    wire += '0\r\n' + (randomInt(3) ? '' : 'x-check: 1\r\n') + '\r\n'
    const pieces: Buffer[] = []
    for (let at = 0; at < wire.length;) {
      const size = randomInt(1, 30)
      pieces.push(Buffer.from(wire.slice(at, at + size)))
      at += size
    }
    const ours = feed(new ChunkedReader(LIMITS), pieces)
    t.equal(ours.content, body, wire)
    t.strictSame({ content: ours.content, trailers: ours.trailers }, nodeReads(wire), wire)
  }
})

t.test('bodies of a length', async (t) => {
  for (const pieces of segmentations('hello' + BEHIND)) {
    t.strictSame(feed(new LengthReader(5), pieces), { content: 'hello', trailers: {}, error: null, done: true, rest: BEHIND })
  }
  t.equal(new LengthReader(0).done, true)
  t.equal(feed(new LengthReader(5), [Buffer.from('hell')], true).error, 'FST_ERR_DUPLEX_TRUNCATED')
  t.equal(feed(new LengthReader(5), [Buffer.from('hello')], true).error, null)
})

t.test('bodies that end with the connection', async (t) => {
  for (const pieces of segmentations('hello')) {
    t.match(feed(new CloseReader(), pieces), { content: 'hello', done: false, error: null })
  }
  t.match(feed(new CloseReader(), [Buffer.from('hello')], true), { content: 'hello', done: true, error: null })
})

t.test('framing of requests', async (t) => {
  const cases: [Record<string, string>, number, string | object][] = [
    [{}, 1, { kind: 'none', length: 0 }],
    [{}, 0, { kind: 'none', length: 0 }],
    [{ 'content-length': '0' }, 1, { kind: 'none', length: 0 }],
    [{ 'content-length': '5' }, 1, { kind: 'length', length: 5 }],
    [{ 'content-length': '5, 5' }, 1, { kind: 'length', length: 5 }],
    [{ 'content-length': '005' }, 0, { kind: 'length', length: 5 }],
    [{ 'content-length': '9007199254740991' }, 1, { kind: 'length', length: Number.MAX_SAFE_INTEGER }],
    [{ 'content-length': '9007199254740992' }, 1, 'FRAMING'],
    [{ 'content-length': '5, 6' }, 1, 'FRAMING'],
    [{ 'content-length': '' }, 1, 'FRAMING'],
    [{ 'content-length': '+5' }, 1, 'FRAMING'],
    [{ 'content-length': '5 ' }, 1, 'FRAMING'],
    [{ 'content-length': '0x5' }, 1, 'FRAMING'],
    [{ 'content-length': '1e3' }, 1, 'FRAMING'],
    [{ 'transfer-encoding': 'chunked' }, 1, { kind: 'chunked', length: 0 }],
    [{ 'transfer-encoding': 'ChunkeD' }, 1, { kind: 'chunked', length: 0 }],
    [{ 'transfer-encoding': 'chunked' }, 0, 'FRAMING'],
    [{ 'transfer-encoding': 'chunked', 'content-length': '5' }, 1, 'FRAMING'],
    [{ 'transfer-encoding': '' }, 1, 'FRAMING'],
    [{ 'transfer-encoding': ',' }, 1, 'FRAMING'],
    [{ 'transfer-encoding': 'chunked,' }, 1, 'FRAMING'],
    [{ 'transfer-encoding': 'chunked, chunked' }, 1, 'FRAMING'],
    [{ 'transfer-encoding': 'chunked, gzip' }, 1, 'FRAMING'],
    [{ 'transfer-encoding': 'gzip' }, 1, 'FRAMING'],
    [{ 'transfer-encoding': '\vchunked' }, 1, 'FRAMING'],
    [{ 'transfer-encoding': 'chunked;a=b' }, 1, 'FRAMING'],
    [{ 'transfer-encoding': 'gzip, chunked' }, 1, 'TRANSFER_CODING'],
    [{ 'transfer-encoding': 'gzip;q=1 ,\tchunked' }, 1, 'TRANSFER_CODING'],
    [{ 'transfer-encoding': 'identity, chunked' }, 1, 'TRANSFER_CODING']
  ]
  for (const [fields, version, expected] of cases) {
    const name = JSON.stringify(fields)
    if (typeof expected === 'string') t.throws(() => requestFraming(fields, version), { code: `FST_ERR_DUPLEX_${expected}` }, name)
    else t.strictSame(requestFraming(fields, version), expected, name)
  }
  t.strictSame(framingFields(['Host', 'a', 'CONTENT-LENGTH', '5', 'X-Fourteen-Byt', '1', 'Content-Length', '6', 'Transfer-encoding', 'chunked']),
    { 'content-length': '5, 6', 'transfer-encoding': 'chunked' }, 'all of a repeated field')
})

t.test('framing of responses', async (t) => {
  t.equal(receivedFraming('GET', 200, {}, 1).kind, 'close')
  t.equal(receivedFraming('GET', 200, { 'content-length': '5' }, 1).kind, 'length')
  t.equal(receivedFraming('GET', 200, { 'transfer-encoding': 'chunked' }, 1).kind, 'chunked')
  for (const [method, status] of [['HEAD', 200], ['GET', 204], ['GET', 304], ['GET', 100]] as const) {
    t.equal(receivedFraming(method, status, { 'content-length': '5' }, 1).kind, 'none')
    if (status >= 200) t.equal(responseFraming(method, status, '5', 1).kind, 'none')
  }
  t.equal(responseFraming('GET', 200, undefined, 1).kind, 'chunked')
  t.equal(responseFraming('GET', 200, undefined, 0).kind, 'close')
  t.strictSame(responseFraming('GET', 200, '0', 1), { kind: 'length', length: 0 })
  t.throws(() => responseFraming('GET', 200, 'x', 1), { code: 'FST_ERR_DUPLEX_FRAMING' })
  t.throws(() => responseFraming('GET', 100, undefined, 1), { code: 'FST_ERR_DUPLEX_STATUS' })
})

t.test('what a body writer writes, a body reader reads', async (t) => {
  const content = ['one', 'two', 'x'.repeat(20_000), 'three']
  const size = content.join('').length
  for (const framing of [{ kind: 'chunked', length: 0 }, { kind: 'length', length: size }, { kind: 'close', length: 0 }] as const) {
    const writer = bodyWriter(framing)
    const parts: Part[] = []
    writer.write(content.map((text) => Buffer.from(text)), size, parts)
    writer.end(framing.kind === 'chunked' ? writeTrailers({ 'X-Sum': 1 }) : '', parts)
    const buffers = gather(parts)
    const outcome = feed(bodyReader(framing, LIMITS), buffers, true)
    t.equal(outcome.content, content.join(''))
    t.equal(outcome.done, true)
    t.strictSame(outcome.trailers, framing.kind === 'chunked' ? { 'x-sum': '1' } : {})
  }
  t.strictSame(gather(['head', Buffer.from('body'), 'end']).map(String), ['headbodyend'], 'small parts in one buffer')
  const big = Buffer.alloc(16 * 1024)
  t.equal(gather(['head', big, 'end'])[1], big, 'big content from where it lies')
  t.equal(gather([big.subarray(1)])[0].buffer, big.buffer)
})

t.test('a body writer keeps its promise', async (t) => {
  const three = bodyWriter({ kind: 'length', length: 3 })
  t.throws(() => three.write([Buffer.from('four')], 4, []), { code: 'FST_ERR_DUPLEX_LENGTH', message: /more/ })
  t.throws(() => three.end('', []), { code: 'FST_ERR_DUPLEX_LENGTH', message: /less/ })
  three.write([Buffer.from('abc')], 3, [])
  t.throws(() => three.end('a: b\r\n', []), { code: 'FST_ERR_DUPLEX_NO_TRAILERS' })
  const none = bodyWriter({ kind: 'none', length: 0 })
  t.throws(() => none.write([Buffer.from('a')], 1, []), { code: 'FST_ERR_DUPLEX_NO_BODY' })
  t.throws(() => writeTrailers({ Host: 'a' }), { code: 'FST_ERR_DUPLEX_FIELD' })
})

t.test('response heads', async (t) => {
  const head = { statusCode: 200, fields: {}, framing: { kind: 'chunked', length: 0 }, date: false } as const
  t.equal(writeResponseHead(head, true), 'HTTP/1.1 200 OK\r\nconnection: keep-alive\r\ntransfer-encoding: chunked\r\n\r\n')
  t.equal(writeResponseHead({ ...head, statusCode: 299 }, true, 'timeout=5'),
    'HTTP/1.1 299 \r\nconnection: keep-alive\r\nkeep-alive: timeout=5\r\ntransfer-encoding: chunked\r\n\r\n')
  t.equal(writeResponseHead({ ...head, statusMessage: 'Fine', framing: { kind: 'length', length: 3 }, fields: { 'content-length': 3, connection: 'x', 'set-cookie': ['a', 'b'], gone: undefined } }, false),
    'HTTP/1.1 200 Fine\r\ncontent-length: 3\r\nset-cookie: a\r\nset-cookie: b\r\nconnection: close\r\n\r\n')
  t.equal(writeResponseHead({ ...head, statusCode: 204, framing: { kind: 'none', length: 0 }, fields: { 'content-length': '0' } }, true),
    'HTTP/1.1 204 No Content\r\nconnection: keep-alive\r\n\r\n')
  t.match(writeResponseHead({ ...head, date: true }, true), /\r\ndate: \w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT\r\n/)
  t.equal(writeResponseHead({ ...head, date: true, fields: { date: 'now' } }, true).match(/date/g)!.length, 1)

  for (const name of ['transfer-encoding', 'Keep-Alive', 'te', 'trailer', 'proxy-connection']) {
    t.throws(() => writeResponseHead({ ...head, fields: { [name]: 'a' } }, true), { code: 'FST_ERR_DUPLEX_OWN_FIELD' }, name)
  }
  for (const fields of [{ 'a b': '1' }, { '': '1' }, { 'a:': '1' }, { a: 'b\r\nc: d' }, { a: 'b\nc' }, { a: '\0' }, { a: '\u0100' }, { a: ['b', '\r'] }, { a: '€' }]) {
    t.throws(() => writeResponseHead({ ...head, fields }, true), { code: 'FST_ERR_DUPLEX_FIELD' }, JSON.stringify(fields))
  }
  t.throws(() => writeResponseHead({ ...head, statusMessage: 'a\r\nb' }, true), { code: 'FST_ERR_DUPLEX_FIELD' })

  t.equal(writeInterimHead(103, { link: ['<a>', '<b>'] }), 'HTTP/1.1 103 Early Hints\r\nlink: <a>\r\nlink: <b>\r\n\r\n')
  t.throws(() => writeInterimHead(103, { 'content-length': 1 }), { code: 'FST_ERR_DUPLEX_OWN_FIELD' })
  t.equal(writeRequestHead('POST', '/a?b', { Host: 'c' }), 'POST /a?b HTTP/1.1\r\nHost: c\r\n\r\n')
  t.throws(() => writeRequestHead('PO ST', '/', {}), { code: 'FST_ERR_DUPLEX_FIELD' })
  t.throws(() => writeRequestHead('POST', '/a b', {}), { code: 'FST_ERR_DUPLEX_FIELD' })

  t.equal(asksToClose(undefined), false)
  t.equal(asksToClose('keep-alive'), false)
  t.equal(asksToClose('x, Close'), true)
  t.equal(asksToClose(['x', 'close']), true)
})

t.test('response heads are read as they are written', async (t) => {
  const bytes = 'HTTP/1.1 200 All right\r\nContent-Type: text/plain\r\na: 1\r\nA: 2\r\n\r\n'
  for (const pieces of segmentations(bytes + BEHIND)) {
    const reader = new ResponseHeadReader(1000)
    let rest = ''
    for (const piece of pieces) {
      if (reader.head === null) {
        reader.read(piece)
        if (reader.head !== null) rest = piece.toString('latin1', reader.consumed)
      } else {
        rest += piece.toString('latin1')
      }
    }
    const fields = { 'content-type': 'text/plain', a: '1, 2' }
    t.strictSame({ ...reader.head, fields: { ...reader.head!.fields } },
      { minorVersion: 1, statusCode: 200, statusMessage: 'All right', fields, headers: fields })
    t.equal(rest, BEHIND)
  }
  const error = (bytes: string, maxSize = 1000): string | undefined => {
    const reader = new ResponseHeadReader(maxSize)
    reader.read(Buffer.from(bytes, 'latin1'))
    reader.end()
    return (reader.error as { code?: string } | null)?.code
  }
  t.equal(error(bytes, bytes.length), undefined)
  t.equal(error(bytes, bytes.length - 1), 'FST_ERR_DUPLEX_HEAD_LIMIT')
  t.equal(error('HTTP/1.1 200 OK\r\n'), 'FST_ERR_DUPLEX_TRUNCATED')
  for (const wrong of ['HTTP/2 200 OK', 'HTTP/1.1 200', 'HTTP/1.1 999 x', 'http/1.1 200 OK', 'HTTP/1.1 200 OK\na: b', 'HTTP/1.1 200 OK\r\na : b', 'HTTP/1.1 200 OK\r\n b']) {
    t.equal(error(wrong + '\r\n\r\n'), 'FST_ERR_DUPLEX_HEAD', wrong)
  }
})
