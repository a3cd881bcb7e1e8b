// The memory that what is read lands in. Node allocates 64 KiB for each read, however few bytes come. Here all connections
// read into the same memory: a read is over before the next, and who may keep a piece gets a copy of just its size. What
// one exchange passes on to another is not even copied: it is written from where it lies (as `io.Copy` of Go leaves it to
// the kernel). That needs memory of the connection's own, for the kernel may take a part only.

import type { Duplex } from 'node:stream'
import { readInto, readNextInto } from './net-internals.ts'

/** Bytes asked for in one read: four times what Node asks for, and so a quarter of the calls. */
export const READ_SIZE = 256 * 1024

/** Connections that have memory of their own at a time. */
export const MAX_OWN = 16

/**
 * Bytes of one block that is allocated once, and returned. V8 frees some 32 MiB of pieces at a time; glibc would give
 * those back to the system, and get them again page by page, which takes longer than to read them. It does so with more
 * than twice the biggest block that was ever returned (mallopt(3), "dynamic mmap threshold"); so this is what any process
 * comes to that has once handled so big a body. No page of it is touched.
 */
const RETURNED_SIZE = 24 * 1024 * 1024

/** Who writes what has landed. */
interface Writer {
  readonly isDone: boolean
}

/** All memory that is to be read into again. */
const landings = new Set<ArrayBufferLike>()
let common: Buffer | null = null
/** Memory for connections of which none has it. */
const spare: Buffer[] = []
let owners = 0

/** Where the reads of one connection land. */
export class Landing {
  private readonly socket: Duplex
  private own: Buffer | null = null
  private isIn = false //               what is read lands in it
  private wanted = false //             by whom the last piece was given to
  private writer: Writer | null = null // who may not be done with what lies in it

  constructor (socket: Duplex) {
    this.socket = socket
  }

  /**
   * Has all that the socket reads from now on land here, if that is possible.
   *
   * @param onPiece gets what was read, and may keep of it what is `toKeep`; returns whether to read on
   */
  open (onPiece: (piece: Buffer) => boolean): void {
    readInto(this.socket, common ??= allocateCommon(), (size, memory) => {
      this.wanted = false
      const more = onPiece(memory.subarray(0, size))
      this.moveOn()
      return more
    })
  }

  /**
   * Whether the piece lies in memory of the connection's own, so that it can be left there. If not, the next one will, if
   * any is left.
   */
  wantOwn (): boolean {
    this.wanted = true
    return this.isIn
  }

  /** The piece is left where it lies, until it is written. */
  leaveTo (writer: Writer): void {
    this.writer = writer
  }

  /** Nothing will land in memory of its own: when the socket has closed, for one. */
  giveUp (): void {
    if (this.own === null) return
    owners--
    if (this.writer === null || this.writer.isDone) spare.push(this.own)
    else landings.delete(this.own.buffer)
    this.own = this.writer = null
  }

  /** Within the call for each piece: where the next one lands. */
  private moveOn (): void {
    if (this.writer?.isDone) this.writer = null
    if (!this.wanted && this.writer === null) this.giveUp()
    else if (this.own === null && owners < MAX_OWN) {
      owners++
      this.own = spare.pop() ?? allocate()
    }
    const isIn = this.own !== null && this.writer === null
    if (isIn !== this.isIn) readNextInto(this.socket, isIn ? this.own! : common!)
    this.isIn = isIn
  }
}

/**
 * The same bytes, to be kept. Not in memory from a pool, though that is faster: who keeps or transfers a piece must not
 * keep or transfer those of others.
 */
export function toKeep (piece: Buffer): Buffer {
  if (!landings.has(piece.buffer)) return piece
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
