// One case of the comparison: requests on one connection, most of them on ordinary routes, and what the client does.

import { Random } from '../../../support/random.ts'

export const ORDINARY_ACTS = ['complete', 'silent', 'stuck', 'stuck, then reads', 'reset', 'leave', 'half-close'] as const

/** With what each of them is answered, see app.ts. `duplex` is an exchange where the plugin is, else an ordinary route. */
export const ORDINARY_REQUESTS = ['pong', 'big', 'stream', 'slow', 'wait', 'error', 'body', 'unread', 'missing', 'duplex'] as const
export type OrdinaryRequest = typeof ORDINARY_REQUESTS[number]

export interface OrdinaryCase {
  number: number
  act: typeof ORDINARY_ACTS[number]
  /** Pipelined, or sent when the response before has come. */
  requests: OrdinaryRequest[]
  pipelined: boolean
  /** How much of the last request is sent: what it lacks never comes. */
  cut: number
  delay: number
}

/** Whose client goes away once the requests have arrived. */
const LEAVING: ReadonlySet<OrdinaryCase['act']> = new Set(['reset', 'leave', 'half-close'])

export function ordinaryCaseOf (seed: number, number: number): OrdinaryCase {
  const random = new Random(seed, number)
  const act = random.pick(ORDINARY_ACTS)
  const requests: OrdinaryRequest[] = Array.from({ length: 1 + random.below(4) }, () => random.pick(ORDINARY_REQUESTS))
  // What the hunt is for: an exchange that has to wait for an ordinary response.
  if (random.chance(0.3)) requests.splice(0, requests.length, random.pick(['big', 'wait', 'slow', 'stream'] as const), 'duplex')
  // An exchange that waits for its client follows rules of its own, and what is behind one is not read before it is over.
  const isCut = (act === 'silent' || (act !== 'complete' && act !== 'stuck' && random.chance(0.3))) && !requests.includes('duplex')
  return { number, act, requests, pipelined: random.chance(0.8), cut: isCut ? random.next() : 1, delay: random.pick(LEAVING.has(act) ? [3, 5, 8] : [0, 0.5, 3, 8]) }
}
