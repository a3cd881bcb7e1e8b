// The memory that what is read lands in. Node allocates 64 KiB for each read, however few bytes come. Here all connections
// read into the same memory: a read is over before the next, and who may keep a piece gets a copy of just its size. What
// one exchange passes on to another is not even copied, where it is much: it is written from where it lies. That needs
// memory of the connection's own, for the kernel may take a part only.

import type { Duplex } from 'node:stream'
import { moveReads, readInto } from './net-internals.ts'

/** Bytes asked for in one read: four times what Node asks for, and so a quarter of the calls. */
export const READ_SIZE = 256 * 1024

/** Blocks of memory, each of one connection alone, or of one that has left, but for what is still written from it. */
export const MAX_OWN = 16

/** How often the reads of one connection may begin to land in memory of its own: each time costs a little, for good. */
export const MAX_MOVES = 256

/**
 * Bytes of one block that is allocated once, and returned. V8 frees some 32 MiB of pieces at a time; glibc would give
 * those back to the system, and get them again page by page, which takes longer than to read them. It does so with more
 * than twice the biggest block that was ever returned (mallopt(3), "dynamic mmap threshold"); so this is what any process
 * comes to that has once handled so big a body. No page of it is touched.
 */
const RETURNED_SIZE = 24 * 1024 * 1024

/** Memory for one connection at a time. */
export interface Own {
  memory: Buffer
  reader: Duplex | null // the socket that has it: its reads land there, but while that is written from
  writer: Duplex | null // the socket that what lies in it was written to
}

/** All memory that will be read into again. */
const landings = new Set<ArrayBufferLike>()
let common: Buffer | null = null
const owns: Own[] = []

/** Where the reads of one connection land. */
export class Landing {
  private readonly socket: Duplex
  private own: Own | null = null
  private isIn = false //   what is read lands in it
  private wanted = false // by whom the last piece was given to
  private moves = 0

  constructor (socket: Duplex) {
    this.socket = socket
  }

  /**
   * Has all that the socket reads from now on land here, if that is possible.
   *
   * @param onPiece gets what was read, and may hold of it what is `toHold`; returns whether to read on
   */
  open (onPiece: (piece: Buffer) => boolean): void {
    readInto(this.socket, common ??= allocateCommon(), (size, memory) => {
      this.wanted = false
      try {
        return onPiece(memory.subarray(0, size))
      } finally {
        this.moveOn()
      }
    })
  }

  /**
   * The connection's own memory, if the piece lies there: then it can be left there, to a `writer`. If not, the next one
   * will lie there, if any is left.
   */
  wantOwn (): Own | null {
    // A write can make TLS give its next piece within the call for this one.
    this.wanted = !('encrypted' in this.socket)
    return this.isIn ? this.own : null
  }

  /** Somebody has the piece, who may keep it where it lies. */
  abandon (own: Own): void {
    this.leave()
    forget(own)
  }

  /** Who reads the socket from now on may read it in another way. */
  leave (): void {
    this.wanted = false
    this.moveOn()
  }

  /** After each piece: where the next one lands. */
  private moveOn (): void {
    if (this.wanted && (this.isIn || this.moves < MAX_MOVES)) this.own ??= takeOwn(this.socket)
    else this.giveUp()
    const isIn = this.own !== null && isWritten(this.own)
    if (isIn !== this.isIn) this.move(isIn)
  }

  private move (isIn: boolean): void {
    this.isIn = isIn
    if (isIn) this.moves++
    moveReads(this.socket, isIn ? this.own!.memory : common!)
  }

  private giveUp (): void {
    if (this.own === null) return
    this.own.reader = null
    this.own = null
  }
}

function takeOwn (reader: Duplex): Own | null {
  let own = owns.find((own) => (own.reader === null || own.reader.destroyed) && isWritten(own))
  if (own === undefined) {
    if (owns.length === MAX_OWN) return null
    own = { memory: allocate(), reader: null, writer: null }
    owns.push(own)
  }
  own.reader = reader
  return own
}

/**
 * Never uses again what may still be sent on a connection that is left to others: they may pass it to another process, and
 * destroy it here while the kernel has not taken all.
 */
export function abandonWrites (writer: Duplex): void {
  for (const own of [...owns]) {
    if (own.writer === writer && !isWritten(own)) forget(own)
  }
}

function forget (own: Own): void {
  owns.splice(owns.indexOf(own), 1)
  landings.delete(own.memory.buffer)
}

/** Whether nothing of what lies there is still to be sent. */
function isWritten (own: Own): boolean {
  if (own.writer !== null && (own.writer.destroyed || own.writer.writableLength === 0)) own.writer = null
  return own.writer === null
}

/** Whether it lies where the next read may land. */
export function isLanded (piece: Buffer): boolean {
  return landings.has(piece.buffer)
}

/** The same bytes, which may wait for somebody to read them: a copy if the next read would overwrite them. */
export function toHold (piece: Buffer): Buffer {
  return isLanded(piece) ? copyOf(piece) : piece
}

/**
 * The same bytes, for the user to keep, change or transfer: a copy if they are not all of their memory. What came with them
 * may be a head, with its cookies, or the next request.
 */
export function toKeep (piece: Buffer): Buffer {
  return piece.length < piece.buffer.byteLength || isLanded(piece) ? copyOf(piece) : piece
}

/** A copy in memory of its own; not from Node's pool, though that is faster. */
export function copyOf (piece: Buffer): Buffer {
  const copy = Buffer.allocUnsafeSlow(piece.length)
  piece.copy(copy)
  return copy
}

function allocateCommon (): Buffer {
  Buffer.allocUnsafeSlow(RETURNED_SIZE)
  return allocate()
}

function allocate (): Buffer {
  const memory = Buffer.allocUnsafeSlow(READ_SIZE)
  landings.add(memory.buffer)
  return memory
}
