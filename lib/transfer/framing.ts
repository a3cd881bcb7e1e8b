// The framing of a message, decided once, from its head, before any byte of its body is read or written (RFC 9112
// section 6; Go's readTransfer and newTransferWriter). What two recipients could understand differently is refused, not
// repaired.

import type { BodyReader, ChunkedLimits, Framing, FramingFields, OutgoingFields } from '../../types/transfer.d.ts'
import { FieldError, FramingError, StatusError, TransferCodingError } from '../errors.ts'
import { CloseReader, LengthReader } from './body-reader.ts'
import { ChunkedReader, MAX_BODY_SIZE } from './chunked-reader.ts'
import { isToken, trimBlanks } from './field-lines.ts'
import { isTunnel } from './tunnel.ts'

export type { Framing }

/**
 * The framing fields in the `rawHeaders` of an IncomingMessage. Its parsed `headers` keep only the first content-length.
 */
export function framingFields (rawHeaders: readonly string[]): FramingFields {
  const fields: FramingFields = {}
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const name = rawHeaders[i]
    if (name.length !== 17 && name.length !== 14) continue
    const key = name.toLowerCase()
    if (key !== 'transfer-encoding' && key !== 'content-length') continue
    fields[key] = fields[key] === undefined ? rawHeaders[i + 1] : `${fields[key]}, ${rawHeaders[i + 1]}`
  }
  return fields
}

/** There is no body, and nothing may be written. */
export const NO_BODY: Framing = Object.freeze({ kind: 'none', length: 0 })
export const CHUNKED: Framing = Object.freeze({ kind: 'chunked', length: 0 })
export const UNTIL_CLOSE: Framing = Object.freeze({ kind: 'close', length: 0 })
/** After the messages: bytes of another protocol, up to the end of the connection. */
export const TUNNEL: Framing = Object.freeze({ kind: 'close', length: 0 })

/**
 * The framing of a request (RFC 9112 section 6.3).
 *
 * @param minorVersion its minor version of HTTP/1
 * @throws {FramingError} FST_ERR_DUPLEX_FRAMING (400)
 * @throws {TransferCodingError} FST_ERR_DUPLEX_TRANSFER_CODING (501)
 */
export function requestFraming (fields: FramingFields, minorVersion: number): Framing {
  return announcedFraming(fields, minorVersion) ?? NO_BODY
}

/**
 * The framing of a received response (RFC 9112 section 6.3).
 *
 * @param method the method of the request it answers
 * @throws {FramingError} FST_ERR_DUPLEX_FRAMING
 * @throws {TransferCodingError} FST_ERR_DUPLEX_TRANSFER_CODING
 */
export function receivedFraming (method: string, statusCode: number, fields: FramingFields, minorVersion: number): Framing {
  if (isTunnel(method, statusCode)) return TUNNEL
  if (method === 'HEAD' || hasNoContent(statusCode)) return NO_BODY
  return announcedFraming(fields, minorVersion) ?? UNTIL_CLOSE
}

/**
 * The framing of a response to send.
 *
 * @param method the method of the request it answers
 * @param contentLength the content-length field that the user has set, if any
 * @param minorVersion the request's minor version of HTTP/1: 1.0 has no chunked coding
 * @throws {StatusError} FST_ERR_DUPLEX_STATUS: an interim status, which is not a final response
 * @throws {FieldError} FST_ERR_DUPLEX_FIELD: content-length is not one number of bytes
 */
export function responseFraming (method: string, statusCode: number, contentLength: OutgoingFields[string], minorVersion: number): Framing {
  if (isTunnel(method, statusCode)) return TUNNEL
  if (statusCode < 200) throw new StatusError(statusCode)
  if (contentLength !== undefined && !isContentLength(contentLength)) throw new FieldError('value in field', 'content-length')
  const length = contentLength === undefined ? null : Number(contentLength)
  if (hasNoContent(statusCode)) return NO_BODY
  // A handler may write what it would write for GET.
  if (method === 'HEAD') return { kind: 'none', length: length ?? Infinity }
  if (length !== null) return { kind: 'length', length }
  return minorVersion === 0 ? UNTIL_CLOSE : CHUNKED
}

/**
 * Whether a content-length may be sent. It must be one number, without leading zeros: not every recipient takes a list of equal
 * numbers for one (RFC 9110 section 8.6), or zeros for decimal.
 */
export function isContentLength (value: OutgoingFields[string]): boolean {
  return !Array.isArray(value) && /^(?:0|[1-9]\d*)$/.test(String(value)) && Number(value) <= MAX_BODY_SIZE
}

/** The reader for a body with this framing. */
export function bodyReader (framing: Framing, limits: ChunkedLimits): BodyReader {
  switch (framing.kind) {
    case 'chunked': return new ChunkedReader(limits)
    case 'close': return new CloseReader()
    default: return new LengthReader(framing.length)
  }
}

/** Whether trailers may be set for a response with this framing. Without the chunked coding they are dropped. */
export function allowsTrailers (framing: Framing): boolean {
  return framing.kind === 'chunked' || framing === UNTIL_CLOSE || framing.length === Infinity
}

/** Whether a response with this status ends with its head, whatever its fields say. */
function hasNoContent (statusCode: number): boolean {
  return statusCode === 204 || statusCode === 304 || statusCode < 200
}

function announcedFraming (fields: FramingFields, minorVersion: number): Framing | null {
  const coding = fields['transfer-encoding']
  const length = fields['content-length']
  if (coding !== undefined) {
    // Some recipients would go by one field, some by the other. RFC 9112 section 6.1 allows a server to refuse that.
    if (length !== undefined) throw new FramingError('transfer-encoding together with content-length')
    if (minorVersion === 0) throw new FramingError('transfer-encoding in HTTP/1.0')
    checkTransferCoding(coding)
    return CHUNKED
  }
  if (length === undefined) return null
  const size = parseContentLength(length)
  return size === 0 ? NO_BODY : { kind: 'length', length: size }
}

/** Transfer-Encoding = #transfer-coding (RFC 9112 section 6.1). The only coding implemented here is chunked. */
function checkTransferCoding (value: string): void {
  if (value.toLowerCase() === 'chunked') return
  const codings = value.split(',').map((coding) => trimBlanks(coding).toLowerCase())
  if (codings.some((coding) => !isToken(trimBlanks(coding.split(';', 1)[0])))) {
    throw new FramingError('transfer-encoding is not a list of codings')
  }
  if (codings.indexOf('chunked') !== codings.length - 1) {
    throw new FramingError('chunked must be the last transfer coding, once')
  }
  if (codings.length > 1) throw new TransferCodingError(codings[0])
}

/** Content-Length = 1*DIGIT. A repeated field looks like a list, whose elements must be equal (RFC 9110 section 8.6). */
function parseContentLength (value: string): number {
  const [first, ...others] = value.split(/, ?/)
  if (others.some((other) => other !== first)) throw new FramingError('different values of content-length')
  const length = /^\d+$/.test(first) ? Number(first) : NaN
  if (!(length <= MAX_BODY_SIZE)) throw new FramingError('content-length is not a number of bytes')
  return length
}
