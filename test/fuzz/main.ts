// npm run fuzz -- [--seconds 60] [--seed 123] [--only 4567]
//
// Requests made from a seed, read by us and by others that know nothing of us: Node's parser, Go's net/http and Python's
// h11. We may refuse what another accepts, for a reason that is listed in rules.ts with its rule. We may accept nothing
// that another refuses, and must find the same content, trailers and end in what both accept, but for what is listed.

import { parseArgs } from 'node:util'
import { type Message, messageFrom } from './messages.ts'
import { nodeReads } from './node.ts'
import { type Oracle, startOracles } from './oracles.ts'
import { compareLive, isSame, listenLive, theGrammarReads, weRead } from './ours.ts'
import { BEYOND_GRAMMAR, DIFFERENCES, STRICTER } from './rules.ts'
import type { Verdict } from './verdict.ts'

/** Messages that are sent to the oracles together, and are on their way through the live server at once. */
const BATCH = 200

interface Tally {
  messages: number
  accepted: number
  refused: number
  incomplete: number
  /** Unknown disagreements, by oracle and what the two say. The first of each kind is printed. */
  unknown: Map<string, number>
  /** Known disagreements, by oracle and rule. */
  known: Map<string, number>
}

/** @returns the rule of a disagreement, null where there is none, undefined where nobody knows it */
function judge (oracle: string, theirs: Verdict, ours: Verdict, bytes: string): string | null | undefined {
  if (ours.outcome !== 'accepted') {
    if (theirs.outcome !== 'accepted') return null
    const rule = (oracle === 'grammar' ? BEYOND_GRAMMAR : STRICTER).find(([reason]) => ours.reason.startsWith(reason))?.[1]
    return rule && `we refuse, ${rule}`
  }
  if (theirs.outcome === 'accepted' && theirs.content === ours.content && theirs.end === ours.end && isSame(theirs.trailers, ours.trailers)) return null
  if (theirs.outcome === 'accepted') return undefined
  const rule = DIFFERENCES.find((difference) => difference.oracle === oracle && difference.is(theirs, bytes))?.rule
  return rule && `it refuses, ${rule}`
}

async function run (): Promise<number> {
  const { values } = parseArgs({ options: { seconds: { type: 'string', default: '60' }, seed: { type: 'string' }, only: { type: 'string' } } })
  const seed = Number(values.seed ?? Math.floor(Math.random() * 2 ** 32))
  const oracles = startOracles()
  const live = await listenLive()
  const tally: Tally = { messages: 0, accepted: 0, refused: 0, incomplete: 0, unknown: new Map(), known: new Map() }
  console.log(`seed ${seed}, Node ${process.version}${oracles.map(({ name, version }) => `, ${name} ${version}`).join('')}`)
  const start = Date.now()
  const end = start + Number(values.seconds) * 1000
  let report = start + 60_000
  if (values.only !== undefined) {
    await runBatch([Number(values.only)], true)
  } else {
    for (let number = 0; Date.now() < end; number += BATCH) {
      await runBatch(Array.from({ length: BATCH }, (_, i) => number + i))
      if (Date.now() < report) continue
      report += 60_000
      console.log(`${Math.round((Date.now() - start) / 1000)} s: ${tally.messages} messages, ${tally.accepted} accepted, ${sum(tally.unknown)} unknown disagreements`)
    }
  }
  for (const oracle of oracles) oracle.close()
  await live.app.close()
  print(tally, seed, (Date.now() - start) / 1000)
  return tally.unknown.size === 0 ? 0 : 1

  async function runBatch (numbers: number[], shown = false): Promise<void> {
    const messages = numbers.map((number) => messageFrom(seed, number))
    const buffers = messages.map(({ bytes }) => Buffer.from(bytes, 'latin1'))
    const asked = Promise.all(oracles.map((oracle: Oracle) => oracle.ask(buffers)))
    const lives: Promise<void>[] = []
    const ours = messages.map((message, i) => {
      const { head, verdict } = nodeReads(buffers[i])
      const own = weRead(buffers[i], head, verdict)
      tally.messages++
      tally[own.outcome]++
      if (shown) console.log({ ...message, own, node: verdict })
      compare('node', verdict, own, message, numbers[i])
      const grammar = theGrammarReads(message.bytes, head)
      if (grammar !== null) compare('grammar', grammar, own, message, numbers[i])
      lives.push(compareLive(live, message, head, own).then((wrong) => {
        if (wrong !== null) unknown('live', { ...own, reason: wrong }, own, message, numbers[i])
      }))
      return own
    })
    const answers = await asked
    answers.forEach((verdicts, o) => verdicts.forEach((verdict, i) => {
      if (shown) console.log(oracles[o].name, verdict)
      compare(oracles[o].name, verdict, ours[i], messages[i], numbers[i])
    }))
    await Promise.all(lives)
  }

  function compare (oracle: string, theirs: Verdict, own: Verdict, message: Message, number: number): void {
    const rule = judge(oracle, theirs, own, message.bytes)
    if (rule === undefined) {
      unknown(oracle, theirs, own, message, number)
    } else if (rule !== null) {
      count(tally.known, `${oracle}: ${rule}`)
    }
  }

  function unknown (oracle: string, theirs: Verdict, own: Verdict, { bytes, cuts }: Message, number: number): void {
    const kind = `${oracle}: we ${saying(own)}, it ${saying(theirs)}`
    if (count(tally.unknown, kind) > 1) return
    console.log(`UNKNOWN DISAGREEMENT with ${kind} (--seed ${seed} --only ${number})`)
    console.log({ message: JSON.stringify(bytes), cuts: JSON.stringify(cuts), own, theirs })
  }
}

function count (counts: Map<string, number>, key: string): number {
  const value = (counts.get(key) ?? 0) + 1
  counts.set(key, value)
  return value
}

function sum (counts: Map<string, number>): number {
  return [...counts.values()].reduce((total, value) => total + value, 0)
}

/** What makes a kind: not what is quoted or counted in the reason. */
function saying ({ outcome, reason }: Verdict): string {
  return `${outcome} ${reason.replace(/["'].*|b'.*|\d+/g, '…')}`.trim()
}

function print ({ messages, accepted, refused, incomplete, unknown, known }: Tally, seed: number, seconds: number): void {
  console.log(`${messages} messages in ${Math.round(seconds)} s (${Math.round(messages / seconds)} a second), seed ${seed}`)
  console.log(`${accepted} accepted, ${refused} refused, ${incomplete} incomplete`)
  for (const [key, count] of [...known].sort()) console.log(`${String(count).padStart(9)}  ${key}`)
  for (const [key, count] of [...unknown].sort()) console.log(`${String(count).padStart(9)}  UNKNOWN ${key}`)
  console.log(`${sum(unknown)} unknown disagreements`)
}

run().then((code) => { process.exitCode = code })
