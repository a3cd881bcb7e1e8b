// One case of the comparison: the requests on one connection, most of them to ordinary routes, and what the client does.

import { Random } from '../../../support/random.ts'

export const ORDINARY_ACTS = ['complete', 'silent', 'stuck', 'stuck, then reads', 'reset', 'leave', 'half-close'] as const

/** Their routes are in app.ts. `duplex` is a duplex route with the plugin, and an ordinary route without it. */
export const ORDINARY_REQUESTS = ['pong', 'big', 'stream', 'slow', 'wait', 'error', 'body', 'unread', 'missing', 'duplex'] as const
export type OrdinaryRequest = typeof ORDINARY_REQUESTS[number]

export interface OrdinaryCase {
  number: number
  act: typeof ORDINARY_ACTS[number]
  requests: OrdinaryRequest[]
  /** All requests are sent at once. Otherwise each is sent after the previous response. */
  pipelined: boolean
  /** The fraction of the last request that is sent. The rest is never sent. */
  cut: number
  delay: number
}

/** Acts with which the client leaves. They wait until the requests have arrived. */
const LEAVING: ReadonlySet<OrdinaryCase['act']> = new Set(['reset', 'leave', 'half-close'])

export function ordinaryCaseOf (seed: number, number: number): OrdinaryCase {
  const random = new Random(seed, number)
  const act = random.pick(ORDINARY_ACTS)
  const requests: OrdinaryRequest[] = Array.from({ length: 1 + random.below(4) }, () => random.pick(ORDINARY_REQUESTS))
  // The most interesting case: an exchange that must wait for an ordinary response.
  if (random.chance(0.3)) requests.splice(0, requests.length, random.pick(['big', 'wait', 'slow', 'stream'] as const), 'duplex')
  // Not with an exchange: it has its own timeouts, and requests after it are not read before it has ended.
  const isCut = (act === 'silent' || (act !== 'complete' && act !== 'stuck' && random.chance(0.3))) && !requests.includes('duplex')
  return { number, act, requests, pipelined: random.chance(0.8), cut: isCut ? random.next() : 1, delay: random.pick(LEAVING.has(act) ? [3, 5, 8] : [0, 0.5, 3, 8]) }
}
