// Upgrade and CONNECT, which turn a connection into a tunnel for another protocol (RFC 9110 sections 7.8 and 9.3.6).

import { isIPv6 } from 'node:net'
import type { Authority, FramingFields, OutgoingFields } from '../../types/transfer.d.ts'
import { AuthorityError, FramingError, UpgradeError } from '../errors.ts'
import { listElements } from './field-lines.ts'

// authority-form = uri-host ":" port (RFC 9112 section 3.2.3). Of all forms of uri-host: names and addresses, without
// percent-encoding.
const AUTHORITY = /^(?:\[([0-9a-f:.]+)\]|([a-z0-9._-]+)):(\d{1,5})$/i

/** Whether the connection becomes a tunnel after the head of a response with this status. */
export function isTunnel (method: string, statusCode: number): boolean {
  return statusCode === 101 || (method === 'CONNECT' && statusCode >= 200 && statusCode < 300)
}

/**
 * Parses the target of a CONNECT request.
 *
 * @returns null for a path, which only the extended CONNECT of HTTP/2 has (RFC 8441)
 * @throws {AuthorityError} FST_ERR_DUPLEX_AUTHORITY (400)
 */
export function connectTarget (target: string, isHttp2: boolean): Authority | null {
  return isHttp2 && target.startsWith('/') ? null : parseAuthority(target)
}

/**
 * Parses an authority-form.
 *
 * @throws {AuthorityError} FST_ERR_DUPLEX_AUTHORITY (400)
 */
export function parseAuthority (target: string): Authority {
  return readAuthority(target) ?? fail()
}

/** @returns null if it is no authority-form */
export function readAuthority (target: string): Authority | null {
  const [, address, name, digits] = AUTHORITY.exec(target) ?? []
  const port = Number(digits)
  if (!(port > 0 && port < 65536) || (address !== undefined && !isIPv6(address))) return null
  return { host: address ?? name, port }
}

function fail (): never {
  throw new AuthorityError()
}

/**
 * Refuses a CONNECT request that has framing fields. It has no content (RFC 9110 section 9.3.6), and what one recipient
 * takes for a body would be the first bytes of the tunnel for another.
 *
 * @throws {FramingError} FST_ERR_DUPLEX_FRAMING (400)
 */
export function checkConnect (fields: FramingFields): void {
  for (const name of ['transfer-encoding', 'content-length'] as const) {
    if (fields[name] !== undefined) throw new FramingError(`${name} in a CONNECT request`)
  }
}

/**
 * Checks that the client has offered the protocols that a 101 switches to.
 *
 * @param minorVersion the request's minor version of HTTP/1
 * @param connection the request's `connection` field
 * @param offered the request's `upgrade` field
 * @param chosen the response's `upgrade` field
 * @throws {UpgradeError} FST_ERR_DUPLEX_UPGRADE: a protocol was not offered, or the response names none
 */
export function checkUpgrade (minorVersion: number, connection: string | undefined, offered: string | undefined, chosen: OutgoingFields[string]): void {
  const names = listElements(chosen)
  if (names.length === 0) throw new UpgradeError('the response names no protocol in its "upgrade" field')
  // Without the connection option, and in HTTP/1.0, the upgrade field has no meaning (RFC 9110 section 7.8).
  const offers = minorVersion > 0 && listElements(connection).includes('upgrade') ? listElements(offered) : []
  if (!names.every((name) => offers.includes(name))) throw new UpgradeError(`the client has not offered "${names.join(', ')}"`)
}
