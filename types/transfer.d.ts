// The types of `fastify-duplex/transfer`: the pure readers and writers of HTTP/1 messages. They do not depend on Fastify's types.
// index.d.ts publishes those that users of the plugin need.

/** A host and a port, as the target of a CONNECT request has them. */
export interface Authority {
  /** A name or an address; IPv6 without its brackets. */
  readonly host: string
  /** 1 to 65535 */
  readonly port: number
}

/**
 * Fields by lower-case name. The values of a repeated field are joined with `, ` (RFC 9110 section 5.2), those of `cookie` with `; `
 * (RFC 9113 section 8.2.3). In a head, `set-cookie` is not among them: its values cannot be joined.
 */
export type Fields = Record<string, string>

/** Trailers by lower-case name. The values of a repeated field are joined with `, `. */
export type Trailers = Readonly<Fields>

/** Fields to send, by name in any case. An array becomes one line per value. */
export type OutgoingFields = Record<string, string | number | readonly (string | number)[] | undefined>

// Framing

/** What marks the end of a body. `none`: there is no body; `length`: its announced length; `chunked`: its last chunk; `close`: the end of the connection. */
export type FramingKind = 'none' | 'length' | 'chunked' | 'close'

/** How the body of a message is framed. */
export interface Framing {
  readonly kind: FramingKind
  /** Bytes of content if the head announces their number, else 0. To a response to HEAD any number may be written: Infinity. */
  readonly length: number
}

/** The fields of a head that decide the framing. The values of a repeated field are joined with a comma. */
export interface FramingFields {
  'transfer-encoding'?: string
  'content-length'?: string
}

/**
 * The framing fields in the `rawHeaders` of an IncomingMessage, for heads that Node has read. Its parsed `headers` keep only the first
 * content-length.
 */
export declare function framingFields (rawHeaders: readonly string[]): FramingFields

/**
 * The framing of a request (RFC 9112 section 6.3; Go's `readTransfer`). A request without framing fields has no body.
 *
 * @param fields the fields of its head
 * @param minorVersion its minor version of HTTP/1
 * @throws FST_ERR_DUPLEX_FRAMING (400): the framing fields are malformed or contradict each other
 * @throws FST_ERR_DUPLEX_TRANSFER_CODING (501): a transfer coding other than chunked
 */
export declare function requestFraming (fields: FramingFields, minorVersion: number): Framing

/**
 * The framing of a received response (RFC 9112 section 6.3; Go's `readTransfer`).
 *
 * @param method the method of the request it answers
 * @param statusCode its status
 * @param fields the fields of its head
 * @param minorVersion its minor version of HTTP/1
 * @throws FST_ERR_DUPLEX_FRAMING: the framing fields are malformed or contradict each other
 * @throws FST_ERR_DUPLEX_TRANSFER_CODING: a transfer coding other than chunked
 */
export declare function receivedFraming (method: string, statusCode: number, fields: FramingFields, minorVersion: number): Framing

/**
 * The framing of a response to send (RFC 9112 section 6; Go's `newTransferWriter`).
 *
 * @param method the method of the request it answers
 * @param statusCode its status: 101, or 200 to 599
 * @param contentLength the content-length field of the response, if it has one. Default: chunked, or up to the end of the connection
 * @param minorVersion the minor version of HTTP/1 of the request: 1.0 has no chunked coding
 * @throws FST_ERR_DUPLEX_STATUS: an interim status, which is not a final response
 * @throws FST_ERR_DUPLEX_FIELD: content-length is not one number of bytes
 */
export declare function responseFraming (method: string, statusCode: number, contentLength: OutgoingFields[string], minorVersion: number): Framing

/** Whether the connection becomes a tunnel after the head of a response with this status: 101, or a 2xx to CONNECT. */
export declare function isTunnel (method: string, statusCode: number): boolean

/**
 * Whether the connection is closed after a message, as far as its sender decides (RFC 9112 section 9.3; Go's `shouldClose`). It is
 * closed after `Connection: close`, after HTTP/1.0 without `keep-alive`, and after a body that ends with the connection.
 *
 * @param minorVersion the message's minor version of HTTP/1
 * @param connection the message's `connection` field
 * @param framing the framing of its body. Default: one that does not end with the connection
 */
export declare function shouldClose (minorVersion: number, connection: string | undefined, framing?: Framing): boolean

// Heads that are read

/** What both kinds of heads have. */
export interface ReceivedHead {
  /** The minor version of HTTP/1: 0 or 1. */
  readonly minorVersion: number
  readonly fields: Fields
  /** The same in Node's form: with `set-cookie`, whose values cannot be joined, as an array. */
  readonly headers: Record<string, string | string[]>
}

/** The forms of a request-target (RFC 9112 section 3.2). */
export type TargetForm = 'origin' | 'absolute' | 'authority' | 'asterisk'

/** The head of a request. */
export interface RequestHead extends ReceivedHead {
  /** As received: methods are case-sensitive. */
  readonly method: string
  /** The request-target, as received. */
  readonly target: string
  /** `origin`: a path; `absolute`: a URI; `authority`: of CONNECT, a host and a port; `asterisk`: of OPTIONS, the whole server. */
  readonly form: TargetForm
  /**
   * The host that the request is for, with its port if it has one: that of the target if it is `absolute` or `authority`, else that of
   * the Host field. Empty if there is neither.
   */
  readonly host: string
}

/** The head of a response, or of an interim response. */
export interface ResponseHead extends ReceivedHead {
  /** 100 to 599 */
  readonly statusCode: number
  /** The reason phrase. */
  readonly statusMessage: string
}

/** What both readers of heads have. A reader reads one head. It does not throw, and keeps no reference to its input. */
declare abstract class HeadReader<Head extends ReceivedHead> {
  /** @param maxSize bytes of the head, with its empty line. Default: `http.maxHeaderSize` */
  constructor (maxSize?: number)
  /** The head, once it is complete. Then nothing more can be read. */
  readonly head: Head | null
  /** What is wrong with the head. Nothing can be read after an error. */
  readonly error: Error | null
  /** How many bytes of the last input belonged to the head. If the head is complete, the body follows them. Without meaning after an error. */
  readonly consumed: number
  /** Reads the next bytes of the head. In all, it takes time in proportion to their number, also if they come one by one. */
  read (input: Buffer): void
  /** The connection has ended. */
  end (): void
}

/**
 * Reads the head of a request (RFC 9112 sections 2, 3 and 5; Go's `ReadRequest`). One empty line before it is skipped, and counts as a
 * part of it. If the connection ends before the first byte of the head, `end()` leaves both `head` and `error` null.
 *
 * `error` is one of
 * - FST_ERR_DUPLEX_HEAD (400): the request-line or a field line is malformed, or a line does not end with CRLF
 * - FST_ERR_DUPLEX_HEAD_LIMIT (431): more than `maxSize` bytes
 * - FST_ERR_DUPLEX_VERSION (505): neither HTTP/1.0 nor HTTP/1.1
 * - FST_ERR_DUPLEX_HOST (400): more than one Host field, a malformed one, or none in HTTP/1.1
 * - FST_ERR_DUPLEX_AUTHORITY (400): the target of CONNECT is not a host and a port
 * - FST_ERR_DUPLEX_FRAMING (400): a CONNECT request with Transfer-Encoding or Content-Length
 * - FST_ERR_DUPLEX_TRUNCATED (400): the connection has ended within the head
 */
export declare class RequestHeadReader extends HeadReader<RequestHead> {}

/**
 * Reads the head of a response (RFC 9112 sections 2, 4 and 5; Go's `ReadResponse`). An interim response (1xx) is a whole head too: use a
 * new reader for the one that follows.
 *
 * `error` is one of
 * - FST_ERR_DUPLEX_HEAD: the status-line or a field line is malformed, or a line does not end with CRLF
 * - FST_ERR_DUPLEX_HEAD_LIMIT: more than `maxSize` bytes
 * - FST_ERR_DUPLEX_TRUNCATED: the connection has ended before or within the head
 */
export declare class ResponseHeadReader extends HeadReader<ResponseHead> {}

/**
 * The host and the port in the target of a CONNECT request (RFC 9112 section 3.2.3).
 *
 * @throws FST_ERR_DUPLEX_AUTHORITY (400): it is something else, or the port is not 1 to 65535
 */
export declare function parseAuthority (target: string): Authority

// Heads that are written

/** The head of a request to send. */
export interface OutgoingRequestHead {
  /** A token. */
  method: string
  /** The request-target, in a form that fits the method. */
  target: string
  /** With exactly one `host`. Without the fields that only the writer may set. */
  fields: OutgoingFields
  /** How the body will be framed: `none`, `length` or `chunked`. */
  framing: Framing
}

/** The head of a response to send. */
export interface OutgoingResponseHead {
  /** 101, or 200 to 599 */
  statusCode: number
  /** The reason phrase. Default: Node's for this status code */
  statusMessage?: string
  /** Without the fields that only the writer may set. Without a `content-length`, the writer adds that of the framing. */
  fields: OutgoingFields
  /** From `responseFraming`. */
  framing: Framing
  /** Whether to add `Date` if it is not among `fields`. Default: true */
  date?: boolean
}

/**
 * The head of a request in HTTP/1.1 (RFC 9112 sections 3 and 5; Go's `Request.Write`), with the empty line at its end. Latin1.
 *
 * The writer owns `transfer-encoding`, `content-length`, `trailer`, `keep-alive` and `proxy-connection`. It replaces `connection`,
 * with the options that `upgrade` and `te` require.
 *
 * @param persistent whether the connection is kept after the response. Default: true
 * @param trailers the value of the `Trailer` field, if the framing is `chunked`. Default: no such field
 * @throws FST_ERR_DUPLEX_FIELD: the method, a target that does not fit it, a name or a value cannot be sent; there is not exactly one
 * `host`; or the body cannot be framed so: up to the end of the connection, or any body of CONNECT
 * @throws FST_ERR_DUPLEX_OWN_FIELD: a field that only the writer may set
 */
export declare function writeRequestHead (head: OutgoingRequestHead, persistent?: boolean, trailers?: string): string

/**
 * The head of a final response or of a 101 (RFC 9112 sections 4 and 5), with the empty line at its end. Latin1.
 *
 * The writer owns `transfer-encoding`, `trailer`, `te`, `keep-alive` and `proxy-connection`. It replaces `connection`, with what
 * `persistent` and `upgrade` require.
 *
 * @param persistent whether the connection is kept for another request
 * @param keepAlive the value of the `Keep-Alive` field in that case, like `timeout=72`. Default: no such field
 * @param trailers the value of the `Trailer` field, if the framing is `chunked`. Default: no such field
 * @throws FST_ERR_DUPLEX_STATUS: `statusCode` is no status
 * @throws FST_ERR_DUPLEX_FIELD: a name, a value or the reason phrase cannot be sent, or `content-length` contradicts the framing
 * @throws FST_ERR_DUPLEX_OWN_FIELD: a field that only the writer may set
 */
export declare function writeResponseHead (head: OutgoingResponseHead, persistent: boolean, keepAlive?: string, trailers?: string): string

/**
 * An interim response (RFC 9110 section 15.2), which consists of a head only. Latin1.
 *
 * @throws FST_ERR_DUPLEX_STATUS: `statusCode` is not that of an interim response
 * @throws FST_ERR_DUPLEX_FIELD: a name or a value cannot be sent
 * @throws FST_ERR_DUPLEX_OWN_FIELD: a field about a body or the connection
 */
export declare function writeInterimHead (statusCode: number, fields: OutgoingFields): string

// Bodies that are read

/** Limits of a chunked body. */
export interface ChunkedLimits {
  /** Bytes of the field lines in the trailer section, each with its CRLF. */
  maxTrailerSize: number
  /** Bytes of chunk extensions in the whole body. */
  maxChunkExtensionSize: number
}

/** Reads one body: its bytes in, its content out. It does not throw, and keeps no reference to its input. */
export interface BodyReader {
  /** The whole body has been read. Set by `read` or `end`; true from the start if there is no body. */
  readonly done: boolean
  /**
   * What is wrong with the body. Nothing can be read after an error. One of
   * - FST_ERR_DUPLEX_CHUNK (400): a malformed chunk
   * - FST_ERR_DUPLEX_CHUNK_EXTENSION_LIMIT (413): more than `maxChunkExtensionSize`
   * - FST_ERR_DUPLEX_TRAILER (400): a malformed trailer section, or a field that is not allowed in it
   * - FST_ERR_DUPLEX_TRAILER_LIMIT (431): more than `maxTrailerSize`
   * - FST_ERR_DUPLEX_TRUNCATED (400): the connection has ended within the body
   */
  readonly error: Error | null
  /** How many bytes of the last input belonged to the body. If the reader is done, the next message follows them. */
  readonly consumed: number
  /** The trailer section, complete once the reader is done. */
  readonly trailers: Trailers
  /**
   * Reads the next bytes of the body. May overwrite `input` up to `consumed`, but never beyond.
   *
   * @returns the content in `input`, as a view of it; empty if it holds nothing but framing
   */
  read (input: Buffer): Buffer
  /** The connection has ended. Sets `done` if that marks the end of the body, else `error`. */
  end (): void
}

/** The reader for a body with this framing (RFC 9112 sections 6 and 7; Go's `body`). */
export declare function bodyReader (framing: Framing, limits: ChunkedLimits): BodyReader

// Bodies that are written

/** Bytes to send. Text is latin1. */
export type Part = string | Buffer

/** Writes one body: its content in, its bytes out. */
export interface BodyWriter {
  /**
   * Appends `content`, with its framing, to `parts`. In the chunked coding all of it becomes one chunk.
   *
   * @param size the total number of bytes in `content`, more than 0
   * @throws FST_ERR_DUPLEX_NO_BODY: this message has no body
   * @throws FST_ERR_DUPLEX_LENGTH: more than announced; nothing was appended
   */
  write (content: readonly Buffer[], size: number, parts: Part[]): void
  /**
   * Appends the end of the body to `parts`.
   *
   * @param trailers field lines of the trailer section, from `writeTrailers`; empty if there are none
   * @throws FST_ERR_DUPLEX_LENGTH: less than announced
   * @throws FST_ERR_DUPLEX_NO_TRAILERS: this framing has no trailer section
   */
  end (trailers: string, parts: Part[]): void
}

/** The writer for a body with this framing. */
export declare function bodyWriter (framing: Framing): BodyWriter

/** The same bytes in few buffers: small parts are copied together, content of 16 KiB or more stays where it is. */
export declare function gather (parts: readonly Part[]): Buffer[]

/**
 * The field lines of a trailer section, each with its CRLF, without the empty line that ends the section.
 *
 * @throws FST_ERR_DUPLEX_FIELD: a name or a value cannot be sent, or the name is not allowed in trailers (RFC 9110 section 6.5.1)
 */
export declare function writeTrailers (fields: OutgoingFields): string

/** The value of the `Trailer` field that announces these trailers (RFC 9110 section 6.6.2); empty if there are none. */
export declare function trailerNames (fields: OutgoingFields): string

// Without this, HeadReader would be exported.
export {}
