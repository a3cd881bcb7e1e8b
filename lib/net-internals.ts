// How a socket is read: stopped at once, started again, and into which memory; and whether anything moves on it. The
// ONLY file that knows the insides of node:net; the same on Node 20, 22, 24 and 26.

import { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { markAsUntransferable } from 'node:worker_threads'

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

/** Bytes of the memory that pieces are cut from. What is left at its end for too big a piece is not used. */
const SLAB_SIZE = 1024 * 1024

/** Smaller pieces get memory of their own: one that is kept must not keep a whole slab. */
const CUT_FROM = 16 * 1024

/** Where Node has what `net.connect({ onread })` sets; undefined where it has it no more. */
const [BUFFER, CALLBACK] = ['kBuffer', 'kBufferCb'].map((name) =>
  Object.getOwnPropertySymbols(new Socket()).find((symbol) => symbol.description === name))

let landing: Buffer | null = null // a read fills it, and is over before the next
let slab = Buffer.alloc(0)
let used = 0

/**
 * Has all that a socket reads from now on land in one memory for all of them, from where it is copied: Node allocates
 * 64 KiB for each read, however few bytes come. It can't be undone; what `onPiece` does not want, it may `push`.
 *
 * @param onPiece gets what was read, its own from then on, and returns whether to read on
 */
export function landReads (socket: Duplex, onPiece: (piece: Buffer) => boolean): void {
  const { _handle: handle } = socket as ReadSocket
  // On Windows a read may be under way in its memory for long.
  if (typeof handle?.useUserBuffer !== 'function' || BUFFER === undefined || CALLBACK === undefined || process.platform === 'win32') return
  landing ??= Buffer.allocUnsafeSlow(READ_SIZE)
  Object.assign(socket, {
    [BUFFER]: landing,
    [CALLBACK]: (size: number, memory: Buffer) => onPiece(copyOf(memory, size))
  })
  handle.useUserBuffer(landing)
}

function copyOf (memory: Buffer, size: number): Buffer {
  const copy = size < CUT_FROM ? Buffer.allocUnsafe(size) : cut(size)
  memory.copy(copy, 0, 0, size)
  return copy
}

/** One allocation for many pieces: one for each takes malloc, V8 and its collector longer than the copying. */
function cut (size: number): Buffer {
  if (slab.length - used < size) {
    slab = Buffer.allocUnsafeSlow(SLAB_SIZE)
    markAsUntransferable(slab.buffer) // it is many pieces': who posts one to a worker posts a copy
    used = 0
  }
  used += size
  return slab.subarray(used - size, used)
}

/** A number that changes with every byte that comes or leaves. */
export function progressOf (socket: Socket): number {
  const { bytesRead, bytesWritten, _handle: handle } = socket as Socket & ReadSocket
  return bytesRead + bytesWritten - (handle?.writeQueueSize ?? 0)
}

/**
 * Stops reading at once. socket.pause() alone would fill the socket's own buffer first, and what is still decrypted of
 * one read of TLS would start the next.
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
