// The head and the body of a request, made from the options of `open()` or of `injectDuplex()`.

import { Readable } from 'node:stream'
import { ReadableStream } from 'node:stream/web'
import type { InjectDuplexOptions, OutgoingFields } from '../../types/index.d.ts'
import type { OutgoingRequestHead } from '../../types/transfer.d.ts'
import { OptionError } from '../errors.ts'
import { checkNames } from '../options.ts'
import { type Framing, requestFraming } from '../transfer/framing.ts'
import { asksToClose } from '../transfer/connection-field.ts'
import { FieldMap } from '../transfer/field-lines.ts'
import { writeUncheckedRequestHead } from '../transfer/head-writer.ts'
import { writeRequestHead } from '../transfer/request-head-writer.ts'
import { type ClientFormats, type ClientOptions, NO_FORMATS, clientFormats } from './items.ts'

export interface RequestStart {
  method: string
  /** The whole head, in latin1. */
  head: string
  framing: Framing
  formats: ClientFormats
  /** The client offers to switch protocols, or asks for a tunnel. */
  offersSwitch: boolean
  /** The fields of these names. */
  connection: string | undefined
  upgrade: string | undefined
  /** The body waits for a 100 (Continue). */
  expectsContinue: boolean
}

/** A request whose URL has been taken apart. */
export interface RequestParts extends Pick<ClientOptions, 'headers' | 'cookies' | 'payload' | 'receive' | 'send'> {
  /** Default: GET, or POST if there are items to send */
  method?: string
  /** The request-target. */
  target: string
  /** The value of the Host field, unless `headers` has one. */
  host: string
  minorVersion: number
  /** Whether the head is sent although its fields contradict each other, for tests. */
  isUnchecked?: boolean
}

/** Where the body of a request is written to. */
interface Body {
  endBody (content: string | Uint8Array): void
  sendFrom (source: Readable): void
}

const OPTIONS: Readonly<Record<keyof ClientOptions, true>> = {
  method: true, url: true, path: true, query: true, headers: true, cookies: true, payload: true, httpVersion: true, remoteAddress: true, receive: true, send: true
}

/** Methods whose requests have no body, unless there is a payload or a framing field. */
const WITHOUT_BODY: ReadonlySet<string> = new Set(['GET', 'HEAD', 'DELETE', 'OPTIONS', 'TRACE'])

/**
 * The request of `injectDuplex()`.
 *
 * @throws {OptionError} FST_ERR_DUPLEX_OPTION: an option is unknown, or there is no URL
 * @throws the errors of `requestStart`
 */
export function injectedStart (options: ClientOptions): RequestStart {
  checkOptions(options)
  const target = options.url ?? options.path ?? fail('url', 'there is none')
  // The target of CONNECT is a host and a port only.
  const isConnect = options.method?.toUpperCase() === 'CONNECT'
  const url = new URL(isConnect ? `http://${target}` : target, 'http://localhost')
  for (const [name, value] of new URLSearchParams(options.query)) url.searchParams.append(name, value)
  const start = requestStart({ ...options, target: isConnect ? target : url.pathname + url.search, host: url.host, minorVersion: options.httpVersion === '1.0' ? 0 : 1, isUnchecked: true })
  return { ...start, expectsContinue: false } // the body is in memory already
}

/**
 * Makes the head of a request, and decides its framing.
 *
 * @throws {OptionError} FST_ERR_DUPLEX_OPTION: an option is wrong, or the payload cannot be sent with this request
 * @throws {FieldError} FST_ERR_DUPLEX_FIELD
 * @throws {FramingError} FST_ERR_DUPLEX_FRAMING: the framing fields contradict each other
 */
export function requestStart (options: RequestParts): RequestStart {
  checkPayload(options.payload)
  const { target, minorVersion, isUnchecked = false } = options
  const formats = clientFormats(options)
  const method = (options.method ?? (formats.send === null ? 'GET' : 'POST')).toUpperCase()
  // The Host field of CONNECT is its target (RFC 9112 section 3.2.3). Without a prototype, `__proto__` is a name like any other.
  const fields: OutgoingFields = Object.assign(new FieldMap(), { host: method === 'CONNECT' ? target : options.host, 'user-agent': 'fastify-duplex' })
  for (const [name, value] of Object.entries(options.headers ?? {})) fields[name.toLowerCase()] = value
  const cookies = Object.entries(options.cookies ?? {}).map(([name, value]) => `${name}=${value}`)
  if (cookies.length > 0) fields.cookie = cookies.join('; ')
  if (formats.receive.length > 0) fields.accept ??= formats.receive.flatMap(({ codec }) => codec.mediaTypes).join(', ')
  if (formats.send !== null) fields['content-type'] ??= formats.send.codec.mediaTypes[0]
  if (isJson(options.payload)) fields['content-type'] ??= 'application/json'
  const switches = method === 'CONNECT' || fields.upgrade !== undefined
  if (switches && isIterable(options.payload)) fail('payload', 'a request that switches protocols needs one of known length')
  if (fields.upgrade !== undefined) fields.connection ??= 'upgrade'
  frame(fields, switches || (WITHOUT_BODY.has(method) && formats.send === null), minorVersion, payloadOf(options))
  const framing = requestFraming({
    'content-length': fields['content-length']?.toString(),
    'transfer-encoding': fields['transfer-encoding']?.toString()
  }, minorVersion)
  if (isUnchecked) return startOf({ method, target, fields, framing }, writeUncheckedRequestHead(method, target, fields, minorVersion), formats)
  // The writer derives the fields that frame the body, and the Connection field.
  const { 'content-length': _length, 'transfer-encoding': _coding, trailer, ...others } = fields
  return checkedStart({ method, target, fields: others, framing }, trailer?.toString(), formats)
}

/**
 * A request whose head is complete, but for the fields that the writer derives.
 *
 * @param trailer the value of the `Trailer` field, if the framing is chunked
 * @throws {FieldError} FST_ERR_DUPLEX_FIELD
 */
export function checkedStart (head: OutgoingRequestHead, trailer?: string, formats: ClientFormats = NO_FORMATS): RequestStart {
  return startOf(head, writeRequestHead(head, !asksToClose(head.fields.connection), trailer), formats)
}

function startOf ({ method, fields: { connection, upgrade, expect }, framing }: OutgoingRequestHead, head: string, formats: ClientFormats): RequestStart {
  return {
    method,
    offersSwitch: method === 'CONNECT' || upgrade !== undefined,
    connection: connection?.toString(),
    upgrade: upgrade?.toString(),
    formats,
    head,
    framing,
    expectsContinue: framing.kind !== 'none' && expect !== undefined && String(expect).toLowerCase() === '100-continue'
  }
}

function checkOptions (options: ClientOptions): void {
  checkNames(options, OPTIONS)
  const { httpVersion = '1.1' } = options
  if (httpVersion !== '1.0' && httpVersion !== '1.1') fail('httpVersion', 'expected "1.0" or "1.1"')
}

function checkPayload (payload: unknown): void {
  if (payload === null || !['undefined', 'string', 'object'].includes(typeof payload)) fail('payload', 'expected a string, bytes, a stream or an object')
  if (payload instanceof Blob) fail('payload', 'send the stream of the Blob: blob.stream()')
  if (payload instanceof ArrayBuffer) fail('payload', 'send a view of the ArrayBuffer: new Uint8Array(buffer)')
  if (payload instanceof URLSearchParams || payload instanceof FormData) fail('payload', 'send it as text, with its content-type')
}

/** Writes the payload, if there is one. Without a payload the body stays open for the caller. */
export function writePayload (options: Pick<InjectDuplexOptions, 'payload'>, client: Body): void {
  const payload = payloadOf(options)
  if (payload === undefined) return
  if (isIterable(payload)) client.sendFrom(sourceOf(payload))
  else client.endBody(payload)
}

/** A stream of bytes. In object mode, a chunk that is no bytes would throw when it is written. */
function sourceOf (payload: AsyncIterable<unknown>): Readable {
  if (payload instanceof Readable && !payload.readableObjectMode) return payload
  return payload instanceof ReadableStream ? Readable.fromWeb(payload) : Readable.from(payload, { objectMode: false })
}

/** Adds the field that frames the body, if the caller has set none. */
function frame (fields: OutgoingFields, isWithoutBody: boolean, minorVersion: number, payload: Payload): void {
  if (fields['content-length'] !== undefined || fields['transfer-encoding'] !== undefined) return
  if (payload !== undefined && !isIterable(payload)) fields['content-length'] = Buffer.byteLength(payload)
  else if (payload !== undefined || !isWithoutBody) fields['transfer-encoding'] = 'chunked'
  if (minorVersion === 0 && fields['transfer-encoding'] !== undefined) fail('payload', 'HTTP/1.0 needs one of known length')
}

type Payload = string | Uint8Array | AsyncIterable<unknown> | undefined

function payloadOf ({ payload }: Pick<InjectDuplexOptions, 'payload'>): Payload {
  return isJson(payload) ? JSON.stringify(payload) : payload as Payload
}

/** Whether a payload is sent as JSON: an object that is neither bytes nor iterable. */
function isJson (payload: unknown): boolean {
  return typeof payload === 'object' && !(payload instanceof Uint8Array) && !isIterable(payload)
}

function isIterable (payload: unknown): payload is AsyncIterable<unknown> {
  return typeof (payload as AsyncIterable<unknown> | undefined)?.[Symbol.asyncIterator] === 'function'
}

function fail (option: string, reason: string): never {
  throw new OptionError(option, reason)
}
