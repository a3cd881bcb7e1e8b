// Which requests other than ordinary ones an app has routes for.

import type { IncomingMessage } from 'node:http'

export interface Gate {
  /** There is a duplex route for CONNECT. */
  connect: boolean
  /** A CONNECT request is about to be routed. */
  onConnect (request: IncomingMessage): void
  /**
   * A CONNECT request was routed but not claimed: a 404. The bytes behind its head must not be read as a request, since the
   * client may have meant them for the tunnel, or for a body, which such a request does not have. The connection can be
   * claimed within the call.
   */
  onUnclaimedConnect (request: IncomingMessage): void
}

/**
 * Whether a request that offers to upgrade goes to the listeners of 'upgrade' or 'connect'. WebSocket does, for
 * @fastify/websocket. Any other protocol is routed: with a listener for 'upgrade', Node would give it all of them. CONNECT
 * is routed where there is a route for it.
 */
export function belongsToUpgradeListener ({ method, headers }: IncomingMessage, gate: Gate): boolean {
  return method === 'CONNECT' ? !gate.connect : /(?:^|[,\s])websocket(?:$|[,/\s])/i.test(headers.upgrade!)
}
