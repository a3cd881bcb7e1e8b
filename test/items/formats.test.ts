// What is sent, and how formats are made.

import assert from 'node:assert/strict'
import { constants } from 'node:buffer'
import Ajv from 'ajv'
import t from 'tap'
import { ItemError, ItemLimitError, ItemSerializeError } from '../../lib/errors.ts'
import { JsonSeqDecoder } from '../../lib/items/json-seq.ts'
import { JsonLinesDecoder } from '../../lib/items/jsonl.ts'
import { itemCodec, jsonSeq, jsonl, problemSchema, sse } from '../../lib/items/index.ts'
import type { CustomCodec, ItemFormatter } from '../../types/items.d.ts'
import { feed, utf8 } from './support.ts'

const encode = (item: unknown): Uint8Array => Buffer.from(String(item))
const FORMATS: Record<string, ItemFormatter> = { jsonl, jsonSeq, sse: sse as ItemFormatter, custom: itemCodec({ mediaTypes: ['a/b'], encode, heartbeat: 'x' }) }

const VALUES = [null, true, -0.5, '', 'a\nb\r\u2028\x1e', { a: [1, { b: 'é😀' }] }, [[]]]

t.test('media types, and which formats can be received', async (t) => {
  t.strictSame(jsonl({}).codec.mediaTypes, ['application/jsonl', 'application/x-ndjson'])
  t.strictSame(jsonSeq({}).codec.mediaTypes, ['application/json-seq'])
  t.strictSame(sse({}).codec.mediaTypes, ['text/event-stream'])
  t.ok(jsonl({}).codec.decoder)
  t.ok(jsonSeq({}).codec.decoder)
  t.equal(sse({}).codec.decoder, undefined)
  t.equal(jsonl({}).codec.decoder!({ maxItemSize: 1, parse: null }).next(), jsonSeq({}).codec.decoder!({ maxItemSize: 1, parse: null }).next())
})

t.test('frames: JSON Lines and JSON text sequences come back, pretty or not, with heartbeats between', async (t) => {
  for (const space of [0, 2, '\t', '\r', '\r\n']) {
    const texts = VALUES.map((value) => JSON.stringify(value, null, space as number).replaceAll('\n', space === '\r' ? '\r' : '\n'))
    for (const [{ codec }, Decoder] of [[jsonl({}), JsonLinesDecoder], [jsonSeq({}), JsonSeqDecoder]] as const) {
      const frames = texts.map((text) => codec.frame!([text]))
      t.equal(codec.frame!(texts), frames.join(''), 'together or one by one')
      const body = frames.map((text) => `${codec.heartbeat}${text}${codec.heartbeat}`).join('')
      t.strictSame(feed(new Decoder({ maxItemSize: 1000, parse: null }), [utf8(body)]).outcomes.map(([, item]) => item), VALUES)
    }
  }
  const lines = jsonl({}).codec.frame!
  t.equal(lines(['{\r\n"a":1}']), '{  "a":1}\n')
  t.equal(lines(['[1,\r2]']), '[1, 2]\n')
  t.equal(lines(['1', '[1,\n2]', '3']), '1\n[1, 2]\n3\n')
  t.equal(jsonSeq({}).codec.frame!(['[1,\n2]', '3']), '\x1e[1,\n2]\n\x1e3\n')
})

t.test('frames: server-sent events', async (t) => {
  const frame = (...texts: string[]): string => sse({}).codec.frame!(texts)
  t.equal(frame('{"a":1}'), 'data: {"a":1}\n\n')
  for (const lineBreak of ['\n', '\r\n', '\r']) t.equal(frame(`{${lineBreak}"a":1${lineBreak}}`), 'data: {\ndata: "a":1\ndata: }\n\n')
  t.equal(frame('[\n\r\n\r]'), 'data: [\ndata: \ndata: \ndata: ]\n\n')
  t.equal(frame('1', '[\n]', '2'), 'data: 1\n\ndata: [\ndata: ]\n\ndata: 2\n\n')
  t.equal(sse({}).codec.heartbeat, ':\n\n', 'a comment')
  for (const space of [0, 2]) {
    for (const value of VALUES) {
      // As section 9.2.6 reads an event.
      const lines = frame(JSON.stringify(value, null, space)).split(/\r\n|\r|\n/)
      assert.deepEqual(lines.slice(-2), ['', ''])
      const data = lines.slice(0, -2).map((line) => {
        assert(line.startsWith('data: '))
        return line.slice('data: '.length)
      })
      assert.deepEqual(JSON.parse(data.join('\n')), value)
    }
  }
})

for (const [name, format] of Object.entries(FORMATS)) {
  t.test(`${name}: a format is frozen, with all options`, async (t) => {
    const schema = { type: 'object' }
    const plain = format(schema)
    t.equal(plain.schema, schema)
    t.strictSame(plain.options, { maxItemSize: 1_048_576, invalid: 'error', problem: true })
    t.notOk(Object.isFrozen(schema))
    for (const object of [plain, plain.options, plain.codec]) t.ok(Object.isFrozen(object))
    t.equal(format(schema).codec, plain.codec)
    const problem = (): object => ({})
    const options = { maxItemSize: 5, invalid: 'item', heartbeat: 100, problem } as const
    t.strictSame(format(schema, options).options, options)
    t.notOk(Object.isFrozen(options))
    t.strictSame(format(schema, { maxItemSize: undefined }).options, plain.options)
  })

  t.test(`${name}: options are checked`, async (t) => {
    const good = { maxItemSize: [1, constants.MAX_STRING_LENGTH], invalid: ['error', 'item'], heartbeat: [1, 2 ** 31 - 1], problem: [true, false, () => ({})] }
    for (const [option, values] of Object.entries(good)) {
      for (const value of values) t.equal((format({}, { [option]: value }).options as Record<string, unknown>)[option], value)
    }
    const bad = {
      maxItemSize: [0, -1, 1.5, NaN, Infinity, '5', null, constants.MAX_STRING_LENGTH + 1],
      invalid: ['', 'items', true, null],
      heartbeat: [0, -1, 1.5, NaN, Infinity, '5', null, 2 ** 31],
      problem: [0, 'true', null, {}],
      other: [1],
      constructor: [1],
      schema: [{}]
    }
    for (const [option, values] of Object.entries(bad)) {
      for (const value of values) t.throws(() => format({}, { [option]: value }), { code: 'FST_ERR_DUPLEX_OPTION', message: new RegExp(`"${option}"`) }, `${option}: ${String(value)}`)
    }
  })
}

t.test('a codec of the user\'s own: what it has and what it has not', async (t) => {
  const decode = (): null => null
  const heartbeat = Buffer.from('x')
  t.strictSame(Object.keys(itemCodec({ mediaTypes: ['a/b'], decode })({}).codec), ['mediaTypes', 'decoder'])
  t.strictSame(Object.keys(itemCodec({ mediaTypes: ['a/b'], encode })({}).codec), ['mediaTypes', 'encode'])
  t.strictSame(Object.keys(itemCodec({ mediaTypes: ['a/b'], encode, decode, heartbeat })({}).codec), ['mediaTypes', 'decoder', 'encode', 'heartbeat'])
  t.equal(itemCodec({ mediaTypes: ['a/b'], encode, heartbeat })({}, { heartbeat: 5 }).codec.heartbeat, heartbeat)
  t.throws(() => itemCodec({ mediaTypes: ['a/b'], encode })({}, { heartbeat: 5 }), { code: 'FST_ERR_DUPLEX_OPTION', message: /has none/ })
  const mediaTypes: [string, string] = ['a/b', 'application/vnd.a+b']
  const { codec } = itemCodec({ mediaTypes, encode })({})
  mediaTypes[0] = 'c/d'
  t.strictSame(codec.mediaTypes, ['a/b', 'application/vnd.a+b'])
})

t.test('a codec of the user\'s own is checked', async (t) => {
  const bad: [name: string, codec: Record<string, unknown>][] = [
    ...[undefined, 'a/b', [], [5], [''], ['a'], ['A/b'], ['a/b; c=d'], ['a/b', 'c'], ['*/ *']].map((mediaTypes): [string, Record<string, unknown>] => ['mediaTypes', { mediaTypes, encode }]),
    ['decode', { mediaTypes: ['a/b'], decode: true }],
    ['encode', { mediaTypes: ['a/b'], encode: 'x' }],
    ['decode', { mediaTypes: ['a/b'] }],
    ['heartbeat', { mediaTypes: ['a/b'], encode, heartbeat: 5 }],
    ['decoder', { mediaTypes: ['a/b'], encode, decoder: () => {} }]
  ]
  for (const [name, codec] of bad) {
    t.throws(() => itemCodec(codec as unknown as CustomCodec), { code: 'FST_ERR_DUPLEX_OPTION', message: new RegExp(`"${name}"`) }, JSON.stringify(codec))
  }
})

t.test('the schema of a problem', async (t) => {
  const validate = new Ajv().compile(problemSchema)
  t.ok(validate({ title: 'Bad Request', status: 400 }))
  t.ok(validate({ type: 'about:blank', title: 'Bad Request', status: 400, detail: 'a', instance: '/b', code: 'FST_ERR_DUPLEX_ITEM', index: 5, offset: 100 }))
  for (const wrong of [{}, { title: 'a' }, { title: 'a', status: '400' }, { title: 'a', status: 400, index: 1.5 }]) t.notOk(validate(wrong))
})

t.test('errors have an index, an offset, what the validator says, and a cause', async (t) => {
  const cause = new SyntaxError('no')
  const validation = [{ keyword: 'type', instancePath: '/a', schemaPath: '#', params: {}, message: 'must be string' }]
  const item = new ItemError(3, 40, '100 % wrong %s', { cause, validation })
  t.match(item, { code: 'FST_ERR_DUPLEX_ITEM', statusCode: 400, message: 'Item 3, at byte 40: 100 % wrong %s', index: 3, offset: 40, validation, cause })
  t.type(item, Error)
  t.type(item, ItemError)
  t.notOk('validation' in new ItemError(0, 0, 'a', { cause }))
  t.notOk('cause' in new ItemError(0, 0, 'a', { validation }))
  t.match(new ItemError(0, 0, 'a'), { message: 'Item 0, at byte 0: a', index: 0, offset: 0 })
  t.match(new ItemLimitError(3, 40, 16), { code: 'FST_ERR_DUPLEX_ITEM_LIMIT', statusCode: 413, message: 'Item 3, at byte 40, exceeds 16 bytes', index: 3, offset: 40 })
  t.match(new ItemSerializeError(3, 'no', { cause }), { code: 'FST_ERR_DUPLEX_ITEM_SERIALIZE', statusCode: 500, message: 'Item 3 cannot be sent: no', index: 3, cause })
  t.notOk('cause' in new ItemSerializeError(3, 'no'))
})
