// One case: what a client sends and does on one connection. The same seed and number always give the same case.

import { Random } from '../../support/random.ts'
import { README_HANDLERS } from './handlers.ts'
import { SLOPPY_HANDLERS } from './sloppy-handlers.ts'
import type { Pace } from './limits.ts'
import { isHttp2 } from './kinds.ts'
import { type Profile, letsHandlersAnswer } from './profile.ts'
import { TARGET_NAMES } from './targets.ts'

export const HTTP1_ACTS = ['complete', 'silent', 'malformed', 'truncated', 'half-close', 'reset', 'leave', 'garbage', 'stuck', 'stuck, then leaves'] as const
export const HTTP2_ACTS = ['complete', 'silent', 'stream reset', 'many streams reset', 'goaway', 'session destroyed', 'session closed', 'reset', 'leave', 'stuck', 'stuck, then leaves', 'half-close'] as const
export const MEMORY_ACTS = ['complete', 'silent', 'destroy', 'reset', 'half-close', 'garbage'] as const

/** How the body of the request is framed, or what is special about the request. */
export const REQUESTS = ['chunked', 'length', 'none', 'expect', 'upgrade', 'connect', 'HTTP/1.0', 'HEAD', 'many fields', 'both framings'] as const
export const HTTP2_REQUESTS = ['open', 'length', 'none', 'connect', 'HEAD', 'trailers'] as const

/** Requests on the connection before the one under test, whose responses are still due. */
export const BEFORE = ['nothing', 'big ordinary', 'slow ordinary', 'exchange', 'several'] as const
/** Requests pipelined after the one under test. */
export const AFTER = ['nothing', 'ordinary', 'exchange', 'many'] as const

export interface Case {
  number: number
  /** Which client sends the request. */
  client: 'http1' | 'http2' | 'memory'
  act: typeof HTTP1_ACTS[number] | typeof HTTP2_ACTS[number] | typeof MEMORY_ACTS[number]
  handler: string
  pace: Pace
  request: typeof REQUESTS[number] | typeof HTTP2_REQUESTS[number]
  before: typeof BEFORE[number]
  after: typeof AFTER[number]
  /** Bytes of content in the body. */
  size: number
  /** Where in the request the client acts, as a fraction of its bytes. It also serves as a random number. */
  at: number
  /** Milliseconds between the last byte and the act. A fraction stands for one turn of the event loop. */
  delay: number
  /** In how many writes the request is sent. */
  parts: number
  /** Concurrent exchanges on HTTP/2. */
  streams: number
  /** How many extra fields a request with `many fields` has. */
  fields: number
  /** The hook that refuses the request, if any. */
  refusedIn: '' | 'onRequest' | 'preHandler'
  /** Name of the target of a tunnel. */
  target: string
  /** The server must keep the connection for the next request. */
  mustKeep: boolean
  /** The requests must end before the client leaves. */
  mustEnd: boolean
}

const README_NAMES = Object.keys(README_HANDLERS)
const SLOPPY_NAMES = Object.keys(SLOPPY_HANDLERS)
const TUNNEL_HANDLERS = ['proxy', 'proxy', 'careful proxy', 'echo', 'detach', 'detach, callback', 'forbidden', 'throws after the head', 'ends its socket', 'never touches it', 'loop with drain']
const SIZES = [0, 1, 11, 40, 1000, 20_000, 70_000, 300_000]
/** Counts near the limits that Node has by default. The head must stay below 16 KiB. */
const FIELD_COUNTS = [20, 900, 990, 997, 998, 999, 1000, 1001, 1020, 1022, 1024, 1500, 1990, 1998, 2000, 2010, 2500]

export function caseOf (seed: number, number: number, profile: Profile): Case {
  const random = new Random(seed, number)
  const http2 = isHttp2(profile.transport)
  const client = http2 ? 'http2' : profile.transport === 'memory' && random.chance(0.3) ? 'memory' : 'http1'
  const sloppy = random.chance(0.4)
  let handler = random.pick(sloppy ? SLOPPY_NAMES : README_NAMES)
  let act: Case['act'] = random.pick(client === 'http1' ? HTTP1_ACTS : client === 'http2' ? HTTP2_ACTS : MEMORY_ACTS)
  if (random.chance(0.2)) act = 'complete'
  let request: Case['request'] = random.pick(http2 ? HTTP2_REQUESTS : REQUESTS)
  if (random.chance(0.35)) request = http2 ? 'open' : random.pick(['chunked', 'length'] as const)
  if (handler === 'attach' && !http2) request = random.pick(['upgrade', 'chunked'] as const)
  // Proxies only make sense for CONNECT.
  if (handler.includes('proxy') || random.chance(0.06)) request = 'connect'
  if (client === 'memory' && (request === 'many fields' || request === 'both framings' || request === 'HTTP/1.0')) request = 'chunked'
  if (request === 'connect') handler = random.pick(TUNNEL_HANDLERS)
  const isPlain = request === 'chunked' || request === 'length' || request === 'open' || request === 'trailers'
  const pace: Pace = !sloppy && isPlain && act === 'complete' && handler !== 'waits for the signal' ? 'patient' : 'quick'
  const before = random.chance(0.6) ? 'nothing' : random.pick(BEFORE)
  const refusedIn = random.chance(0.06) ? random.pick(['onRequest', 'preHandler'] as const) : ''
  return {
    number,
    client,
    act,
    handler,
    pace,
    request,
    before,
    after: random.chance(0.5) ? 'nothing' : random.pick(AFTER),
    size: random.pick(SIZES),
    at: random.next(),
    delay: random.pick([0, 0, 0.5, 0.5, 1, 3, 8, 20]),
    parts: random.pick([1, 1, 2, 3, 8]),
    streams: random.pick([1, 1, 2, 5, 20]),
    fields: random.pick(FIELD_COUNTS),
    refusedIn,
    target: random.pick(TARGET_NAMES),
    mustKeep: README_HANDLERS[handler]?.keepsConnection === true && pace === 'patient' && letsHandlersAnswer(profile) && refusedIn === '' && before !== 'big ordinary',
    mustEnd: act === 'complete' || (act === 'silent' && README_HANDLERS[handler]?.keepsWriting !== true) || (act === 'half-close' && client !== 'http2')
  }
}
