// Open faults, by their number in the list of issue 19: what makes them show is left out of the runs, or their effect allowed.
// From 101 on: found by this test. Take out what is mended. MODEL_MENDED=4,18 does so for one run.

import type { Model } from './state.ts'

interface Known {
  fault: number
  what: string
  /** Whether this command, now, would show the fault. */
  excludes: (model: Model, command: string) => boolean
}

const ANSWERS = ['send', 'return', 'returnValue', 'endRaw']

const KNOWN: Known[] = [
  {
    fault: 18,
    what: 'somebody else ends a response that has begun: over HTTP/2 it looks whole',
    excludes: (model, command) => command === 'endRaw' && model.headWasWritten
  },
  {
    fault: 104,
    what: 'over TLS, a 100 goes out behind the answer of somebody else, when the handler then reads',
    excludes: ({ kind, request }, command) => kind === 'tls' && request === 'expect' && command === 'endRaw'
  },
  {
    fault: 102,
    what: 'the fallback: the answer of Fastify to what Node cannot parse goes into a response that has begun, or behind it',
    excludes: ({ kind, requestBody }, command) => kind === 'fallback' && (command === 'malformedChunk' || (command === 'halfClose' && requestBody === 'open'))
  },
  {
    fault: 105,
    what: 'the fallback: a request that has a reader, and is answered by Fastify, is not read to its end: app.close() hangs',
    excludes: ({ kind, requestBody, reading, response }, command) => kind === 'fallback' && requestBody === 'open' &&
      ((reading !== 'no' && ANSWERS.includes(command)) || (response === 'answered' && (command === 'loop' || command === 'listen')))
  }
]

const mended = new Set((process.env.MODEL_MENDED ?? '').split(',').map(Number))

/** What the end of a run may show. */
const KNOWN_ENDS = {
  /** A response that has just ended is reset by app.close(), when the client has sent more than was read. */
  resetByClose: { fault: 10, kinds: ['tcp', 'fallback'] },
  /** Found by this test: nothing limits how long the rest of a request is dropped. Node alone does so too. */
  endlessDrain: { fault: 101, kinds: ['fallback'] },
  /** A reset is read as the end of the body. */
  resetIsEnd: { fault: 28, kinds: ['h2c'] },
  /** Found by this test: a response to HTTP/1.0 that is cut off ends like a whole one. */
  wholeHttp10: { fault: 103, kinds: ['fallback'] }
}

/** Whether an open fault excuses this end. */
export function isKnownEnd (name: keyof typeof KNOWN_ENDS, { kind }: Model): boolean {
  const { fault, kinds } = KNOWN_ENDS[name]
  return !mended.has(fault) && kinds.includes(kind)
}

export function knownFault (model: Model, command: string): Known | null {
  return KNOWN.find(({ fault, excludes }) => !mended.has(fault) && excludes(model, command)) ?? null
}
