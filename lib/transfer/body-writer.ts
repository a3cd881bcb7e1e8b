// Body writers: content in, the bytes of one message body out. A writer is chosen once, from the framing. It returns
// parts, framing as text and content as it came, for its user to gather into as few writes as it sees fit.

import { LengthError, NoBodyError, TrailersError } from '../errors.ts'
import type { Framing } from './framing.ts'

/** Bytes to send: text is latin1. */
export type Part = string | Buffer

export interface BodyWriter {
  /**
   * Adds the bytes for some content to `parts`: one chunk for all of it, if there are chunks.
   *
   * @param size bytes in `content` together, more than 0
   * @throws {NoBodyError} FST_ERR_DUPLEX_NO_BODY
   * @throws {LengthError} FST_ERR_DUPLEX_LENGTH: more than announced; nothing was added
   */
  write (content: readonly Buffer[], size: number, parts: Part[]): void
  /**
   * Adds the end of the body to `parts`.
   *
   * @param trailers field lines of the trailer section, each with its CRLF
   * @throws {LengthError} FST_ERR_DUPLEX_LENGTH: less than announced
   * @throws {TrailersError} FST_ERR_DUPLEX_NO_TRAILERS: there is no trailer section to put them in
   */
  end (trailers: string, parts: Part[]): void
}

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

class LengthWriter implements BodyWriter {
  private left: number

  constructor (length: number) {
    this.left = length
  }

  write (content: readonly Buffer[], size: number, parts: Part[]): void {
    if (size > this.left) throw new LengthError('more')
    this.left -= size
    append(content, parts)
  }

  end (trailers: string): void {
    if (this.left > 0) throw new LengthError('less')
    noTrailers(trailers)
  }
}

/** One by one: there may be more pieces than a call can have arguments. */
function append (content: readonly Buffer[], parts: Part[]): void {
  for (let i = 0; i < content.length; i++) parts.push(content[i])
}

function noTrailers (trailers: string): void {
  if (trailers !== '') throw new TrailersError()
}

/** The writer for a body so framed. */
export function bodyWriter (framing: Framing): BodyWriter {
  switch (framing.kind) {
    case 'chunked': return chunkedWriter
    case 'length': return new LengthWriter(framing.length)
    case 'close': return closeWriter
    default: return noBodyWriter
  }
}

/** Content from which a part is sent from where it lies; less is cheaper to copy than to hand over by itself. */
export const COPY_BELOW = 16 * 1024

/** Text of which the bytes are set one by one: Buffer's own way leaves JavaScript, which costs more than so few. */
const CALL_ABOVE = 24

/**
 * The same bytes in few buffers: all that is small gathered into one, big content left where it is. A write of many
 * little buffers costs seven times as much as one of their copy.
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
    else if (part.length > CALL_ABOVE) buffer.write(part, at, 'latin1')
    else for (let j = 0; j < part.length; j++) buffer[at + j] = part.charCodeAt(j)
    at += part.length
  }
  return buffer
}
