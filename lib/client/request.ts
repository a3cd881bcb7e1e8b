// The options of an injected request, as those of `app.inject()`: what they make of the head and of the body.

import { Readable, type Writable } from 'node:stream'
import type { InjectDuplexOptions, OutgoingFields } from '../../types/index.d.ts'
import { OptionError } from '../errors.ts'
import { type Framing, requestFraming } from '../transfer/framing.ts'
import { writeRequestHead } from '../transfer/head-writer.ts'

export interface RequestStart {
  method: string
  /** The whole head, as it goes out. */
  head: string
  framing: Framing
  /** The client offers to switch protocols, or asks for a tunnel. */
  switches: boolean
}

/** Where the body of a request goes. */
type Body = Writable & { endBody (content: string | Uint8Array): void }

/** Methods whose requests have no body, unless a payload or a framing field says so. */
const WITHOUT_BODY: ReadonlySet<string> = new Set(['GET', 'HEAD', 'DELETE', 'OPTIONS', 'TRACE'])

/**
 * The head of a request.
 *
 * @throws {OptionError} FST_ERR_DUPLEX_OPTION: there is no URL, or the payload is nothing that can be sent
 * @throws {FieldError} FST_ERR_DUPLEX_FIELD
 * @throws {FramingError} FST_ERR_DUPLEX_FRAMING: the framing fields contradict each other
 */
export function requestStart (options: InjectDuplexOptions): RequestStart {
  const method = (options.method ?? 'GET').toUpperCase()
  const target = options.url ?? options.path ?? fail('url', 'there is none')
  // The target of CONNECT is a host and a port, with nothing before and behind.
  const url = new URL(method === 'CONNECT' ? `http://${target}` : target, 'http://localhost')
  for (const [name, value] of new URLSearchParams(options.query)) url.searchParams.append(name, value)
  const minorVersion = options.httpVersion === '1.0' ? 0 : 1
  const fields: OutgoingFields = { host: url.host, 'user-agent': 'fastify-duplex' }
  for (const [name, value] of Object.entries(options.headers ?? {})) fields[name.toLowerCase()] = value
  const cookies = Object.entries(options.cookies ?? {}).map(([name, value]) => `${name}=${value}`)
  if (cookies.length > 0) fields.cookie = cookies.join('; ')
  if (isJson(options.payload)) fields['content-type'] ??= 'application/json'
  const switches = method === 'CONNECT' || fields.upgrade !== undefined
  if (switches && isIterable(options.payload)) fail('payload', 'a request that switches protocols needs one of known length')
  if (fields.upgrade !== undefined) fields.connection ??= 'upgrade'
  frame(fields, switches || WITHOUT_BODY.has(method), minorVersion, payloadOf(options))
  return {
    method,
    switches,
    head: writeRequestHead(method, method === 'CONNECT' ? target : url.pathname + url.search, fields, minorVersion),
    framing: requestFraming({
      'content-length': fields['content-length']?.toString(),
      'transfer-encoding': fields['transfer-encoding']?.toString()
    }, minorVersion)
  }
}

/** Writes the payload there is; without one the body stays open for the caller. */
export function writePayload (options: InjectDuplexOptions, client: Body): void {
  const payload = payloadOf(options)
  if (payload === undefined) return
  if (isIterable(payload)) {
    const source = Readable.from(payload)
    source.on('error', (error) => client.destroy(error))
    source.pipe(client)
  } else {
    client.endBody(payload)
  }
}

/** Adds the fields that frame the body, where the caller has not. */
function frame (fields: OutgoingFields, isWithoutBody: boolean, minorVersion: number, payload: Payload): void {
  if (fields['content-length'] !== undefined || fields['transfer-encoding'] !== undefined) return
  if (payload !== undefined && !isIterable(payload)) fields['content-length'] = Buffer.byteLength(payload)
  else if (payload !== undefined || !isWithoutBody) fields['transfer-encoding'] = 'chunked'
  if (minorVersion === 0 && fields['transfer-encoding'] !== undefined) fail('payload', 'HTTP/1.0 needs one of known length')
}

type Payload = string | Uint8Array | AsyncIterable<unknown> | undefined

function payloadOf ({ payload }: InjectDuplexOptions): Payload {
  return isJson(payload) ? JSON.stringify(payload) : payload as Payload
}

/** Any object that is neither bytes nor a stream of them. */
function isJson (payload: unknown): boolean {
  return typeof payload === 'object' && payload !== null && !(payload instanceof Uint8Array) && !isIterable(payload)
}

function isIterable (payload: unknown): payload is AsyncIterable<unknown> {
  return typeof (payload as AsyncIterable<unknown> | undefined)?.[Symbol.asyncIterator] === 'function'
}

function fail (option: string, reason: string): never {
  throw new OptionError(option, reason)
}
