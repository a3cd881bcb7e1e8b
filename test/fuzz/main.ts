// npm run fuzz -- [--seconds 60] [--seed 123] [--only 4567]
//
// Differential fuzzing. Requests are generated from a seed and read by the plugin and by independent implementations, the
// oracles: Node's parser, Go's net/http, Python's h11 and the printed grammar. The plugin may refuse what an oracle accepts
// if rules.ts lists the reason. It must not accept what an oracle refuses, and it must find the same content, trailers and
// end of the message as an oracle that accepts it. Exceptions to this are in rules.ts, too.

import { parseArgs } from 'node:util'
import { type Message, messageFrom } from './messages.ts'
import { readByNode } from './node.ts'
import { type Oracle, startOracles } from './oracles.ts'
import { compareLive, hasSameFields, listenLive, readByGrammar, readByPlugin } from './ours.ts'
import { BEYOND_GRAMMAR, DIFFERENCES, STRICTER } from './rules.ts'
import type { Verdict } from './verdict.ts'

/** How many messages are sent to the oracles together, and through the live server at the same time. */
const BATCH = 200

interface Tally {
  messages: number
  accepted: number
  refused: number
  incomplete: number
  /** Unknown disagreements by oracle and both verdicts. The first of each kind is printed. */
  unknown: Map<string, number>
  /** Known disagreements by oracle and rule. */
  known: Map<string, number>
}

/** @returns the rule that explains a disagreement, null if there is none, undefined if no rule explains it */
function judge (oracle: string, theirs: Verdict, ours: Verdict, bytes: string): string | null | undefined {
  if (ours.outcome !== 'accepted') {
    if (theirs.outcome !== 'accepted') return null
    const rule = (oracle === 'grammar' ? BEYOND_GRAMMAR : STRICTER).find(([reason]) => ours.reason.startsWith(reason))?.[1]
    return rule && `only the plugin refuses: ${rule}`
  }
  if (theirs.outcome === 'accepted' && theirs.content === ours.content && theirs.end === ours.end && hasSameFields(theirs.trailers, ours.trailers)) return null
  if (theirs.outcome === 'accepted') return undefined
  const rule = DIFFERENCES.find((difference) => difference.oracle === oracle && difference.explains(theirs, bytes))?.rule
  return rule && `only the oracle refuses: ${rule}`
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

  async function runBatch (numbers: number[], isVerbose = false): Promise<void> {
    const messages = numbers.map((number) => messageFrom(seed, number))
    const buffers = messages.map(({ bytes }) => Buffer.from(bytes, 'latin1'))
    const asking = Promise.all(oracles.map((oracle: Oracle) => oracle.ask(buffers)))
    const liveRuns: Promise<void>[] = []
    const ourVerdicts = messages.map((message, i) => {
      const { head, verdict } = readByNode(buffers[i])
      const ours = readByPlugin(buffers[i], head, verdict)
      tally.messages++
      tally[ours.outcome]++
      if (isVerbose) console.log({ ...message, ours, node: verdict })
      compare('node', verdict, ours, message, numbers[i])
      const grammar = readByGrammar(message.bytes, head)
      if (grammar !== null) compare('grammar', grammar, ours, message, numbers[i])
      liveRuns.push(compareLive(live, message, head, ours).then((problem) => {
        if (problem !== null) addUnknown('live', { ...ours, reason: problem }, ours, message, numbers[i])
      }))
      return ours
    })
    const answers = await asking
    answers.forEach((verdicts, o) => verdicts.forEach((verdict, i) => {
      if (isVerbose) console.log(oracles[o].name, verdict)
      compare(oracles[o].name, verdict, ourVerdicts[i], messages[i], numbers[i])
    }))
    await Promise.all(liveRuns)
  }

  function compare (oracle: string, theirs: Verdict, ours: Verdict, message: Message, number: number): void {
    const rule = judge(oracle, theirs, ours, message.bytes)
    if (rule === undefined) {
      addUnknown(oracle, theirs, ours, message, number)
    } else if (rule !== null) {
      count(tally.known, `${oracle}: ${rule}`)
    }
  }

  function addUnknown (oracle: string, theirs: Verdict, ours: Verdict, { bytes, cuts }: Message, number: number): void {
    const kind = `${oracle}: plugin ${summarize(ours)}, oracle ${summarize(theirs)}`
    if (count(tally.unknown, kind) > 1) return
    console.log(`UNKNOWN DISAGREEMENT with ${kind} (--seed ${seed} --only ${number})`)
    console.log({ message: JSON.stringify(bytes), cuts: JSON.stringify(cuts), ours, theirs })
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

/** A verdict without the quotations and numbers in its reason, so that similar ones are counted together. */
function summarize ({ outcome, reason }: Verdict): string {
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
