// The Host field of a request (RFC 9112 section 3.2): which host a request is for must be understood by everybody alike.

import { isIPv6 } from 'node:net'
import { HostError } from '../errors.ts'

// uri-host [ ":" port ] (RFC 9110 section 7.2, RFC 3986 section 3.2.2). An "http" URI without a host is invalid (RFC 9110
// section 4.2.1), so nothing may stand for the name only if nothing stands behind it.
const HOST = /^(?:\[(?:([0-9a-f:.]+)|v[0-9a-f]+\.[a-z0-9._~!$&'()*+,;=:-]+)\]|(?:[a-z0-9._~!$&'()*+,;=-]|%[0-9a-f]{2})+)(?::\d*)?$/i

/**
 * Refuses a request of HTTP/1 that has more than one Host field, or a malformed one, or none in HTTP/1.1.
 *
 * @param rawHeaders names and values in turn, as an IncomingMessage has them
 * @param target the request-target
 * @throws {HostError} FST_ERR_DUPLEX_HOST (400)
 */
export function checkHost (rawHeaders: readonly string[], minorVersion: number, target: string): void {
  let host: string | null = null
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const name = rawHeaders[i]
    if (name.length !== 4 || name.toLowerCase() !== 'host') continue
    if (host !== null) throw new HostError('there is more than one')
    host = rawHeaders[i + 1]
  }
  checkHostField(host ?? undefined, minorVersion, target)
}

/**
 * Refuses a Host field that is malformed, or missing in HTTP/1.1.
 *
 * @param host its value; that of a repeated field, joined with `, `, is malformed
 * @param target the request-target
 * @throws {HostError} FST_ERR_DUPLEX_HOST (400)
 */
export function checkHostField (host: string | undefined, minorVersion: number, target: string): void {
  if (host === undefined) {
    if (minorVersion > 0) throw new HostError('there is none')
  } else if (host === '') {
    // What a client sends if, and only if, the target URI has no authority (RFC 9112 section 3.2). In origin-form and
    // asterisk-form this field is the only place for one, and an empty one stands for the server's default (section 3.3).
    if (!target.startsWith('/') && target !== '*') throw new HostError('it is empty, but the target has an authority')
  } else if (!isHost(host)) {
    throw new HostError('it is not one host with an optional port')
  }
}

/** The last text that was a host: most requests to a server are for the same one. */
let lastHost = ''

/** Whether a text is a host with an optional port. */
export function isHost (text: string): boolean {
  if (text === lastHost && text !== '') return true
  const match = HOST.exec(text)
  if (match === null || (match[1] !== undefined && !isIPv6(match[1]))) return false
  lastHost = text
  return true
}
