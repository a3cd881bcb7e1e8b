// npm run fuzz:items -- [--seconds 60] [--seed 123] [--only 4567]
//
// Differential fuzzing of JSON Lines. Bodies are generated from a seed, cut anywhere, and read by our decoder and by Python's json.
// Both must find the same items at the same offsets, with the same values, and the same items must be bad. Python goes on behind a
// bad line, as we do. The one exception: Python gives up on items that are nested too deeply for its stack.
//
// Two differences are Python's, and its side is told to do without them: it reads NaN and Infinity (parse_constant), and whole
// numbers of any size (parse_int), for which JavaScript has doubles. Lone surrogates are no difference: as \u escapes both take
// them, as bytes neither does.

import { isDeepStrictEqual, parseArgs } from 'node:util'
import { NO_ITEM } from '../../lib/items/codec.ts'
import { JsonLinesDecoder } from '../../lib/items/jsonl.ts'
import { Random } from '../support/random.ts'
import { startPython } from './oracles.ts'

/** How many bodies are sent to Python together. */
const BATCH = 1000
const MAX_PRINTED = 5

interface Item { offset: number, value?: unknown, error?: string }

const ODD = ['\n', '\r', '\r\n', '\n\n', ' ', '\t', '\0', '\v', '\f', '\x1e', '\x7f', '\u0085', '\u00a0', '\u2028', '\ufeff', '\ufffe', 'é', '€', '😀', '"', '\\', '\\u', '\\ud83d', '\\ude00', '\\ud83d\\ude00',
  '\\u00e9', '\\u0000', '\\/', '\\x', '{', '}', '[', ']', ':', ',', '0', '-', '+', '.', 'e', 'E5', '-0', '01', '1.', '.5', '1e400', '-1e999', '1E-400', '0x1', '1_0', '12345678901234567890', '0.1', '5e-324', '1.7976931348623159e308',
  'true', 'false', 'null', 'True', 'NaN', 'Infinity', '-Infinity', 'nan', '""', '{}', '[]', '"__proto__":', '"a":1,"a":2', '"1":', '//', "'a'"].map((text) => Buffer.from(text))
const ODD_BYTES = ['\x80', '\xbf', '\xc0\x80', '\xc3', '\xe2\x82', '\xed\xa0\x80', '\xed\xbf\xbf', '\xef\xbb', '\xef\xbb\xbf', '\xf0\x9f\x98', '\xf4\x8f\xbf\xbf', '\xf4\x90\x80\x80', '\xf8', '\xfe', '\xff'].map((text) => Buffer.from(text, 'latin1'))
const STRINGS = ['', 'a', 'é', '€', '😀', '\ud800', '\udfff', '"', '\\', '/', '\n', '\r', '\0', '\x7f', '\u2028', '\ufeff', 'x'.repeat(100), '__proto__', 'constructor', '1']
const NUMBERS = [0, -0, 1, -1, 0.1, 1e21, 1e-7, 5e-324, 1.7976931348623157e308, 2 ** 53, 2 ** 64, 123456789.12345679]
const LINE_ENDS = ['\n', '\n', '\n', '\r\n', '\r\n', '\n\n', ' \n', '\t\r\n', '\r\r\n', '\n \n', '\r', ''].map((text) => Buffer.from(text))

function valueFrom (random: Random, depth = 0): unknown {
  switch (random.below(depth > 3 ? 5 : 8)) {
    case 0: return random.pick([null, true, false])
    case 1: return random.pick(NUMBERS)
    case 2: return random.next() * 10 ** (random.below(40) - 20)
    case 3: return random.pick(STRINGS)
    case 4: return random.below(2 ** 31)
    case 5: return Array.from({ length: random.below(4) }, () => valueFrom(random, depth + 1))
    default: return Object.fromEntries(Array.from({ length: random.below(4) }, () => [random.pick(STRINGS), valueFrom(random, depth + 1)]))
  }
}

function lineFrom (random: Random): Buffer {
  if (random.chance(0.1)) return Buffer.concat(Array.from({ length: random.below(5) }, () => random.pick(ODD)))
  if (random.chance(0.001)) {
    const depth = random.below(3000)
    return Buffer.from('['.repeat(depth) + ']'.repeat(depth))
  }
  let text = JSON.stringify(valueFrom(random))
  if (random.chance(0.2)) text = text.replace(/[^\x20-\x7e]/g, (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`)
  if (random.chance(0.1)) text = text.replace(/[[{,:]/g, `$&${random.pick([' ', '\t', '\r'])}`)
  return Buffer.from(text)
}

function bodyFrom (random: Random): Buffer {
  const parts: Buffer[] = random.chance(0.05) ? [Buffer.from('\ufeff')] : []
  for (let lines = random.below(8); lines > 0; lines--) parts.push(lineFrom(random), random.pick(LINE_ENDS))
  let body: Buffer = Buffer.concat(parts)
  for (let mutations = random.chance(0.5) ? 0 : 1 + random.below(3); mutations > 0; mutations--) {
    const at = random.below(body.length + 1)
    const inserted = random.chance(0.25) ? random.pick(ODD_BYTES) : random.chance(0.2) ? Buffer.of(random.below(256)) : random.pick(ODD)
    body = Buffer.concat([body.subarray(0, at), inserted, body.subarray(at + random.below(3))])
  }
  return body
}

/** Reads a body that is cut anywhere. */
function readByUs (body: Buffer, random: Random): Item[] {
  const items: Item[] = []
  const decoder = new JsonLinesDecoder({ maxItemSize: 1024 * 1024, parse: null })
  const readAll = (): void => {
    while (true) {
      let item: Item
      try {
        const value = decoder.next()
        if (value === NO_ITEM) return
        item = { offset: decoder.offset, value }
      } catch (error) {
        item = { offset: decoder.offset, error: (error as Error).message }
      }
      items.push(item)
    }
  }
  const largest = random.pick([1, 5, 50, body.length + 1])
  for (let at = 0; at < body.length;) {
    const end = at + 1 + random.below(largest)
    decoder.write(Buffer.from(body.subarray(at, end)))
    readAll()
    at = end
  }
  decoder.end()
  readAll()
  return items
}

/** Infinity as a string: the answers of Python are JSON. */
function withoutInfinity (value: unknown): unknown {
  if (value === Infinity || value === -Infinity) return String(value)
  if (Array.isArray(value)) return value.map(withoutInfinity)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(Object.entries(value).map(([key, member]) => [key, withoutInfinity(member)]))
}

/** @returns what differs; null: nothing does */
function compare (ours: Item[], theirs: Item[]): string | null {
  if (ours.length !== theirs.length) return `${ours.length} items, Python has ${theirs.length}`
  for (let i = 0; i < ours.length; i++) {
    if (ours[i].offset !== theirs[i].offset) return `item ${i} is at byte ${ours[i].offset}, for Python at ${theirs[i].offset}`
    if (theirs[i].error === 'recursion') continue
    if ((ours[i].error === undefined) !== (theirs[i].error === undefined)) return `item ${i}: ${ours[i].error ?? 'good'}; Python: ${theirs[i].error ?? 'good'}`
    if (ours[i].error === undefined && !isDeepStrictEqual(withoutInfinity(ours[i].value), theirs[i].value)) return `item ${i} has another value`
  }
  return null
}

async function run (): Promise<number> {
  const { values } = parseArgs({ options: { seconds: { type: 'string', default: '60' }, seed: { type: 'string' }, only: { type: 'string' } } })
  const seed = Number(values.seed ?? Math.floor(Math.random() * 2 ** 32))
  const python = startPython<Item[]>('oracle_jsonl.py')
  if (python === null) return 0
  console.log(`seed ${seed}, Node ${process.version}, Python ${python.version}`)
  const tally = { bodies: 0, items: 0, bad: 0, tooDeep: 0, differences: 0 }
  const start = Date.now()
  const end = start + Number(values.seconds) * 1000
  if (values.only !== undefined) {
    await runBatch([Number(values.only)], true)
  } else {
    for (let number = 0; Date.now() < end; number += BATCH) await runBatch(Array.from({ length: BATCH }, (_, i) => number + i))
  }
  python.close()
  const seconds = (Date.now() - start) / 1000
  console.log(`${tally.bodies} bodies in ${Math.round(seconds)} s (${Math.round(tally.bodies / seconds)} a second), seed ${seed}`)
  console.log(`${tally.items} items, ${tally.bad} of them bad; ${tally.tooDeep} too deep for Python; ${tally.differences} differences`)
  return tally.differences === 0 ? 0 : 1

  async function runBatch (numbers: number[], isVerbose = false): Promise<void> {
    const randoms = numbers.map((number) => new Random(seed, number))
    const bodies = randoms.map(bodyFrom)
    const asking = python!.ask(bodies)
    const ours = bodies.map((body, i) => readByUs(body, randoms[i]))
    const theirs = await asking
    bodies.forEach((body, i) => {
      tally.bodies++
      tally.items += ours[i].length
      tally.bad += ours[i].filter(({ error }) => error !== undefined).length
      tally.tooDeep += theirs[i].filter(({ error }) => error === 'recursion').length
      const difference = compare(ours[i], theirs[i])
      const isPrinted = isVerbose || (difference !== null && tally.differences < MAX_PRINTED)
      if (difference !== null) tally.differences++
      if (!isPrinted) return
      console.log(`${difference === null ? 'no difference' : `DIFFERENCE: ${difference}`} (--seed ${seed} --only ${numbers[i]})`)
      console.dir({ body: body.toString('latin1'), ours: ours[i], theirs: theirs[i] }, { depth: 10 })
    })
  }
}

run().then((code) => { process.exitCode = code })
