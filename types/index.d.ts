/// <reference types="node" />

import type { Duplex, Readable } from 'node:stream'
import type { Socket } from 'node:net'
import type {
  ContextConfigDefault,
  FastifyBaseLogger,
  FastifyError,
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
import type { CheckedItem, ItemFormat, ItemOptions, ReceiveFormats, SendFormat, SendFormats } from './items'
import type { Authority, FramingKind, OutgoingFields, Trailers } from './transfer'

declare module 'fastify' {
  interface RouteShorthandOptions {
    /**
     * Gives the handler both directions of the connection, as `reply.duplex`. The plugin must be loaded before the route is
     * added, or `ready()` fails with FST_ERR_DUPLEX_UNSEEN_ROUTE. Default: false
     */
    duplex?: boolean | fastifyDuplex.DuplexOptions
  }

  interface RouteGenericInterface {
    /** The type of the items that a duplex route receives, if no type provider gives it. With `invalid: 'item'`, a `CheckedItem` of it. */
    Receive?: unknown
    /** The type of the items that a duplex route sends, if no type provider gives it. */
    Send?: unknown
  }

  // Overloads for routes with `duplex`: first those that declare items, then those of bytes, whose handlers may return an async
  // iterable, whatever the response schema is. These overloads come before Fastify's, and do not match other routes.
  interface RouteShorthandMethod<
    RawServer extends RawServerBase = RawServerDefault,
    RawRequest extends RawRequestDefaultExpression<RawServer> = RawRequestDefaultExpression<RawServer>,
    RawReply extends RawReplyDefaultExpression<RawServer> = RawReplyDefaultExpression<RawServer>,
    TypeProvider extends FastifyTypeProvider = FastifyTypeProviderDefault,
    Logger extends FastifyBaseLogger = FastifyBaseLogger
  > {
    <
      RouteGeneric extends RouteGenericInterface = RouteGenericInterface,
      ContextConfig = ContextConfigDefault,
      const SchemaCompiler extends FastifySchema = FastifySchema,
      const Receive extends ReceiveFormats | undefined = undefined,
      const Send extends SendFormats | undefined = undefined,
      Result = fastifyDuplex.AnyResult
    >(
      path: string,
      opts: fastifyDuplex.ItemShorthandOptions<Receive, Send, RawServer, RawRequest, RawReply, RouteGeneric, ContextConfig, SchemaCompiler, TypeProvider, Logger>,
      handler: fastifyDuplex.ItemHandler<Receive, Send, RawServer, RawRequest, RawReply, RouteGeneric, ContextConfig, SchemaCompiler, TypeProvider, Logger, Result>
    ): FastifyInstance<RawServer, RawRequest, RawReply, Logger, TypeProvider>
    <
      RouteGeneric extends RouteGenericInterface = RouteGenericInterface,
      ContextConfig = ContextConfigDefault,
      const SchemaCompiler extends FastifySchema = FastifySchema,
      const Receive extends ReceiveFormats | undefined = undefined,
      const Send extends SendFormats | undefined = undefined,
      Result = fastifyDuplex.AnyResult
    >(
      path: string,
      opts: fastifyDuplex.ItemShorthandOptions<Receive, Send, RawServer, RawRequest, RawReply, RouteGeneric, ContextConfig, SchemaCompiler, TypeProvider, Logger> & { handler: fastifyDuplex.ItemHandler<NoInfer<Receive>, NoInfer<Send>, RawServer, RawRequest, RawReply, RouteGeneric, ContextConfig, NoInfer<SchemaCompiler>, TypeProvider, Logger, Result> }
    ): FastifyInstance<RawServer, RawRequest, RawReply, Logger, TypeProvider>
    <RouteGeneric extends RouteGenericInterface = RouteGenericInterface, ContextConfig = ContextConfigDefault, const SchemaCompiler extends FastifySchema = FastifySchema, Result = fastifyDuplex.AnyResult>(
      path: string,
      opts: fastifyDuplex.DuplexShorthandOptions<RawServer, RawRequest, RawReply, RouteGeneric, ContextConfig, SchemaCompiler, TypeProvider, Logger>,
      handler: fastifyDuplex.ByteHandler<Result, RawServer, RawRequest, RawReply, RouteGeneric, ContextConfig, SchemaCompiler, TypeProvider, Logger>
    ): FastifyInstance<RawServer, RawRequest, RawReply, Logger, TypeProvider>
    <RouteGeneric extends RouteGenericInterface = RouteGenericInterface, ContextConfig = ContextConfigDefault, const SchemaCompiler extends FastifySchema = FastifySchema, Result = fastifyDuplex.AnyResult>(
      path: string,
      opts: fastifyDuplex.DuplexShorthandOptions<RawServer, RawRequest, RawReply, RouteGeneric, ContextConfig, SchemaCompiler, TypeProvider, Logger> & { handler: fastifyDuplex.ByteHandler<Result, RawServer, RawRequest, RawReply, RouteGeneric, ContextConfig, NoInfer<SchemaCompiler>, TypeProvider, Logger> }
    ): FastifyInstance<RawServer, RawRequest, RawReply, Logger, TypeProvider>
  }

  interface FastifyInstance<RawServer, RawRequest, RawReply, Logger, TypeProvider> {
    route<
      RouteGeneric extends RouteGenericInterface = RouteGenericInterface,
      ContextConfig = ContextConfigDefault,
      const SchemaCompiler extends FastifySchema = FastifySchema,
      const Receive extends ReceiveFormats | undefined = undefined,
      const Send extends SendFormats | undefined = undefined,
      Result = fastifyDuplex.AnyResult
    >(
      opts: Omit<fastifyDuplex.ItemRouteOptions<Receive, Send, RawServer, RawRequest, RawReply, RouteGeneric, ContextConfig, SchemaCompiler, TypeProvider, Logger>, 'handler'> & { handler: fastifyDuplex.ItemHandler<NoInfer<Receive>, NoInfer<Send>, RawServer, RawRequest, RawReply, RouteGeneric, ContextConfig, NoInfer<SchemaCompiler>, TypeProvider, Logger, Result> }
    ): FastifyInstance<RawServer, RawRequest, RawReply, Logger, TypeProvider>
    route<RouteGeneric extends RouteGenericInterface = RouteGenericInterface, ContextConfig = ContextConfigDefault, const SchemaCompiler extends FastifySchema = FastifySchema, Result = fastifyDuplex.AnyResult>(
      opts: Omit<fastifyDuplex.DuplexRouteOptions<RawServer, RawRequest, RawReply, RouteGeneric, ContextConfig, SchemaCompiler, TypeProvider, Logger>, 'handler'> & { handler: fastifyDuplex.ByteHandler<Result, RawServer, RawRequest, RawReply, RouteGeneric, ContextConfig, NoInfer<SchemaCompiler>, TypeProvider, Logger> }
    ): FastifyInstance<RawServer, RawRequest, RawReply, Logger, TypeProvider>

    /** What the plugin says about itself, where it was registered. */
    readonly duplex: fastifyDuplex.DuplexInfo

    /** Adds a route for CONNECT. It exists once `app.addHttpMethod('CONNECT')` was called. */
    connect: RouteShorthandMethod<RawServer, RawRequest, RawReply, TypeProvider, Logger>

    /**
     * Opens an exchange in memory, without a port. Node's parser and this plugin work as on a real connection. Calls
     * `app.ready()` first. The client reads and writes items in the formats of `receive` and `send`.
     *
     * @param options the request; a string is its URL
     * @throws FST_ERR_DUPLEX_OPTION, FST_ERR_DUPLEX_FIELD, FST_ERR_DUPLEX_FRAMING: these options do not make a valid request
     * @throws FST_ERR_DUPLEX_INJECT: the server speaks only HTTP/2
     * @throws FST_ERR_DUPLEX_UNSEEN_ROUTE: from `ready()`: a route with `duplex` was added before the plugin was loaded
     */
    injectDuplex<const Receive extends SendFormats | undefined = undefined, const Send extends ItemFormat | undefined = undefined>(
      options: fastifyDuplex.InjectItemOptions<Receive, Send>
    ): Promise<fastifyDuplex.InjectedItemDuplex<Receive, Send, TypeProvider>>
    /**
     * Opens an exchange in memory, without a port. Node's parser and this plugin work as on a real connection. Calls
     * `app.ready()` first.
     *
     * @param options the request; a string is its URL
     * @throws FST_ERR_DUPLEX_OPTION, FST_ERR_DUPLEX_FIELD, FST_ERR_DUPLEX_FRAMING: these options do not make a valid request
     * @throws FST_ERR_DUPLEX_INJECT: the server speaks only HTTP/2
     * @throws FST_ERR_DUPLEX_UNSEEN_ROUTE: from `ready()`: a route with `duplex` was added before the plugin was loaded
     */
    injectDuplex (options: fastifyDuplex.InjectDuplexOptions & { receive?: undefined, send?: undefined } | string): Promise<fastifyDuplex.InjectedDuplex>
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
  /** Options of `register()`: defaults for all routes. */
  export interface FastifyDuplexOptions {
    /** Milliseconds without a byte in either direction. Then, or late by up to a quarter of that time, the exchange is answered with 408 (or 500, if the handler has returned without ending the response), or cut off if the response has begun. 0: never. Default: 120 000 */
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
    /** Bytes per second that a client must send while the handler waits for them, and must take while bytes of the response wait for it. It has a credit of five seconds. A slower client is answered with 408, or cut off if the response has begun. Not for conversations with pauses. 0: none. Default: 0 */
    minRate?: number
    /** Milliseconds until an exchange is told to end, by `'shutdown'` and `request.signal`. After another `closeGrace` it is answered with 408, or cut off if the response has begun. 0: never. Default: 0 */
    maxAge?: number
    /** Milliseconds that open exchanges get to finish when the app closes, or when they are older than `maxAge`. Then they are answered with 503, or cut off if the response has begun. Default: 10 000 */
    closeGrace?: number
    /** Exchanges open at once; one more is answered with 503 and Retry-After. The limit of a route counts only its own exchanges. Default: none */
    maxExchanges?: number
    /** Bytes buffered in each direction before backpressure sets in. Default: Node's */
    highWaterMark?: number
    /** Whether a client that ends its side (FIN) behind its request still gets the response. If not, it counts as gone, as it always does where Node reads an HTTP/1.1 connection. Default: true */
    allowHalfOpen?: boolean
    /** Whether the `onSend` hooks run before the head of a body that is written to `reply.duplex`, without a payload: for cookies and sessions. Writes wait until they are done. Default: false, with a warning */
    onSend?: boolean
    /** Whether the head of a body that is written to `reply.duplex` has `Incremental: ?1` (RFC 10036): proxies that know the field then do not buffer. A field that the handler has set is kept. Default: false */
    incremental?: boolean
  }

  /** Options of a route whose bodies are bytes. */
  export interface DuplexOptions extends FastifyDuplexOptions {
    /** Only in `DuplexItemOptions`: or else a handler that does not fit its items would be taken for one of bytes. */
    receive?: undefined
    /** Only in `DuplexItemOptions` */
    send?: undefined
  }

  /** Options of a route that declares what the items of its bodies are: of the request, of the response, or of both. */
  export type DuplexItemOptions<
    Receive extends ReceiveFormats | undefined = ReceiveFormats | undefined,
    Send extends SendFormats | undefined = SendFormats | undefined,
    RouteGeneric extends RouteGenericInterface = RouteGenericInterface
  > = FastifyDuplexOptions & RouteFormats<Receive, Send, RouteGeneric> & AnyFormats

  interface RouteFormats<Receive, Send, RouteGeneric> {
    /**
     * The items of the request body, in one format or in several. The content-type of the request says which one it is; a
     * request with another one is answered with 415, FST_ERR_DUPLEX_MEDIA_TYPE. Default: the body is bytes
     */
    receive?: Receive | (RouteGeneric extends { Receive: unknown } ? ReceiveFormats : never)
    /**
     * The items of the response body, in one format or in several. The Accept field of the request chooses among them; a request
     * that accepts none is answered with 406, FST_ERR_DUPLEX_NOT_ACCEPTABLE. Default: the body is bytes
     */
    send?: Send | (RouteGeneric extends { Send: unknown } ? SendFormats : never)
  }

  /** At least one direction has items. */
  type AnyFormats = { receive: object } | { send: object }

  /** The member of a type provider that gives the type of an item: as it comes out of validation, or as it goes into serialization. */
  type ItemSide = 'validator' | 'serializer'

  /** The type of received items. Of several formats each one may come, so it is the union of their types. */
  export type ReceivedItem<TypeProvider extends FastifyTypeProvider, Formats, Side extends ItemSide = 'validator'> =
    EachFormat<Formats> extends infer Format ? ReceivedAs<TypeProvider, Format, Side> : never

  type ReceivedAs<TypeProvider extends FastifyTypeProvider, Format, Side extends ItemSide> = Format extends ItemFormat<infer Schema, infer Options>
    ? OrChecked<(TypeProvider & { schema: Schema })[Side], Options>
    : never

  type OrChecked<Item, Options> = Options extends ItemOptions<infer Invalid>
    ? Invalid extends 'item' ? CheckedItem<Item> : Item
    : Item

  /**
   * The type of sent items. Of several formats the client chooses one, and the handler does not know which. So an item must fit
   * all of them: this is the intersection of their types, not the union.
   */
  export type SentItem<TypeProvider extends FastifyTypeProvider, Formats, Side extends ItemSide = 'serializer'> =
    [Formats] extends [undefined]
      ? never
      : (EachFormat<Formats> extends infer Format ? Takes<TypeProvider, Format, Side> : never) extends (item: infer Item) => void ? Item : never

  type Takes<TypeProvider extends FastifyTypeProvider, Format, Side extends ItemSide> = Format extends SendFormat<infer Schema>
    ? (item: (TypeProvider & { schema: Schema })[Side]) => void
    : never

  type EachFormat<Formats> = Formats extends readonly (infer Format)[] ? Format : Formats

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

  /** Named after the remedy: the name is in the compiler's message. */
  const yieldBytesOrDeclareSend: unique symbol

  /**
   * The reply of a handler whose parameters have no types of their own. It is declared to have a property that no reply has. So if such
   * a handler does not fit our signature, it does not fit Fastify's own either, which takes every return value.
   */
  // An interface: with an intersection, TypeScript would compare all members, too deeply for json-schema-to-ts.
  interface ByteReply<
    RawServer extends RawServerBase,
    RawRequest extends RawRequestDefaultExpression<RawServer>,
    RawReply extends RawReplyDefaultExpression<RawServer>,
    RouteGeneric extends RouteGenericInterface,
    ContextConfig,
    SchemaCompiler extends FastifySchema,
    TypeProvider extends FastifyTypeProvider
  > extends FastifyReply<RouteGeneric, RawServer, RawRequest, RawReply, ContextConfig, SchemaCompiler, TypeProvider> {
    readonly [yieldBytesOrDeclareSend]: true
  }

  /**
   * What a route of bytes takes for its handler: a `DuplexHandler`. Also where no schema says what is returned, an async iterable must
   * be one of bytes or strings.
   */
  export type ByteHandler<
    Result,
    RawServer extends RawServerBase,
    RawRequest extends RawRequestDefaultExpression<RawServer>,
    RawReply extends RawReplyDefaultExpression<RawServer>,
    RouteGeneric extends RouteGenericInterface,
    ContextConfig,
    SchemaCompiler extends FastifySchema,
    TypeProvider extends FastifyTypeProvider,
    Logger extends FastifyBaseLogger
  > = (
    this: FastifyInstance<RawServer, RawRequest, RawReply, Logger, TypeProvider>,
    request: FastifyRequest<RouteGeneric, RawServer, RawRequest, SchemaCompiler, TypeProvider, ContextConfig, Logger>,
    reply: ByteReply<RawServer, RawRequest, RawReply, RouteGeneric, ContextConfig, SchemaCompiler, TypeProvider>
  ) => Result & OfBytes<Result> & OrBody<ReturnType<RouteHandlerMethod<RawServer, RawRequest, RawReply, RouteGeneric, ContextConfig, SchemaCompiler, TypeProvider, Logger>>>

  /** For a route with type arguments, for which `Result` is not inferred: everything but an async iterable of other content. */
  export type AnyResult = DuplexBody | Promise<unknown> | string | number | boolean | bigint | symbol | null | undefined | void | { [Symbol.asyncIterator]?: undefined, [name: string]: any }

  type OfBytes<Result> = [Result] extends [AsyncIterable<infer Chunk>] ? [Chunk] extends [string | Uint8Array] ? unknown : DuplexBody : unknown

  type OrBody<Result> = Result | DuplexBody | Promise<Awaited<Result> | DuplexBody>

  /**
   * The handler of a route with items. If the route declares `send`, the handler may return the items, as an async iterable such
   * as a generator, or send them with `reply.duplex.send()`; or return a web Response or the reply. Without `send`, it is as a
   * `DuplexHandler`.
   */
  // A conditional type, because TypeScript then knows the type of an item where the handler yields it: literals keep their types.
  export type ItemHandler<
    Receive extends ReceiveFormats | undefined,
    Send extends SendFormats | undefined,
    RawServer extends RawServerBase = RawServerDefault,
    RawRequest extends RawRequestDefaultExpression<RawServer> = RawRequestDefaultExpression<RawServer>,
    RawReply extends RawReplyDefaultExpression<RawServer> = RawReplyDefaultExpression<RawServer>,
    RouteGeneric extends RouteGenericInterface = RouteGenericInterface,
    ContextConfig = ContextConfigDefault,
    SchemaCompiler extends FastifySchema = FastifySchema,
    TypeProvider extends FastifyTypeProvider = FastifyTypeProviderDefault,
    Logger extends FastifyBaseLogger = FastifyBaseLogger,
    Result = unknown
  > = Sent<RouteGeneric, TypeProvider, Send> extends readonly [infer Item]
    ? (
        this: FastifyInstance<RawServer, RawRequest, RawReply, Logger, TypeProvider>,
        request: FastifyRequest<RouteGeneric, RawServer, RawRequest, SchemaCompiler, TypeProvider, ContextConfig, Logger>,
        reply: ItemReply<Receive, Send, RawServer, RawRequest, RawReply, RouteGeneric, ContextConfig, SchemaCompiler, TypeProvider>
      ) => OrPromise<ItemBody<Item> | FastifyReply<RouteGeneric, RawServer, RawRequest, RawReply, ContextConfig, SchemaCompiler, TypeProvider> | void>
    : (
        this: FastifyInstance<RawServer, RawRequest, RawReply, Logger, TypeProvider>,
        request: FastifyRequest<RouteGeneric, RawServer, RawRequest, SchemaCompiler, TypeProvider, ContextConfig, Logger>,
        reply: ItemReply<Receive, Send, RawServer, RawRequest, RawReply, RouteGeneric, ContextConfig, SchemaCompiler, TypeProvider>
      ) => Result & OfBytes<Result> & OrBody<ReturnType<RouteHandlerMethod<RawServer, RawRequest, RawReply, RouteGeneric, ContextConfig, SchemaCompiler, TypeProvider, Logger>>>

  /** The type of received items in brackets, or none. Explicit types come first, as with the `Body` of a route. */
  type Received<RouteGeneric, TypeProvider extends FastifyTypeProvider, Formats> =
    RouteGeneric extends { Receive: infer Item } ? [Item] : [Formats] extends [undefined] ? [] : [ReceivedItem<TypeProvider, Formats>]

  /** The same of sent items, as with the `Reply` of a route. */
  type Sent<RouteGeneric, TypeProvider extends FastifyTypeProvider, Formats> =
    RouteGeneric extends { Send: infer Item } ? [Item] : [Formats] extends [undefined] ? [] : [SentItem<TypeProvider, Formats>]

  type OrPromise<Result> = Result | Promise<Result>

  /** A response body of items. Each one is sent when it comes. It is cancelled if the exchange fails. A Response is sent as it is. */
  export type ItemBody<Sent> = AsyncIterable<Sent> | Response

  /** The reply of a route with items. */
  export interface ItemReply<
    Receive extends ReceiveFormats | undefined,
    Send extends SendFormats | undefined,
    RawServer extends RawServerBase = RawServerDefault,
    RawRequest extends RawRequestDefaultExpression<RawServer> = RawRequestDefaultExpression<RawServer>,
    RawReply extends RawReplyDefaultExpression<RawServer> = RawReplyDefaultExpression<RawServer>,
    RouteGeneric extends RouteGenericInterface = RouteGenericInterface,
    ContextConfig = ContextConfigDefault,
    SchemaCompiler extends FastifySchema = FastifySchema,
    TypeProvider extends FastifyTypeProvider = FastifyTypeProviderDefault
  > extends FastifyReply<RouteGeneric, RawServer, RawRequest, RawReply, ContextConfig, SchemaCompiler, TypeProvider> {
    /** Both directions of the exchange, with the items that the route declares. */
    readonly duplex: ItemDuplex<Received<RouteGeneric, TypeProvider, Receive>[number], Sent<RouteGeneric, TypeProvider, Send>[number]>
  }

  export interface ItemShorthandOptions<
    Receive extends ReceiveFormats | undefined,
    Send extends SendFormats | undefined,
    RawServer extends RawServerBase = RawServerDefault,
    RawRequest extends RawRequestDefaultExpression<RawServer> = RawRequestDefaultExpression<RawServer>,
    RawReply extends RawReplyDefaultExpression<RawServer> = RawReplyDefaultExpression<RawServer>,
    RouteGeneric extends RouteGenericInterface = RouteGenericInterface,
    ContextConfig = ContextConfigDefault,
    SchemaCompiler extends FastifySchema = FastifySchema,
    TypeProvider extends FastifyTypeProvider = FastifyTypeProviderDefault,
    Logger extends FastifyBaseLogger = FastifyBaseLogger
  > extends Omit<RouteShorthandOptions<RawServer, RawRequest, RawReply, RouteGeneric, ContextConfig, SchemaCompiler, TypeProvider, Logger>, 'duplex'> {
    duplex: DuplexItemOptions<Receive, Send, RouteGeneric>
  }

  export interface ItemRouteOptions<
    Receive extends ReceiveFormats | undefined,
    Send extends SendFormats | undefined,
    RawServer extends RawServerBase = RawServerDefault,
    RawRequest extends RawRequestDefaultExpression<RawServer> = RawRequestDefaultExpression<RawServer>,
    RawReply extends RawReplyDefaultExpression<RawServer> = RawReplyDefaultExpression<RawServer>,
    RouteGeneric extends RouteGenericInterface = RouteGenericInterface,
    ContextConfig = ContextConfigDefault,
    SchemaCompiler extends FastifySchema = FastifySchema,
    TypeProvider extends FastifyTypeProvider = FastifyTypeProviderDefault,
    Logger extends FastifyBaseLogger = FastifyBaseLogger
  > extends Omit<RouteOptions<RawServer, RawRequest, RawReply, RouteGeneric, ContextConfig, SchemaCompiler, TypeProvider, Logger>, 'duplex' | 'handler'> {
    duplex: DuplexItemOptions<Receive, Send, RouteGeneric>
    handler: ItemHandler<NoInfer<Receive>, NoInfer<Send>, RawServer, RawRequest, RawReply, RouteGeneric, ContextConfig, NoInfer<SchemaCompiler>, TypeProvider, Logger>
  }

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
    /** @throws FST_ERR_DUPLEX_CONTENT: neither a string nor bytes. Items are sent with `send()`, on a route that declares them */
    write (chunk: string | NodeJS.ArrayBufferView, callback?: (error: Error | null | undefined) => void): boolean
    write (chunk: string | NodeJS.ArrayBufferView, encoding?: BufferEncoding, callback?: (error: Error | null | undefined) => void): boolean
    /** @throws FST_ERR_DUPLEX_CONTENT: neither a string nor bytes */
    end (callback?: () => void): this
    end (chunk: string | NodeJS.ArrayBufferView, callback?: () => void): this
    end (chunk: string | NodeJS.ArrayBufferView, encoding?: BufferEncoding, callback?: () => void): this
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
     * The app is closing, or the exchange is older than `maxAge`: the handler has `closeGrace` to finish the response. (When the app
     * closes, also to finish with a detached connection.) `request.signal` has aborted: with FST_ERR_DUPLEX_CLOSING or
     * FST_ERR_DUPLEX_AGE as its reason, unless it had aborted before.
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

  /** The items of a body. They can be read once. */
  export interface Items<Received> extends AsyncIterable<Received> {
    /** The same items in arrays: those that are there when it is asked. Faster, if they are many and small. */
    batches (): AsyncIterable<Received[]>
  }

  /** An `HttpDuplex` with `items`, `send()`, or both. `never` stands for a direction without items. */
  export type ItemDuplex<Received = never, Sent = never> = HttpDuplex & WithItems<Received, Sent>

  type WithItems<Received, Sent> =
    ([Received] extends [never] ? unknown : ItemSource<Received>) & ([Sent] extends [never] ? unknown : ItemSink<Sent>)

  /** What `receive` adds. */
  export interface ItemSource<Received> {
    /**
     * The items received, validated. Iterating throws at the first bad one, unless its format has `invalid: 'item'`.
     *
     * @throws FST_ERR_DUPLEX_ITEM (400): an item is malformed, or violates its schema: then `validation` has the details
     * @throws FST_ERR_DUPLEX_ITEM_LIMIT (413): an item is longer than `maxItemSize`
     * @throws FST_ERR_DUPLEX_NO_ITEMS: `receive` is not declared
     */
    readonly items: Items<Received>
  }

  /** What `send` adds. */
  export interface ItemSink<Sent> {
    /**
     * Sends an item.
     *
     * @returns as `write()`: false if it is better to wait for `'drain'` before the next one
     * @throws FST_ERR_DUPLEX_ITEM_SERIALIZE (500): the item does not fit its schema; nothing of it was sent
     * @throws FST_ERR_DUPLEX_NO_ITEMS: `send` is not declared
     */
    send (item: Sent): boolean
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

  /** The request of `app.injectDuplex()` with items. */
  export type InjectItemOptions<
    Receive extends SendFormats | undefined = SendFormats | undefined,
    Send extends ItemFormat | undefined = ItemFormat | undefined
  > = InjectDuplexOptions & InjectFormats<Receive, Send> & AnyFormats

  interface InjectFormats<Receive, Send> {
    /** The items of the response body. Sets the Accept field, unless `headers` has it. Default: the body is bytes */
    receive?: Receive
    /** The items of the request body. Sets the content-type, unless `headers` has it. The default of `method` is POST then. Default: the body is bytes */
    send?: Send
  }

  /** What `receive` adds to the client's end. */
  export interface InjectedItemSource<Received> {
    /**
     * The items of the response, in the format of its content-type. They are not validated. A loop that is left can be
     * continued by another one.
     *
     * @throws FST_ERR_DUPLEX_RESPONSE: the response has another content-type, such as that of an error: an `InjectResponseError`
     * @throws FST_ERR_DUPLEX_ITEM, FST_ERR_DUPLEX_ITEM_LIMIT: the server has sent what is no item, or a longer one than `maxItemSize`
     */
    readonly items: Items<Received>
  }

  /** What `send` adds to the client's end. */
  export interface InjectedItemSink<Sent> {
    /**
     * Sends an item, as `JSON.stringify()` makes it, or the codec. It is not validated. Each one is a chunk of its own.
     *
     * @returns as `write()`: false if it is better to wait for `'drain'` before the next one
     * @throws FST_ERR_DUPLEX_ITEM_SERIALIZE: nothing of the item was sent
     */
    send (item: Sent): boolean
  }

  /** A response that is in no format of `receive`. */
  export interface InjectResponseError extends FastifyError {
    readonly code: 'FST_ERR_DUPLEX_RESPONSE'
    /** The status of the response. */
    readonly statusCode: number
    /** The body of an error answer, parsed if it is JSON. */
    readonly body: unknown
  }

  /**
   * The client's end of an injected exchange with items. It sends what the validator of the server gives to a handler, and
   * receives what the serializer of the server takes from one.
   */
  export type InjectedItemDuplex<
    Receive extends SendFormats | undefined = undefined,
    Send extends ItemFormat | undefined = undefined,
    TypeProvider extends FastifyTypeProvider = FastifyTypeProviderDefault
  > = WithClientItems<Receive, Send, TypeProvider> & NextWithItems<TypeProvider> & InjectedDuplex

  /** What `receive` and `send` add to the client's end. */
  export type WithClientItems<Receive, Send, TypeProvider extends FastifyTypeProvider = FastifyTypeProviderDefault> =
    WithInjectedItems<InjectedItem<TypeProvider, Receive>, SentItem<TypeProvider, Send, 'validator'>>

  interface NextWithItems<TypeProvider extends FastifyTypeProvider> {
    /** Opens another exchange on the same connection, with items. Its request is sent after this one. */
    next<const Receive extends SendFormats | undefined = undefined, const Send extends ItemFormat | undefined = undefined>(
      options: InjectItemOptions<Receive, Send>
    ): InjectedItemDuplex<Receive, Send, TypeProvider>
  }

  /** What comes out of a format: also of one that servers can only send. */
  type InjectedItem<TypeProvider extends FastifyTypeProvider, Formats> =
    EachFormat<Formats> extends infer Format ? InjectedAs<TypeProvider, Format> : never

  type InjectedAs<TypeProvider extends FastifyTypeProvider, Format> =
    Format extends ItemFormat ? ReceivedItem<TypeProvider, Format, 'serializer'> : Format extends SendFormat<infer Schema> ? (TypeProvider & { schema: Schema })['serializer'] : never

  type WithInjectedItems<Received, Sent> =
    ([Received] extends [never] ? unknown : InjectedItemSource<Received>) & ([Sent] extends [never] ? unknown : InjectedItemSink<Sent>)

  /** `app.duplex` */
  export interface DuplexInfo {
    /**
     * The open exchanges of the routes that share this registration of the plugin, the oldest first. The array is a snapshot, made
     * anew by each call. An exchange is in it from its last preParsing hook on, or from when an earlier hook uses `reply.duplex`,
     * until its end: onRequest hooks run before. A detached connection is in it until it closes, if it is `counted`.
     */
    exchanges (): ExchangeStatus[]
  }

  /** An open exchange, as it was when `app.duplex.exchanges()` was called. */
  export interface ExchangeStatus {
    readonly request: FastifyRequest
    /** The `id` of the request, as in the log. */
    readonly id: string
    readonly method: string
    /** The URL of the route, with its prefix and the names of its parameters: `/files/:name` */
    readonly route: string
    readonly state: ExchangeState
    /** How the bodies are framed. The framing of the response is undefined until its head is written. */
    readonly framing: HttpDuplex['framing']
    /** Bytes of request body received, without framing. */
    readonly bytesRead: number
    /** Bytes of response body that the connection has accepted, without framing. 0 if Fastify answers */
    readonly bytesWritten: number
    /** Milliseconds since the request arrived. It stops when the connection is detached. */
    readonly age: number
  }

  /**
   * What an exchange is doing. The first one that is true:
   *
   * - `'detached'`: the connection belongs to the handler, after `detach()`
   * - `'closing'`: it was told to end, because the app closes or because of `maxAge`
   * - `'tunnel'`: a 101 or a 2xx to CONNECT was sent, or is being sent
   * - `'answer'`: Fastify answers, after `reply.send()`, a returned value or an error
   * - `'reading'`: the response is complete, and the request is still being read
   * - `'hooks'`: the handler has not begun
   * - `'handler'`: it has, and nothing of the response was written
   * - `'both'`: the response has begun, and the client may still send
   * - `'writing'`: the response has begun, and nothing more of the request is read
   */
  export type ExchangeState = 'hooks' | 'handler' | 'both' | 'reading' | 'writing' | 'answer' | 'tunnel' | 'closing' | 'detached'

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
