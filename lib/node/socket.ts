// A socket: how it stops and starts reading at once, into which memory it reads, how it closes, and whether anything moves on
// it. The names are those of lib/net.js, lib/_http_server.js and internal/stream_base_commons.js, the same
// on Node 20 to 26.

import type { Server } from 'node:http'
import { Socket } from 'node:net'
import type { Duplex } from 'node:stream'

interface Handle {
  reading: boolean
  writeQueueSize: number
  readStart (): void
  readStop (): void
  useUserBuffer? (memory: Buffer): void
}

interface Internals extends Duplex {
  server: Server & { httpAllowHalfOpen: boolean }
  _handle?: Handle | null
  _paused: boolean
}

// Reading

/** Where Node keeps what `net.connect({ onread })` sets; undefined where the symbol is gone. */
const [BUFFER, CALLBACK] = ['kBuffer', 'kBufferCb'].map((name) =>
  Object.getOwnPropertySymbols(new Socket()).find((symbol) => symbol.description === name))

/**
 * Makes a socket read into `memory` from now on, if possible. This cannot be undone.
 *
 * @param onRead called after each read with its size and memory; returns whether to read on
 */
export function readInto (socket: Duplex, memory: Buffer, onRead: (size: number, memory: Buffer) => boolean): void {
  const { _handle: handle } = socket as Internals
  // On Windows a read may be pending in its memory for a long time.
  if (typeof handle?.useUserBuffer !== 'function' || !BUFFER || !CALLBACK || process.platform === 'win32') return
  Object.assign(socket, { [CALLBACK]: onRead })
  switchMemory(socket, memory)
}

/**
 * Makes a socket read into other memory, after `readInto`. The handle remembers each call until it closes, in some 50
 * bytes. (An `onread.buffer` function would cost nothing, but Node 20 forgets what it returned if something throws in the
 * same tick, and then looks for the bytes in the wrong memory.)
 */
export function switchMemory (socket: Duplex, memory: Buffer): void {
  Object.assign(socket, { [BUFFER!]: memory })
  ;(socket as Internals)._handle?.useUserBuffer!(memory)
}

/**
 * Stops reading at once. socket.pause() alone would first fill the socket's own buffer, and TLS would go on with what it has
 * decrypted. A caller of socket.read() or resume() may still get one more read.
 */
export function stopReading (socket: Duplex): void {
  socket.pause()
  const { _handle: handle } = socket as Internals
  if (!handle) return
  socket._read = ignore
  handle.reading = false
  handle.readStop()
}

/** Starts reading again after `stopReading`. socket.resume() alone does not if a read was pending. */
export function startReading (socket: Duplex): void {
  restartHandle(socket)
  socket.resume()
}

/** As `startReading`, but leaves it to the caller to make the stream flow. */
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

/** Records that reading goes on although responses are congested. */
export function clearCongested (socket: Duplex): void {
  (socket as Internals)._paused = false
}

// Closing

/** Closes when all that was written has been sent. */
export function closeSoon (socket: Socket): void {
  if (typeof socket.destroySoon === 'function') socket.destroySoon()
  else socket.end(() => socket.destroy())
}

/**
 * Closes with a reset, so that what was sent cannot look complete. A socket that is shutting down cannot be reset (EINVAL),
 * and Node 20 to 26 would drop its handle without closing it. The kernel has all its data by then, so it is destroyed.
 */
export function resetConnection (socket: Socket): void {
  const isShuttingDown = socket.writableEnded && !socket.writableFinished && socket.writableLength === 0
  // Only TCP has resets, and not below TLS.
  const isResettable = typeof socket.resetAndDestroy === 'function' && socket.remoteFamily !== undefined && !('encrypted' in socket)
  if (isResettable && !isShuttingDown) socket.resetAndDestroy()
  else socket.destroy()
}

// Timeouts and counters

/** Sets the timeout; streams that are no sockets have none. */
export function setSocketTimeout (socket: Socket, milliseconds: number): void {
  if (typeof socket.setTimeout === 'function') socket.setTimeout(milliseconds)
}

/** A number that changes with every byte that is received, or that the kernel accepts. */
export function progressOf (socket: Socket): number {
  return socket.bytesRead + socket.bytesWritten - queuedBytes(socket)
}

/** Bytes that wait for the kernel to accept them. */
export function queuedBytes (socket: Duplex): number {
  return (socket as Internals)._handle?.writeQueueSize ?? 0
}

/** The HTTP server that has accepted the connection. */
export function serverOf (socket: Duplex): Server {
  return (socket as Internals).server
}

/** Whether the server goes on answering requests of a client that has ended its side. */
export function allowsHalfOpen (socket: Duplex): boolean {
  return (socket as Internals).server.httpAllowHalfOpen
}

function ignore (): void {}
