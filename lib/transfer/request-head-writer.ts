// The writer of request heads: request-line and field lines (RFC 9112 sections 3 and 5) as one latin1 string. What it writes,
// RequestHeadReader reads.

import type { Framing, OutgoingFields, OutgoingRequestHead } from '../../types/transfer.d.ts'
import { FieldError, OwnFieldError } from '../errors.ts'
import { isToken, writeFieldLine } from './field-lines.ts'
import { isContentLength } from './framing.ts'
import { checkHostField } from './host.ts'
import { parseTarget } from './request-target.ts'

// The writer derives these from the framing. If users could set them, they could contradict the framing, which is request smuggling.
const WRITER_FIELDS: ReadonlySet<string> = new Set(['transfer-encoding', 'content-length', 'trailer', 'keep-alive', 'proxy-connection'])

/** Methods whose requests say so if they have no content, since others expect some (RFC 9110 section 8.6). */
const WITH_CONTENT: ReadonlySet<string> = new Set(['POST', 'PUT', 'PATCH'])

/**
 * The head of a request in HTTP/1.1, with the empty line at its end.
 *
 * @param persistent whether the connection is kept after the response
 * @param trailers the value of the `Trailer` field, if the framing is chunked. Default: no such field
 * @throws {FieldError} FST_ERR_DUPLEX_FIELD: the method, the target, a field, the Host field or the framing cannot be sent
 * @throws {OwnFieldError} FST_ERR_DUPLEX_OWN_FIELD: a field that only the writer may set
 */
export function writeRequestHead ({ method, target, fields, framing }: OutgoingRequestHead, persistent = true, trailers = ''): string {
  if (!isToken(method)) throw new FieldError('method', method)
  if (parseTarget(method, target) === null) throw new FieldError('request-target', target)
  if (!isSendable(method, framing)) throw new FieldError('framing of a request', framing.kind)
  const hosts: OutgoingFields[string][] = []
  // An upgrade and a te field each require their connection option (RFC 9110 sections 7.8 and 10.1.4).
  const options = persistent ? [] : ['close']
  let lines = ''
  for (const name of Object.keys(fields)) {
    const value = fields[name]
    const key = name.toLowerCase()
    if (WRITER_FIELDS.has(key)) throw new OwnFieldError(name)
    if (key === 'connection' || value === undefined) continue
    if (key === 'host') {
      hosts.push(value)
      continue
    }
    if (key === 'upgrade' || key === 'te') options.push(key)
    lines += writeFieldLine(name, value)
  }
  if (options.length > 0) lines += `connection: ${options.join(', ')}\r\n`
  if (framing.kind === 'chunked') {
    lines += 'transfer-encoding: chunked\r\n'
    if (trailers !== '') lines += writeFieldLine('trailer', trailers)
  } else if (framing.kind === 'length') {
    lines += `content-length: ${framing.length}\r\n`
  } else if (WITH_CONTENT.has(method)) {
    lines += 'content-length: 0\r\n'
  }
  // The Host field should be the first (RFC 9110 section 7.2).
  return `${method} ${target} HTTP/1.1\r\nhost: ${hostOf(hosts.flat(), target)}\r\n${lines}\r\n`
}

/** Whether a request can have this framing. Its body never ends with the connection, and that of CONNECT would be a part of the tunnel. */
function isSendable (method: string, { kind, length }: Framing): boolean {
  if (kind === 'none') return true
  return method !== 'CONNECT' && (kind === 'chunked' || (kind === 'length' && isContentLength(length)))
}

function hostOf (hosts: OutgoingFields[string][], target: string): string {
  const host = hosts.length === 1 ? String(hosts[0]) : undefined
  try {
    checkHostField(host, 1, target)
  } catch {
    // That error is one of a client that has sent such a field.
    throw new FieldError('value in field', 'host')
  }
  return host!
}
