// CONNECT and Upgrade requests: does the app route them, or do they go to Node's listeners for 'connect' and 'upgrade'?

import type { IncomingMessage } from 'node:http'
import type { WebSocketRoutes } from './websocket-routes.ts'

export interface Gate {
  /** Whether there is a duplex route for CONNECT. */
  routesConnect: boolean
  readonly webSocketRoutes: WebSocketRoutes
  /** Called before a CONNECT request is routed. */
  onConnect (request: IncomingMessage): void
  /**
   * Called for a CONNECT request that was routed but not claimed: it gets a 404. The bytes behind its head must not be read as
   * a request. The client may have meant them for the tunnel, or as a body, although CONNECT has none (RFC 9110 section 9.3.6).
   * The connection can be claimed within the call.
   */
  onUnclaimedConnect (request: IncomingMessage): void
}

const gates = new WeakMap<object, Gate>()

/** The gate of a server: one for all instances of its app in which the plugin is registered. `make` is called for the first. */
export function gateOf (server: object, make: () => Gate): Gate {
  let gate = gates.get(server)
  if (gate === undefined) {
    gate = make()
    gates.set(server, gate)
  }
  return gate
}

/**
 * Whether a CONNECT or Upgrade request goes to the listeners for 'connect' or 'upgrade' instead of being routed. A request for
 * WebSocket does: @fastify/websocket listens. But if a proxy has the route, it is routed. So is a request for any other protocol,
 * although Node would give it to that listener too. CONNECT is routed if there is a route for it.
 */
export function belongsToUpgradeListener ({ method, url, headers }: IncomingMessage, { routesConnect, webSocketRoutes }: Gate): boolean {
  if (method === 'CONNECT') return !routesConnect
  return /(?:^|[,\s])websocket(?:$|[,/\s])/i.test(headers.upgrade!) && !webSocketRoutes.isProxied(url!)
}
