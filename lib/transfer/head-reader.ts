// Message heads, read: what comes before a body. Requests are read by Node's own parser before a connection is handed
// to us, so this reader serves the client end: the harness, which reads the responses of its own server.
//
// Strategy: gather until the empty line, bounded, then take the whole text apart. Heads are short and come once.

import type { Fields } from '../../types/transfer.d.ts'
import { HeadError, HeadLimitError, TruncatedError } from '../errors.ts'
import { NO_BYTES } from './body-reader.ts'
import { readFieldLine } from './field-lines.ts'

export interface StatusHead {
  /** Of HTTP/1 */
  minorVersion: number
  statusCode: number
  statusMessage: string
  fields: Fields
  /** The same as Node gives them: the values of `set-cookie`, which no comma can join, in an array. */
  headers: Record<string, string | string[]>
}

const END_OF_HEAD = '\r\n\r\n'
// RFC 9112 section 4; the blank after the code must be there, the reason need not.
const STATUS_LINE = /^HTTP\/1\.([01]) ([1-5]\d\d) ([\t\x20-\x7e\x80-\xff]*)$/

/** Reads one response head. Interim ones (1xx) are heads of their own: take a new reader for what follows. */
export class ResponseHeadReader {
  head: StatusHead | null = null
  error: Error | null = null
  /** Bytes of the last piece that belonged to the head; what follows is the body, if the head is there. */
  consumed = 0
  private readonly maxSize: number
  private gathered = NO_BYTES

  /** @param maxSize bytes of the head */
  constructor (maxSize: number) {
    this.maxSize = maxSize
  }

  read (piece: Buffer): void {
    const before = this.gathered.length
    const text = Buffer.concat([this.gathered, piece])
    // The empty line may have begun in the pieces before.
    const end = text.indexOf(END_OF_HEAD, Math.max(0, before - END_OF_HEAD.length + 1), 'latin1')
    const size = end === -1 ? text.length : end + END_OF_HEAD.length
    this.consumed = size - before
    if (size > this.maxSize) this.error = new HeadLimitError(this.maxSize)
    else if (end === -1) this.gathered = text
    else this.parse(text.toString('latin1', 0, end))
  }

  /** The connection has ended. */
  end (): void {
    if (this.head === null && this.error === null) this.error = new TruncatedError()
  }

  private parse (text: string): void {
    const [statusLine, ...lines] = text.split('\r\n')
    const match = STATUS_LINE.exec(statusLine)
    const fields: Fields = Object.create(null)
    const cookies: string[] = []
    for (const line of lines) {
      const name = readFieldLine(line, fields)
      if (name === null) this.error = new HeadError('not a field line')
      if (name !== 'set-cookie') continue
      cookies.push(fields[name])
      delete fields[name]
    }
    if (match === null) this.error = new HeadError('not a status line')
    if (this.error !== null) return
    const headers: StatusHead['headers'] = { ...fields }
    if (cookies.length > 0) headers['set-cookie'] = cookies
    this.head = { minorVersion: Number(match![1]), statusCode: Number(match![2]), statusMessage: match![3], fields, headers }
  }
}
