// The profile of one child process: its transport, and the hooks and options of its app. A child runs CASES_PER_CHILD cases.

import { Random } from '../../support/random.ts'
import { EARLY_HOOKS, type HookName, LATE_HOOKS, STYLES, type Style, TRANSPORTS, type Transport, isComparison, isHttp2 } from './kinds.ts'
import { avoidKnown } from './known.ts'

export const CASES_PER_CHILD = 120

const WITHOUT_FAILURE: readonly Style[] = ['callback', 'callback, later', 'callback, ms', 'async', 'async, later', 'async, ms']

const ERROR_HANDLERS = ['send', 'async return', 'async, ms', 'throws', 'async, throws'] as const

export interface Profile {
  transport: Transport
  hooks: Partial<Record<HookName, Style>>
  errorHandler: typeof ERROR_HANDLERS[number] | null
  /** In milliseconds, 0 for none. */
  handlerTimeout: number
  connectionTimeout: number
  /** Timeouts of both servers in a comparison. */
  timeouts: { connectionTimeout: number, requestTimeout: number, keepAliveTimeout: number }
  forceCloseConnections: boolean | 'idle'
  /** The app has a route for CONNECT. */
  connect: boolean
  logger: boolean
  /** The app is closed while cases are running. */
  closesBusy: boolean
}

/** Nothing in the app can replace the answer of a handler. */
export function letsHandlersAnswer ({ hooks, handlerTimeout, closesBusy, connectionTimeout }: Profile): boolean {
  return handlerTimeout === 0 && connectionTimeout === 0 && !closesBusy && hooks.onSend === undefined
}

/** The profile of a child. */
export function profileOf (seed: number, child: number): Profile {
  const random = new Random(seed, -2 - child)
  const transport = TRANSPORTS[child % TRANSPORTS.length]
  const hooks: Profile['hooks'] = {}
  const probability = random.pick([0.2, 0.6, 0.9])
  for (const name of LATE_HOOKS) {
    if (random.chance(probability)) hooks[name] = random.pick(STYLES)
  }
  for (const name of EARLY_HOOKS) {
    if (random.chance(probability / 3)) hooks[name] = random.pick(WITHOUT_FAILURE)
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
