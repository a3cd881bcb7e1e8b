// What one child process serves: a transport, and an app with hooks of many styles. A child has CASES_PER_CHILD cases.

import { Random } from '../../support/random.ts'
import { EARLY_HOOKS, type HookName, LATE_HOOKS, STYLES, type Style, TRANSPORTS, type Transport, isComparison, isHttp2 } from './kinds.ts'
import { avoidKnown } from './known.ts'

export const CASES_PER_CHILD = 120

const TIME_TAKING: readonly Style[] = ['callback', 'callback, later', 'callback, ms', 'async', 'async, later', 'async, ms']

const ERROR_HANDLERS = ['send', 'async return', 'async, ms', 'throws', 'async, throws'] as const

export interface Profile {
  transport: Transport
  hooks: Partial<Record<HookName, Style>>
  errorHandler: typeof ERROR_HANDLERS[number] | null
  /** Milliseconds; 0: none. */
  handlerTimeout: number
  connectionTimeout: number
  /** Those of the server, for the comparison. */
  timeouts: { connectionTimeout: number, requestTimeout: number, keepAliveTimeout: number }
  forceCloseConnections: boolean | 'idle'
  /** Whether there is a route for CONNECT. */
  connect: boolean
  logger: boolean
  /** The app closes while cases are under way. */
  closesBusy: boolean
}

/** Nothing in the app keeps a handler from answering in its own words. */
export function isGentle ({ hooks, handlerTimeout, closesBusy, connectionTimeout }: Profile): boolean {
  return handlerTimeout === 0 && connectionTimeout === 0 && !closesBusy && hooks.onSend === undefined
}

/** The profile of a child. */
export function profileOf (seed: number, child: number): Profile {
  const random = new Random(seed, -2 - child)
  const transport = TRANSPORTS[child % TRANSPORTS.length]
  const hooks: Profile['hooks'] = {}
  const many = random.pick([0.2, 0.6, 0.9])
  for (const name of LATE_HOOKS) {
    if (random.chance(many)) hooks[name] = random.pick(STYLES)
  }
  for (const name of EARLY_HOOKS) {
    if (random.chance(many / 3)) hooks[name] = random.pick(TIME_TAKING)
  }
  const handlerTimeout = random.chance(0.15) ? 10 + random.below(40) : 0
  avoidKnown(hooks, handlerTimeout)
  const closesBusy = random.chance(0.25) && !isComparison(transport)
  return {
    transport,
    hooks,
    errorHandler: random.chance(0.5) ? random.pick(ERROR_HANDLERS) : null,
    handlerTimeout,
    connectionTimeout: random.chance(0.2) ? 200 : 0,
    timeouts: { connectionTimeout: random.pick([0, 150]), requestTimeout: random.pick([0, 300]), keepAliveTimeout: random.pick([100, 72_000]) },
    forceCloseConnections: closesBusy || isHttp2(transport) ? true : random.pick([true, 'idle', false] as const),
    connect: random.chance(0.7),
    logger: random.chance(0.5),
    closesBusy
  }
}
