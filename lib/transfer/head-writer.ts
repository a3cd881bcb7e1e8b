// The writers of message heads: start line and field lines (RFC 9112 sections 3 to 5) as one latin1 string, which can be
// sent in one write with the first bytes of the body.

import { STATUS_CODES } from 'node:http'
import type { OutgoingFields } from '../../types/transfer.d.ts'
import { FieldError, OwnFieldError } from '../errors.ts'
import { type Framing, TUNNEL, isContentLength } from './framing.ts'
import { isToken, writeFieldLine } from './field-lines.ts'

export interface ResponseHead {
  /** 101, or 200 to 599 */
  statusCode: number
  /** The reason phrase. Default: Node's for this status code */
  statusMessage?: string
  fields: OutgoingFields
  framing: Framing
  /** Whether to add `Date` if it is not among `fields`. Default: true */
  date?: boolean
}

// The writer derives these from the framing and from whether the connection is kept. If users could set them, they could
// contradict the framing, which is response splitting.
const WRITER_FIELDS: ReadonlySet<string> = new Set(['transfer-encoding', 'keep-alive', 'te', 'trailer', 'proxy-connection'])

const REASON = /^[\t\x20-\x7e\x80-\xff]*$/

/** Whether a reason phrase can be sent (RFC 9112 section 4). */
export function isReason (text: string): boolean {
  return REASON.test(text)
}

/**
 * Whether the user's `connection` field asks to close the connection (RFC 9112 section 9.6). All other options are for
 * the writer to decide, and are dropped.
 */
export function asksToClose (connection: OutgoingFields[string]): boolean {
  return connection !== undefined && String(connection).split(',').some((option) => option.trim().toLowerCase() === 'close')
}

/** Whether a response has no content-length: with status 204, 101 or a 2xx to CONNECT (RFC 9110 section 8.6). */
export function forbidsLength ({ statusCode, framing }: ResponseHead): boolean {
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
 * @throws {FieldError} FST_ERR_DUPLEX_FIELD: a name, a value or the reason phrase cannot be sent
 * @throws {OwnFieldError} FST_ERR_DUPLEX_OWN_FIELD: a field that only the writer may set
 */
export function writeResponseHead (head: ResponseHead, persistent: boolean, keepAlive?: string, trailers = ''): string {
  const { statusCode, fields, framing } = head
  let text = statusLine(statusCode, head.statusMessage)
  let dated = head.date === false
  let upgrade = '' // the connection option that an upgrade field requires (RFC 9110 section 7.8)
  for (const name in fields) {
    const value = fields[name]
    const key = name.toLowerCase()
    if (WRITER_FIELDS.has(key)) throw new OwnFieldError(name)
    if (key === 'connection') continue
    if (key === 'content-length' && forbidsLength(head)) continue
    if (key === 'date') dated = true
    else if (key === 'upgrade') upgrade = 'upgrade, '
    text += writeFieldLine(name, value)
  }
  if (!dated) text += dateLine()
  if (framing === TUNNEL) {
    if (statusCode === 101) text += 'connection: upgrade\r\n'
  } else if (persistent) {
    text += `connection: ${upgrade}keep-alive\r\n`
    if (keepAlive !== undefined) text += `keep-alive: ${keepAlive}\r\n`
  } else {
    text += `connection: ${upgrade}close\r\n`
  }
  if (framing.kind === 'chunked') {
    text += 'transfer-encoding: chunked\r\n'
    if (trailers !== '') text += `trailer: ${trailers}\r\n`
  }
  return text + '\r\n'
}

/**
 * An interim response (RFC 9110 section 15.2). It consists of a head only.
 *
 * @throws {FieldError} FST_ERR_DUPLEX_FIELD
 * @throws {OwnFieldError} FST_ERR_DUPLEX_OWN_FIELD: a field about a body or the connection
 */
export function writeInterimHead (statusCode: number, fields: OutgoingFields): string {
  let text = statusLine(statusCode)
  for (const name in fields) {
    const key = name.toLowerCase()
    if (WRITER_FIELDS.has(key) || key === 'connection' || key === 'content-length') throw new OwnFieldError(name)
    text += writeFieldLine(name, fields[name])
  }
  return text + '\r\n'
}

/**
 * The head of a request.
 *
 * @param target the request-target, in any form
 * @param minorVersion the minor version of HTTP/1. Default: 1
 * @throws {FieldError} FST_ERR_DUPLEX_FIELD: the method, the target, a name or a value cannot be sent
 */
export function writeRequestHead (method: string, target: string, fields: OutgoingFields, minorVersion = 1): string {
  if (!isToken(method)) throw new FieldError('method', method)
  if (!/^[\x21-\x7e]+$/.test(target)) throw new FieldError('request-target', target)
  let text = `${method} ${target} HTTP/1.${minorVersion}\r\n`
  for (const name in fields) text += writeFieldLine(name, fields[name])
  return text + '\r\n'
}

function statusLine (statusCode: number, statusMessage?: string): string {
  const reason = statusMessage ?? STATUS_CODES[statusCode] ?? ''
  if (!isReason(reason)) throw new FieldError('reason phrase', reason)
  return `HTTP/1.1 ${statusCode} ${reason}\r\n`
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
