// The pure readers and writers, byte for byte, beside what conformance/ has of the readers.

import t from 'tap'
import { COPY_BELOW, type Part, bodyWriter, frameContent, gather } from '../../lib/transfer/body-writer.ts'
import { ChunkedReader } from '../../lib/transfer/chunked-reader.ts'
import { writeTrailers } from '../../lib/transfer/field-lines.ts'
import { bodyReader, framingFields, requestFraming, responseFraming } from '../../lib/transfer/framing.ts'
import { asksToClose, shouldClose } from '../../lib/transfer/connection-field.ts'
import { RequestHeadReader, ResponseHeadReader } from '../../lib/transfer/head-reader.ts'
import { writeUncheckedRequestHead as writeUncheckedHead, writeInterimHead, writeResponseHead } from '../../lib/transfer/head-writer.ts'
import { writeRequestHead } from '../../lib/transfer/request-head-writer.ts'
import { parseAuthority } from '../../lib/transfer/tunnel.ts'
import { LIMITS } from '../conformance/requests.ts'
import { feed } from '../support/feed.ts'

t.test('blanks in a trailer cost no more than other bytes', async (t) => {
  // A pattern with two runs of optional blanks took a third of a second for these, and four times that for twice as many.
  const line = (size: number): Buffer => Buffer.from(`0\r\na:${' '.repeat(size)}\x01\r\n\r\n`)
  const outcome = feed(new ChunkedReader({ ...LIMITS, maxTrailerSize: 1e6 }), [line(999_000)])
  t.equal(outcome.code, 'FST_ERR_DUPLEX_TRAILER')
  t.strictSame(feed(new ChunkedReader(LIMITS), [Buffer.from('0\r\na: \t \r\nb:\t c d \t\r\n\r\n')]).trailers, { a: '', b: 'c d' })
})

t.test('limits are exact', async (t) => {
  const extension = (size: number): string => `0;${'a'.repeat(size - 1)}\r\n\r\n`
  t.equal(feed(new ChunkedReader(LIMITS), [Buffer.from(extension(64))]).done, true)
  t.equal(feed(new ChunkedReader(LIMITS), [Buffer.from(extension(65))]).code, 'FST_ERR_DUPLEX_CHUNK_EXTENSION_LIMIT')
  const blank = '0 ;a\r\n\r\n'
  t.equal(feed(new ChunkedReader({ ...LIMITS, maxChunkExtensionSize: 3 }), [Buffer.from(blank)]).done, true)
  t.equal(feed(new ChunkedReader({ ...LIMITS, maxChunkExtensionSize: 2 }), [Buffer.from(blank)]).code, 'FST_ERR_DUPLEX_CHUNK_EXTENSION_LIMIT')
  t.equal(feed(new ChunkedReader({ ...LIMITS, maxChunkExtensionSize: 0 }), [Buffer.from(blank)]).code, 'FST_ERR_DUPLEX_CHUNK_EXTENSION_LIMIT')
  const trailer = (size: number): string => `0\r\na:${'b'.repeat(size - 4)}\r\n\r\n`
  t.equal(feed(new ChunkedReader(LIMITS), [Buffer.from(trailer(256))]).done, true)
  t.equal(feed(new ChunkedReader(LIMITS), [Buffer.from(trailer(257))]).code, 'FST_ERR_DUPLEX_TRAILER_LIMIT')
})

t.test('content comes before the body is complete, in one piece per read, in place', async (t) => {
  const reader = new ChunkedReader(LIMITS)
  t.equal(String(reader.read(Buffer.from('5\r\nhel'))), 'hel')
  const chunk = Buffer.from('lo\r\n1\r\n!\r\n0\r\na: b')
  const content = reader.read(chunk)
  t.equal(String(content), 'lo!')
  t.equal(content.buffer, chunk.buffer)
  t.notOk(reader.done)
  t.equal(reader.read(Buffer.from('\r\n\r\n')).length, 0)
  t.ok(reader.done)
})

t.test('framing of requests', async (t) => {
  t.strictSame(requestFraming({}, 1), { kind: 'none', length: 0 })
  t.strictSame(requestFraming({ 'content-length': '0' }, 1), { kind: 'none', length: 0 })
  t.strictSame(requestFraming({ 'content-length': '5, 5' }, 1), { kind: 'length', length: 5 }, 'a list Node refuses before us')
  t.strictSame(requestFraming({ 'content-length': '9007199254740991' }, 1), { kind: 'length', length: Number.MAX_SAFE_INTEGER })
  t.strictSame(requestFraming({ 'transfer-encoding': 'chunked' }, 1), { kind: 'chunked', length: 0 })
  for (const [coding, code] of [[',', 'FRAMING'], ['chunked;a=b', 'FRAMING'], ['gzip;q=1 ,\tchunked', 'TRANSFER_CODING']]) {
    t.throws(() => requestFraming({ 'transfer-encoding': coding }, 1), { code: `FST_ERR_DUPLEX_${code}` }, coding)
  }
  t.strictSame(framingFields(['Host', 'a', 'CONTENT-LENGTH', '5', 'X-Fourteen-Byt', '1', 'Content-Length', '6', 'Transfer-encoding', 'chunked']),
    { 'content-length': '5, 6', 'transfer-encoding': 'chunked' }, 'all of a repeated field')
})

t.test('framing of responses to send', async (t) => {
  for (const [method, status] of [['HEAD', 200], ['GET', 204], ['GET', 304]] as const) {
    t.equal(responseFraming(method, status, '5', 1).kind, 'none')
  }
  t.equal(responseFraming('GET', 200, undefined, 1).kind, 'chunked')
  t.equal(responseFraming('GET', 200, undefined, 0).kind, 'close')
  t.strictSame(responseFraming('GET', 200, '0', 1), { kind: 'length', length: 0 })
  t.strictSame(responseFraming('GET', 200, 5, 1), { kind: 'length', length: 5 })
  for (const length of ['x', '', '05', '5, 5', ['5', '5'], -5, 5.5, 2 ** 53]) {
    for (const status of [200, 204, 304]) t.throws(() => responseFraming('GET', status, length, 1), { code: 'FST_ERR_DUPLEX_FIELD' }, `${status} ${length}`)
  }
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

t.test('content within a body', async (t) => {
  const chunked = bodyWriter({ kind: 'chunked', length: 0 })
  const sizes = [1, 9, 10, 15, 16, 31, 32, 255, 256, 4095, 4096, COPY_BELOW - 1, COPY_BELOW, 70_000]
  for (const size of sizes) {
    const content = Buffer.alloc(size, 'x')
    const written = Buffer.concat(frameContent(chunked, [content], size)).toString()
    t.equal(written, `${size.toString(16)}\r\n${content}\r\n`, `${size} bytes`)
    t.equal(Buffer.concat(frameContent(chunked, [content, content], 2 * size)).toString(), `${(2 * size).toString(16)}\r\n${content}${content}\r\n`)
  }
  const two = bodyWriter({ kind: 'length', length: 2 })
  t.strictSame(frameContent(two, [Buffer.from('ab')], 2).map(String), ['ab'])
  t.throws(() => frameContent(two, [Buffer.from('c')], 1), { code: 'FST_ERR_DUPLEX_LENGTH' })
})

t.test('a body writer keeps its promise', async (t) => {
  const three = bodyWriter({ kind: 'length', length: 3 })
  t.throws(() => three.write([Buffer.from('four')], 4, []), { code: 'FST_ERR_DUPLEX_LENGTH', message: /more/ })
  t.throws(() => three.end('', []), { code: 'FST_ERR_DUPLEX_LENGTH', message: /fewer/ })
  three.write([Buffer.from('abc')], 3, [])
  t.throws(() => three.end('a: b\r\n', []), { code: 'FST_ERR_DUPLEX_NO_TRAILERS' })
  const none = bodyWriter(responseFraming('GET', 204, undefined, 1))
  t.throws(() => none.write([Buffer.from('a')], 1, []), { code: 'FST_ERR_DUPLEX_NO_BODY' })
  t.throws(() => writeTrailers({ Host: 'a' }), { code: 'FST_ERR_DUPLEX_FIELD' })
})

t.test('the content of a response to HEAD is counted and dropped', async (t) => {
  const parts: Part[] = []
  const any = bodyWriter(responseFraming('HEAD', 200, undefined, 1))
  any.write([Buffer.from('any '), Buffer.from('size')], 8, parts)
  any.end('a: b\r\n', parts)
  const three = bodyWriter(responseFraming('HEAD', 200, '3', 1))
  t.throws(() => three.write([Buffer.from('four')], 4, parts), { code: 'FST_ERR_DUPLEX_LENGTH', message: /more/ })
  t.throws(() => three.end('a: b\r\n', parts), { code: 'FST_ERR_DUPLEX_NO_TRAILERS' })
  three.end('', parts)
  three.write([Buffer.from('ab')], 2, parts)
  t.throws(() => three.end('', parts), { code: 'FST_ERR_DUPLEX_LENGTH', message: /fewer/ })
  three.write([Buffer.from('c')], 1, parts)
  three.end('', parts)
  const nothing = bodyWriter(responseFraming('HEAD', 200, '0', 1))
  t.throws(() => nothing.write([Buffer.from('a')], 1, parts), { code: 'FST_ERR_DUPLEX_LENGTH' })
  const none = bodyWriter(responseFraming('HEAD', 304, '3', 1))
  t.throws(() => none.write([Buffer.from('abc')], 3, parts), { code: 'FST_ERR_DUPLEX_NO_BODY' })
  t.strictSame(parts, [])
})

t.test('response heads', async (t) => {
  const head = { statusCode: 200, fields: {}, framing: { kind: 'chunked', length: 0 }, date: false } as const
  t.equal(writeResponseHead(head, true), 'HTTP/1.1 200 OK\r\nconnection: keep-alive\r\ntransfer-encoding: chunked\r\n\r\n')
  t.equal(writeResponseHead(head, true, undefined, 'a, b'), 'HTTP/1.1 200 OK\r\nconnection: keep-alive\r\ntransfer-encoding: chunked\r\ntrailer: a, b\r\n\r\n')
  t.equal(writeResponseHead({ ...head, framing: { kind: 'close', length: 0 } }, false, undefined, 'a'), 'HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n')
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
  for (const status of [99, 101, 200, NaN]) t.throws(() => writeInterimHead(status, {}), { code: 'FST_ERR_DUPLEX_STATUS' }, `interim ${status}`)
  for (const status of [99, 1000, NaN, '200\r\na: b']) t.throws(() => writeResponseHead({ ...head, statusCode: status as number }, true), { code: 'FST_ERR_DUPLEX_STATUS' }, `final ${status}`)
})

t.test('a response head does not contradict its framing', async (t) => {
  const head = { statusCode: 200, fields: {}, framing: { kind: 'length', length: 5 }, date: false } as const
  t.equal(writeResponseHead(head, true), 'HTTP/1.1 200 OK\r\nconnection: keep-alive\r\ncontent-length: 5\r\n\r\n', 'the writer adds it')
  t.equal(writeResponseHead({ ...head, fields: { 'Content-Length': '5' } }, true), 'HTTP/1.1 200 OK\r\nContent-Length: 5\r\nconnection: keep-alive\r\n\r\n')
  t.equal(writeResponseHead({ ...head, statusCode: 304, framing: { kind: 'none', length: 0 }, fields: { 'content-length': 7 } }, false), 'HTTP/1.1 304 Not Modified\r\ncontent-length: 7\r\nconnection: close\r\n\r\n')
  t.equal(writeResponseHead({ ...head, framing: { kind: 'close', length: 0 }, fields: { 'content-length': undefined } }, false), 'HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n')
  for (const [kind, length, fields] of [
    ['length', 5, { 'content-length': 6 }], ['length', 5, { 'content-length': '05' }], ['length', 5, { 'content-length': 5, 'Content-Length': 5 }],
    ['chunked', 0, { 'content-length': 5 }], ['close', 0, { 'content-length': 5 }], ['none', 0, { 'content-length': 'x' }]
  ] as const) {
    t.throws(() => writeResponseHead({ ...head, framing: { kind, length }, fields }, true), { code: 'FST_ERR_DUPLEX_FIELD' }, JSON.stringify([kind, fields]))
  }
  for (const bad of ['a\r\nb: c', '\0']) {
    t.throws(() => writeResponseHead(head, true, bad), { code: 'FST_ERR_DUPLEX_FIELD' }, 'Keep-Alive')
    t.throws(() => writeResponseHead({ ...head, framing: { kind: 'chunked', length: 0 } }, true, undefined, bad), { code: 'FST_ERR_DUPLEX_FIELD' }, 'Trailer')
  }
})

t.test('request heads', async (t) => {
  const get = { method: 'GET', target: '/a?b', fields: { Host: 'c' }, framing: { kind: 'none', length: 0 } } as const
  const chunked = { kind: 'chunked', length: 0 } as const
  t.equal(writeRequestHead(get), 'GET /a?b HTTP/1.1\r\nhost: c\r\n\r\n')
  t.equal(writeRequestHead(get, false), 'GET /a?b HTTP/1.1\r\nhost: c\r\nconnection: close\r\n\r\n')
  t.equal(writeRequestHead({ ...get, fields: { a: ['1', 2], gone: undefined, HOST: ['c:1'], connection: 'b, close', TE: 'trailers', upgrade: 'x' } }, false),
    'GET /a?b HTTP/1.1\r\nhost: c:1\r\na: 1\r\na: 2\r\nTE: trailers\r\nupgrade: x\r\nconnection: close, te, upgrade\r\n\r\n')
  t.equal(writeRequestHead({ ...get, method: 'POST', framing: chunked }), 'POST /a?b HTTP/1.1\r\nhost: c\r\ntransfer-encoding: chunked\r\n\r\n')
  t.equal(writeRequestHead({ ...get, framing: chunked }, true, 'x, y'), 'GET /a?b HTTP/1.1\r\nhost: c\r\ntransfer-encoding: chunked\r\ntrailer: x, y\r\n\r\n')
  t.equal(writeRequestHead({ ...get, framing: { kind: 'length', length: 5 } }, true, 'x'), 'GET /a?b HTTP/1.1\r\nhost: c\r\ncontent-length: 5\r\n\r\n')
  for (const method of ['POST', 'PUT', 'PATCH']) t.match(writeRequestHead({ ...get, method }), /\r\ncontent-length: 0\r\n/, `${method} says that it has no content`)
  for (const [method, target] of [['OPTIONS', '*'], ['CONNECT', 'a:80'], ['GET', 'http://b/']]) {
    t.equal(writeRequestHead({ ...get, method, target }), `${method} ${target} HTTP/1.1\r\nhost: c\r\n\r\n`)
  }
  t.match(writeRequestHead({ ...get, fields: { host: '' } }), /\r\nhost: \r\n/)

  for (const name of ['Transfer-Encoding', 'content-length', 'trailer', 'keep-alive', 'proxy-connection']) {
    t.throws(() => writeRequestHead({ ...get, fields: { ...get.fields, [name]: '1' } }), { code: 'FST_ERR_DUPLEX_OWN_FIELD' }, name)
  }
  for (const differing of [
    { method: 'G T' }, { method: '' }, { target: '/a b' }, { target: 'a' }, { target: '*' }, { target: '/#' }, { method: 'CONNECT' }, { target: '/\r\na: b' },
    { fields: {} }, { fields: { host: undefined } }, { fields: { host: ['a', 'b'] } }, { fields: { host: 'a', Host: 'a' } }, { fields: { host: 'a b' } }, { fields: { host: 'a\r\nb: c' } },
    { target: 'http://b/', fields: { host: '' } }, { fields: { ...get.fields, 'a b': '1' } }, { fields: { ...get.fields, a: '\n' } },
    { framing: { kind: 'close', length: 0 } as const }, { framing: { kind: 'length', length: -1 } as const }, { framing: { kind: 'length', length: 1.5 } as const },
    { method: 'CONNECT', target: 'a:80', framing: chunked }
  ]) {
    t.throws(() => writeRequestHead({ ...get, ...differing }), { code: 'FST_ERR_DUPLEX_FIELD' }, JSON.stringify(differing))
  }
  t.throws(() => writeRequestHead({ ...get, framing: chunked }, true, 'a\r\nb: c'), { code: 'FST_ERR_DUPLEX_FIELD' })

  t.equal(writeUncheckedHead('POST', '/a?b', { Host: 'c' }), 'POST /a?b HTTP/1.1\r\nHost: c\r\n\r\n')
  t.throws(() => writeUncheckedHead('PO ST', '/', {}), { code: 'FST_ERR_DUPLEX_FIELD' })
  t.throws(() => writeUncheckedHead('POST', '/a b', {}), { code: 'FST_ERR_DUPLEX_FIELD' })
})

t.test('is the connection closed after a message?', async (t) => {
  for (const [connection, asks] of [[undefined, false], ['', false], ['keep-alive', false], ['not-close', false], ['"close"', false], ['x, Close', true], ['close\t,', true], [['x', 'close'], true]] as const) {
    t.equal(asksToClose(connection), asks, `${connection}`)
  }
  for (const [minorVersion, connection, expected] of [
    [1, undefined, false], [1, 'keep-alive', false], [1, 'x, CLOSE', true], [1, 'close, keep-alive', true],
    [0, undefined, true], [0, 'x', true], [0, 'x, Keep-Alive', false], [0, 'keep-alive, close', true]
  ] as const) {
    t.equal(shouldClose(minorVersion, connection), expected, `HTTP/1.${minorVersion} ${connection}`)
    for (const kind of ['none', 'length', 'chunked'] as const) t.equal(shouldClose(minorVersion, connection, { kind, length: 0 }), expected)
    t.equal(shouldClose(minorVersion, connection, { kind: 'close', length: 0 }), true, 'the body ends with the connection')
  }
})

t.test('the target of CONNECT', async (t) => {
  t.strictSame(parseAuthority('[::1]:443'), { host: '::1', port: 443 })
  t.strictSame(parseAuthority('a.example:1'), { host: 'a.example', port: 1 })
  t.throws(() => parseAuthority('a.example'), { code: 'FST_ERR_DUPLEX_AUTHORITY', statusCode: 400 })
})

t.test('a response head, as it is read', async (t) => {
  const bytes = 'HTTP/1.1 200 All right\r\nContent-Type: text/plain\r\na: 1\r\nA: 2\r\nSet-Cookie: c\r\nSet-Cookie: d\r\n\r\n'
  const reader = new ResponseHeadReader(bytes.length)
  reader.read(Buffer.from(bytes))
  const fields = { 'content-type': 'text/plain', a: '1, 2' }
  t.strictSame({ ...reader.head, fields: { ...reader.head!.fields } },
    { minorVersion: 1, statusCode: 200, statusMessage: 'All right', fields, headers: { ...fields, 'set-cookie': ['c', 'd'] } })
  const short = new ResponseHeadReader(bytes.length - 1)
  short.read(Buffer.from(bytes))
  t.match(short.error, { code: 'FST_ERR_DUPLEX_HEAD_LIMIT' }, 'the limit is exact')
})

t.test('a request head, as it is read', async (t) => {
  const bytes = 'POST http://a:1/b HTTP/1.1\r\nHost: c\r\nCookie: d=1\r\nx: 1\r\ncookie: e=2\r\nX: 2\r\nSet-Cookie: f\r\n\r\n'
  const reader = new RequestHeadReader()
  reader.read(Buffer.from(bytes + 'behind it'))
  t.equal(reader.consumed, bytes.length)
  const fields = { host: 'c', x: '1, 2', cookie: 'd=1; e=2' }
  t.strictSame({ ...reader.head, fields: { ...reader.head!.fields } },
    { method: 'POST', target: 'http://a:1/b', form: 'absolute', host: 'a:1', minorVersion: 1, fields, headers: { ...fields, 'set-cookie': ['f'] } })
  reader.end()
  t.equal(reader.error, null)
})

t.test('a head reader keeps nothing of its input', async (t) => {
  const bytes = Buffer.from('GET /first HTTP/1.1\r\nHost: a\r\n\r\n')
  const reader = new RequestHeadReader()
  const part = Buffer.from(bytes.subarray(0, 10))
  reader.read(part)
  part.fill('x')
  reader.read(bytes.subarray(10))
  t.match(reader.head, { target: '/first', host: 'a' })
})

t.test('the end of a connection', async (t) => {
  const ended = (reader: RequestHeadReader | ResponseHeadReader, bytes: string): unknown => {
    if (bytes !== '') reader.read(Buffer.from(bytes))
    reader.end()
    return (reader.error as { code?: string } | null)?.code ?? reader.error
  }
  for (const bytes of ['', '\r\n']) t.equal(ended(new RequestHeadReader(), bytes), null, 'between two requests')
  for (const bytes of ['\r', 'G', '\r\nG', 'GET / HTTP/1.1\r\n']) t.equal(ended(new RequestHeadReader(), bytes), 'FST_ERR_DUPLEX_TRUNCATED', JSON.stringify(bytes))
  for (const bytes of ['', 'H', 'HTTP/1.1 200 OK\r\n']) t.equal(ended(new ResponseHeadReader(), bytes), 'FST_ERR_DUPLEX_TRUNCATED', JSON.stringify(bytes))
  t.equal(ended(new RequestHeadReader(), '\n'), 'FST_ERR_DUPLEX_HEAD', 'the first error stays')
})

t.test('the limit of a head that comes in parts is exact', async (t) => {
  const bytes = `GET / HTTP/1.1\r\nHost: a\r\nb: ${'c'.repeat(2000)}\r\n\r\n`
  for (const step of [1, 7, 500, bytes.length]) {
    for (const [maxSize, code] of [[bytes.length, undefined], [bytes.length - 1, 'FST_ERR_DUPLEX_HEAD_LIMIT']] as const) {
      const reader = new RequestHeadReader(maxSize)
      let consumed = 0
      for (let at = 0; at < bytes.length && reader.error === null; at += step) {
        reader.read(Buffer.from(bytes.slice(at, at + step)))
        consumed += reader.consumed
      }
      t.equal((reader.error as { code?: string } | null)?.code, code, `${step} bytes at a time, ${maxSize}`)
      if (code === undefined) t.equal(consumed, bytes.length)
    }
  }
})

t.test('a head that comes byte by byte takes linear time', async (t) => {
  // With a copy of all that has come for each byte, this took minutes.
  const lines = Buffer.from(`a: ${'b'.repeat(997)}\r\n`.repeat(1000))
  for (const [Reader, startLine] of [[RequestHeadReader, 'GET / HTTP/1.1\r\nHost: a\r\n'], [ResponseHeadReader, 'HTTP/1.1 200 OK\r\n']] as const) {
    const reader = new Reader(Infinity)
    reader.read(Buffer.from(startLine))
    for (let at = 0; at < lines.length; at++) reader.read(lines.subarray(at, at + 1))
    reader.read(Buffer.from('\r\n'))
    t.equal(reader.error, null)
    t.equal(reader.head?.fields.a.length, 1000 * 997 + 999 * 2)
  }
})
