/// <reference types="node" />

import type { Duplex } from 'node:stream'
import type { Socket } from 'node:net'
import type { ConnectionOptions } from 'node:tls'
import type { FastifyTypeProvider, FastifyTypeProviderDefault } from 'fastify'
import type { InjectedResponse, WithClientItems } from './index'
import type { ItemFormat, SendFormats } from './items'
import type { OutgoingFields, Trailers } from './transfer'

/** The head of a response. */
export type ResponseHead = InjectedResponse

/** The head of an interim response (1xx). */
export type InterimHead = ResponseHead['informational'][number]

export interface OpenOptions<
  Receive extends SendFormats | undefined = SendFormats | undefined,
  Send extends ItemFormat | undefined = ItemFormat | undefined
> {
  /** Default: GET, or POST if there is `send` */
  method?: string
  /** The request-target, sent as it is. For CONNECT, the host and the port. Default: that of the URL */
  path?: string
  /** Appended to the query of the URL, or of `path`. */
  query?: string | Record<string, string>
  /** `content-length` or `transfer-encoding: chunked` frame the body. Default: chunked, if there is a body of unknown length */
  headers?: OutgoingFields
  /**
   * The request body. An object that is not a stream is sent as JSON. Without a payload the body stays open to be written, except for
   * GET, HEAD, DELETE, OPTIONS and TRACE, and for requests with an `upgrade` field. A stream is destroyed if the server does not want
   * all of it, or the call fails.
   */
  payload?: string | Uint8Array | AsyncIterable<unknown> | object
  /** The items of the response body. Sets the Accept field, unless `headers` has it. Default: the body is bytes */
  receive?: Receive
  /** The items of the request body. Sets the content-type, unless `headers` has it. Default: the body is bytes */
  send?: Send
  /** Destroys the call with its reason, until the call is closed. */
  signal?: AbortSignal
  /** The pool of connections. Default: one that all calls of the process share */
  agent?: Agent
  /** Milliseconds until the head of the response must be there, once the request is sent or the head has begun. Default: 60000. 0: no limit */
  headersTimeout?: number
  /**
   * Milliseconds behind the head in which the server neither sends nor takes a byte. They do not count while the caller does not
   * read, or has not written all of the request; nor in tunnels. It may act late by up to a quarter of that time. Default: 300000.
   * 0: no limit
   */
  bodyTimeout?: number
  /** With `expect: 100-continue`, milliseconds to wait for the 100 before the body is sent. Default: 1000 */
  expectTimeout?: number
  /** Bytes of all heads of one response, interim ones included. Default: 16384 */
  maxHeadSize?: number
  /** Bytes of the trailer section of the response. Default: 16384 */
  maxTrailerSize?: number
  /** Bytes of all chunk extensions of the response. Default: 16384 */
  maxChunkExtensionSize?: number
}

/**
 * One exchange with a server: the writable side is the request body, the readable side the response body.
 *
 * A call holds its connection until the response is read to its end and the request is ended, or the call is destroyed. If the server
 * closes the connection behind a whole response, the rest of the request is dropped, without an error.
 *
 * It emits `'response'` with the head of the response, `'information'` with each interim head, and `'continue'` when a request with
 * `expect: 100-continue` begins to send its body.
 */
export interface ClientCall extends Duplex {
  /** The head of the response, as soon as it has been read. Rejects if the call ends earlier. Also emitted as `'response'`. */
  readonly response: Promise<ResponseHead>
  /** The trailers of the response, complete once the readable side has ended. */
  readonly trailers: Trailers
  /** The connection; null while the call waits for one. */
  readonly socket: Socket | null
  /**
   * Sets the trailers of the request, which are sent at the end of a chunked body.
   *
   * @throws FST_ERR_DUPLEX_NO_TRAILERS: the body is not chunked, or its end was sent
   * @throws FST_ERR_DUPLEX_FIELD: a field cannot be sent as a trailer
   */
  setTrailers (fields: OutgoingFields): this
}

export interface AgentOptions {
  /** Connections to one origin. Calls that find none free wait in turn. Default: 256 */
  maxConnections?: number
  /** Milliseconds that an idle connection is kept; less if the server says so. Default: 4000 */
  idleTimeout?: number
  /** Milliseconds until a connection must be open. Default: 10000 */
  connectTimeout?: number
  /** For `https:`, the options of `tls.connect()`: `ca`, `cert`, `key`, `servername` and others. */
  tls?: ConnectionOptions
}

/** A pool of connections, which are kept between calls. */
export declare class Agent {
  /** @throws FST_ERR_DUPLEX_OPTION */
  constructor (options?: AgentOptions)
  /** Connections that are open or being opened. */
  readonly connections: number
  /** Closes idle connections, and the others when their calls are over. Calls that wait, and new ones, fail with FST_ERR_DUPLEX_AGENT_CLOSED. */
  close (): void
}

/**
 * Opens an exchange with a server.
 *
 * It is over HTTP/1.1, in full duplex: the response can be read while the request is written. Redirects are not followed. A request
 * without a body is sent once more if its connection was idle before and turns out to be dead.
 *
 * The stream fails with FST_ERR_DUPLEX_CONNECT, _SERVER_GONE, _SERVER_TIMEOUT or _AGENT_CLOSED, or, if the response is malformed, with
 * FST_ERR_DUPLEX_HEAD, _HEAD_LIMIT, _FRAMING, _TRANSFER_CODING, _CHUNK, _CHUNK_EXTENSION_LIMIT, _TRAILER, _TRAILER_LIMIT, _TRUNCATED or
 * _UPGRADE (a 101 that was not offered). If more or less is written than `content-length` says, it is FST_ERR_DUPLEX_LENGTH. When a call is
 * destroyed without an error, `response` rejects with FST_ERR_DUPLEX_ABORTED.
 *
 * @param url `http:`, `https:`, or `unix:/path/of/socket:/path`
 * @throws FST_ERR_DUPLEX_OPTION, FST_ERR_DUPLEX_FIELD, FST_ERR_DUPLEX_FRAMING: the request cannot be sent
 * @throws the reason of `signal`, if it was aborted before
 */
export declare function open<
  const Receive extends SendFormats | undefined = undefined,
  const Send extends ItemFormat | undefined = undefined,
  TypeProvider extends FastifyTypeProvider = FastifyTypeProviderDefault
> (url: string | URL, options?: OpenOptions<Receive, Send>): ClientCall & WithClientItems<Receive, Send, TypeProvider>
