// How a socket is read: stopped at once, started again, and into which memory; whether it closes by itself, and whether
// anything moves on it. The ONLY file that knows the insides of node:net; the same on Node 20, 22, 24 and 26.

import { Socket } from 'node:net'
import type { Duplex } from 'node:stream'

interface Handle {
  reading: boolean
  writeQueueSize: number
  readStart (): void
  readStop (): void
  useUserBuffer? (memory: Buffer): void
}

interface ReadSocket extends Duplex {
  _handle?: Handle | null
  _readableState: { autoDestroy: boolean }
}

/** Where Node has what `net.connect({ onread })` sets; undefined where it has it no more. */
const [BUFFER, CALLBACK] = ['kBuffer', 'kBufferCb'].map((name) =>
  Object.getOwnPropertySymbols(new Socket()).find((symbol) => symbol.description === name))

/**
 * Has all that a socket reads from now on land in `memory`, if that is possible, which can't be undone.
 *
 * @param onRead told how many bytes have come, and where; returns whether to read on
 */
export function readInto (socket: Duplex, memory: Buffer, onRead: (size: number, memory: Buffer) => boolean): void {
  const { _handle: handle } = socket as ReadSocket
  // On Windows a read may be under way in its memory for long.
  if (typeof handle?.useUserBuffer !== 'function' || !BUFFER || !CALLBACK || process.platform === 'win32') return
  Object.assign(socket, { [CALLBACK]: onRead })
  moveReads(socket, memory)
}

/**
 * Has what a socket reads from now on land in other memory, after `readInto`. The handle remembers each call, some 50
 * bytes, until it closes. (What `onread.buffer` returns would do the same for nothing, but Node 20 forgets it when
 * something throws in the same tick, and takes what has landed in one memory for what lies in the other.)
 */
export function moveReads (socket: Duplex, memory: Buffer): void {
  Object.assign(socket, { [BUFFER!]: memory })
  ;(socket as ReadSocket)._handle?.useUserBuffer!(memory)
}

/** Whether the socket is destroyed when both its sides have ended (`autoDestroy`, which all streams begin with). */
export function closeWhenEnded (socket: Duplex, closes: boolean): void {
  ;(socket as ReadSocket)._readableState.autoDestroy = closes
}

/** A number that changes with every byte that comes, or that the kernel takes. */
export function progressOf (socket: Socket): number {
  return socket.bytesRead + socket.bytesWritten - queuedBytes(socket)
}

/** Bytes that wait for the kernel to take them. */
export function queuedBytes (socket: Duplex): number {
  return (socket as ReadSocket)._handle?.writeQueueSize ?? 0
}

/**
 * Closes with a reset, so that what was sent cannot look complete. A socket that is shutting down cannot be reset (EINVAL):
 * Node 20 to 26 would then drop its handle without closing it. All it had to send is with the kernel then: it is destroyed.
 */
export function resetConnection (socket: Socket): void {
  const isShuttingDown = socket.writableEnded && !socket.writableFinished && socket.writableLength === 0
  // Only TCP has resets, and of TCP what is no TLS.
  const isResettable = typeof socket.resetAndDestroy === 'function' && socket.remoteFamily !== undefined && !('encrypted' in socket)
  if (isResettable && !isShuttingDown) socket.resetAndDestroy()
  else socket.destroy()
}

/**
 * Stops reading at once. socket.pause() alone would fill the socket's own buffer first, and what is still decrypted of
 * one read of TLS would start the next. Where reads land, who calls socket.read() or resume() still gets one more.
 */
export function stopReading (socket: Duplex): void {
  socket.pause()
  const { _handle: handle } = socket as ReadSocket
  if (!handle) return
  socket._read = ignore
  handle.reading = false
  handle.readStop()
}

/** Reads on after `stopReading`, which socket.resume() alone does not when a read was under way. */
export function startReading (socket: Duplex): void {
  restartReading(socket)
  socket.resume()
}

/** As `startReading`, for who will read on by himself. */
export function restartReading (socket: Duplex): void {
  const { _handle: handle } = socket as ReadSocket
  if (!handle) return
  socket._read = Socket.prototype._read
  handle.reading = true
  handle.readStart()
}

function ignore (): void {}
