// The types of `fastify-duplex/items`: formats that make a body a sequence of items. They do not depend on index.d.ts.

import type { FastifyError } from 'fastify'

/** Options of a format. Those of a format that is only sent are in `SendOptions`. */
export interface ItemOptions<Invalid extends InvalidItems = InvalidItems> extends SendOptions {
  /** Bytes of one received item, without what separates it from the next one; a longer one is refused with FST_ERR_DUPLEX_ITEM_LIMIT. Default: 1 MiB */
  readonly maxItemSize?: number
  /**
   * What a received item does that is malformed, too long, or violates its schema. `'error'`: reading fails with its error.
   * `'item'`: the handler gets `{ ok: false, error }` in its place, and `{ ok: true, value }` for each good one. Default: `'error'`
   */
  readonly invalid?: Invalid
}

type InvalidItems = 'error' | 'item'

/** Options of a format that are for sending. */
export interface SendOptions {
  /** Milliseconds without a byte sent, after which an empty line or the like is sent. It keeps the connection alive and finds dead clients. Default: none */
  readonly heartbeat?: number
  /**
   * Whether an error that the handler throws after the first byte is sent as a last item (a problem record, RFC 9457), before the response is cut off. A
   * function makes that item from the error, at once: a promise is not sent. It is sent only if it fits the schema. Default: true
   */
  readonly problem?: boolean | ((error: Error) => unknown)
}

/** An item of a route with `invalid: 'item'`. */
export type CheckedItem<Item> =
  | { readonly ok: true, readonly value: Item }
  | { readonly ok: false, readonly error: ItemError | ItemLimitError }

/** Where in a body a bad item is. */
interface ItemPosition {
  /** The number of the item, from 0. */
  readonly index: number
  /** The byte of the body at which the item begins, from 0. */
  readonly offset: number
}

/** A received item is malformed, or violates its schema. Then `validation` has the details, as on other routes. */
export interface ItemError extends FastifyError, ItemPosition {
  readonly code: 'FST_ERR_DUPLEX_ITEM'
  readonly statusCode: 400
}

/** A received item is longer than `maxItemSize`. */
export interface ItemLimitError extends FastifyError, ItemPosition {
  readonly code: 'FST_ERR_DUPLEX_ITEM_LIMIT'
  readonly statusCode: 413
}

/** An item could not be serialized. Nothing of it was sent. */
export interface ItemSerializeError extends FastifyError {
  readonly code: 'FST_ERR_DUPLEX_ITEM_SERIALIZE'
  readonly statusCode: 500
  /** The number of the sent item, from 0. */
  readonly index: number
}

/** Options of a decoder. */
export interface DecoderOptions {
  /** Bytes of one item. */
  readonly maxItemSize: number
  /**
   * Parses JSON by the rules that the app has for the keys `__proto__` and `constructor` (with `prototype` in it). Only called for
   * text that may hold them, also with \u escapes. null: there are no such rules.
   */
  readonly parse: ((text: string) => unknown) | null
}

/** Reads the items of one body. */
export interface ItemDecoder {
  /** Takes the next bytes of the body. Only to be called if `next` has returned NO_ITEM. May keep a view of `chunk` until `next` does so again. */
  write (chunk: Buffer): void
  /** The body is complete. Only to be called if `next` has returned NO_ITEM. */
  end (): void
  /**
   * The next item, or NO_ITEM if its bytes are missing or there is no other one. Throws an ItemError or an ItemLimitError if the next
   * item is bad. The call after that goes on behind it.
   */
  next (): unknown
  /** The number, from 0, of the item that `next` has returned or thrown last. -1: none yet. */
  readonly index: number
  /** The byte of the body at which that item begins. */
  readonly offset: number
}

/** How items are written as bytes. */
export interface ItemCodec {
  /** The first one is the content-type of what is sent. */
  readonly mediaTypes: readonly [string, ...string[]]
  /** Absent: it can only be sent. */
  readonly decoder?: (options: DecoderOptions) => ItemDecoder
  /** For formats of JSON: items as they are sent, from their JSON texts. At least one. */
  readonly frame?: (texts: readonly string[]) => string
  /** For other formats: an item as it is sent. */
  readonly encode?: (item: unknown) => string | Uint8Array
  /** What is sent on a quiet stream. */
  readonly heartbeat?: string | Uint8Array
}

/** A codec of items that can be received. */
export interface ReceivingCodec extends ItemCodec {
  readonly decoder: (options: DecoderOptions) => ItemDecoder
}

/** Items of one schema in one format, to send. */
export interface SendFormat<Schema = unknown, Options extends SendOptions = SendOptions> {
  readonly schema: Schema
  readonly codec: ItemCodec
  readonly options: Options
}

/** Items of one schema in one format, to send or to receive. */
export interface ItemFormat<Schema = unknown, Options extends ItemOptions = ItemOptions> extends SendFormat<Schema, Options> {
  readonly codec: ReceivingCodec
}

/** The options of a format, with the defaults of those that were not given. */
export interface ResolvedItemOptions {
  readonly maxItemSize: number
  readonly invalid: InvalidItems
  readonly heartbeat?: number
  readonly problem: boolean | ((error: Error) => unknown)
}

/** One format to receive, or several: the content-type of the request chooses. */
export type ReceiveFormats = ItemFormat | readonly ItemFormat[]

/** One format to send, or several: the Accept field of the request chooses. */
export type SendFormats = SendFormat | readonly SendFormat[]

/** Makes formats of one codec. */
export interface ItemFormatter {
  /**
   * @param schema what the app's validator and serializer take
   * @throws FST_ERR_DUPLEX_OPTION: not a valid option
   */
  <const Schema, const Invalid extends InvalidItems = 'error'> (schema: Schema, options?: ItemOptions<Invalid>): ItemFormat<Schema, ItemOptions<NoInfer<Invalid>>>
}

/** JSON Lines: one JSON text a line. `application/jsonl`, `application/x-ndjson` */
export declare const jsonl: ItemFormatter

/** JSON text sequences (RFC 7464). `application/json-seq` */
export declare const jsonSeq: ItemFormatter

/**
 * Server-sent events with the JSON text of an item as `data`. `text/event-stream`; only to send
 *
 * @throws FST_ERR_DUPLEX_OPTION: not a valid option
 */
export declare function sse<const Schema> (schema: Schema, options?: SendOptions): SendFormat<Schema>

/** A codec of your own. */
export interface CustomCodec {
  /** The first one is the content-type of what is sent. */
  readonly mediaTypes: readonly [string, ...string[]]
  /**
   * Takes one item from the bytes that are not decoded yet, and says how many bytes it took. If it is not complete, returns how
   * many bytes it takes at least, or null if that is unknown. What it throws becomes the cause of FST_ERR_DUPLEX_ITEM, and
   * decoding does not go on.
   *
   * @param isLast no more bytes come
   */
  decode (bytes: Buffer, isLast: boolean): { item: unknown, size: number } | number | null
  /** One item as it is sent: bytes, which must not change afterwards, or a text, which is sent as UTF-8. What it throws becomes the cause of FST_ERR_DUPLEX_ITEM_SERIALIZE. Absent: it can only be received. */
  encode? (item: unknown): string | Uint8Array
  /** What is sent on a quiet stream, if the format has `heartbeat`. */
  readonly heartbeat?: string | Uint8Array
}

/** A codec of your own that can only be sent. */
export type CustomSendCodec = Omit<CustomCodec, 'decode' | 'encode'> & Required<Pick<CustomCodec, 'encode'>>

/** Makes formats of a codec of your own. */
export declare function itemCodec (codec: CustomCodec): ItemFormatter
export declare function itemCodec (codec: CustomSendCodec): typeof sse

/** The JSON Schema of a problem record (RFC 9457), as it is sent as a last item. */
export declare const problemSchema: {
  readonly type: 'object'
  readonly properties: {
    readonly type: { readonly type: 'string' }
    readonly title: { readonly type: 'string' }
    readonly status: { readonly type: 'integer' }
    readonly detail: { readonly type: 'string' }
    readonly instance: { readonly type: 'string' }
    readonly code: { readonly type: 'string' }
    readonly index: { readonly type: 'integer' }
    readonly offset: { readonly type: 'integer' }
  }
  readonly required: readonly ['title', 'status']
}

/**
 * Makes @fastify/swagger show the items of routes: pass it the options of swagger. In OpenAPI 3.2, the media types of the bodies have
 * their `itemSchema`. Older versions have no place for it: there, a media type is a string with a description, and `x-itemSchema`.
 *
 * Your own `transform` is called too. It sees the schema of received items as `schema.body`, with their media types as
 * `schema.consumes`, and that of sent items in `schema.response[200].content`. For a route with `config.swaggerTransform`, wrap
 * that function too: `withItemSchemas({ transform }).transform`.
 */
export declare function withItemSchemas<Options extends object> (options: Options): Options
