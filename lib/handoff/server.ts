// Watches a server: its requests can be claimed while they are routed, and its CONNECT requests are routed.

import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import type { Http2ServerRequest } from 'node:http2'
import type { Socket } from 'node:net'
import { parserOf } from '../node/parser.ts'
import { serverOf } from '../node/socket.ts'
import { Connection, routingConnection } from './connection.ts'
import { onCheckContinue } from './expect-continue.ts'
import type { Gate } from './gate.ts'

// A server is set up once, even if several instances of its app have registered the plugin. Another copy of this
// package, in another version, must know that it was done.
const kWatcher = Symbol.for('fastify-duplex.watcher')
const kRouted = Symbol.for('fastify-duplex.routed')

type MarkedServer = Server & { [kWatcher]?: object, [kRouted]?: true }

/** This copy of the package. */
const self = {}

/** Whether another copy of this package watches a server. Two of them would take its bytes from each other. */
export function isWatchedByOther (server: MarkedServer): boolean {
  return (server[kWatcher] ?? self) !== self
}

/** Lets the requests of a server be claimed. */
export function watch (server: MarkedServer, gate: Gate): void {
  if (server[kWatcher] !== undefined) return
  server[kWatcher] = self
  const watchConnection = (socket: Socket): void => {
    const parser = parserOf(socket)
    // A server may accept connections and pass them to another server. Then it does not see the requests.
    if (parser !== null && serverOf(socket) === server) new Connection(socket, parser, gate) // eslint-disable-line no-new
  }
  // Both events: a TLS server emits 'connection' for the raw socket, and 'secureConnection' for the encrypted one. Node's own
  // listeners have run before ours, so the socket has its parser.
  server.on('connection', watchConnection)
  server.on('secureConnection', watchConnection)
  server.prependListener('request', (request, response) => { recordResponse(request, response, gate) })
  server.on('checkContinue', onCheckContinue)
}

function recordResponse (request: IncomingMessage, response: ServerResponse, gate: Gate): void {
  const connection = routingConnection(request)
  if (connection === null) return
  connection.response = response
  if (request.method !== 'CONNECT') return
  // Holds for a request that nobody claims. A claim sets it again, see `Handoff.setKeepAlive`.
  response.shouldKeepAlive = false
  gate.onConnect(request)
}

/** Routes the CONNECT requests of an HTTP/2 server. Node would answer them with 405. */
export function routeStreams (server: MarkedServer, gate: Gate): void {
  if (server[kRouted]) return
  server[kRouted] = true
  server.on('connect', (request: Http2ServerRequest, response) => {
    // Only the extended CONNECT of RFC 8441 has a path.
    request.url ??= request.authority
    gate.onConnect(request as unknown as IncomingMessage)
    server.emit('request', request, response)
  })
}
