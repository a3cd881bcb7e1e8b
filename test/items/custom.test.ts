// Codecs of the user's own: MessagePack with a length in front, with the real package, and codecs that do wrong.

import assert from 'node:assert/strict'
import { decode as unpack, encode as pack } from '@msgpack/msgpack'
import fc from 'fast-check'
import t from 'tap'
import { NO_ITEM } from '../../lib/items/codec.ts'
import { CustomDecoder } from '../../lib/items/custom.ts'
import { itemCodec } from '../../lib/items/index.ts'
import type { CustomCodec } from '../../types/items.d.ts'
import { BAD, LONG, type Outcome, bytes, cut, feed, segmentations } from './support.ts'

/** Four bytes of length, big-endian, and as many bytes of MessagePack. */
const MESSAGE_PACK: CustomCodec = {
  mediaTypes: ['application/x-msgpack', 'application/vnd.msgpack'],
  decode (bytes) {
    if (bytes.length < 4) return 4
    const size = 4 + bytes.readUInt32BE()
    return bytes.length < size ? size : { item: unpack(bytes.subarray(4, size)), size }
  },
  encode (item) {
    const content = pack(item)
    const frame = Buffer.alloc(4 + content.length)
    frame.writeUInt32BE(content.length)
    frame.set(content, 4)
    return frame
  },
  heartbeat: Buffer.from([0, 0, 0, 1, 0xc0])
}

const LIMIT = 16
const decoder = (codec: CustomCodec = MESSAGE_PACK, maxItemSize = LIMIT): CustomDecoder =>
  itemCodec(codec)({}).codec.decoder!({ maxItemSize, parse: null }) as CustomDecoder

const frame = (content: string, size = content.length): string => String.fromCharCode(size >> 24 & 255, size >> 16 & 255, size >> 8 & 255, size & 255) + content

const ONE = frame('\x01')
const TEXTS: [name: string, content: string, item: unknown][] = [
  ['nil', '\xc0', null],
  ['false', '\xc2', false],
  ['true', '\xc3', true],
  ['a positive fixint', '\x7f', 127],
  ['a negative fixint', '\xff', -1],
  ['uint 8', '\xcc\xff', 255],
  ['uint 16', '\xcd\x01\x00', 256],
  ['uint 32', '\xce\xff\xff\xff\xff', 2 ** 32 - 1],
  ['uint 64', '\xcf\x00\x20\x00\x00\x00\x00\x00\x00', 2 ** 53],
  ['int 8', '\xd0\x80', -128],
  ['int 16', '\xd1\x80\x00', -32768],
  ['int 32', '\xd2\x80\x00\x00\x00', -(2 ** 31)],
  ['int 64', '\xd3\xff\xff\xff\xff\xff\xff\xff\xff', -1],
  ['float 32', '\xca\x3f\x80\x00\x00', 1],
  ['float 64', '\xcb\x3f\xf8\x00\x00\x00\x00\x00\x00', 1.5],
  ['fixstr', '\xa1a', 'a'],
  ['an empty fixstr', '\xa0', ''],
  ['str 8', '\xd9\x01a', 'a'],
  ['str 16', '\xda\x00\x01a', 'a'],
  ['str 32', '\xdb\x00\x00\x00\x01a', 'a'],
  ['two bytes per character', '\xa2\xc3\xa9', 'é'],
  ['four bytes per character', '\xa4\xf0\x9f\x98\x80', '😀'],
  ['fixarray', '\x92\x01\x02', [1, 2]],
  ['an empty array', '\x90', []],
  ['array 16', '\xdc\x00\x01\x01', [1]],
  ['array 32', '\xdd\x00\x00\x00\x01\x01', [1]],
  ['nested arrays', '\x91\x91\x91\x90', [[[[]]]]],
  ['fixmap', '\x81\xa1a\x01', { a: 1 }],
  ['an empty map', '\x80', {}],
  ['map 16', '\xde\x00\x01\xa1a\x01', { a: 1 }],
  ['map 32', '\xdf\x00\x00\x00\x01\xa1a\x01', { a: 1 }],
  ['a map that says it is huge', '\xdf\xff\xff\xff\xff', BAD],
  ['duplicate keys', '\x82\xa1a\x01\xa1a\x02', { a: 2 }],
  ['a key that is a number', '\x81\x01\x02', { 1: 2 }],
  ['__proto__', '\x81\xa9__proto__\x01', BAD],
  ['a key that is an array', '\x81\x90\x01', BAD],
  ['a timestamp', '\xd6\xff\x00\x00\x00\x00', new Date(0)],
  ['no content', '', BAD],
  ['a byte that is never used', '\xc1', BAD],
  ['an array without its items', '\x92\x01', BAD],
  ['a map without a value', '\x81\xa1a', BAD],
  ['a string that is too short', '\xa2a', BAD],
  ['an array that says it is huge', '\xdd\xff\xff\xff\xff', BAD],
  ['a string that says it is huge', '\xdb\xff\xff\xff\xff', BAD],
  ['binary data that say they are huge', '\xc6\xff\xff\xff\xff', BAD],
  ['a half uint 16', '\xcd\x01', BAD],
  ['two items in one frame', '\x01\x02', BAD],
  ['text', '{"a":1}', BAD]
]

const CASES: [name: string, body: string, outcomes: Outcome[]][] = [
  ...TEXTS.flatMap(([name, content, item]): [string, string, Outcome[]][] => [
    [`${name}, alone`, frame(content), [[0, item]]],
    [`${name}, between others`, ONE + frame(content) + ONE, [[0, 1], [5, item], ...(item === BAD ? [] : [[9 + content.length, 1] as Outcome])]]
  ]),
  ['nothing', '', []],
  ['many', ONE.repeat(50), Array.from({ length: 50 }, (_, i): Outcome => [5 * i, 1])],
  ['the longest item', ONE + frame('\xabxxxxxxxxxxx') + ONE, [[0, 1], [5, 'x'.repeat(11)], [21, 1]]],
  ['the longest item, end of the body', frame('\xabxxxxxxxxxxx'), [[0, 'x'.repeat(11)]]],
  ['a byte too long', ONE + frame('\xacxxxxxxxxxxxx') + ONE, [[0, 1], [5, LONG]]],
  ['far too long', ONE + frame('\xd9\x62' + 'x'.repeat(98)) + ONE, [[0, 1], [5, LONG]]],
  ['a length of 4 GiB', frame('\x01', 0xffffffff), [[0, LONG]]],
  ['a length of 4 GiB, and nothing', '\xff\xff\xff\xff', [[0, LONG]]],
  ['a byte of a length', ONE + '\0', [[0, 1], [5, BAD]]],
  ['a length, and nothing', '\0\0\0\x01', [[0, BAD]]],
  ['half an item', ONE + frame('\xa3a', 4), [[0, 1], [5, BAD]]]
]

t.test('MessagePack with a length in front: a table of bodies, whole, byte by byte, and cut at every byte', async (t) => {
  t.ok(CASES.length >= 60)
  for (const [name, text, outcomes] of CASES) {
    for (const chunks of segmentations(bytes(text))) {
      const sizes = chunks.map(({ length }) => length)
      assert.deepEqual(feed(decoder(), chunks, true).outcomes, outcomes, `${name}, in chunks of ${sizes.join(', ')}`)
    }
    t.pass(name)
  }
})

t.test('what is sent comes back', async () => {
  const items = fc.array(fc.anything({ withBigInt: false, withDate: false, withMap: false, withSet: false, withObjectString: false, withNullPrototype: false, withSparseArray: false, withTypedArray: false, values: [fc.integer(), fc.double({ noNaN: true }), fc.string({ unit: 'grapheme' }), fc.boolean(), fc.constant(null)], key: fc.string().filter((key) => key !== '__proto__') }))
  fc.assert(fc.property(items, fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1 }), (items, sizes) => {
    const { codec } = itemCodec(MESSAGE_PACK)({})
    const body = Buffer.concat(items.map((item) => Buffer.from(codec.encode!(item))))
    // A -0 is sent as the integer 0.
    assert.deepEqual(feed(decoder(MESSAGE_PACK, 1e6), cut(body, ...sizes), true).outcomes.map(([, item]) => item), items.map((item) => unpack(pack(item))))
  }), { seed: 7464, numRuns: 500 })
})

t.test('any bytes: no crash, and errors that say where', async () => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 60 }), fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1 }), (body, sizes) => {
    const whole = feed(decoder(), [Buffer.from(body)], true)
    assert.deepEqual(feed(decoder(), cut(Buffer.from(body), ...sizes), true).outcomes, whole.outcomes)
    assert(whole.errors.length <= 1)
  }), { seed: 7464, numRuns: 2000 })
})

t.test('memory is bounded by the limit and one read', async (t) => {
  const body = Buffer.concat(Array.from({ length: 100 }, (_, i) => Buffer.from(MESSAGE_PACK.encode!('x'.repeat(i * 100)))))
  for (const size of [1, 3000, 16 * 1024]) {
    const { outcomes, held } = feed(decoder(MESSAGE_PACK, 10_000), cut(body, size), true)
    t.equal(outcomes.length, 100)
    t.ok(held <= 10_000 + size, `${held} bytes held`)
  }
  const bad = decoder(MESSAGE_PACK, 10_000)
  const endless = function * (): Generator<Buffer> {
    yield bytes(frame('x'))
    for (let i = 0; i < 1000; i++) yield Buffer.alloc(64 * 1024, 'x')
  }
  t.strictSame(feed(bad, endless(), true).outcomes, [[0, 'x'.charCodeAt(0)], [5, LONG]])
  t.equal(bad.heldBytes, 0)
})

t.test('an item may hold views of its bytes', async (t) => {
  const views = itemCodec({ mediaTypes: ['application/octet-stream'], decode: (bytes) => bytes.length < 4 ? 4 : { item: bytes.subarray(0, 4), size: 4 } })({})
  const decoder = views.codec.decoder!({ maxItemSize: 4, parse: null })
  const items: unknown[] = []
  for (const chunk of cut(bytes('aaaabbbbccccddddeeee'), 1, 6, 3, 10)) {
    decoder.write(chunk)
    for (let item = decoder.next(); item !== NO_ITEM; item = decoder.next()) items.push(item)
  }
  t.strictSame(items.map(String), ['aaaa', 'bbbb', 'cccc', 'dddd', 'eeee'])
})

t.test('a codec that needs to see all bytes, and one that is told of the end', async (t) => {
  const calls: [string, boolean][] = []
  const lines: CustomCodec = {
    mediaTypes: ['text/x-lines'],
    decode (bytes, isLast) {
      calls.push([String(bytes), isLast])
      const end = bytes.indexOf(10)
      if (end !== -1) return { item: String(bytes.subarray(0, end)), size: end + 1 }
      return isLast ? { item: String(bytes), size: bytes.length } : null
    }
  }
  for (const chunks of segmentations(bytes('a\nbc\n\nd'))) {
    t.strictSame(feed(decoder(lines, 4), chunks, true).outcomes, [[0, 'a'], [2, 'bc'], [5, ''], [6, 'd']])
  }
  calls.length = 0
  feed(decoder(lines), [bytes('a'), bytes('b\nc')], true)
  t.strictSame(calls, [['a', false], ['ab\nc', false], ['c', false], ['c', true]])
  t.strictSame(feed(decoder(lines, 4), [bytes('abc\nabcd\n')], true).outcomes, [[0, 'abc'], [4, LONG]], 'the limit counts what the codec takes')
  t.strictSame(feed(decoder(lines, 4), cut(bytes('abc\nabcd\n'), 1), true).outcomes, [[0, 'abc'], [4, LONG]])
  t.strictSame(feed(decoder(lines, 4), [bytes('abcd')], true).outcomes, [[0, 'abcd']], 'the last one is as long as may be')
  t.strictSame(feed(decoder(lines, 4), [bytes('abcd'), bytes('e')], true).outcomes, [[0, LONG]])
})

t.test('fewer calls if the codec says how much it needs', async (t) => {
  let calls = 0
  const counting: CustomCodec = { ...MESSAGE_PACK, decode (bytes, isLast) { calls++; return MESSAGE_PACK.decode!(bytes, isLast) } }
  const body = Buffer.from(MESSAGE_PACK.encode!('x'.repeat(1000)))
  t.equal(feed(decoder(counting, 2000), cut(body, 1), true).outcomes.length, 1)
  t.equal(calls, 3, 'for the first byte, for the length, for the item')
  const wrong: CustomCodec = { ...MESSAGE_PACK, decode: (bytes) => bytes.length < 3 ? 1 : { item: bytes.length, size: bytes.length } }
  t.strictSame(feed(decoder(wrong), cut(bytes('abc'), 1), true).outcomes, [[0, 3]], 'it needs more than it has')
})

t.test('after an error there is no way on: the same error again', async (t) => {
  const reason = new TypeError('no')
  for (const [thrown, message] of [[reason, 'Item 0, at byte 0: no'], ['text', 'Item 0, at byte 0: it cannot be decoded']] as const) {
    const failing = decoder({ mediaTypes: ['a/b'], decode () { throw thrown } })
    failing.write(bytes('abc'))
    let first: unknown
    try { failing.next() } catch (error) { first = error }
    t.match(first, { code: BAD, cause: thrown, message, index: 0, offset: 0 })
    failing.write(bytes('abc'))
    failing.end()
    for (let i = 0; i < 2; i++) {
      t.throws(() => failing.next(), first as Error)
      try { failing.next() } catch (error) { t.equal(error, first) }
    }
    t.equal(failing.index, 0)
    t.equal(failing.heldBytes, 0)
  }
})

t.test('a codec that does wrong fails at once', async (t) => {
  for (const result of [{ item: 1, size: 0 }, { item: 1, size: -1 }, { item: 1, size: 4 }, { item: 1, size: 1.5 }, { item: 1, size: NaN }, { item: 1 }, NaN, 1.5]) {
    const wrong = decoder({ mediaTypes: ['a/b'], decode: () => result as never })
    wrong.write(bytes('abc'))
    t.throws(() => wrong.next(), { code: 'ERR_ASSERTION' }, JSON.stringify(result))
  }
  const early = decoder()
  early.write(bytes(ONE))
  t.throws(() => early.write(bytes(ONE)), { code: 'ERR_ASSERTION' }, 'a chunk before the last one was read')
})
