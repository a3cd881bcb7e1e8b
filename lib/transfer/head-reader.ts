// The reader of response heads, for the client of injectDuplex() and for tests. The heads of requests are read by Node's
// parser, before the connection is borrowed.
//
// It buffers up to the empty line, within a limit, and then parses the head as one text: heads are short.

import type { Fields } from '../../types/transfer.d.ts'
import { HeadError, HeadLimitError, TruncatedError } from '../errors.ts'
import { NO_BYTES } from './body-reader.ts'
import { readFieldLine } from './field-lines.ts'

export interface StatusHead {
  /** The minor version of HTTP/1. */
  minorVersion: number
  statusCode: number
  statusMessage: string
  fields: Fields
  /** The same in Node's form: with `set-cookie`, whose values cannot be joined with a comma, as an array. */
  headers: Record<string, string | string[]>
}

const END_OF_HEAD = '\r\n\r\n'
// RFC 9112 section 4. The blank after the status code is required, even if there is no reason phrase.
const STATUS_LINE = /^HTTP\/1\.([01]) ([1-5]\d\d) ([\t\x20-\x7e\x80-\xff]*)$/

/** Reads one head. An interim response (1xx) is a whole head too: use a new reader for the one that follows. */
export class ResponseHeadReader {
  head: StatusHead | null = null
  error: Error | null = null
  /** How many bytes of the last input belonged to the head. If the head is complete, the body follows them. */
  consumed = 0
  private readonly maxSize: number
  private buffered = NO_BYTES

  /** @param maxSize limit for the bytes of the head */
  constructor (maxSize: number) {
    this.maxSize = maxSize
  }

  read (input: Buffer): void {
    const before = this.buffered.length
    const text = Buffer.concat([this.buffered, input])
    // The empty line may have begun in an earlier input.
    const end = text.indexOf(END_OF_HEAD, Math.max(0, before - END_OF_HEAD.length + 1), 'latin1')
    const size = end === -1 ? text.length : end + END_OF_HEAD.length
    this.consumed = size - before
    if (size > this.maxSize) this.error = new HeadLimitError(this.maxSize)
    else if (end === -1) this.buffered = text
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
    if (match === null || this.error !== null) return
    const headers: StatusHead['headers'] = { ...fields }
    if (cookies.length > 0) headers['set-cookie'] = cookies
    const [, minorVersion, statusCode, statusMessage] = match
    this.head = { minorVersion: Number(minorVersion), statusCode: Number(statusCode), statusMessage, fields, headers }
  }
}
