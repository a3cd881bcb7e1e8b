// The decoders of JSON, byte for byte.

import assert from 'node:assert/strict'
import secureJson from 'secure-json-parse'
import t from 'tap'
import { NO_ITEM } from '../../lib/items/codec.ts'
import { JsonSeqDecoder } from '../../lib/items/json-seq.ts'
import { JsonLinesDecoder } from '../../lib/items/jsonl.ts'
import type { DecoderOptions } from '../../types/items.d.ts'
import { type Case, LIMIT, LINES, SEQUENCES } from './json-tables.ts'
import { BAD, LONG, bytes, cut, feed, segmentations, utf8 } from './support.ts'

const DECODERS = { 'JSON Lines': JsonLinesDecoder, 'JSON text sequences': JsonSeqDecoder }
type Name = keyof typeof DECODERS
const TABLES: Record<Name, Case[]> = { 'JSON Lines': LINES, 'JSON text sequences': SEQUENCES }
const NAMES = Object.keys(DECODERS) as Name[]

const options = (options: Partial<DecoderOptions> = {}): DecoderOptions => ({ maxItemSize: LIMIT, parse: null, ...options })
/** Some items, framed. */
const FRAMES: Record<Name, (...texts: string[]) => Buffer> = {
  'JSON Lines': (...texts) => utf8(texts.map((text) => `${text}\n`).join('')),
  'JSON text sequences': (...texts) => utf8(texts.map((text) => `\x1e${text}\n`).join(''))
}

for (const name of NAMES) {
  const Decoder = DECODERS[name]
  const frames = FRAMES[name]

  t.test(`${name}: a table of bodies, whole, byte by byte, and cut at every byte`, async (t) => {
    t.ok(TABLES[name].length >= 60)
    t.equal(new Set(TABLES[name].map(([title]) => title)).size, TABLES[name].length)
    for (const [title, body, outcomes] of TABLES[name]) {
      let count = 0
      for (const chunks of segmentations(body)) {
        const sizes = chunks.map(({ length }) => length)
        for (const parse of [null, secureJson.parse as (text: string) => unknown]) {
          assert.deepEqual(feed(new Decoder(options({ parse })), chunks.map((chunk) => Buffer.from(chunk))).outcomes, outcomes, `${title}, in chunks of ${sizes.join(', ')}`)
        }
        count++
      }
      t.equal(count, body.length + (body.length > 0 ? 1 : 2), title)
    }
  })

  t.test(`${name}: empty chunks, no chunk, and all in one with the end`, async (t) => {
    t.strictSame(feed(new Decoder(options()), [Buffer.alloc(0), ...cut(frames('1', '2'), 2).flatMap((chunk) => [Buffer.alloc(0), chunk]), Buffer.alloc(0)]).outcomes.map(([, item]) => item), [1, 2])
    t.strictSame(feed(new Decoder(options()), []).outcomes, [])
    const decoder = new Decoder(options())
    decoder.write(frames('1', '2'))
    decoder.end()
    t.strictSame([decoder.next(), decoder.next(), decoder.next(), decoder.next()], [1, 2, NO_ITEM, NO_ITEM])
  })

  t.test(`${name}: what must not happen fails at once`, async (t) => {
    const decoder = new Decoder(options())
    decoder.write(frames('1'))
    t.throws(() => decoder.write(frames('2')), { code: 'ERR_ASSERTION' }, 'a chunk before the last one was read')
    decoder.end()
    while (decoder.next() !== NO_ITEM);
    t.throws(() => decoder.write(frames('2')), { code: 'ERR_ASSERTION' }, 'a chunk behind the end')
    t.throws(() => decoder.end(), { code: 'ERR_ASSERTION' }, 'a second end')
  })

  t.test(`${name}: the error of the parser is the cause`, async (t) => {
    const { errors } = feed(new Decoder(options()), [frames('{"a":x}', 'true x')])
    t.equal(errors.length, 2)
    for (const error of errors) {
      t.type(error.cause, SyntaxError)
      t.equal(error.message, `Item ${error.index}, at byte ${error.offset}: ${(error.cause as Error).message}`)
    }
    t.equal(feed(new Decoder(options()), [frames('1', 'x'.repeat(50))]).errors[0].message, `Item 1, at byte ${frames('1').length}, exceeds 16 bytes`)
  })

  t.test(`${name}: limits are exact for every size, cut anywhere`, async (t) => {
    for (const maxItemSize of [1, 2, 3, 5, 255, 256, 257, 1000]) {
      for (const size of [maxItemSize - 1, maxItemSize, maxItemSize + 1, maxItemSize + 2, maxItemSize + 3]) {
        const text = size < 2 ? ' '.repeat(size) : `[${' '.repeat(size - 2)}]`
        const item = size < 2 ? [] : [size > maxItemSize ? LONG : []]
        for (const [end, more] of [['\n', ''], ['\r\n', ''], ['\n', '[]'], ['\r\n', '[]']]) {
          const head = name === 'JSON Lines' ? '' : '\x1e'
          const body = utf8(head + text + end + (more && head + more))
          const expected = [...item, ...(more === '' ? [] : maxItemSize < 2 ? [LONG] : [[]])]
          for (let at = 0; at <= body.length; at++) {
            const { outcomes } = feed(new Decoder(options({ maxItemSize })), [Buffer.from(body.subarray(0, at)), Buffer.from(body.subarray(at))])
            assert.deepEqual(outcomes.map(([, result]) => result), expected, `${maxItemSize}, ${size}, ${JSON.stringify(end)}, cut at ${at}`)
          }
        }
      }
    }
    t.pass('all')
  })

  t.test(`${name}: too long is known as soon as it can be`, async (t) => {
    const decoder = new Decoder(options())
    const feedByte = (byte: string): unknown => {
      decoder.write(bytes(byte))
      return decoder.next()
    }
    for (const byte of name === 'JSON Lines' ? 'x'.repeat(LIMIT) : `\x1e${'x'.repeat(LIMIT)}`) t.equal(feedByte(byte), NO_ITEM)
    t.equal(feedByte('\r'), NO_ITEM, 'it may belong to the line end')
    t.throws(() => feedByte('x'), { code: LONG, index: 0, offset: 0 })
  })

  t.test(`${name}: of a line that is too long, nothing is kept`, async (t) => {
    const maxItemSize = 1024
    const chunkSize = 64 * 1024
    const decoder = new Decoder(options({ maxItemSize }))
    const chunk = Buffer.alloc(chunkSize)
    const chunks = function * (): Generator<Buffer> {
      yield frames('"first"')
      if (name !== 'JSON Lines') yield bytes('\x1e')
      for (let size = 0; size < 64 * 1024 * 1024; size += chunkSize) yield chunk.fill('x')
      yield bytes('\n')
      yield frames('"last"')
    }
    const before = process.memoryUsage().arrayBuffers
    const { outcomes, held } = feed(decoder, chunks())
    t.strictSame(outcomes.map(([, result]) => result), ['first', LONG, 'last'])
    t.ok(held <= 1024, `${held} bytes held`)
    t.ok(process.memoryUsage().arrayBuffers - before < 1024 * 1024, 'no copies are made either')
  })

  t.test(`${name}: an item in parts of any size never takes more memory than the limit`, async (t) => {
    const maxItemSize = 100_000
    const text = `"${'x'.repeat(maxItemSize - 2)}"`
    for (const sizes of [[1], [7, 4000], [65536], [1, 65536]]) {
      const { outcomes, held } = feed(new Decoder(options({ maxItemSize })), cut(frames(text, '1'), ...sizes))
      t.strictSame(outcomes.map(([, result]) => result), [text.slice(1, -1), 1])
      t.ok(held <= maxItemSize + 2, `${held} bytes held, chunks of ${sizes.join(', ')}`)
      t.equal(feed(new Decoder(options({ maxItemSize: maxItemSize - 1 })), cut(frames(text, '1'), ...sizes)).outcomes[0][1], LONG)
    }
    const decoder = new Decoder(options({ maxItemSize }))
    feed(decoder, cut(frames(text), 1000))
    t.ok(decoder.heldBytes <= 1024, 'the memory of a long item is released')
  })

  t.test(`${name}: a chunk that is larger than what is decoded at once`, async (t) => {
    const rows = Array.from({ length: 5000 }, (_, i) => ({ i, text: i % 3 === 0 ? 'é€😀' : 'x'.repeat(i % 50) }))
    rows[2000].text = 'y'.repeat(200_000)
    const body = frames(...rows.map((row) => JSON.stringify(row)))
    const { outcomes } = feed(new Decoder(options({ maxItemSize: 1e6 })), [Buffer.from(body)])
    t.strictSame(outcomes.map(([, item]) => item), rows)
    for (const [offset, row] of outcomes.filter((_, i) => i % 500 === 0)) {
      const text = JSON.stringify(row)
      t.match(body.toString('utf8', offset, offset + 1 + Buffer.byteLength(text)), text)
    }
    const short = feed(new Decoder(options({ maxItemSize: 100 })), [Buffer.from(body)]).outcomes
    t.strictSame(short.map(([, item]) => item), rows.map((row, i) => i === 2000 ? LONG : row))
    t.strictSame(short.map(([offset]) => offset), outcomes.map(([offset]) => offset))
  })

  t.test(`${name}: offsets are right in whatever order items and errors come`, async (t) => {
    const texts = Array.from({ length: 300 }, (_, i) => ['"é"', 'x', '1', '"\u2028"', '€', '  2  '][i % 6])
    const body = frames(...texts)
    let offset = 0
    const offsets = texts.map((text) => {
      const at = offset
      offset += frames(text).length
      return at
    })
    for (const size of [1, 10, 100, body.length]) {
      t.strictSame(feed(new Decoder(options()), cut(body, size)).outcomes.map(([offset]) => offset), offsets)
      const decoder = new Decoder(options())
      for (const chunk of cut(body, size)) {
        decoder.write(chunk)
        for (let item: unknown; item !== NO_ITEM;) {
          try { item = decoder.next() } catch {}
          if (decoder.index % 7 === 0) assert.equal(decoder.offset, offsets[decoder.index]) // only asked for now and then
        }
      }
      decoder.end()
      while (decoder.next() !== NO_ITEM);
      t.equal(decoder.index, texts.length - 1)
      t.equal(decoder.offset, offsets.at(-1))
    }
  })

  t.test(`${name}: deep nesting is a value or an error of the item`, async (t) => {
    for (const [open, close] of [['[', ']'], ['{"a":', '}']]) {
      const deep = open.repeat(100_000) + (open === '[' ? '' : '1') + close.repeat(100_000)
      for (const parse of [null, secureJson.parse as (text: string) => unknown]) {
        const { outcomes } = feed(new Decoder(options({ maxItemSize: 1e7, parse })), cut(frames('1', deep, open.repeat(100_000), '2'), 65536))
        t.equal(outcomes.length, 4)
        t.equal(outcomes[0][1], 1)
        t.ok(outcomes[1][1] === BAD || typeof outcomes[1][1] === 'object')
        t.equal(outcomes[2][1], BAD)
        t.equal(outcomes[3][1], 2)
      }
    }
    const parse = (): never => { throw new RangeError('Maximum call stack size exceeded') }
    const { errors } = feed(new Decoder(options({ maxItemSize: 100, parse })), [frames('{"__proto__":1}')])
    t.type(errors[0].cause, RangeError)
  })

  t.test(`${name}: keys that could change a prototype`, async (t) => {
    const POISON = [
      '{"__proto__":{"a":1}}', '{"__proto__" :1}', '[{"__proto__":1}]', '{"\\u005f_proto__":1}', '{"\\u005F\\u005fprot\\u006f__":1}', '{"__\\u0070roto__":1}',
      '{"constructor":{"prototype":1}}', '{"c\\u006fnstructor":{"prototype":1}}', '{"constructor":{"pr\\u006ftotype":1}}',
      '{"constr\\u0075ctor":{"\\u0070\\u0072\\u006f\\u0074\\u006f\\u0074\\u0079\\u0070\\u0065":1}}'
    ]
    const HARMLESS = ['{"a":"__proto__"}', '"__proto__"', '{"constructor":1}', '{"a":"constructor"}', '{"proto":1}', '{"a":"\\u0061"}', '{"x\\u00e9":"\\u2028"}']
    const texts = [...POISON, ...HARMLESS]
    const values = texts.map((text) => JSON.parse(text) as unknown)
    const body = frames(...texts)
    for (const size of [1, 20, body.length]) {
      const read = (parse: DecoderOptions['parse']): unknown[] => feed(new Decoder(options({ maxItemSize: 200, parse })), cut(body, size)).outcomes.map(([, item]) => item)
      assert.deepEqual(read(null), values) // own keys, as JSON.parse() makes them. tap cannot compare those
      t.strictSame(read(secureJson.parse), [...POISON.map(() => BAD), ...HARMLESS.map((text) => JSON.parse(text) as unknown)])
      const action = { protoAction: 'remove', constructorAction: 'remove' } as const
      t.strictSame(read((text) => secureJson.parse(text, null, action)), texts.map((text) => secureJson.parse(text, null, action) as unknown))
    }
    t.equal(({} as { a?: number }).a, undefined)
    const asked: string[] = []
    const parse = (text: string): unknown => asked.push(text)
    const harmless = frames('{"a":1}', '{"a":"\\u2028"}', '"p"', '{"a":"\\u0041"}')
    feed(new Decoder(options({ parse })), [harmless])
    t.strictSame(asked, [], 'not for other text')
    feed(new Decoder(options({ parse })), [frames('["proto"]')])
    t.match(asked[0], '["proto"]')
  })

  t.test(`${name}: a BOM in front of a suspect text is no whitespace`, async (t) => {
    const body = frames('1', '\ufeff["proto"]', '\ufeff1')
    for (const size of [1, body.length]) {
      t.strictSame(feed(new Decoder(options({ parse: secureJson.parse })), cut(body, size)).outcomes.map(([, item]) => item), [1, BAD, BAD])
    }
  })
}

t.test('JSON text sequences: an item is there with its LF, and need not wait for the next RS', async (t) => {
  const decoder = new JsonSeqDecoder(options({ maxItemSize: 100 }))
  const STEPS: [chunk: string, outcomes: unknown[]][] = [
    ['\x1e{"a":1}\n', [{ a: 1 }]],
    ['\x1e', []],
    ['\n', []],
    ['2', []],
    ['\n', [2]],
    [' \r\n', []],
    ['\x1e{\n', []],
    ['"b":1}\n', [{ b: 1 }]],
    ['\x1e3\n', [3]],
    ['4\n\x1e5', [BAD]],
    ['\n', [5]],
    ['x', [BAD]],
    ['yz\x1e6\n', [6]],
    ['\x1e"\xff"\n', [BAD]],
    ['\x1e"[\\"]\n', []],
    ['\\\\" \t', []],
    ['\n', [BAD]],
    ['\x1e[{"]": [1]}, "\\""\n', []],
    ['] ', []],
    ['\r\n', [[{ ']': [1] }, '"']]],
    ['\x1e7 8\n', []],
    ['\x1e', [BAD]]
  ]
  for (const [chunk, expected] of STEPS) {
    decoder.write(bytes(chunk))
    const outcomes: unknown[] = []
    for (let item: unknown; item !== NO_ITEM;) {
      try {
        item = decoder.next()
        if (item !== NO_ITEM) outcomes.push(item)
      } catch (error) {
        outcomes.push((error as { code: string }).code)
      }
    }
    t.strictSame(outcomes, expected, JSON.stringify(chunk))
  }
})
