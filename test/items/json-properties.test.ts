// What holds for any items, however they are cut. With a fixed seed, so that a failure, which prints its smallest example, is there
// again in the next run.

import assert from 'node:assert/strict'
import fc from 'fast-check'
import secureJson from 'secure-json-parse'
import t from 'tap'
import { JsonSeqDecoder } from '../../lib/items/json-seq.ts'
import { JsonLinesDecoder } from '../../lib/items/jsonl.ts'
import { jsonSeq, jsonl } from '../../lib/items/index.ts'
import { BAD, LONG, cut, feed, utf8 } from './support.ts'

const FORMATS = [
  { name: 'JSON Lines', Decoder: JsonLinesDecoder, frame: jsonl({}).codec.frame!, heartbeat: '\n' },
  { name: 'JSON text sequences', Decoder: JsonSeqDecoder, frame: jsonSeq({}).codec.frame!, heartbeat: '\x1e' }
]

function holds<T extends [unknown, ...unknown[]]> (arbitraries: { [K in keyof T]: fc.Arbitrary<T[K]> }, check: (...values: T) => void, numRuns = 1000): void {
  fc.assert(fc.property<T>(...arbitraries, check), { seed: 7464, numRuns })
}

/** As it comes back: JSON knows no -0, and `__proto__` stays a key of its own. */
const values = fc.array(fc.jsonValue({ stringUnit: 'grapheme' }).map((value) => JSON.parse(JSON.stringify(value)) as unknown), { maxLength: 12 })
const spaces = fc.constantFrom<(string | number)[]>(0, 0, 0, 1, '\t', '\n', '\r\n')
const sizes = fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1, maxLength: 8 })
const parsers = fc.constantFrom(null, JSON.parse, (text: string) => secureJson.parse(text, null, { protoAction: 'ignore', constructorAction: 'ignore' }) as unknown)

/** What tends to be understood in two ways. */
const ODD = ['\n', '\r', '\r\n', '\x1e', '\x1e\n', ' ', '\t', '\0', '\ufeff', '\u2028', '\u00a0', 'é', '€', '😀', '"', '\\', '\\u', '\\ud800', '{', '}', '[', ']', ':', ',', '0', '-', '1e5', '.5',
  'true', 'null', 'NaN', '"a"', '{}', '[1]', '"__proto__"', '{"__proto__":1}', '//']
const oddBytes = fc.array(fc.oneof(
  { weight: 5, arbitrary: fc.constantFrom(...ODD).map(utf8) },
  { weight: 1, arbitrary: fc.uint8Array({ minLength: 1, maxLength: 3 }).map((array) => Buffer.from(array)) }
), { maxLength: 25 }).map((parts) => Buffer.concat(parts))

for (const { name, Decoder, frame, heartbeat } of FORMATS) {
  t.test(`${name}: any values, framed in any way, in any chunks: the same values, and the offsets of their frames`, async () => {
    holds([values, spaces, fc.boolean(), sizes, parsers], (values, space, beats, sizes, parse) => {
      const frames = values.map((value) => frame([JSON.stringify(value, null, space)]))
      const beat = beats ? heartbeat : ''
      const body = utf8(frames.map((text) => beat + text).join(beat))
      let offset = 0
      const expected = frames.map((text, i) => {
        offset += Buffer.byteLength(beat) * (i === 0 ? 1 : 2)
        const at = offset
        offset += Buffer.byteLength(text)
        return [at, values[i]]
      })
      assert.deepEqual(feed(new Decoder({ maxItemSize: 1e6, parse }), cut(body, ...sizes)).outcomes, expected)
    })
  })

  t.test(`${name}: any limit: exactly the items that exceed it are errors`, async () => {
    holds([values, fc.integer({ min: 1, max: 30 }), sizes], (values, maxItemSize, sizes) => {
      const texts = values.map((value) => JSON.stringify(value))
      const expected = values.map((value, i) => Buffer.byteLength(texts[i]) > maxItemSize ? LONG : value)
      const { outcomes, held } = feed(new Decoder({ maxItemSize, parse: null }), cut(utf8(texts.length === 0 ? '' : frame(texts)), ...sizes))
      assert.deepEqual(outcomes.map(([, item]) => item), expected)
      assert(held <= maxItemSize + 2)
    })
  })

  t.test(`${name}: any bytes: no crash, errors say where, and cuts change nothing`, async () => {
    holds([oddBytes, fc.integer({ min: 1, max: 20 }), sizes, parsers], (body, maxItemSize, sizes, parse) => {
      const [whole, inChunks, byByte] = [[Buffer.from(body)], cut(body, ...sizes), cut(body, 1)].map((chunks) => feed(new Decoder({ maxItemSize, parse }), chunks).outcomes)
      assert.deepEqual(inChunks, whole)
      assert.deepEqual(byByte, whole)
    }, 20_000)
  })
}

t.test('JSON Lines: any bytes: what a reader makes of it that is slow and plain', async () => {
  holds([oddBytes, fc.integer({ min: 1, max: 20 }), sizes], (body, maxItemSize, sizes) => {
    assert.deepEqual(feed(new JsonLinesDecoder({ maxItemSize, parse: null }), cut(body, ...sizes)).outcomes, plainLines(body, maxItemSize))
  }, 5000)
})

function plainLines (body: Buffer, maxItemSize: number): unknown[] {
  const outcomes: unknown[] = []
  let at = body.subarray(0, 3).equals(utf8('\ufeff')) ? 3 : 0
  while (at < body.length) {
    const end = body.indexOf('\n', at)
    const line = body.subarray(at, end === -1 ? body.length : end)
    const size = line.length - (end !== -1 && line.at(-1) === 0x0d ? 1 : 0)
    if (size > maxItemSize) outcomes.push([at, LONG])
    else if (!/^[ \t\r]*$/.test(line.toString('latin1'))) outcomes.push([at, parse(line)])
    at += line.length + 1
  }
  return outcomes
}

function parse (line: Buffer): unknown {
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(line))
  } catch {
    return BAD
  }
}
