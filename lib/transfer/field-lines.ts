// Field lines, as they stand in a message head or a trailer section (RFC 9112 section 5): read and written by the same
// rules.

import type { Fields, OutgoingFields } from '../../types/transfer.d.ts'
import { FieldError } from '../errors.ts'

/** 1 for each byte that may stand in a token (RFC 9110 section 5.6.2). */
export const TOKEN_BYTES: Readonly<Uint8Array> = (() => {
  const table = new Uint8Array(256)
  for (const char of "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz") {
    table[char.charCodeAt(0)] = 1
  }
  return table
})()

const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/
// field-value: visible bytes, blanks and obs-text. HTAB is the only control byte: no CR, LF or NUL.
const FIELD_VALUE = /^[\t\x20-\x7e\x80-\xff]*$/
// Trailers come when the message has already been framed, routed, authorized and interpreted. A field that has a say in
// that must not be among them (RFC 9110 section 6.5.1).
const NOT_IN_TRAILERS: ReadonlySet<string> = new Set([
  // framing and connection
  'transfer-encoding', 'content-length', 'connection', 'keep-alive', 'proxy-connection', 'te', 'trailer', 'upgrade', 'http2-settings',
  // routing
  'host', 'forwarded', 'x-forwarded-for', 'x-forwarded-host', 'x-forwarded-port', 'x-forwarded-proto',
  // authentication and cookies
  'authorization', 'proxy-authorization', 'www-authenticate', 'proxy-authenticate', 'cookie', 'set-cookie',
  // request modifiers and the form of the content
  'cache-control', 'expect', 'max-forwards', 'range', 'content-encoding', 'content-range', 'content-type'
])

/**
 * An object for fields that inherits no names, so that `__proto__` or `constructor` is a field like any other. V8 makes a hash table
 * of Object.create(null), which takes five times as long.
 */
export const FieldMap = function () {} as unknown as new () => Record<string, any>
FieldMap.prototype = Object.create(null)

/** Whether `value` is a token (RFC 9110 section 5.6.2). */
export function isToken (value: string): boolean {
  return TOKEN.test(value)
}

/**
 * Adds one field line, without its CRLF, to `fields`.
 *
 * @returns the lower-case name, or null when the line is not a field line
 */
export function readFieldLine (line: string, fields: Fields): string | null {
  // A token, a colon without a blank before it, and the value between optional blanks (RFC 9112 section 5.1). There is no
  // single pattern for that, because one that also trims takes quadratic time for a run of blanks.
  const colon = line.indexOf(':')
  if (colon < 1 || !TOKEN.test(line.slice(0, colon)) || !FIELD_VALUE.test(line)) return null
  const name = line.slice(0, colon).toLowerCase()
  const value = trimBlanks(line.slice(colon + 1))
  const known = fields[name] // faster than `in`
  if (known === undefined) fields[name] = value
  else if (Object.hasOwn(fields, name)) fields[name] = `${known}, ${value}`
  else setInherited(fields, name, value)
  return name
}

/** Sets a field whose name every object inherits. To assign to `__proto__` would not make a field of it. */
function setInherited (fields: Fields, name: string, value: string): void {
  Object.defineProperty(fields, name, { value, configurable: true, enumerable: true, writable: true })
}

/** `text` without the optional blanks around it (RFC 9110 section 5.6.3). String#trim() would remove other bytes too. */
export function trimBlanks (text: string): string {
  let start = 0
  let end = text.length
  while (start < end && isBlank(text.charCodeAt(start))) start++
  while (end > start && isBlank(text.charCodeAt(end - 1))) end--
  return text.slice(start, end)
}

/** The elements of a list (RFC 9110 section 5.6.1), in lower case, without the empty ones. */
export function listElements (value: OutgoingFields[string]): string[] {
  if (value === undefined) return []
  return String(value).split(',').map((element) => trimBlanks(element).toLowerCase()).filter((element) => element !== '')
}

/** Whether a byte is SP or HTAB, of which OWS and BWS consist (RFC 9110 section 5.6.3). */
export function isBlank (byte: number): boolean {
  return byte === 0x20 || byte === 0x09
}

/** Whether a field may stand in a trailer section; `name` in lower case. */
export function isTrailerField (name: string): boolean {
  return !NOT_IN_TRAILERS.has(name)
}

/**
 * The line or lines for one field, each with its CRLF.
 *
 * @throws {FieldError} FST_ERR_DUPLEX_FIELD: the name is not a token, or a value has control characters or some above 0xff
 */
export function writeFieldLine (name: string, value: OutgoingFields[string]): string {
  if (!TOKEN.test(name)) throw new FieldError('name in field', name)
  if (value === undefined) return ''
  if (!Array.isArray(value)) return fieldLine(name, value as string | number)
  let lines = ''
  for (const element of value) lines += fieldLine(name, element)
  return lines
}

function fieldLine (name: string, value: string | number): string {
  const text = String(value)
  // Without the u flag a character above 0xff is one or two code units that the pattern refuses. None is truncated.
  if (!FIELD_VALUE.test(text)) throw new FieldError('value in field', name)
  return `${name}: ${text}\r\n`
}

/** The value of the `Trailer` field that announces these trailers (RFC 9110 section 6.6.2); empty if there are none. */
export function trailerNames (fields: OutgoingFields): string {
  return Object.keys(fields).filter((name) => fields[name] !== undefined).join(', ')
}

/**
 * The field lines of a trailer section, each with its CRLF, without the empty line that ends the section.
 *
 * @throws {FieldError} FST_ERR_DUPLEX_FIELD: as for any field line, and for a name that is not allowed in trailers
 */
export function writeTrailers (fields: OutgoingFields): string {
  let lines = ''
  for (const name of Object.keys(fields)) {
    if (!isTrailerField(name.toLowerCase())) throw new FieldError('trailer name', name)
    lines += writeFieldLine(name, fields[name])
  }
  return lines
}
