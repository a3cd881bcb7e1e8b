// What this hunt does not count, each with its reason: faults that are not the plugin's, and those that wait for their turn.

import type { Case } from './case.ts'
import { EARLY_HOOKS, isHttp2, isMessageBased } from './kinds.ts'
import type { OrdinaryCase } from './ordinary/case.ts'
import type { Profile } from './profile.ts'

interface Known {
  reason: string
  is: (what: string, profile: Profile, one: Case | OrdinaryCase | null) => boolean
}

const MAJOR = Number.parseInt(process.versions.node)

/** Problems that are counted apart. */
export const KNOWN: readonly Known[] = [
  {
    reason: 'Node: behind a request with Upgrade and a body, which nobody upgrades, a connection is read no more',
    is: (what, { transport }, one) => what.startsWith('the next request on the connection') && one !== null && 'request' in one && one.request === 'upgrade' && isMessageBased(transport)
  },
  {
    reason: 'Fastify: a client that leaves during early hooks, or while one answers, where Node writes: no onResponse, as on ordinary routes',
    is: (what, { transport, hooks }, one) => what.includes('no onResponse') && isMessageBased(transport) && !isHttp2(transport) &&
      (EARLY_HOOKS.some((name) => hooks[name] !== undefined) || (one !== null && 'refusedIn' in one && one.refusedIn === 'onRequest'))
  },
  {
    reason: 'Node pauses a connection whose responses are congested as it reads a further head, and then does not see the end of its client; one that stands behind an exchange is not read',
    is: (what, _profile, one) => what.startsWith('ordinary, half-close') && one !== null && 'requests' in one && one.pipelined && one.requests.includes('duplex')
  },
  {
    reason: 'Node below 26: a stream of HTTP/2 that ends with its session, or is reset without an error, may never be closed: no onResponse, on ordinary routes too',
    is: (what, { transport }, one) => what.includes('no onResponse') && isHttp2(transport) && MAJOR < 26 && one !== null && one.act !== 'complete'
  },
  {
    reason: 'Node, below 26 or over TLS: app.close() of HTTP/2 waits for ever for sessions whose client has left, with ordinary routes alone too',
    is: (what, { transport }) => what.startsWith('app.close()') && (transport === 'h2' || (transport === 'h2c' && MAJOR < 26))
  },
  {
    reason: 'Node below 26: streams behind a GOAWAY can end the process natively, that of a bare node:http2 server too',
    is: (what, { transport }) => /^ended with SIG(SEGV|ABRT)/.test(what) && isHttp2(transport) && MAJOR < 26
  }
]

// Not among the handlers: one that sends twice. With an onSend hook that takes its time or fails, Fastify itself ends the
// process then.

/**
 * Fastify (5.12): the `handlerTimeout` sends, onError or onSend hooks take their time, and meanwhile the handler returns,
 * throws or answers the abort of `request.signal`, for which Fastify sends again: uncaught, "You cannot use `send` inside
 * the `onError` hook" or "Cannot write headers after they are sent", on ordinary routes as well.
 */
export function avoidKnown (hooks: Profile['hooks'], handlerTimeout: number): void {
  for (const name of ['onError', 'onSend'] as const) {
    if (handlerTimeout > 0 && hooks[name] !== undefined) hooks[name] = 'callback'
  }
}
