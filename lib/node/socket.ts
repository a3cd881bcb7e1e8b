// A socket: how it stops and starts reading at once, how it closes, and how much it has sent and received. The names are those of
// lib/net.js, lib/_http_server.js and internal/stream_base_commons.js, the same on Node 20 to 26.

import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { NO_BYTES } from '../transfer/body-reader.ts'

interface Handle {
  reading: boolean
  writeQueueSize: number
  readStart (): void
  readStop (): void
}

interface Internals extends Duplex {
  _httpMessage: ServerResponse | null
  server: Server & { httpAllowHalfOpen: boolean }
  _handle?: Handle | null
  _paused: boolean
}

// Reading

/**
 * Stops reading at once. socket.pause() alone would first fill the socket's own buffer, and TLS would still emit what it has
 * decrypted. After a call of socket.read() or resume(), one more read may arrive.
 */
export function stopReading (socket: Duplex): void {
  socket.pause()
  const { _handle: handle } = socket as Internals
  if (!handle) return
  socket._read = ignore
  handle.reading = false
  handle.readStop()
}

/** Starts reading again after `stopReading`. socket.resume() alone does not start it if a read was pending. */
export function startReading (socket: Duplex): void {
  restartHandle(socket)
  socket.resume()
}

/** Like `startReading`, but does not make the stream flow. */
export function restartHandle (socket: Duplex): void {
  const { _handle: handle } = socket as Internals
  if (!handle) return
  socket._read = Socket.prototype._read
  handle.reading = true
  handle.readStart()
}

/** Whether Node has paused reading because the responses of the connection are congested. */
export function isCongested (socket: Duplex): boolean {
  return (socket as Internals)._paused
}

/** Makes Node forget that it has paused reading. The caller then resumes it. */
export function clearCongested (socket: Duplex): void {
  (socket as Internals)._paused = false
}

// Writing

/**
 * Hands several buffers to the system together.
 *
 * @param done called when it has accepted these, and everything before them. Without it, Node 22 and later need no `nextTick` for a write
 */
export function writeBuffers (socket: Duplex, buffers: readonly Buffer[], done?: (error?: Error | null) => void): void {
  if (buffers.length === 0) {
    if (done === undefined) return
    if (socket.writableLength > 0) socket.write(NO_BYTES, done)
    else process.nextTick(done)
  } else if (buffers.length === 1) {
    socket.write(buffers[0], done)
  } else {
    socket.cork()
    for (let i = 0; i < buffers.length - 1; i++) socket.write(buffers[i])
    socket.write(buffers[buffers.length - 1], done)
    socket.uncork()
  }
}

/**
 * Writes one buffer. Calls back within the call if the system has accepted it: Node 22 and later need no `nextTick` for a write without
 * a callback.
 */
export function writeMessage (socket: Duplex, message: Buffer, done: (error?: Error | null) => void): void {
  if (socket.writableLength > 0) {
    socket.write(message, done)
    return
  }
  socket.write(message)
  if (socket.writableLength === 0) done(socket.errored)
  else socket.write(NO_BYTES, done) // behind the message
}

// Closing

/** Closes the socket when everything that was written has been sent. */
export function closeSoon (socket: Socket): void {
  if (typeof socket.destroySoon === 'function') socket.destroySoon()
  else socket.end(() => socket.destroy())
}

/**
 * Closes with a reset, so that what was sent cannot look complete. A socket that is shutting down cannot be reset (EINVAL):
 * Node 20 to 26 would drop its handle without closing it. Such a socket is destroyed instead. The kernel has all its data.
 */
export function resetConnection (socket: Socket): void {
  const isShuttingDown = socket.writableEnded && !socket.writableFinished && socket.writableLength === 0
  // Only TCP has resets, and not below TLS.
  const isResettable = typeof socket.resetAndDestroy === 'function' && socket.remoteFamily !== undefined && !('encrypted' in socket)
  if (isResettable && !isShuttingDown) socket.resetAndDestroy()
  else socket.destroy()
}

// Timeouts and counters

/** Sets the timeout of a socket. 0: none. Does nothing for other streams, which have no timeout. */
export function setSocketTimeout (socket: Socket, milliseconds: number): void {
  if (typeof socket.setTimeout === 'function') socket.setTimeout(milliseconds)
}

/**
 * Whether a socket's timeout is that of its server, and would destroy it: nobody listens to the timeouts of the server, and no
 * hook has set another.
 */
export function hasServerTimeout (socket: Socket): boolean {
  const { timeout } = socket
  if (!timeout) return false
  const server = serverOf(socket) as Server | undefined // other runtimes have none
  return server === undefined || (timeout === server.timeout && server.listenerCount('timeout') === 0)
}

/**
 * Emits 'timeout' where Node does: on a request that is not complete, on the response that is in turn, and on the server.
 *
 * @returns whether anybody listens. If not, Node destroys the socket
 */
export function emitTimeout (socket: Duplex, request: IncomingMessage | null): boolean {
  const { _httpMessage: response } = socket as Internals
  const requestListens = request !== null && request.emit('timeout', socket)
  const responseListens = response !== null && response.emit('timeout', socket)
  return serverOf(socket).emit('timeout', socket) || requestListens || responseListens
}

/** A number that changes with every byte that is received from the peer, or accepted by the kernel. */
export function progressOf (socket: Socket): number {
  return socket.bytesRead + socket.bytesWritten - queuedBytes(socket)
}

/** The number of bytes that wait for the kernel to accept them. */
export function queuedBytes (socket: Duplex): number {
  return (socket as Internals)._handle?.writeQueueSize ?? 0
}

/** The HTTP server that has accepted the connection. */
export function serverOf (socket: Duplex): Server {
  return (socket as Internals).server
}

/** Whether the server still answers the requests of a client that has ended its side (`httpAllowHalfOpen`). */
export function allowsHalfOpen (socket: Duplex): boolean {
  return (socket as Internals).server.httpAllowHalfOpen
}

function ignore (): void {}
