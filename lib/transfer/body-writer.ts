// Body writers: content in, the bytes of one message body out. A writer is chosen once, from the framing. It produces
// parts: framing as text, content as the buffers it was given. The caller gathers them into as few writes as it likes.

import type { BodyWriter, Framing, Part } from '../../types/transfer.d.ts'
import { LengthError, NoBodyError, TrailersError } from '../errors.ts'
import { NO_BODY } from './framing.ts'

export type { BodyWriter, Part }

const chunkedWriter: BodyWriter = {
  write (content, size, parts) {
    parts.push(size.toString(16) + '\r\n')
    append(content, parts)
    parts.push('\r\n')
  },
  end (trailers, parts) {
    parts.push(`0\r\n${trailers}\r\n`)
  }
}

const closeWriter: BodyWriter = {
  write (content, _size, parts) {
    append(content, parts)
  },
  end: noTrailers
}

const noBodyWriter: BodyWriter = {
  write () {
    throw new NoBodyError()
  },
  end: noTrailers
}

/** A response to HEAD: what the handler writes for GET is counted and dropped, as Node does. */
class DroppingWriter implements BodyWriter {
  private readonly length: number
  private dropped = 0

  /** @param length as announced; Infinity if it is not */
  constructor (length: number) {
    this.length = length
  }

  write (_content: readonly Buffer[], size: number): void {
    if (size > this.length - this.dropped) throw new LengthError('more')
    this.dropped += size
  }

  end (trailers: string): void {
    if (this.length === Infinity) return
    // A handler that knows of HEAD need not write anything.
    if (this.dropped > 0 && this.dropped < this.length) throw new LengthError('fewer')
    noTrailers(trailers)
  }
}

class LengthWriter implements BodyWriter {
  private remaining: number

  constructor (length: number) {
    this.remaining = length
  }

  write (content: readonly Buffer[], size: number, parts: Part[]): void {
    if (size > this.remaining) throw new LengthError('more')
    this.remaining -= size
    append(content, parts)
  }

  end (trailers: string): void {
    if (this.remaining > 0) throw new LengthError('fewer')
    noTrailers(trailers)
  }
}

/** One by one: there may be more buffers than a call can have arguments. */
function append (content: readonly Buffer[], parts: Part[]): void {
  for (let i = 0; i < content.length; i++) parts.push(content[i])
}

function noTrailers (trailers: string): void {
  if (trailers !== '') throw new TrailersError()
}

/** The writer for a body with this framing. */
export function bodyWriter (framing: Framing): BodyWriter {
  switch (framing.kind) {
    case 'chunked': return chunkedWriter
    case 'length': return new LengthWriter(framing.length)
    case 'close': return closeWriter
    default: return framing === NO_BODY ? noBodyWriter : new DroppingWriter(framing.length)
  }
}

/** Content below this size is cheaper to copy than to write as a separate buffer. */
export const COPY_BELOW = 16 * 1024

const HEX_DIGITS = Buffer.from('0123456789abcdef')
const CR = 0x0d
const LF = 0x0a

/** Text up to this length is copied in a loop: Buffer#write() leaves JavaScript, which costs more for so few bytes. */
const MAX_LOOP_COPY = 24

/** Frames content within a body: not the first, and not the last. */
export function frameContent (writer: BodyWriter, content: readonly Buffer[], size: number): Buffer[] {
  if (writer === chunkedWriter && content.length === 1 && size < COPY_BELOW) return [smallChunk(content[0])]
  const parts: Part[] = []
  writer.write(content, size, parts)
  return gather(parts)
}

/** The same bytes as those of `chunkedWriter`, in a third of the time. This is what a message costs, between its read and its write. */
function smallChunk (content: Buffer): Buffer {
  const size = content.length
  let digits = 1
  for (let rest = size >> 4; rest > 0; rest >>= 4) digits++
  const chunk = Buffer.allocUnsafe(digits + size + 4)
  for (let i = digits - 1, rest = size; i >= 0; i--, rest >>= 4) chunk[i] = HEX_DIGITS[rest & 15]
  chunk[digits] = chunk[digits + size + 2] = CR
  chunk[digits + 1] = chunk[digits + size + 3] = LF
  chunk.set(content, digits + 2)
  return chunk
}

/**
 * The same bytes in few buffers: small parts are copied together, large content stays where it is. Writing many small
 * buffers costs seven times as much as writing one copy of them.
 */
export function gather (parts: readonly Part[]): Buffer[] {
  const buffers: Buffer[] = []
  let start = 0
  let size = 0
  for (let i = 0; i < parts.length; i++) {
    const part = parts[i]
    if (typeof part === 'string' || part.length < COPY_BELOW) {
      size += part.length
    } else {
      if (size > 0) buffers.push(copy(parts, start, i, size))
      buffers.push(part)
      start = i + 1
      size = 0
    }
  }
  if (size > 0) buffers.push(copy(parts, start, parts.length, size))
  return buffers
}

function copy (parts: readonly Part[], start: number, end: number, size: number): Buffer {
  if (end - start === 1 && typeof parts[start] !== 'string') return parts[start]
  const buffer = Buffer.allocUnsafe(size)
  let at = 0
  for (let i = start; i < end; i++) {
    const part = parts[i]
    if (typeof part !== 'string') buffer.set(part, at)
    else if (part.length > MAX_LOOP_COPY) buffer.write(part, at, 'latin1')
    else for (let j = 0; j < part.length; j++) buffer[at + j] = part.charCodeAt(j)
    at += part.length
  }
  return buffer
}
