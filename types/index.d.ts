/// <reference types="node" />

import type { Duplex, Readable } from 'node:stream'
import type { Socket } from 'node:net'
import type {
  ContextConfigDefault,
  FastifyBaseLogger,
  FastifyInstance,
  FastifyPluginAsync,
  FastifyReply,
  FastifyRequest,
  FastifySchema,
  FastifyTypeProvider,
  FastifyTypeProviderDefault,
  RawReplyDefaultExpression,
  RawRequestDefaultExpression,
  RawServerBase,
  RawServerDefault,
  RouteGenericInterface,
  RouteHandlerMethod,
  RouteOptions,
  RouteShorthandOptions
} from 'fastify'
import type { Authority, FramingKind, OutgoingFields, Trailers } from './transfer'

declare module 'fastify' {
  interface RouteShorthandOptions {
    /**
     * Gives the handler both directions of the connection, as `reply.duplex`. The plugin must be loaded before the route is
     * added, or `ready()` fails with FST_ERR_DUPLEX_UNSEEN_ROUTE. Default: false
     */
    duplex?: boolean | fastifyDuplex.DuplexOptions
  }

  // Overloads for routes with `duplex`. Their handlers may return an async iterable, whatever the response schema is. These
  // overloads come before Fastify's, and do not match other routes.
  interface RouteShorthandMethod<
    RawServer extends RawServerBase = RawServerDefault,
    RawRequest extends RawRequestDefaultExpression<RawServer> = RawRequestDefaultExpression<RawServer>,
    RawReply extends RawReplyDefaultExpression<RawServer> = RawReplyDefaultExpression<RawServer>,
    TypeProvider extends FastifyTypeProvider = FastifyTypeProviderDefault,
    Logger extends FastifyBaseLogger = FastifyBaseLogger
  > {
    <RouteGeneric extends RouteGenericInterface = RouteGenericInterface, ContextConfig = ContextConfigDefault, const SchemaCompiler extends FastifySchema = FastifySchema>(
      path: string,
      opts: fastifyDuplex.DuplexShorthandOptions<RawServer, RawRequest, RawReply, RouteGeneric, ContextConfig, SchemaCompiler, TypeProvider, Logger>,
      handler: fastifyDuplex.DuplexHandler<RawServer, RawRequest, RawReply, RouteGeneric, ContextConfig, SchemaCompiler, TypeProvider, Logger>
    ): FastifyInstance<RawServer, RawRequest, RawReply, Logger, TypeProvider>
    <RouteGeneric extends RouteGenericInterface = RouteGenericInterface, ContextConfig = ContextConfigDefault, const SchemaCompiler extends FastifySchema = FastifySchema>(
      path: string,
      opts: fastifyDuplex.DuplexShorthandOptionsWithHandler<RawServer, RawRequest, RawReply, RouteGeneric, ContextConfig, SchemaCompiler, TypeProvider, Logger>
    ): FastifyInstance<RawServer, RawRequest, RawReply, Logger, TypeProvider>
  }

  interface FastifyInstance<RawServer, RawRequest, RawReply, Logger, TypeProvider> {
    route<RouteGeneric extends RouteGenericInterface = RouteGenericInterface, ContextConfig = ContextConfigDefault, const SchemaCompiler extends FastifySchema = FastifySchema>(
      opts: fastifyDuplex.DuplexRouteOptions<RawServer, RawRequest, RawReply, RouteGeneric, ContextConfig, SchemaCompiler, TypeProvider, Logger>
    ): FastifyInstance<RawServer, RawRequest, RawReply, Logger, TypeProvider>

    /**
     * Opens an exchange in memory, without a port. Node's parser and this plugin work as on a real connection. Calls
     * `app.ready()` first.
     *
     * @param options the request; a string is its URL
     * @throws FST_ERR_DUPLEX_OPTION, FST_ERR_DUPLEX_FIELD, FST_ERR_DUPLEX_FRAMING: these options do not make a valid request
     * @throws FST_ERR_DUPLEX_INJECT: the server speaks only HTTP/2
     * @throws FST_ERR_DUPLEX_UNSEEN_ROUTE: from `ready()`: a route with `duplex` was added before the plugin was loaded
     */
    injectDuplex (options: fastifyDuplex.InjectDuplexOptions | string): Promise<fastifyDuplex.InjectedDuplex>
  }

  interface FastifyRequest {
    /**
     * The target of a CONNECT request to a duplex route; null for all other requests.
     *
     * @throws FST_ERR_DUPLEX_AUTHORITY: the target is not a host and a port
     */
    readonly authority: fastifyDuplex.Authority | null
  }

  interface FastifyReply {
    /**
     * Both directions of the exchange: the readable side is the request body, the writable side the response body. In an error
     * handler it is a new stream, to answer with: its readable side has ended.
     *
     * @throws FST_ERR_DUPLEX_NOT_ENABLED: the route is not a duplex route
     */
    readonly duplex: fastifyDuplex.HttpDuplex
  }
}

type FastifyDuplex = FastifyPluginAsync<fastifyDuplex.FastifyDuplexOptions>

declare namespace fastifyDuplex {
  /** Defaults for all routes. */
  export interface FastifyDuplexOptions extends DuplexOptions {}

  /** Options of `register()`, as defaults for all routes, and of a route. */
  export interface DuplexOptions {
    /** Milliseconds without a byte in either direction. Then, or up to a quarter later, the exchange is answered with 408 (or 500, if the handler has returned without ending the response), or cut off if the response has begun. 0: never. Default: 120 000 */
    idleTimeout?: number
    /** Bytes of decoded request body; more is answered with 413, or cut off if the response has begun. Default: the route's own `bodyLimit`, else none */
    bodyLimit?: number
    /** Bytes of the trailer section of a request. Default: `http.maxHeaderSize` */
    maxTrailerSize?: number
    /** Bytes of all chunk extensions of a request body. Default: 16 KiB */
    maxChunkExtensionSize?: number
    /** Bytes of the longest announced request body that is dropped unread to keep the connection: for a longer one the response says `connection: close`. On HTTP/2, bytes of any request that are dropped after its response. Default: 64 KiB */
    drainLimit?: number
    /** Milliseconds in which the rest of a request is read and dropped after its response, in which a reader that has paused may resume, and of the lingering read before a connection is closed. Default: 1000 */
    drainTimeout?: number
    /** Milliseconds that open exchanges get to finish when the app closes. Then they are answered with 503, or cut off if the response has begun. Default: 10 000 */
    closeGrace?: number
    /** Exchanges open at once; one more is answered with 503 and Retry-After. The limit of a route counts only its own exchanges. Default: none */
    maxExchanges?: number
    /** Bytes buffered in each direction before backpressure sets in. Default: Node's */
    highWaterMark?: number
    /** Whether a client that ends its side (FIN) behind its request still gets the response. If not, it counts as gone, as it always does where Node reads an HTTP/1.1 connection. Default: true */
    allowHalfOpen?: boolean
  }

  /**
   * A response body. Each chunk is written to `reply.duplex` when it comes. It is cancelled if the exchange fails. A Response also
   * sets the status and the headers, if the head was not sent yet.
   */
  export type DuplexBody = AsyncIterable<string | Uint8Array> | Response

  /**
   * A Fastify handler. It may also return the response body: an async iterable, such as a generator, a Readable or a web
   * ReadableStream, or a web Response.
   */
  export type DuplexHandler<
    RawServer extends RawServerBase = RawServerDefault,
    RawRequest extends RawRequestDefaultExpression<RawServer> = RawRequestDefaultExpression<RawServer>,
    RawReply extends RawReplyDefaultExpression<RawServer> = RawReplyDefaultExpression<RawServer>,
    RouteGeneric extends RouteGenericInterface = RouteGenericInterface,
    ContextConfig = ContextConfigDefault,
    SchemaCompiler extends FastifySchema = FastifySchema,
    TypeProvider extends FastifyTypeProvider = FastifyTypeProviderDefault,
    Logger extends FastifyBaseLogger = FastifyBaseLogger
  > = (
    this: FastifyInstance<RawServer, RawRequest, RawReply, Logger, TypeProvider>,
    request: FastifyRequest<RouteGeneric, RawServer, RawRequest, SchemaCompiler, TypeProvider, ContextConfig, Logger>,
    reply: FastifyReply<RouteGeneric, RawServer, RawRequest, RawReply, ContextConfig, SchemaCompiler, TypeProvider>
  ) => OrBody<ReturnType<RouteHandlerMethod<RawServer, RawRequest, RawReply, RouteGeneric, ContextConfig, SchemaCompiler, TypeProvider, Logger>>>

  type OrBody<Result> = Result | DuplexBody | Promise<Awaited<Result> | DuplexBody>

  export interface DuplexShorthandOptions<
    RawServer extends RawServerBase = RawServerDefault,
    RawRequest extends RawRequestDefaultExpression<RawServer> = RawRequestDefaultExpression<RawServer>,
    RawReply extends RawReplyDefaultExpression<RawServer> = RawReplyDefaultExpression<RawServer>,
    RouteGeneric extends RouteGenericInterface = RouteGenericInterface,
    ContextConfig = ContextConfigDefault,
    SchemaCompiler extends FastifySchema = FastifySchema,
    TypeProvider extends FastifyTypeProvider = FastifyTypeProviderDefault,
    Logger extends FastifyBaseLogger = FastifyBaseLogger
  > extends RouteShorthandOptions<RawServer, RawRequest, RawReply, RouteGeneric, ContextConfig, SchemaCompiler, TypeProvider, Logger> {
    duplex: true | DuplexOptions
  }

  export interface DuplexShorthandOptionsWithHandler<
    RawServer extends RawServerBase = RawServerDefault,
    RawRequest extends RawRequestDefaultExpression<RawServer> = RawRequestDefaultExpression<RawServer>,
    RawReply extends RawReplyDefaultExpression<RawServer> = RawReplyDefaultExpression<RawServer>,
    RouteGeneric extends RouteGenericInterface = RouteGenericInterface,
    ContextConfig = ContextConfigDefault,
    SchemaCompiler extends FastifySchema = FastifySchema,
    TypeProvider extends FastifyTypeProvider = FastifyTypeProviderDefault,
    Logger extends FastifyBaseLogger = FastifyBaseLogger
  > extends DuplexShorthandOptions<RawServer, RawRequest, RawReply, RouteGeneric, ContextConfig, SchemaCompiler, TypeProvider, Logger> {
    handler: DuplexHandler<RawServer, RawRequest, RawReply, RouteGeneric, ContextConfig, NoInfer<SchemaCompiler>, TypeProvider, Logger>
  }

  export interface DuplexRouteOptions<
    RawServer extends RawServerBase = RawServerDefault,
    RawRequest extends RawRequestDefaultExpression<RawServer> = RawRequestDefaultExpression<RawServer>,
    RawReply extends RawReplyDefaultExpression<RawServer> = RawReplyDefaultExpression<RawServer>,
    RouteGeneric extends RouteGenericInterface = RouteGenericInterface,
    ContextConfig = ContextConfigDefault,
    SchemaCompiler extends FastifySchema = FastifySchema,
    TypeProvider extends FastifyTypeProvider = FastifyTypeProviderDefault,
    Logger extends FastifyBaseLogger = FastifyBaseLogger
  > extends Omit<RouteOptions<RawServer, RawRequest, RawReply, RouteGeneric, ContextConfig, SchemaCompiler, TypeProvider, Logger>, 'duplex' | 'handler'> {
    duplex: true | DuplexOptions
    handler: DuplexHandler<RawServer, RawRequest, RawReply, RouteGeneric, ContextConfig, NoInfer<SchemaCompiler>, TypeProvider, Logger>
  }

  export { Authority, FramingKind, OutgoingFields, Trailers }

  /** Both directions of an exchange: the readable side is the request body, the writable side the response body. */
  export interface HttpDuplex extends Duplex {
    /**
     * The request body alone, for code that destroys what it reads, such as `undici`, `fetch` and `pipeline`. The response goes
     * on. If it is destroyed early, the rest of the request is dropped when the response has ended. It begins where the reading
     * of the stream has stopped: read one of the two at a time.
     */
    readonly requestBody: Readable
    /**
     * Both bodies as web streams. Cancelling `readable` drops the rest of the request, as destroying `requestBody` does, from
     * which it reads. Closing `writable` ends the response. Aborting it destroys the stream: the response is cut off if it has
     * begun. Always the same two streams.
     */
    web (): { readable: ReadableStream<Uint8Array>, writable: WritableStream<string | Uint8Array> }
    /** Whether the response head was written. Then it cannot be changed any more. With its first byte, `reply` is hijacked. */
    readonly headersSent: boolean
    /**
     * Sends the head now, instead of with the first bytes of the body. Does nothing if the exchange has failed, or if Fastify
     * has begun to answer.
     *
     * @throws FST_ERR_DUPLEX_HEAD_SENT, FST_ERR_DUPLEX_FIELD, FST_ERR_DUPLEX_OWN_FIELD, FST_ERR_DUPLEX_STATUS,
     *   FST_ERR_DUPLEX_DETACHED
     */
    flushHeaders (): void
    /**
     * Sends an interim response.
     *
     * @param statusCode 100 to 199, but not 101
     * @returns false if nothing was sent: the client speaks HTTP/1.0, the request comes from `app.inject()`, the exchange has
     *   failed, or Fastify has begun to answer
     * @throws FST_ERR_DUPLEX_HEAD_SENT, FST_ERR_DUPLEX_STATUS, FST_ERR_DUPLEX_FIELD, FST_ERR_DUPLEX_OWN_FIELD,
     *   FST_ERR_DUPLEX_DETACHED
     */
    writeInformation (statusCode: number, fields?: OutgoingFields): boolean
    /** The request's trailers, complete once the readable side has ended. */
    readonly trailers: Trailers
    /**
     * Sets the trailers of the response, which are sent at its end. The response must be chunked. A client of HTTP/1.0 gets no
     * trailers.
     *
     * @throws FST_ERR_DUPLEX_NO_TRAILERS, FST_ERR_DUPLEX_FIELD, FST_ERR_DUPLEX_DETACHED
     */
    setTrailers (fields: OutgoingFields): this
    /**
     * Stops reading: the reader sees an end, and the rest of the request is dropped when the response has ended. For
     * `'shutdown'`, and whenever the rest is of no use. Does nothing if the request has ended.
     *
     * @throws FST_ERR_DUPLEX_DETACHED
     */
    stopReading (): this
    /** How the bodies are framed. The framing of the response is undefined until its head is written. */
    readonly framing: { readonly request: FramingKind, readonly response: FramingKind | undefined }
    /** Bytes of request body received, without framing. */
    readonly bytesRead: number
    /** Bytes of response body written, without framing. */
    readonly bytesWritten: number
    /**
     * The app is closing: the handler has `closeGrace` to finish the response, or the detached connection. `request.signal` has
     * aborted: with FST_ERR_DUPLEX_CLOSING as its reason, unless it had aborted before.
     */
    on (event: 'shutdown', listener: () => void): this
    on (event: string | symbol, listener: (...args: any[]) => void): this
    once (event: 'shutdown', listener: () => void): this
    once (event: string | symbol, listener: (...args: any[]) => void): this
    /** The connection, for its addresses and certificates. Reading from it or writing to it breaks the exchange. */
    readonly socket: Socket
    /**
     * Leaves the connection to the caller for good, without timeouts, listeners or framing of this plugin. It can be called
     * before the head if the request body has been read to its end, and in a tunnel. The exchange ends for Fastify, and the
     * stream cannot be used any more.
     *
     * @param options `counted`: whether `app.close()` destroys the connection after `closeGrace`, if it is still open. Default:
     *   true
     * @returns the socket, which has no listener for `'error'`, and the bytes that were received behind the request
     * @throws FST_ERR_DUPLEX_DETACH, FST_ERR_DUPLEX_DETACHED, FST_ERR_DUPLEX_HEAD_SENT
     * @throws FST_ERR_DUPLEX_TUNNEL: there is no connection to detach: HTTP/2, `app.inject()`, or Node reads the connection
     */
    detach (options?: { counted?: boolean }): { socket: Socket, head: Buffer }
  }

  /** The request of `app.injectDuplex()`. */
  export interface InjectDuplexOptions {
    /** Default: GET */
    method?: string
    /** A path, or a URL whose host becomes the `host` field. Required, here or in `path`. */
    url?: string
    /** The same as `url` */
    path?: string
    /** Appended to the query of the URL. */
    query?: string | Record<string, string>
    headers?: OutgoingFields
    cookies?: Record<string, string>
    /**
     * The request body. An object that is not a stream is sent as JSON. Without a payload the body stays open to be
     * written, except for GET, HEAD, DELETE, OPTIONS and TRACE.
     */
    payload?: string | Uint8Array | AsyncIterable<unknown> | object
    /** Default: 1.1 */
    httpVersion?: '1.0' | '1.1'
    /** The client's address. Default: 127.0.0.1 */
    remoteAddress?: string
  }

  /** The head of a response. */
  export interface InjectedResponse {
    statusCode: number
    statusMessage: string
    headers: Record<string, string | string[]>
    httpVersion: string
    /** The interim responses before it. */
    informational: { statusCode: number, statusMessage: string, headers: Record<string, string | string[]> }[]
  }

  /** The client's end of an injected exchange: the writable side is the request body, the readable side the response body. */
  export interface InjectedDuplex extends Duplex {
    /** The head of the response, as soon as it has been read. Rejects if the exchange ends earlier. */
    readonly response: Promise<InjectedResponse>
    /** The response's trailers, complete once the readable side has ended. */
    readonly trailers: Trailers
    /** Sets the request's trailers, which are sent at the end of a chunked body. */
    setTrailers (fields: OutgoingFields): this
    /** The client's end of the connection, for raw bytes. */
    readonly socket: Duplex
    /** Opens another exchange on the same connection. Its request is sent after this one. */
    next (options: InjectDuplexOptions): InjectedDuplex
  }

  /** The message of the `node:diagnostics_channel` channels `fastify-duplex.exchange.start`, `.head`, `.finish` and `.error`. */
  export interface ExchangeEvent {
    request: FastifyRequest
    reply: FastifyReply
    stream: HttpDuplex
    framing: HttpDuplex['framing']
    bytesRead: number
    bytesWritten: number
    /** Milliseconds since the request arrived. */
    duration: number
    /** Why the exchange failed; on the `.error` channel only. */
    error?: Error
  }

  export const fastifyDuplex: FastifyDuplex
  export { fastifyDuplex as default }
}

declare function fastifyDuplex (...params: Parameters<FastifyDuplex>): ReturnType<FastifyDuplex>
export = fastifyDuplex
