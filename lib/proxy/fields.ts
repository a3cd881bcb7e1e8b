// Which fields a proxy passes on, and which belong to one connection only (RFC 9110 section 7.6.1).

import type { IncomingMessage } from 'node:http'
import type { FastifyRequest } from 'fastify'
import type { OutgoingFields, Trailers } from '../../types/transfer.d.ts'
import { FieldMap, isTrailerField, listElements } from '../transfer/field-lines.ts'
import { isContentLength } from '../transfer/framing.ts'

/** Fields of the connection, of the proxy itself, and those that our own writers set. */
const NOT_PASSED_ON: ReadonlySet<string> = new Set([
  'connection', 'keep-alive', 'proxy-connection', 'proxy-authenticate', 'proxy-authorization', 'te', 'trailer', 'transfer-encoding', 'upgrade',
  'http2-settings'
])

/** The fields of a request to pass on, by lower-case name. Not from `headers`, in which Node drops some that are repeated. */
export function requestFields ({ rawHeaders, httpVersionMajor, httpVersionMinor }: IncomingMessage): OutgoingFields {
  const fields: OutgoingFields = new FieldMap()
  const options: string[] = []
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const name = rawHeaders[i].toLowerCase()
    const value = rawHeaders[i + 1]
    if (name === 'connection') options.push(...listElements(value))
    else if (isPassedOn(name)) fields[name] = fields[name] === undefined ? value : [fields[name], value].flat() as string[]
  }
  for (const name of options) if (name !== 'host') delete fields[name] // every request has a Host field, whatever the client says
  // HTTP/2 may split the field, which HTTP/1.1 may not (RFC 9113 section 8.2.3).
  if (Array.isArray(fields.cookie)) fields.cookie = fields.cookie.join('; ')
  // HTTP/1.0 has no expectations (RFC 9110 section 10.1.1).
  if (httpVersionMajor === 1 && httpVersionMinor === 0) delete fields.expect
  return fields
}

/** Whether a field of a request is passed on as it is. */
export function isPassedOn (name: string): boolean {
  return !NOT_PASSED_ON.has(name) && name !== 'content-length' && !name.startsWith(':')
}

/** The fields of a response to pass on. */
export function responseFields (headers: Readonly<Record<string, string | string[]>>): OutgoingFields {
  const fields: OutgoingFields = new FieldMap()
  const options = listElements(headers.connection)
  for (const name of Object.keys(headers)) {
    if (!NOT_PASSED_ON.has(name) && !options.includes(name)) fields[name] = headers[name]
  }
  // The length frames the body, whatever `connection` says. It may be repeated, or have leading zeros.
  const [length] = listElements(headers['content-length'])
  if (/^\d+$/.test(length) && isContentLength(Number(length))) fields['content-length'] = Number(length)
  else delete fields['content-length']
  return fields
}

/** The fields of an interim response, which has no body. */
export function interimFields (headers: Readonly<Record<string, string | string[]>>): OutgoingFields {
  const { 'content-length': _, ...fields } = responseFields(headers)
  return fields
}

/** A recipient may drop any trailer. Those go that our writers would refuse. */
export function trailersToPass (trailers: Trailers): OutgoingFields {
  return Object.fromEntries(Object.entries(trailers).filter(([name]) => isTrailerField(name)))
}

/**
 * Says who the client is: Forwarded (RFC 7239), and the older fields for the same. What earlier proxies have said about addresses stays in
 * front. Host and protocol are those that Fastify tells: with `trustProxy`, they come from earlier proxies.
 */
export function addForwarded (fields: OutgoingFields, { socket, protocol, host }: Pick<FastifyRequest, 'socket' | 'protocol' | 'host'>): void {
  const { remoteAddress } = socket // undefined on a Unix socket
  const node = remoteAddress === undefined ? 'unknown' : remoteAddress.includes(':') ? `"[${remoteAddress}]"` : remoteAddress
  append(fields, 'forwarded', `for=${node};${host === '' ? '' : `host=${quoted(host)};`}proto=${protocol}`)
  if (remoteAddress !== undefined) append(fields, 'x-forwarded-for', remoteAddress)
  fields['x-forwarded-host'] = host === '' ? undefined : host
  fields['x-forwarded-proto'] = protocol
}

function append (fields: OutgoingFields, name: string, element: string): void {
  const { [name]: value } = fields
  fields[name] = value === undefined ? element : `${[value].flat().join(', ')}, ${element}`
}

/** A host with a port is no token. */
function quoted (host: string): string {
  return `"${host.replace(/["\\]/g, '\\$&')}"`
}
