// How a socket is read: stopped at once, started again, and into which memory; and whether anything moves on it. The
// ONLY file that knows the insides of node:net; the same on Node 20, 22, 24 and 26.

import { Socket } from 'node:net'
import type { Duplex } from 'node:stream'

interface Handle {
  reading: boolean
  writeQueueSize: number
  readStart (): void
  readStop (): void
  useUserBuffer? (memory: Buffer): void
}

type ReadSocket = Duplex & { _handle?: Handle | null }

/** Bytes asked for in one read: four times what Node asks for, and so a quarter of the calls. */
export const READ_SIZE = 256 * 1024

/**
 * Bytes of one block that is allocated once, and returned. V8 frees some 32 MiB of pieces at a time; glibc would give
 * those back to the system, and get them again page by page, which takes longer than to read them. It does so with more
 * than twice the biggest block that was ever returned (mallopt(3), "dynamic mmap threshold"); so this is what any process
 * comes to that has once handled so big a body. No page of it is touched.
 */
const RETURNED_SIZE = 24 * 1024 * 1024

/** Where Node has what `net.connect({ onread })` sets; undefined where it has it no more. */
const [BUFFER, CALLBACK] = ['kBuffer', 'kBufferCb'].map((name) =>
  Object.getOwnPropertySymbols(new Socket()).find((symbol) => symbol.description === name))

let landing: Buffer | null = null // a read fills it, and is over before the next

/**
 * Has all that a socket reads from now on land in one memory for all of them, from where it is copied: Node allocates
 * 64 KiB for each read, however few bytes come. It can't be undone; what `onPiece` does not want, it may `push`.
 *
 * @param onPiece gets what was read, in memory of its own, and returns whether to read on
 */
export function landReads (socket: Duplex, onPiece: (piece: Buffer) => boolean): void {
  const { _handle: handle } = socket as ReadSocket
  // On Windows a read may be under way in its memory for long.
  if (typeof handle?.useUserBuffer !== 'function' || BUFFER === undefined || CALLBACK === undefined || process.platform === 'win32') return
  landing ??= allocateLanding()
  Object.assign(socket, {
    [BUFFER]: landing,
    [CALLBACK]: (size: number, memory: Buffer) => onPiece(copyOf(memory, size))
  })
  handle.useUserBuffer(landing)
}

function allocateLanding (): Buffer {
  Buffer.allocUnsafeSlow(RETURNED_SIZE)
  return Buffer.allocUnsafeSlow(READ_SIZE)
}

/** Not from a pool, though that is faster: who keeps or transfers a piece must not keep or transfer those of others. */
function copyOf (memory: Buffer, size: number): Buffer {
  const copy = Buffer.allocUnsafeSlow(size)
  memory.copy(copy, 0, 0, size)
  return copy
}

/** A number that changes with every byte that comes, or that the kernel takes. */
export function progressOf (socket: Socket): number {
  return socket.bytesRead + socket.bytesWritten - queuedBytes(socket)
}

/** What waits for the kernel to take it. */
export function queuedBytes (socket: Socket): number {
  return (socket as ReadSocket)._handle?.writeQueueSize ?? 0
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
