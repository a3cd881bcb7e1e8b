// Which fields a proxy passes on, and which belong to one connection only (RFC 9110 section 7.6.1).

import type { FastifyRequest } from 'fastify'
import type { OutgoingFields, Trailers } from '../../types/transfer.d.ts'
import { isTrailerField, trimBlanks } from '../transfer/field-lines.ts'

/** Fields of the connection, of the proxy itself, and those that our own writers set. */
const NOT_PASSED_ON: ReadonlySet<string> = new Set([
  'connection', 'keep-alive', 'proxy-connection', 'proxy-authenticate', 'proxy-authorization', 'te', 'trailer', 'transfer-encoding', 'upgrade',
  'http2-settings'
])

/** The fields of a request to pass on, by lower-case name. Not from `headers`, in which Node drops some that are repeated. */
export function requestFields (rawHeaders: readonly string[]): OutgoingFields {
  const fields: OutgoingFields = Object.create(null)
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const name = rawHeaders[i].toLowerCase()
    if (NOT_PASSED_ON.has(name) || name === 'content-length' || name.startsWith(':')) continue
    const value = rawHeaders[i + 1]
    const previous = fields[name]
    fields[name] = previous === undefined ? value : [...[previous].flat() as string[], value]
  }
  return fields
}

/** The fields of a response to pass on. */
export function responseFields (headers: Readonly<Record<string, string | string[]>>): OutgoingFields {
  const fields: OutgoingFields = Object.create(null)
  const options = optionsOf(headers.connection)
  for (const name of Object.keys(headers)) {
    if (!NOT_PASSED_ON.has(name) && !options.includes(name)) fields[name] = headers[name]
  }
  return fields
}

/** A recipient may drop any trailer. Those go that our writers would refuse. */
export function trailersToPass (trailers: Trailers): OutgoingFields {
  return Object.fromEntries(Object.entries(trailers).filter(([name]) => isTrailerField(name)))
}

/** Removes the fields that the Connection field of a message names. */
export function dropConnectionOptions (fields: OutgoingFields, connection: string | string[] | undefined): void {
  for (const name of optionsOf(connection)) delete fields[name]
}

function optionsOf (connection: string | string[] | undefined): string[] {
  return connection === undefined ? [] : String(connection).split(',').map((option) => trimBlanks(option).toLowerCase())
}

/** Says who the client is: Forwarded (RFC 7239), and the older fields for the same. */
export function addForwarded (fields: OutgoingFields, { ip, protocol, host }: Pick<FastifyRequest, 'protocol' | 'host'> & { ip: string }): void {
  const node = ip.includes(':') ? `"[${ip}]"` : ip
  append(fields, 'forwarded', `for=${node};host=${quoted(host)};proto=${protocol}`)
  append(fields, 'x-forwarded-for', ip)
  fields['x-forwarded-host'] ??= host
  fields['x-forwarded-proto'] ??= protocol
}

function append (fields: OutgoingFields, name: string, element: string): void {
  const { [name]: value } = fields
  fields[name] = value === undefined ? element : `${[value].flat().join(', ')}, ${element}`
}

/** A host with a port is no token. */
function quoted (host: string): string {
  return `"${host.replace(/["\\]/g, '\\$&')}"`
}
