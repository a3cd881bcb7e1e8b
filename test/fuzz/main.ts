// npm run fuzz -- [--seconds 60] [--seed 123] [--only 4567]
//
// Differential fuzzing. Messages are generated from a seed and read by the plugin and by independent implementations, the
// oracles: Node's parser, Go's net/http, Python's h11 and the printed grammar. The plugin may refuse what an oracle accepts
// if rules.ts lists the reason. It must not accept what an oracle refuses, and it must find the same content, trailers and
// end of the message as an oracle that accepts it. Exceptions to this are in rules.ts, too.
//
// Half of the messages are requests with all kinds of bodies, which the plugin reads behind Node's parser, by its readers and by a
// live server. The others are requests and responses with all kinds of heads, for the readers of lib/transfer/ alone. Of these, what
// is read of the head must be the same, too.

import { parseArgs } from 'node:util'
import { type Kind, type Message, messageFrom } from './messages.ts'
import { readByNode, readWholeByNode } from './node.ts'
import { type Oracle, startOracles } from './oracles.ts'
import { compareLive, hasSameFields, listenLive, readByGrammar, readByPlugin } from './ours.ts'
import { readByReaders } from './readers.ts'
import { BEYOND_GRAMMAR, DIFFERENCES, STRICTER } from './rules.ts'
import { type Head, type Verdict, comparable } from './verdict.ts'

/** How many messages are sent to the oracles together, and through the live server at the same time. */
const BATCH = 200

interface Tally {
  messages: number
  kinds: Record<Kind, number>
  accepted: number
  refused: number
  incomplete: number
  /** Unknown disagreements by oracle and both verdicts. The first of each kind is printed. */
  unknown: Map<string, number>
  /** Known disagreements by oracle and rule. */
  known: Map<string, number>
}

/** @returns the rule that explains a disagreement, null if there is none, undefined if no rule explains it */
function judge (oracle: string, theirs: Verdict, ours: Verdict, message: Message): string | null | undefined {
  const difference = (): string | undefined => DIFFERENCES.find((difference) => difference.oracle === oracle && difference.explains(theirs, message, ours))?.rule
  if (ours.outcome !== 'accepted') {
    if (theirs.outcome !== 'accepted') return null
    const stricter = (oracle === 'grammar' ? BEYOND_GRAMMAR : STRICTER).find(([reason]) => ours.reason.startsWith(reason))?.[1]
    const rule = stricter ?? difference()
    return rule && `only the plugin refuses: ${rule}`
  }
  const isAccepted = theirs.outcome === 'accepted'
  if (isAccepted && theirs.content === ours.content && theirs.end === ours.end && hasSameFields(theirs.trailers, ours.trailers) && hasSameHead(theirs.head, ours.head)) return null
  const rule = difference()
  return rule && `${isAccepted ? 'read differently' : 'only the oracle refuses'}: ${rule}`
}

function hasSameHead (theirs: Head | undefined, ours: Head | undefined): boolean {
  if (theirs === undefined || ours === undefined) return true
  if (theirs.host !== undefined && theirs.host !== ours.host) return false
  // Node's has no method.
  return ours.start.endsWith(theirs.start) && hasSameFields(comparable(theirs.fields), ours.fields)
}

/** Each kind of message as often as it is here. */
const KINDS: readonly Kind[] = ['body', 'request', 'body', 'response']

/** How the oracles read it. */
function tagOf ({ kind, method }: Message): string {
  return kind === 'body' ? 's' : kind === 'request' ? 'r' : method.slice(0, 1)
}

async function run (): Promise<number> {
  const { values } = parseArgs({ options: { seconds: { type: 'string', default: '60' }, seed: { type: 'string' }, only: { type: 'string' } } })
  const seed = Number(values.seed ?? Math.floor(Math.random() * 2 ** 32))
  const oracles = startOracles()
  const live = await listenLive()
  const tally: Tally = { messages: 0, kinds: { body: 0, request: 0, response: 0 }, accepted: 0, refused: 0, incomplete: 0, unknown: new Map(), known: new Map() }
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
    const messages = numbers.map((number) => messageFrom(seed, number, KINDS[number % KINDS.length]))
    const buffers = messages.map((message) => Buffer.from(tagOf(message) + message.bytes, 'latin1'))
    const asking = Promise.all(oracles.map((oracle: Oracle) => oracle.ask(buffers)))
    const liveRuns: Promise<void>[] = []
    const ourVerdicts = messages.map((message, i) => {
      tally.messages++
      tally.kinds[message.kind]++
      if (message.kind !== 'body') {
        const ours = readByReaders(message)
        tally[ours.outcome]++
        const verdict = readWholeByNode(message)
        if (isVerbose) console.log({ ...message, ours, node: verdict })
        compare('node', verdict, ours, message, numbers[i])
        return ours
      }
      const buffer = Buffer.from(message.bytes, 'latin1')
      const { head, verdict } = readByNode(buffer)
      const ours = readByPlugin(buffer, head, verdict)
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
    const rule = judge(oracle, theirs, ours, message)
    if (rule === undefined) {
      addUnknown(oracle, theirs, ours, message, number)
    } else if (rule !== null) {
      count(tally.known, `${oracle}: ${rule}`)
    }
  }

  function addUnknown (oracle: string, theirs: Verdict, ours: Verdict, { kind: what, bytes, cuts }: Message, number: number): void {
    const kind = `${oracle}: ${what}, plugin ${summarize(ours)}, oracle ${summarize(theirs)}`
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

function print ({ messages, kinds, accepted, refused, incomplete, unknown, known }: Tally, seed: number, seconds: number): void {
  console.log(`${messages} messages in ${Math.round(seconds)} s (${Math.round(messages / seconds)} a second), seed ${seed}`)
  console.log(`${kinds.body} requests for the plugin, ${kinds.request} requests and ${kinds.response} responses for the readers`)
  console.log(`${accepted} accepted, ${refused} refused, ${incomplete} incomplete`)
  for (const [key, count] of [...known].sort()) console.log(`${String(count).padStart(9)}  ${key}`)
  for (const [key, count] of [...unknown].sort()) console.log(`${String(count).padStart(9)}  UNKNOWN ${key}`)
  console.log(`${sum(unknown)} unknown disagreements`)
}

run().then((code) => { process.exitCode = code })
