// Tries to borrow and return a connection once, in memory: a Node release may have changed the internals that this needs.

import { createServer } from 'node:http'
import type { Socket } from 'node:net'
import { Duplex } from 'node:stream'
import { findListeners, stopsFeedingOnListen } from '../node/listeners.ts'
import { hasKnownCallbacks, parserOf } from '../node/parser.ts'
import { bytesOf } from '../relay/read-buffers.ts'
import { type Handoff, claim } from './handoff.ts'
import { watch } from './server.ts'
import { WebSocketRoutes } from './websocket-routes.ts'

let missing: string | null | undefined

/**
 * Tries it when it is first called, and remembers the result.
 *
 * @returns what this Node lacks, in words for a log line; null if connections can be borrowed
 */
export function missingFromNode (): string | null {
  if (missing === undefined) {
    const socket = new Duplex({ write (_chunk, _encoding, done) { done() } })
    missing = tryHandoff(socket as Socket)
    socket.destroy()
  }
  return missing
}

function tryHandoff (socket: Socket): string | null {
  try {
    let handoff = null as Handoff | null
    let rest = ''
    let requests = 0
    let nonsenseWasRefused = false
    const server = createServer((request) => {
      requests++
      handoff = claim(request, {
        requestIsRead: false,
        onData (data) { rest += bytesOf(data) },
        onTaken: ignore,
        onFinish: ignore,
        onAnswered: ignore,
        onTimeout: ignore,
        onEnd: ignore,
        onHalfClose: ignore,
        onClose: ignore
      })
    })
    server.on('clientError', () => { nonsenseWasRefused = true })
    watch(server, { routesConnect: false, webSocketRoutes: new WebSocketRoutes(), onConnect: ignore, onUnclaimedConnect: ignore })
    server.emit('connection', socket)
    if (!hasKnownCallbacks(parserOf(socket))) return 'parser'
    if (findListeners(socket) === null || !stopsFeedingOnListen(socket)) return 'listeners'
    socket.emit('data', Buffer.from('POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nrest'))
    handoff?.read()
    if (rest !== 'rest') return 'end of the head'
    const finishAndReceive = (next: string): void => {
      handoff!.finish()
      handoff!.returnToNode()
      socket.emit('data', Buffer.from(next))
    }
    finishAndReceive('GET / HTTP/1.1\r\nHost: a\r\n\r\n')
    if (requests === 2) finishAndReceive('nonsense')
    return nonsenseWasRefused ? null : 'request after an exchange'
  } catch (error) {
    return String(error)
  }
}

function ignore (): void {}
