/// <reference types="node" />

import type { Duplex } from 'node:stream'
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
    /** Gives the handler both directions of the connection, as `reply.duplex`. Default: false */
    duplex?: boolean | fastifyDuplex.DuplexOptions
  }

  // Overloads for `duplex`, whose handlers may return an async iterable whatever the response's schema says. They come
  // before Fastify's own, and take no other routes.
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
     * Opens an exchange in memory, without a port: over Node's own parser, the hand-off and the readers and writers of
     * a real connection. Calls `ready()`.
     *
     * @throws FST_ERR_DUPLEX_OPTION, FST_ERR_DUPLEX_FIELD, FST_ERR_DUPLEX_FRAMING: the request cannot be made
     * @throws FST_ERR_DUPLEX_INJECT the server speaks HTTP/2 alone
     */
    injectDuplex (options: fastifyDuplex.InjectDuplexOptions | string): Promise<fastifyDuplex.InjectedDuplex>
  }

  interface FastifyRequest {
    /**
     * Where a CONNECT request to a duplex route wants to go; null for any other.
     *
     * @throws FST_ERR_DUPLEX_AUTHORITY the target is no host and port
     */
    readonly authority: fastifyDuplex.Authority | null
  }

  interface FastifyReply {
    /**
     * Both directions of the exchange: the readable side is the request body, the writable side the response body.
     *
     * @throws FST_ERR_DUPLEX_NOT_ENABLED on a route without `duplex`
     */
    readonly duplex: fastifyDuplex.HttpDuplex
  }
}

type FastifyDuplex = FastifyPluginAsync<fastifyDuplex.FastifyDuplexOptions>

declare namespace fastifyDuplex {
  /** Defaults for all routes. */
  export interface FastifyDuplexOptions extends DuplexOptions {}

  export interface DuplexOptions {
    /** Milliseconds without a byte in either direction after which, up to a quarter late, the exchange is destroyed; 0: never. Default: 120 000 */
    idleTimeout?: number
    /** Bytes of decoded request body; more is answered with 413, or cut off if the response has begun. Default: the route's own `bodyLimit`, else none */
    bodyLimit?: number
    /** Bytes of the request's trailer section. Default: `http.maxHeaderSize` */
    maxTrailerSize?: number
    /** Bytes of chunk extensions in a whole request body. Default: 16 KiB */
    maxChunkExtensionSize?: number
    /** Bytes of an unread request body that are read and dropped after the response, to keep the connection. Default: 64 KiB */
    drainLimit?: number
    /** Milliseconds for that, and for the lingering read of a connection that is closed. Default: 1000 */
    drainTimeout?: number
    /** Milliseconds that open exchanges get to finish when the app closes; then they are destroyed. Default: 10 000 */
    closeGrace?: number
    /** Exchanges open at once; a request beyond is answered with 503 and Retry-After. A route's own number is for that route alone. Default: none */
    maxExchanges?: number
    /** Bytes buffered in each direction before backpressure is felt. Default: Node's */
    highWaterMark?: number
  }

  /** A response body, written to `reply.duplex` as it comes. */
  export type DuplexBody = AsyncIterable<string | Uint8Array>

  /** A handler like any other, which may also return the response body as an async iterable: a generator, a Readable. */
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

  /** The request body, readable, and the response body, writable. */
  export interface HttpDuplex extends Duplex {
    /** Whether the response head is on its way: `reply` is hijacked, and nothing about it can be changed. */
    readonly headersSent: boolean
    /**
     * Sends the head now, not with the first bytes of the body. Does nothing when the client is gone or has sent what cannot
     * be read, or when another answers.
     *
     * @throws FST_ERR_DUPLEX_HEAD_SENT, FST_ERR_DUPLEX_FIELD, FST_ERR_DUPLEX_OWN_FIELD, FST_ERR_DUPLEX_STATUS
     */
    flushHeaders (): void
    /**
     * Sends an interim response.
     *
     * @param statusCode 100 to 199, but not 101
     * @returns false when nothing was sent: the client is of HTTP/1.0, is gone or has sent what cannot be read, another answers,
     *   or the request is of `app.inject()`
     * @throws FST_ERR_DUPLEX_HEAD_SENT, FST_ERR_DUPLEX_STATUS, FST_ERR_DUPLEX_FIELD, FST_ERR_DUPLEX_OWN_FIELD
     */
    writeInformation (statusCode: number, fields?: OutgoingFields): boolean
    /** The request's trailers, complete when the readable side has ended. */
    readonly trailers: Trailers
    /**
     * Sets the response's trailers. They need a chunked response, and are sent at its end.
     *
     * @throws FST_ERR_DUPLEX_NO_TRAILERS, FST_ERR_DUPLEX_FIELD, FST_ERR_DUPLEX_TRAILER
     */
    setTrailers (fields: OutgoingFields): this
    /** How the bodies are framed; the response's is known once the head is on its way. */
    readonly framing: { readonly request: FramingKind, readonly response: FramingKind | undefined }
    /** Bytes of request body received, decoded. */
    readonly bytesRead: number
    /** Bytes of response body written, before coding. */
    readonly bytesWritten: number
    /**
     * The app is closing: the exchange has `closeGrace` to end in its own words. `request.signal` has aborted, with
     * FST_ERR_DUPLEX_CLOSING as its reason.
     */
    on (event: 'shutdown', listener: () => void): this
    on (event: string | symbol, listener: (...args: any[]) => void): this
    once (event: 'shutdown', listener: () => void): this
    once (event: string | symbol, listener: (...args: any[]) => void): this
    /** The connection: for its addresses and certificates. Its bytes are the exchange's. */
    readonly socket: Socket
    /**
     * Leaves the connection to the caller, for good: no more timeouts, listeners or framing of ours. Before the head, once the
     * request body has been read; or in a tunnel. The exchange ends for Fastify; the stream refuses use from then on.
     *
     * @param options `counted`: whether `app.close()` ends the connection, after `closeGrace`. Default: true
     * @returns the socket, without listeners for its errors, and the bytes that were read behind the request
     * @throws FST_ERR_DUPLEX_DETACH, FST_ERR_DUPLEX_DETACHED, FST_ERR_DUPLEX_HEAD_SENT
     * @throws FST_ERR_DUPLEX_TUNNEL the request has no connection of its own: HTTP/2, `app.inject()`, the fallback
     */
    detach (options?: { counted?: boolean }): { socket: Socket, head: Buffer }
  }

  export interface InjectDuplexOptions {
    /** Default: GET */
    method?: string
    /** The path, or a whole URL, whose host becomes the `host` field. `path` is the same. */
    url?: string
    path?: string
    /** Appended to the query of the URL. */
    query?: string | Record<string, string>
    headers?: OutgoingFields
    cookies?: Record<string, string>
    /**
     * The request body; an object that is no stream is sent as JSON. Without one the body stays open to be written,
     * but for GET, HEAD, DELETE, OPTIONS and TRACE.
     */
    payload?: string | Uint8Array | AsyncIterable<unknown> | object
    /** Default: 1.1 */
    httpVersion?: '1.0' | '1.1'
    /** The client's address. Default: 127.0.0.1 */
    remoteAddress?: string
  }

  export interface InjectedResponse {
    statusCode: number
    statusMessage: string
    headers: Record<string, string | string[]>
    httpVersion: string
    /** The interim responses that came before. */
    informational: { statusCode: number, statusMessage: string, headers: Record<string, string | string[]> }[]
  }

  /** The client end of an injected exchange: the request body, writable, and the response body, readable. */
  export interface InjectedDuplex extends Duplex {
    /** The head of the response, as soon as it is there. */
    readonly response: Promise<InjectedResponse>
    /** The response's trailers, complete when the readable side has ended. */
    readonly trailers: Trailers
    /** Sets the request's trailers, sent at the end of a chunked body. */
    setTrailers (fields: OutgoingFields): this
    /** The client's end of the connection, for raw bytes. */
    readonly socket: Duplex
    /** Opens another exchange on the same connection; its request goes out behind this one's. */
    next (options: InjectDuplexOptions): InjectedDuplex
  }

  /** What the `node:diagnostics_channel` channels `fastify-duplex.exchange.start`, `.head`, `.finish` and `.error` carry. */
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
