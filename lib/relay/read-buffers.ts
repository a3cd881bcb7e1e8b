// Read buffers: one shared by all connections, and private ones for relays. Node allocates 64 KiB for each read, however few
// bytes arrive. Here all connections read into the same buffer: a read is over before the next one starts, and code that
// keeps some bytes gets a copy of just their size. Content that is relayed is not copied at all: it is written from the
// buffer it was read into. The kernel may take only a part of it at once, so that buffer must be the connection's alone.

import assert from 'node:assert'
import type { Duplex } from 'node:stream'
import { readInto, switchMemory } from '../node/socket.ts'

/** Bytes asked for in one read: four times what Node asks for, and so a quarter of the system calls. */
export const READ_SIZE = 256 * 1024

/** Private buffers of the process. */
export const MAX_PRIVATE = 16

/** Cap on switches from the shared to a private buffer per connection: each costs about 50 bytes until the handle closes. */
export const MAX_SWITCHES = 256

/**
 * Size of a block that is allocated once and freed at once. V8 frees copies of content in batches of some 32 MiB. glibc would
 * return them to the system and get them again page by page, which takes longer than to read them. It stops doing so above
 * twice the size of the biggest block that was ever freed (mallopt(3), "dynamic mmap threshold"). A process that has handled
 * so big a body once is in the same state. No page of the block is touched.
 */
const FREED_SIZE = 24 * 1024 * 1024

declare const landed: unique symbol

/**
 * Bytes that may lie in a read buffer: valid during the call only, since the next read overwrites them. No Buffer, so that
 * the compiler does not let anybody keep them: use `copyIfLanded` or `copyForUser`.
 */
export interface Landed {
  readonly length: number
  readonly [landed]: true
}

/** Marks bytes as valid during the call only. */
export function asLanded (bytes: Buffer): Landed {
  return bytes as unknown as Landed
}

/** The bytes themselves, for code that is done with them when it returns. */
export function bytesOf (data: Landed): Buffer {
  return data as unknown as Buffer
}

/** A buffer for one connection at a time, which content may be relayed from. */
export interface PrivateBuffer {
  memory: Buffer
  /** The socket that reads into it, whenever nothing in it is still to be written. */
  reader: Duplex | null
  /** The socket that its content was written to. */
  writer: Duplex | null
}

/** The memory of all read buffers. */
const readMemory = new Set<ArrayBufferLike>()
const privateBuffers: PrivateBuffer[] = []
let shared: Buffer | null = null

/** Those of the connection whose data is being passed on in the current call stack. */
let reading: ReadBuffers | null = null

/** The buffers that one connection reads into. */
export class ReadBuffers {
  private readonly socket: Duplex
  private ownPrivate: PrivateBuffer | null = null
  private readsPrivate = false
  private wantsPrivate = false // says the relay that got the last data
  private switches = 0

  constructor (socket: Duplex) {
    this.socket = socket
  }

  /**
   * Makes the socket read into these buffers, if possible. Otherwise it reads as Node's sockets do, and emits 'data'.
   *
   * @param onData called after each read; returns whether to read on
   */
  open (onData: (data: Landed) => boolean): void {
    readInto(this.socket, shared ??= allocateShared(), (size, memory) => {
      this.wantsPrivate = false
      const outer = reading
      reading = this
      try {
        return onData(asLanded(memory.subarray(0, size)))
      } finally {
        reading = outer
        this.chooseBuffer()
      }
    })
  }

  /** Gives the private buffer back. A new user of the socket may read it in another way. */
  leave (): void {
    this.wantsPrivate = false
    this.chooseBuffer()
  }

  /** See the function of this name. */
  wantPrivate (): PrivateBuffer | null {
    // A write can make TLS pass on its next data within the call for this one.
    this.wantsPrivate = !('encrypted' in this.socket)
    return this.readsPrivate ? this.ownPrivate : null
  }

  /** See the function of this name. */
  retire (buffer: PrivateBuffer): void {
    this.leave()
    forget(buffer)
  }

  /** After each read: where does the next one go? */
  private chooseBuffer (): void {
    if (this.wantsPrivate && (this.readsPrivate || this.switches < MAX_SWITCHES)) this.ownPrivate ??= takePrivate(this.socket)
    else this.releasePrivate()
    const readsPrivate = this.ownPrivate !== null && isWritten(this.ownPrivate)
    if (readsPrivate === this.readsPrivate) return
    this.readsPrivate = readsPrivate
    if (readsPrivate) this.switches++
    switchMemory(this.socket, readsPrivate ? this.ownPrivate!.memory : shared!)
  }

  private releasePrivate (): void {
    if (this.ownPrivate === null) return
    this.ownPrivate.reader = null
    this.ownPrivate = null
  }
}

/**
 * Says that the content being passed on is relayed. The next read then goes into a private buffer, if there is one left.
 *
 * @returns the private buffer that the content lies in; null if it lies in the shared one
 */
export function wantPrivate (): PrivateBuffer | null {
  return reading?.wantPrivate() ?? null
}

/** The user may keep this memory: never read into it again. */
export function retire (buffer: PrivateBuffer): void {
  assert(reading !== null)
  reading.retire(buffer)
}

function takePrivate (reader: Duplex): PrivateBuffer | null {
  let buffer = privateBuffers.find((buffer) => (buffer.reader === null || buffer.reader.destroyed) && isWritten(buffer))
  if (buffer === undefined) {
    if (privateBuffers.length === MAX_PRIVATE) return null
    buffer = { memory: allocate(), reader: null, writer: null }
    privateBuffers.push(buffer)
  }
  buffer.reader = reader
  return buffer
}

/**
 * Never reads again into memory that is still to be written to a socket which is left to others. They may pass the socket to
 * another process and destroy it here before the kernel has taken everything.
 */
export function abandonWrites (writer: Duplex): void {
  for (const buffer of [...privateBuffers]) {
    if (buffer.writer === writer && !isWritten(buffer)) forget(buffer)
  }
}

function forget (buffer: PrivateBuffer): void {
  privateBuffers.splice(privateBuffers.indexOf(buffer), 1)
  readMemory.delete(buffer.memory.buffer)
}

/** Whether nothing in the buffer is still to be written. */
function isWritten (buffer: PrivateBuffer): boolean {
  if (buffer.writer !== null && (buffer.writer.destroyed || buffer.writer.writableLength === 0)) buffer.writer = null
  return buffer.writer === null
}

/** Whether the bytes lie in memory that will be read into again. */
export function isLanded (data: Landed): boolean {
  return readMemory.has(bytesOf(data).buffer)
}

/** The same bytes, to be kept until somebody reads them: copied if the next read would overwrite them. */
export function copyIfLanded (data: Landed): Buffer {
  const bytes = bytesOf(data)
  return isLanded(data) ? copyOf(bytes) : bytes
}

/**
 * The same bytes, for the user to keep, change or transfer: copied unless they are all of their memory. The memory around
 * them may hold a head with its cookies, or the next request.
 */
export function copyForUser (data: Landed): Buffer {
  const bytes = bytesOf(data)
  return bytes.length < bytes.buffer.byteLength || isLanded(data) ? copyOf(bytes) : bytes
}

/** A copy in memory of its own, not from Node's pool. */
export function copyOf (bytes: Buffer): Buffer {
  const copy = Buffer.allocUnsafeSlow(bytes.length)
  bytes.copy(copy)
  return copy
}

function allocateShared (): Buffer {
  Buffer.allocUnsafeSlow(FREED_SIZE)
  return allocate()
}

function allocate (): Buffer {
  const memory = Buffer.allocUnsafeSlow(READ_SIZE)
  readMemory.add(memory.buffer)
  return memory
}
