// Read buffers: one shared by all connections, and private ones for relays. Node allocates 64 KiB for each read, however few
// bytes arrive. Here all connections read into the same buffer. That is possible because each read is processed before the next
// one starts. Code that keeps bytes gets a copy of their exact size. Relayed content is not copied: it is written from the
// buffer it was read into. The kernel may accept only a part of it at once, so no other connection may read into that buffer.

import assert from 'node:assert'
import type { Duplex } from 'node:stream'
import { readInto, switchMemory } from '../node/memory.ts'
import { countChunk } from '../node/young-memory.ts'

/** Bytes asked for in one read. Node asks for a quarter of that, and so needs four times as many system calls. */
export const READ_SIZE = 256 * 1024

/** Cap on the number of private buffers in the process. */
export const MAX_PRIVATE = 16

/** Cap on switches from the shared to a private buffer per connection: each costs about 50 bytes until the handle closes. */
export const MAX_SWITCHES = 256

/**
 * Size in bytes of a block that is allocated once, never written to and dropped again. It makes glibc keep memory: V8 frees
 * copies of content in batches of about 32 MiB, and by default glibc would return them to the system and get them again page by
 * page. That takes longer than reading the content. glibc keeps freed memory up to twice the size of the largest block that was
 * ever freed (mallopt(3), "dynamic mmap threshold"). A process that has once handled such a large body is in the same state.
 */
const FREED_SIZE = 24 * 1024 * 1024

declare const landed: unique symbol

/**
 * Bytes that may lie in a read buffer. They are valid during the call only: the next read overwrites them. This type is not a
 * Buffer, so that the compiler finds code that keeps them without a copy. To keep them, use `copyIfLanded` or `copyForUser`.
 */
export interface Landed {
  readonly length: number
  readonly [landed]: true
}

/** Marks bytes as valid during the call only. */
export function asLanded (bytes: Buffer): Landed {
  return bytes as unknown as Landed
}

/** The bytes as a Buffer, for code that does not keep them after its call. */
export function bytesOf (data: Landed): Buffer {
  return data as unknown as Buffer
}

/** A buffer for one connection at a time. Content can be relayed from it. */
export interface PrivateBuffer {
  memory: Buffer
  /** The socket that reads into it when nothing in it is left to write; null if the buffer is free. */
  readingSocket: Duplex | null
  /** The socket to which its content is being written; null if nothing is. */
  writingSocket: Duplex | null
}

/** The memory of all read buffers. */
const readMemory = new Set<ArrayBufferLike>()
const privateBuffers: PrivateBuffer[] = []
let shared: Buffer | null = null

/** The read buffers of the connection whose data is being passed on in the current call stack. */
let current: ReadBuffers | null = null

/** The buffers that one connection reads into. */
export class ReadBuffers {
  private readonly socket: Duplex
  private privateBuffer: PrivateBuffer | null = null
  private readsPrivate = false
  private wantsPrivate = false // a relay has asked for it, during the last read
  private switches = 0

  constructor (socket: Duplex) {
    this.socket = socket
  }

  /**
   * Makes the socket read into these buffers, if possible. Otherwise the socket emits 'data' as usual, and `onData` is not
   * called.
   *
   * @param onData called after each read; returns whether to continue reading
   */
  open (onData: (data: Landed) => boolean): void {
    readInto(this.socket, shared ??= allocateShared(), (size, memory) => {
      this.wantsPrivate = false
      const outer = current
      current = this
      try {
        return onData(asLanded(memory.subarray(0, size)))
      } finally {
        current = outer
        this.chooseBuffer()
      }
    })
  }

  /** Switches to the shared buffer, and frees the private one. */
  useShared (): void {
    this.wantsPrivate = false
    this.chooseBuffer()
  }

  /** See `requestPrivateBuffer`. */
  requestPrivate (): PrivateBuffer | null {
    // Not for TLS: there a write can deliver the next data within the call for the present data.
    this.wantsPrivate = !('encrypted' in this.socket)
    return this.readsPrivate ? this.privateBuffer : null
  }

  /** See `retire`. */
  retirePrivate (buffer: PrivateBuffer): void {
    this.useShared()
    forget(buffer)
  }

  /** Called after each read: chooses the buffer for the next one. */
  private chooseBuffer (): void {
    if (this.wantsPrivate && (this.readsPrivate || this.switches < MAX_SWITCHES)) this.privateBuffer ??= takePrivate(this.socket)
    else this.releasePrivate()
    const readsPrivate = this.privateBuffer !== null && clearIfWritten(this.privateBuffer)
    if (readsPrivate === this.readsPrivate) return
    this.readsPrivate = readsPrivate
    if (readsPrivate) this.switches++
    switchMemory(this.socket, readsPrivate ? this.privateBuffer!.memory : shared!)
  }

  private releasePrivate (): void {
    if (this.privateBuffer === null) return
    this.privateBuffer.readingSocket = null
    this.privateBuffer = null
  }
}

/**
 * Tells the connection whose content is being passed on that this content is relayed. Its next read then goes into a private
 * buffer, if one is free.
 *
 * @returns the private buffer in which the present content lies; null if it lies in the shared one
 */
export function requestPrivateBuffer (): PrivateBuffer | null {
  return current?.requestPrivate() ?? null
}

/** Takes a buffer out of use for good, because the user may have kept its memory. */
export function retire (buffer: PrivateBuffer): void {
  assert(current !== null)
  current.retirePrivate(buffer)
}

function takePrivate (socket: Duplex): PrivateBuffer | null {
  let buffer = privateBuffers.find((buffer) => (buffer.readingSocket === null || buffer.readingSocket.destroyed) && clearIfWritten(buffer))
  if (buffer === undefined) {
    if (privateBuffers.length === MAX_PRIVATE) return null
    buffer = { memory: allocate(), readingSocket: null, writingSocket: null }
    privateBuffers.push(buffer)
  }
  buffer.readingSocket = socket
  return buffer
}

/**
 * Takes the buffers out of use that are still being written to a socket which now gets a new user. The new user may pass the
 * socket to another process, and destroy it in this one, before the kernel has accepted everything.
 */
export function abandonWrites (socket: Duplex): void {
  for (const buffer of [...privateBuffers]) {
    if (buffer.writingSocket === socket && !clearIfWritten(buffer)) forget(buffer)
  }
}

function forget (buffer: PrivateBuffer): void {
  privateBuffers.splice(privateBuffers.indexOf(buffer), 1)
  readMemory.delete(buffer.memory.buffer)
}

/** Clears `writingSocket` if that socket has written everything. @returns whether nothing in the buffer is left to write */
function clearIfWritten (buffer: PrivateBuffer): boolean {
  if (buffer.writingSocket !== null && (buffer.writingSocket.destroyed || buffer.writingSocket.writableLength === 0)) buffer.writingSocket = null
  return buffer.writingSocket === null
}

/** Whether the bytes lie in memory that will be read into again. */
export function isLanded (data: Landed): boolean {
  return readMemory.has(bytesOf(data).buffer)
}

/** The same bytes, to be kept inside this package: copied if the next read would overwrite them. A small copy lies in Node's pool. */
export function copyIfLanded (data: Landed): Buffer {
  const bytes = bytesOf(data)
  if (!isLanded(data)) return bytes
  const copy = Buffer.allocUnsafe(bytes.length)
  copy.set(bytes)
  return copy
}

/**
 * The same bytes, for the user to keep, change or transfer. They are copied unless they fill their whole memory: the memory
 * around them may hold a head with its cookies, or the next request.
 */
export function copyForUser (data: Landed): Buffer {
  const bytes = bytesOf(data)
  return bytes.length < bytes.buffer.byteLength || isLanded(data) ? copyOf(bytes) : bytes
}

/** A copy in separate memory, not in Node's pool. */
export function copyOf (bytes: Buffer): Buffer {
  countChunk(bytes.length)
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
