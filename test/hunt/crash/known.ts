// Problems that do not fail this hunt, each with its reason. They are faults of Node or Fastify, or are still to be fixed.

import type { Case } from './case.ts'
import { EARLY_HOOKS, isHttp2, usesNodeTransport } from './kinds.ts'
import type { OrdinaryCase } from './ordinary/case.ts'
import type { Profile } from './profile.ts'

interface Known {
  reason: string
  matches: (what: string, profile: Profile, testCase: Case | OrdinaryCase | null) => boolean
}

const MAJOR = Number.parseInt(process.versions.node)

/** Problems that are counted separately. */
export const KNOWN: readonly Known[] = [
  {
    reason: 'Node: after a request with Upgrade and a body that is not upgraded, the connection is no longer read',
    matches: (what, { transport }, testCase) => what.startsWith('the next request on the connection') && testCase !== null && 'request' in testCase && testCase.request === 'upgrade' && usesNodeTransport(transport)
  },
  {
    reason: 'Fastify: on Node\'s request and response, no onResponse if the client leaves during an early hook or its answer; as on ordinary routes',
    matches: (what, { transport, hooks }, testCase) => what.includes('no onResponse') && usesNodeTransport(transport) && !isHttp2(transport) &&
      (EARLY_HOOKS.some((name) => hooks[name] !== undefined) || (testCase !== null && 'refusedIn' in testCase && testCase.refusedIn === 'onRequest'))
  },
  {
    reason: 'Node: a connection with congested responses is paused when the next head arrives, so Node does not see that the client has ended its side',
    matches: (what, _profile, testCase) => what.startsWith('ordinary, half-close') && testCase !== null && 'requests' in testCase && testCase.pipelined && testCase.requests.includes('duplex')
  },
  {
    reason: 'Node below 26: an HTTP/2 stream that ends with its session, or is reset without an error, may never close: no onResponse; as on ordinary routes',
    matches: (what, { transport }, testCase) => what.includes('no onResponse') && isHttp2(transport) && MAJOR < 26 && testCase !== null && testCase.act !== 'complete'
  },
  {
    reason: 'Node, below 26 or over TLS: app.close() with HTTP/2 waits for ever for sessions whose client has left; as with ordinary routes',
    matches: (what, { transport }) => what.startsWith('app.close()') && (transport === 'h2' || (transport === 'h2c' && MAJOR < 26))
  },
  {
    reason: 'Node below 26: streams after a GOAWAY can abort the process natively; as with a bare node:http2 server',
    matches: (what, { transport }) => /^exited with SIG(SEGV|ABRT)/.test(what) && isHttp2(transport) && MAJOR < 26
  }
]

// There is no handler that sends twice: with an onSend hook that is slow or fails, Fastify itself then crashes the process.

/**
 * Changes hooks that would run into a fault of Fastify 5.12, which ordinary routes have as well. `handlerTimeout` sends an
 * answer, and onError or onSend hooks are slow. Meanwhile the handler returns, throws, or reacts to the abort of
 * `request.signal`. Fastify then sends again, and the process crashes with "You cannot use `send` inside the `onError` hook"
 * or "Cannot write headers after they are sent".
 */
export function avoidKnown (hooks: Profile['hooks'], handlerTimeout: number): void {
  for (const name of ['onError', 'onSend'] as const) {
    if (handlerTimeout > 0 && hooks[name] !== undefined) hooks[name] = 'callback'
  }
}
