// The writers of message heads: start line and field lines (RFC 9112 sections 3 to 5) as one latin1 string, which can be
// sent in one write with the first bytes of the body.

import { STATUS_CODES } from 'node:http'
import type { OutgoingFields, OutgoingResponseHead } from '../../types/transfer.d.ts'
import { FieldError, OwnFieldError, StatusError } from '../errors.ts'
import { isToken, writeFieldLine } from './field-lines.ts'
import { type Framing, TUNNEL, isContentLength } from './framing.ts'

export { asksToClose } from './connection-field.ts'

// The writer derives these from the framing and from whether the connection is kept. If users could set them, they could
// contradict the framing, which is response splitting.
const WRITER_FIELDS: ReadonlySet<string> = new Set(['transfer-encoding', 'keep-alive', 'te', 'trailer', 'proxy-connection'])

const REASON = /^[\t\x20-\x7e\x80-\xff]*$/

/** Whether a reason phrase can be sent (RFC 9112 section 4). */
export function isReason (text: string): boolean {
  return REASON.test(text)
}

/** Whether a response has no content-length: with status 204, 101 or a 2xx to CONNECT (RFC 9110 section 8.6). */
export function forbidsLength ({ statusCode, framing }: OutgoingResponseHead): boolean {
  return statusCode === 204 || framing === TUNNEL
}

/** Whether only the writer may set this field. */
export function isWriterField (name: string): boolean {
  return WRITER_FIELDS.has(name.toLowerCase())
}

/** Whether the user may set this field in a response head. */
export function isSendable (name: string, value: OutgoingFields[string]): boolean {
  if (isWriterField(name) || (name.toLowerCase() === 'content-length' && !isContentLength(value))) return false
  try {
    return writeFieldLine(name, value) !== null
  } catch {
    return false
  }
}

/**
 * The head of a final response or of a 101, with the empty line at its end.
 *
 * @param persistent whether the connection is kept for another request
 * @param keepAlive the value of the `Keep-Alive` field in that case, like `timeout=72`. Default: no such field
 * @param trailers the value of the `Trailer` field, if the framing has a trailer section. Default: no such field
 * @throws {StatusError} FST_ERR_DUPLEX_STATUS
 * @throws {FieldError} FST_ERR_DUPLEX_FIELD: a name, a value or the reason phrase cannot be sent, or the framing is not that of
 * `content-length`
 * @throws {OwnFieldError} FST_ERR_DUPLEX_OWN_FIELD: a field that only the writer may set
 */
export function writeResponseHead (head: OutgoingResponseHead, persistent: boolean, keepAlive?: string, trailers = ''): string {
  const { statusCode, fields, framing } = head
  let text = statusLine(statusCode, head.statusMessage)
  let dated = head.date === false
  let hasLength = false
  let upgrade = '' // the connection option that an upgrade field requires (RFC 9110 section 7.8)
  for (const name in fields) {
    const value = fields[name]
    const key = name.toLowerCase()
    if (WRITER_FIELDS.has(key)) throw new OwnFieldError(name)
    if (key === 'connection') continue
    if (key === 'content-length' && value !== undefined) {
      if (forbidsLength(head)) continue
      if (hasLength || !agrees(framing, value)) throw new FieldError('value in field', name)
      hasLength = true
    }
    if (key === 'date') dated = true
    else if (key === 'upgrade') upgrade = 'upgrade, '
    text += writeFieldLine(name, value)
  }
  if (!dated) text += dateLine()
  if (framing === TUNNEL) {
    if (statusCode === 101) text += 'connection: upgrade\r\n'
  } else if (persistent) {
    text += `connection: ${upgrade}keep-alive\r\n`
    if (keepAlive !== undefined) text += writeFieldLine('keep-alive', keepAlive)
  } else {
    text += `connection: ${upgrade}close\r\n`
  }
  if (framing.kind === 'chunked') {
    text += 'transfer-encoding: chunked\r\n'
    if (trailers !== '') text += writeFieldLine('trailer', trailers)
  } else if (framing.kind === 'length' && !hasLength) {
    text += `content-length: ${framing.length}\r\n`
  }
  return text + '\r\n'
}

/**
 * An interim response (RFC 9110 section 15.2). It consists of a head only.
 *
 * @throws {StatusError} FST_ERR_DUPLEX_STATUS
 * @throws {FieldError} FST_ERR_DUPLEX_FIELD
 * @throws {OwnFieldError} FST_ERR_DUPLEX_OWN_FIELD: a field about a body or the connection
 */
export function writeInterimHead (statusCode: number, fields: OutgoingFields): string {
  if (statusCode === 101 || statusCode >= 200) throw new StatusError(statusCode)
  let text = statusLine(statusCode)
  for (const name in fields) {
    const key = name.toLowerCase()
    if (WRITER_FIELDS.has(key) || key === 'connection' || key === 'content-length') throw new OwnFieldError(name)
    text += writeFieldLine(name, fields[name])
  }
  return text + '\r\n'
}

/**
 * The head of a request, for the tests that app.injectDuplex() serves: whether the fields contradict each other is not checked. See
 * request-head-writer.ts for the one that checks it.
 *
 * @param target the request-target, in any form
 * @param minorVersion the minor version of HTTP/1. Default: 1
 * @throws {FieldError} FST_ERR_DUPLEX_FIELD: the method, the target, a name or a value cannot be sent
 */
export function writeUncheckedRequestHead (method: string, target: string, fields: OutgoingFields, minorVersion = 1): string {
  if (!isToken(method)) throw new FieldError('method', method)
  if (!/^[\x21-\x7e]+$/.test(target)) throw new FieldError('request-target', target)
  let text = `${method} ${target} HTTP/1.${minorVersion}\r\n`
  for (const name in fields) text += writeFieldLine(name, fields[name])
  return text + '\r\n'
}

/** Whether a content-length says the same as the framing. Where there is no body, it is that of another response (RFC 9110 section 8.6). */
function agrees ({ kind, length }: Framing, value: OutgoingFields[string]): boolean {
  return isContentLength(value) && (kind === 'none' || (kind === 'length' && Number(value) === length))
}

function statusLine (statusCode: number, statusMessage?: string): string {
  if (!(statusCode >= 100 && statusCode <= 999)) throw new StatusError(statusCode)
  if (statusMessage !== undefined && !isReason(statusMessage)) throw new FieldError('reason phrase', statusMessage)
  return `HTTP/1.1 ${statusCode} ${statusMessage ?? STATUS_CODES[statusCode] ?? ''}\r\n`
}

let dateSecond = 0
let dateText = ''

/** Cached: the text changes once a second, and takes longer to make than the rest of the head. */
function dateLine (): string {
  const second = Math.floor(Date.now() / 1000)
  if (second !== dateSecond) {
    dateSecond = second
    dateText = `date: ${new Date(second * 1000).toUTCString()}\r\n`
  }
  return dateText
}
