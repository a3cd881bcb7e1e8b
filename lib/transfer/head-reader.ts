// The readers of message heads. They collect a head up to its empty line, within a limit, and then parse it as one text: heads are
// short. Where RFC 9112 lets a recipient be lenient (a bare LF, blanks before a colon, folded lines), they are not: differences
// between recipients are what makes request smuggling possible.
//
// The heads of requests to the plugin are read by Node's parser, before the connection is borrowed.

import { maxHeaderSize } from 'node:http'
import type { Fields, ReceivedHead, RequestHead, ResponseHead } from '../../types/transfer.d.ts'
import type * as types from '../../types/transfer.d.ts'
import { AuthorityError, HeadError, TruncatedError, VersionError } from '../errors.ts'
import { FieldMap, readFieldLine } from './field-lines.ts'
import { HeadBuffer } from './head-buffer.ts'
import { checkHostField } from './host.ts'
import { parseTarget } from './request-target.ts'
import { checkConnect } from './tunnel.ts'

export type { RequestHead, ResponseHead }

// RFC 9112 section 3: a token, the request-target, which is looked at later, and the version, with one blank between.
const REQUEST_LINE = /^([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([^ ]+) HTTP\/(\d\.\d)$/
// RFC 9112 section 4. The blank after the status code is required, even if there is no reason phrase.
const STATUS_LINE = /^HTTP\/1\.([01]) ([1-5]\d\d) ([\t\x20-\x7e\x80-\xff]*)$/

abstract class HeadReader<Head> {
  head: Head | null = null
  error: Error | null = null
  consumed = 0
  protected readonly buffer: HeadBuffer

  constructor (maxSize: number, skipsEmptyLine: boolean) {
    this.buffer = new HeadBuffer(maxSize, skipsEmptyLine)
  }

  read (input: Buffer): void {
    try {
      const lines = this.buffer.read(input)
      this.consumed = this.buffer.consumed
      if (lines !== null) this.head = this.parse(lines.shift()!, lines)
    } catch (error) {
      this.error = error as Error
    }
  }

  end (): void {
    if (this.head === null && this.error === null) this.error = new TruncatedError()
  }

  protected abstract parse (startLine: string, lines: string[]): Head
}

/** Reads the head of one request. */
export class RequestHeadReader extends HeadReader<RequestHead> implements types.RequestHeadReader {
  constructor (maxSize: number = maxHeaderSize) {
    // What old clients add to a body (RFC 9112 section 2.2).
    super(maxSize, true)
  }

  /** Between two requests, a connection may end. */
  override end (): void {
    if (!this.buffer.isEmpty) super.end()
  }

  protected parse (requestLine: string, lines: string[]): RequestHead {
    const [, method, target, version] = REQUEST_LINE.exec(requestLine) ?? fail('not a request-line')
    // The grammar of HTTP/1, and none of its rules (RFC 9110 section 15.6.6).
    if (version !== '1.1' && version !== '1.0') throw new VersionError(version)
    const minorVersion = version === '1.1' ? 1 : 0
    const { fields, headers } = readFields(lines)
    const parsed = parseTarget(method, target)
    if (method === 'CONNECT') {
      if (parsed === null) throw new AuthorityError()
      checkConnect(fields)
    }
    const { form, host } = parsed ?? fail('not a request-target')
    checkHostField(fields.host, minorVersion, target)
    return { method, target, form, host: host ?? fields.host ?? '', minorVersion, fields, headers }
  }
}

/** Reads the head of one response, which may be an interim one. */
export class ResponseHeadReader extends HeadReader<ResponseHead> implements types.ResponseHeadReader {
  constructor (maxSize: number = maxHeaderSize) {
    super(maxSize, false)
  }

  protected parse (statusLine: string, lines: string[]): ResponseHead {
    const [, minorVersion, statusCode, statusMessage] = STATUS_LINE.exec(statusLine) ?? fail('not a status-line')
    // Other readers take it for the whole response (RFC 9110 section 15.2).
    if (minorVersion === '0' && statusCode.startsWith('1')) fail('a 1xx response of HTTP/1.0')
    const { fields, headers } = readFields(lines)
    return { minorVersion: Number(minorVersion), statusCode: Number(statusCode), statusMessage, fields, headers }
  }
}

/** Reads the field lines of a head. */
function readFields (lines: readonly string[]): Pick<ReceivedHead, 'fields' | 'headers'> {
  const fields: Fields = new FieldMap()
  const setCookies: string[] = []
  const cookies: string[] = []
  for (const line of lines) {
    const name = readFieldLine(line, fields) ?? fail('not a field line')
    // Their values are not joined with a comma.
    if (name !== 'set-cookie' && name !== 'cookie') continue
    const values = name === 'cookie' ? cookies : setCookies
    values.push(fields[name])
    delete fields[name]
  }
  if (cookies.length > 0) fields.cookie = cookies.join('; ')
  const headers: ReceivedHead['headers'] = { ...fields }
  if (setCookies.length > 0) headers['set-cookie'] = setCookies
  return { fields, headers }
}

function fail (reason: string): never {
  throw new HeadError(reason)
}
