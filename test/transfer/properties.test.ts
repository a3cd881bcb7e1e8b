// What holds for any message, however it is cut: bodies read and written, heads read and written. With a fixed seed, so
// that a failure, which prints its smallest example, is there again in the next run.

import t from 'tap'
import assert from 'node:assert/strict'
import fc from 'fast-check'
import { bodyWriter, gather, type Part } from '../../lib/transfer/body-writer.ts'
import { ChunkedReader } from '../../lib/transfer/chunked-reader.ts'
import { isToken, isTrailerField, trimBlanks, writeTrailers } from '../../lib/transfer/field-lines.ts'
import { type Framing, bodyReader, requestFraming } from '../../lib/transfer/framing.ts'
import { RequestHeadReader, ResponseHeadReader } from '../../lib/transfer/head-reader.ts'
import { writeUncheckedRequestHead as writeUncheckedHead, writeInterimHead, writeResponseHead } from '../../lib/transfer/head-writer.ts'
import { writeRequestHead } from '../../lib/transfer/request-head-writer.ts'
import { byteByByte, feed, whole } from '../support/feed.ts'
import { grammarReads, nodeReads } from '../support/oracle.ts'

const LIMITS = { maxTrailerSize: 1e6, maxChunkExtensionSize: 1e6 }
const BEHIND = 'GET /next HTTP/1.1\r\nHost: a\r\n\r\n'

function holds<T extends [unknown, ...unknown[]]> (arbitraries: { [K in keyof T]: fc.Arbitrary<T[K]> }, check: (...values: T) => void, numRuns = 1000): void {
  fc.assert(fc.property<T>(...arbitraries, check), { seed: 9112, numRuns })
}

// Messages

/** Latin1, a character for each byte. */
const bytes = (constraints: fc.IntArrayConstraints): fc.Arbitrary<string> => fc.uint8Array(constraints).map((array) => Buffer.from(array).toString('latin1'))
const oneOf = (chars: string): fc.Arbitrary<string> => fc.constantFrom(...chars)
const blanks = fc.string({ unit: oneOf(' \t'), maxLength: 2 })
const token = fc.string({ unit: oneOf("!#$%&'*+-.^_`|~09AZaz"), minLength: 1, maxLength: 8 })
const visible = fc.string({ unit: oneOf('\t !"#;=,\\:az\x7e\x80\xff'), maxLength: 12 })
const quoted = visible.map((text) => `"${text.replace(/["\\]/g, '\\$&')}"`)
const value = fc.oneof(token, quoted)
const extension = fc.tuple(blanks, blanks, token, fc.option(fc.tuple(blanks, blanks, value)))
  .map(([before, after, name, rest]) => `${before};${after}${name}${rest === null ? '' : `${rest[0]}=${rest[1]}${rest[2]}`}`)
const extensions = fc.array(extension, { maxLength: 3 }).map((all) => all.join(''))
/** What Node's parser knows of the grammar: no blanks, and nothing in quotes but text. */
const plainExtensions = fc.array(fc.tuple(token, token), { maxLength: 3 }).map((all) => all.map(([name, value]) => `;${name}=${value}`).join(''))
const fieldName = token.filter((name) => isTrailerField(name.toLowerCase()))
const field = fc.tuple(fieldName, visible)

interface Message { wire: string, content: string, trailers: Record<string, string> }

const chunkedBody = (extensions: fc.Arbitrary<string>): fc.Arbitrary<Message> => fc.tuple(
  fc.array(fc.tuple(bytes({ minLength: 1, maxLength: 40 }), fc.nat(14), fc.boolean(), extensions), { maxLength: 6 }),
  fc.tuple(fc.integer({ min: 1, max: 16 }), extensions),
  fc.array(fc.tuple(field, blanks, blanks), { maxLength: 4 })
).map(([chunks, [zeros, lastExtensions], fields]) => {
  let wire = ''
  let content = ''
  for (const [data, zeros, upper, extensions] of chunks) {
    const size = data.length.toString(16)
    wire += '0'.repeat(zeros) + (upper ? size.toUpperCase() : size) + extensions + '\r\n' + data + '\r\n'
    content += data
  }
  wire += '0'.repeat(zeros) + lastExtensions + '\r\n'
  const trailers: Record<string, string> = Object.create(null)
  for (const [[name, value], before, after] of fields) {
    wire += `${name}:${before}${value}${after}\r\n`
    add(trailers, name, value)
  }
  return { wire: wire + '\r\n', content, trailers: { ...trailers } }
})

function add (fields: Record<string, string>, name: string, value: string): void {
  const key = name.toLowerCase()
  fields[key] = fields[key] === undefined ? trimBlanks(value) : `${fields[key]}, ${trimBlanks(value)}`
}

/** Sizes of pieces, taken in turn. */
const segmentation = fc.array(fc.integer({ min: 1, max: 30 }), { minLength: 1, maxLength: 10 })

function cut (wire: string, sizes: number[]): Buffer[] {
  const chunks: Buffer[] = []
  for (let at = 0, i = 0; at < wire.length; i++) {
    const size = sizes[i % sizes.length]
    chunks.push(Buffer.from(wire.slice(at, at + size), 'latin1'))
    at += size
  }
  return chunks
}

// What tends to be understood in two ways.
const INTERESTING = ['\r', '\n', '\r\n', '\n\n', '\r\r\n', '\0', ' ', '\t', '\v', '\f', '\x7f', '\x80', '\xa0', '\xff', '0', '5', 'a', 'F', 'x', '0x', '+', '-', '_', ',',
  ';', '=', '"', '\\', ':', '0\r\n\r\n', ';a="\r\n"', 'Content-Length: 5\r\n', 'Transfer-Encoding: chunked\r\n', 'ffffffffffffffff', '00000000000000000', '1fffffffffffff']

interface Mutation { at: number, remove: number, insert: string }

const mutation: fc.Arbitrary<Mutation> = fc.record({
  at: fc.nat(),
  remove: fc.integer({ min: 0, max: 3 }),
  insert: fc.oneof({ weight: 4, arbitrary: fc.constantFrom(...INTERESTING) }, { weight: 1, arbitrary: bytes({ maxLength: 3 }) })
})

function mutate (wire: string, mutations: Mutation[]): string {
  let result = wire
  for (const { at, remove, insert } of mutations) {
    const start = at % result.length
    result = result.slice(0, start) + insert + result.slice(start + remove)
  }
  return result
}

t.test('any body, in any chunks, with any extensions and trailers, in any pieces: the same bytes, and none of the next message', async () => {
  holds([chunkedBody(extensions), segmentation], ({ wire, content, trailers }, sizes) => {
    const expected = { content, trailers, code: null, done: true, rest: BEHIND }
    assert.deepEqual(feed(new ChunkedReader(LIMITS), cut(wire + BEHIND, sizes)), expected)
    assert.deepEqual(feed(new ChunkedReader(LIMITS), byteByByte(wire + BEHIND)), expected)
    assert.deepEqual(grammarReads(wire + BEHIND), { content, trailers, size: wire.length })
  }, 2000)
})

t.test('the same for the parser of Node, where it knows the grammar', async () => {
  holds([chunkedBody(plainExtensions)], ({ wire, content, trailers }) => {
    const read = nodeReads(wire)
    assert.equal(read?.content, content)
    assert.deepEqual(Object.keys(read.trailers), Object.keys(trailers))
  }, 500)
})

t.test('anything cut off is truncated', async () => {
  holds([chunkedBody(extensions), fc.nat(), segmentation], ({ wire }, at, sizes) => {
    const { code, done } = feed(new ChunkedReader(LIMITS), cut(wire.slice(0, at % wire.length), sizes), true)
    assert.deepEqual({ code, done }, { code: 'FST_ERR_DUPLEX_TRUNCATED', done: false })
  })
})

t.test('any mutation: what the grammar says, or an error of our own', async () => {
  let right = 0
  let wrong = 0
  holds([chunkedBody(extensions), fc.array(mutation, { minLength: 1, maxLength: 3 }), segmentation], (message, mutations, sizes) => {
    const wire = mutate(message.wire, mutations) + BEHIND
    const read = feed(new ChunkedReader(LIMITS), cut(wire, sizes), true)
    const expected = grammarReads(wire)
    if (read.code === null) {
      right++
      assert.deepEqual(read, { content: expected?.content, trailers: expected?.trailers, code: null, done: true, rest: wire.slice(expected?.size) })
    } else {
      wrong++
      assert.equal(read.done, false)
      assert.match(read.code, /^FST_ERR_DUPLEX_(CHUNK|TRAILER|TRUNCATED)$/)
      // The one thing that is refused though the grammar allows it.
      if (expected !== null) assert(Object.keys(expected.trailers).some((name) => !isTrailerField(name)) || /[0-9a-f]{15}/i.test(wire), 'refused')
    }
    const other = feed(new ChunkedReader(LIMITS), byteByByte(wire), true)
    assert.deepEqual([other.code, other.content, other.done], [read.code, read.content, read.done], 'whatever the pieces')
  }, 10_000)
  t.ok(right > 1000 && wrong > 1000, `${right} right, ${wrong} wrong`)
})

t.test('any bytes at all', async () => {
  const fragment = fc.oneof(fc.constantFrom(...INTERESTING, '5\r\nhello\r\n', 'a: b\r\n'), bytes({ maxLength: 4 }))
  holds([fc.array(fragment, { maxLength: 20 })], (fragments) => {
    const wire = fragments.join('')
    const read = feed(new ChunkedReader(LIMITS), whole(wire), true)
    if (read.done) assert.equal(wire.length - read.rest.length, grammarReads(wire)?.size)
    else assert.match(read.code ?? '', /^FST_ERR_DUPLEX_(CHUNK|TRAILER|TRUNCATED)$/)
  }, 5000)
})

t.test('what a body writer writes, a body reader reads', async () => {
  const contents = fc.array(fc.array(fc.uint8Array({ minLength: 1, maxLength: 50 }).map((array) => Buffer.from(array)), { minLength: 1, maxLength: 4 }), { maxLength: 5 })
  holds([contents, fc.constantFrom('chunked', 'length', 'close'), fc.dictionary(fieldName, visible, { maxKeys: 4 }), segmentation], (writes, kind, fields, sizes) => {
    const content = Buffer.concat(writes.flat()).toString('latin1')
    const framing = { kind, length: kind === 'length' ? content.length : 0 } as Framing
    const writer = bodyWriter(framing)
    const parts: Part[] = []
    for (const buffers of writes) writer.write(buffers, buffers.reduce((sum, { length }) => sum + length, 0), parts)
    writer.end(kind === 'chunked' ? writeTrailers(fields) : '', parts)
    const wire = Buffer.concat(gather(parts)).toString('latin1')
    const trailers: Record<string, string> = Object.create(null)
    if (kind === 'chunked') for (const name of Object.keys(fields)) add(trailers, name, fields[name])
    const next = kind === 'close' ? '' : BEHIND
    assert.deepEqual(feed(bodyReader(framing, LIMITS), cut(wire + next, sizes), true), { content, trailers: { ...trailers }, code: null, done: true, rest: next })
  })
})

/** Any text: what a user may try to put into a head. */
const anyText = fc.oneof(visible, fc.string({ unit: oneOf('a:\r\n \0\x7f\u0100€') }), fc.string())
const anyFields = fc.dictionary(fc.oneof(fieldName, anyText), anyText, { maxKeys: 4 })

function isOurs (error: unknown): boolean {
  return /^FST_ERR_DUPLEX_(FIELD|OWN_FIELD)$/.test((error as { code: string }).code)
}

/** What `write` gives, or null where it refuses with an error of our own. */
function written (write: () => string): string | null {
  try {
    return write()
  } catch (error) {
    if (!isOurs(error)) throw error
    return null
  }
}

/** The fields that were asked for, as they are read. */
function asRead (fields: Record<string, string>): Record<string, string> {
  const read: Record<string, string> = Object.create(null)
  for (const name of Object.keys(fields)) add(read, name, fields[name])
  return { ...read }
}

/** Reads a head, and nothing of what stands behind it. */
function readHead (reader: RequestHeadReader | ResponseHeadReader, text: string, sizes: Parameters<typeof cut>[1]): void {
  let rest = ''
  for (const chunk of cut(text + BEHIND, sizes)) {
    const behind = reader.head !== null
    if (!behind) reader.read(chunk)
    if (reader.head !== null) rest += chunk.toString('latin1', behind ? 0 : reader.consumed)
  }
  assert.equal(reader.error, null)
  assert.equal(rest, BEHIND)
}

t.test('what a head writer writes, a head reader reads: nothing can be smuggled into it', async () => {
  let sent = 0
  holds([fc.integer({ min: 200, max: 599 }), fc.option(anyText, { nil: undefined }), anyFields, segmentation], (statusCode, statusMessage, fields, sizes) => {
    const own = Object.keys(fields).some((name) => /^(connection|date|set-cookie)$/i.test(name))
    const text = written(() => writeResponseHead({ statusCode, statusMessage, fields, framing: { kind: 'chunked', length: 0 }, date: false }, true))
    if (text === null || own) return
    sent++
    const reader = new ResponseHeadReader(1e6)
    readHead(reader, text, sizes)
    assert.equal(reader.head?.statusCode, statusCode)
    if (statusMessage !== undefined) assert.equal(reader.head?.statusMessage, statusMessage)
    assert.deepEqual({ ...reader.head?.fields }, { ...asRead(fields), connection: 'keep-alive', 'transfer-encoding': 'chunked' })
  }, 4000)
  t.ok(sent > 500, `${sent} sent`)
})

t.test('the same for interim heads, request heads and trailers', async () => {
  holds([anyFields, anyText, anyText], (fields, method, target) => {
    const interim = written(() => writeInterimHead(103, fields))
    if (interim !== null) {
      const reader = new ResponseHeadReader(1e6)
      reader.read(Buffer.from(interim + BEHIND, 'latin1'))
      assert.equal(reader.consumed, interim.length)
    }
    const request = written(() => writeUncheckedHead(method, target, fields))
    if (request !== null) {
      assert(isToken(method) && /^[!-~]+$/.test(target))
      assert.match(request, /^[!-~]+ [!-~]+ HTTP\/1\.1\r\n(?:[!-~]+: [\t -~\x80-\xff]*\r\n)*\r\n$/)
      assert.equal(request.split('\r\n').length, Object.keys(fields).length + 3)
    }
    const lines = written(() => writeTrailers(fields))
    if (lines !== null) assert.deepEqual(grammarReads('0\r\n' + lines + '\r\n')?.trailers, asRead(fields))
  }, 4000)
})

t.test('what the writer of request heads writes, its reader reads: nothing can be smuggled into it', async () => {
  let sent = 0
  const mostly = (...valid: string[]): fc.Arbitrary<string> => fc.oneof({ weight: 6, arbitrary: fc.constantFrom(...valid) }, { weight: 1, arbitrary: anyText })
  const methods = mostly('GET', 'POST', 'OPTIONS', 'CONNECT')
  const targets = mostly('/', '/a?b=c', 'http://a/b', '*', 'a:80')
  const hosts = mostly('a', 'a:80', '')
  const framings = fc.constantFrom<Framing>({ kind: 'none', length: 0 }, { kind: 'length', length: 5 }, { kind: 'chunked', length: 0 }, { kind: 'close', length: 0 })
  holds([methods, targets, hosts, anyFields, framings, segmentation], (method, target, host, fields, framing, sizes) => {
    const own = Object.keys(fields).some((name) => /^(connection|host|set-cookie|cookie|te|upgrade)$/i.test(name))
    const text = written(() => writeRequestHead({ method, target, fields: { ...fields, host }, framing }))
    if (text === null || own) return
    sent++
    const reader = new RequestHeadReader(1e6)
    readHead(reader, text, sizes)
    const { 'content-length': length, 'transfer-encoding': coding, ...others } = reader.head!.fields
    assert.deepEqual({ method: reader.head!.method, target: reader.head!.target, ...others }, { ...asRead({ ...fields, host }), method, target })
    assert.deepEqual(requestFraming({ 'content-length': length, 'transfer-encoding': coding }, 1), framing)
  }, 8000)
  assert(sent > 500, `${sent} sent`)
})
