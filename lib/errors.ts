// Every error of this package. docs/errors.md lists them by code; test/documentation/options.test.ts compares the two. As
// long as no byte of the response has been sent, Fastify's error handler answers with the `statusCode`.

import createError from '@fastify/error'
import type { FastifySchemaValidationError } from 'fastify'
import type * as types from '../types/items.d.ts'

// Wrong setup: thrown at registration, when a route is added, at the first use of `reply.duplex`, or by injectDuplex().

export const OptionError = createError('FST_ERR_DUPLEX_OPTION', 'Invalid duplex option "%s": %s', 500, TypeError)
export const BodySchemaError = createError('FST_ERR_DUPLEX_BODY_SCHEMA', 'A duplex route reads its body as a stream, so nothing can validate it first: remove "schema.body" from %s %s', 500)
export const ItemSchemaError = createError('FST_ERR_DUPLEX_ITEM_SCHEMA', 'Failed building the schema of "%s" for %s, due to error %s', 500)
export const NotEnabledError = createError('FST_ERR_DUPLEX_NOT_ENABLED', 'reply.duplex needs a route with "duplex: true" that was added after "await app.register(duplex)", which %s %s is not', 500)
export const UnseenRouteError = createError('FST_ERR_DUPLEX_UNSEEN_ROUTE', 'Route %s %s has "duplex", but was added before fastify-duplex was loaded, or outside of the instance that has it: write "await app.register(duplex)" before the route, in the same instance or in a parent of it', 500)
export const RegisteredError = createError('FST_ERR_DUPLEX_REGISTERED', 'fastify-duplex is already registered in this instance or in a parent of it: register it once, or in sibling plugins that do not see each other', 500)
export const FastifyError = createError('FST_ERR_DUPLEX_FASTIFY', 'Fastify %s lacks what fastify-duplex needs: %s', 500)
export const InjectError = createError('FST_ERR_DUPLEX_INJECT', 'app.injectDuplex() speaks HTTP/1.1, which this server does not', 500)

// Bad input from the client, or from the server when injectDuplex() reads the response: emitted on the readable side, or sent
// as an ordinary answer.

export const FramingError = createError('FST_ERR_DUPLEX_FRAMING', 'Bad message framing: %s', 400)
export const VersionError = createError('FST_ERR_DUPLEX_VERSION', 'HTTP/%s is not supported', 505)
export const HostError = createError('FST_ERR_DUPLEX_HOST', 'Bad Host field: %s', 400)
export const TransferCodingError = createError('FST_ERR_DUPLEX_TRANSFER_CODING', 'Transfer coding "%s" is not implemented', 501)
export const ChunkError = createError('FST_ERR_DUPLEX_CHUNK', 'Malformed chunk: %s', 400)
export const ChunkExtensionLimitError = createError('FST_ERR_DUPLEX_CHUNK_EXTENSION_LIMIT', 'The chunk extensions of the body exceed %s bytes', 413)
export const TrailerError = createError('FST_ERR_DUPLEX_TRAILER', 'Malformed trailer section: %s', 400)
export const TrailerLimitError = createError('FST_ERR_DUPLEX_TRAILER_LIMIT', 'The trailer section exceeds %s bytes', 431)
export const HeadError = createError('FST_ERR_DUPLEX_HEAD', 'Malformed message head: %s', 400)
export const HeadLimitError = createError('FST_ERR_DUPLEX_HEAD_LIMIT', 'The message head exceeds %s bytes', 431)
export const FieldLimitError = createError('FST_ERR_DUPLEX_FIELD_LIMIT', 'The request head has %s field lines or more', 431)
export const MediaTypeError = createError('FST_ERR_DUPLEX_MEDIA_TYPE', 'The content-type %s is not supported here: send %s', 415)
export const NotAcceptableError = createError('FST_ERR_DUPLEX_NOT_ACCEPTABLE', 'The Accept field allows none of %s', 406)
export const BodyLimitError = createError('FST_ERR_DUPLEX_BODY_LIMIT', 'The request body exceeds %s bytes', 413)
export const TruncatedError = createError('FST_ERR_DUPLEX_TRUNCATED', 'The connection ended before the message was complete', 400)
export const AuthorityError = createError('FST_ERR_DUPLEX_AUTHORITY', 'The target of a CONNECT request must be a host and a port', 400)

// Reasons to refuse an exchange, or to end it before it is complete.

export const TooManyExchangesError = createError('FST_ERR_DUPLEX_TOO_MANY', 'Too many exchanges are open: the limit is %s', 503)
export const AbortedError = createError('FST_ERR_DUPLEX_ABORTED', 'The client went away before the exchange was over', 499)
export const IdleError = createError('FST_ERR_DUPLEX_IDLE', 'No byte in either direction for %s ms', 408)
export const NotEndedError = createError('FST_ERR_DUPLEX_NOT_ENDED', 'No byte in either direction for %s ms: the handler has returned, but nobody has ended the response. Call reply.duplex.end()', 500)
export const RateError = createError('FST_ERR_DUPLEX_RATE', 'The client has %s fewer than %s bytes per second', 408)
export const AgeError = createError('FST_ERR_DUPLEX_AGE', 'The exchange has not ended within %s ms', 408)
// Without a stack. Each open exchange gets an error of its own, and Node formats its stack when it destroys the stream: that was a
// quarter of the time of app.close().
export const ClosingError = createError('FST_ERR_DUPLEX_CLOSING', 'The server is closing', 503, Error, false)
export const DestroyedError = createError('FST_ERR_DUPLEX_DESTROYED', 'The exchange was destroyed before the response ended', 500)

// The server that a client has called, or that a proxy forwards to.

export const ConnectError = createError('FST_ERR_DUPLEX_CONNECT', 'Cannot connect to %s: %s', 502)
export const ServerGoneError = createError('FST_ERR_DUPLEX_SERVER_GONE', 'The server went away before the exchange was over', 502)
export const ServerTimeoutError = createError('FST_ERR_DUPLEX_SERVER_TIMEOUT', 'The server has not %s within %s ms', 504)
export const UpstreamError = createError('FST_ERR_DUPLEX_UPSTREAM', 'The response of the upstream server cannot be passed on: %s', 502)
export const PathError = createError('FST_ERR_DUPLEX_PATH', 'The request-target cannot be passed on: %s', 400)
export const AgentClosedError = createError('FST_ERR_DUPLEX_AGENT_CLOSED', 'The agent of this call was closed', 500)

// Mistakes of the handler: thrown by the method it called, or emitted on the writable side.

export class HeadSentError extends createError<'FST_ERR_DUPLEX_HEAD_SENT', 500, [string]>('FST_ERR_DUPLEX_HEAD_SENT', 'The response head is already on its way: %s', 500) {
  constructor (why = 'status, headers and interim responses come before the first write') {
    super(why)
  }
}
export const SyncGeneratorError = createError('FST_ERR_DUPLEX_SYNC_GENERATOR', 'The handler of %s %s is a generator that is not asynchronous: write "async function *"', 500, TypeError)
export const BodyError = createError('FST_ERR_DUPLEX_BODY', '%s is no response body: %s', 500, TypeError)
export const SentLateError = createError('FST_ERR_DUPLEX_SENT_LATE', '%s after the response head cannot be sent: write it with reply.duplex.end(), or answer before the first write', 500)
export const ContentError = createError('FST_ERR_DUPLEX_CONTENT', 'A response body consists of strings and bytes, but %s was written: %s', 500, TypeError)
export const HijackedError = createError('FST_ERR_DUPLEX_HIJACKED', 'reply.duplex cannot be written after reply.hijack(): leave out reply.hijack(), which reply.duplex does itself', 500)
export const StatusError = createError('FST_ERR_DUPLEX_STATUS', 'Status %s cannot be sent here', 500)
export const FieldError = createError('FST_ERR_DUPLEX_FIELD', 'Invalid %s "%s"', 500)
export const OwnFieldError = createError('FST_ERR_DUPLEX_OWN_FIELD', 'Field "%s" belongs to the writer of the head and cannot be set', 500)
export const NoBodyError = createError('FST_ERR_DUPLEX_NO_BODY', 'A response with status 204 or 304 has no body', 500)
export const UpgradeError = createError('FST_ERR_DUPLEX_UPGRADE', 'Cannot switch protocols: %s', 500)
export const TunnelError = createError('FST_ERR_DUPLEX_TUNNEL', '%s needs the connection itself, which this request does not have', 501)
export const DetachError = createError('FST_ERR_DUPLEX_DETACH', 'Cannot detach the connection: %s', 500)
export const DetachedError = createError('FST_ERR_DUPLEX_DETACHED', 'The connection was detached from this exchange', 500)
export const LengthError = createError('FST_ERR_DUPLEX_LENGTH', 'The body has %s bytes than its content-length says', 500)
export const NoItemsError = createError('FST_ERR_DUPLEX_NO_ITEMS', 'This route declares no items to %s: add a format, as in "duplex: { %s: jsonl(schema) }"', 500)
export const TrailersError = createError('FST_ERR_DUPLEX_NO_TRAILERS', 'Trailers can only be set on a chunked message before its end', 500)

// Mistakes that are only logged, once for each route: the exchange goes on.

export const OnSendError = createError('FST_ERR_DUPLEX_ON_SEND', 'The onSend hooks of %s %s do not run for the body of reply.duplex, so that cookies and sessions are missing: set "duplex: { onSend: true }" to run them before the head, without a payload, or "onSend: false" to leave them out', 500)
export const OnSendPayloadError = createError('FST_ERR_DUPLEX_ON_SEND_PAYLOAD', 'An onSend hook of %s %s has given a payload, which was dropped: the body is what is written to reply.duplex', 500)
export const ReplyTrailerError = createError('FST_ERR_DUPLEX_REPLY_TRAILER', 'reply.trailer() on %s %s has no effect on the body of reply.duplex: use reply.duplex.setTrailers()', 500)
export const RawRequestError = createError('FST_ERR_DUPLEX_RAW_REQUEST', 'request.raw is read on %s %s, where the body comes from reply.duplex: read that instead', 500)
export const ReadersError = createError('FST_ERR_DUPLEX_READERS', 'Two loops read reply.duplex of %s %s at the same time, so that each gets a part of the body: read it in one place', 500)

/** What injectDuplex() reads instead of items. `statusCode` is that of the response. */
export class ResponseError extends createError<'FST_ERR_DUPLEX_RESPONSE', number, [string]>('FST_ERR_DUPLEX_RESPONSE', 'The response is not in a format of "receive": %s', 500) {
  /** The response body, parsed if it is JSON. */
  readonly body: unknown

  constructor (statusCode: number, why: string, body: unknown) {
    super(why)
    this.statusCode = statusCode
    this.body = body
  }
}

// Items. `index` is the number of an item, from 0, and `offset` the byte of the body at which it begins.

export class ItemError extends createError<'FST_ERR_DUPLEX_ITEM', 400, [number, number, string]>('FST_ERR_DUPLEX_ITEM', 'Item %s, at byte %s: %s', 400) implements types.ItemError {
  readonly index: number
  readonly offset: number
  declare readonly validation?: FastifySchemaValidationError[]
  declare readonly validationContext?: 'body'

  constructor (index: number, offset: number, why: string, options: { cause?: unknown, validation?: FastifySchemaValidationError[] } = {}) {
    super(index, offset, why)
    this.index = index
    this.offset = offset
    if (options.cause !== undefined) this.cause = options.cause
    if (options.validation === undefined) return
    this.validation = options.validation
    this.validationContext = 'body'
  }
}

export class ItemLimitError extends createError<'FST_ERR_DUPLEX_ITEM_LIMIT', 413, [number, number, number]>('FST_ERR_DUPLEX_ITEM_LIMIT', 'Item %s, at byte %s, exceeds %s bytes', 413) implements types.ItemLimitError {
  readonly index: number
  readonly offset: number

  constructor (index: number, offset: number, limit: number) {
    super(index, offset, limit)
    this.index = index
    this.offset = offset
  }
}

export class ItemSerializeError extends createError<'FST_ERR_DUPLEX_ITEM_SERIALIZE', 500, [number, string]>('FST_ERR_DUPLEX_ITEM_SERIALIZE', 'Item %s cannot be sent: %s', 500) {
  readonly index: number

  constructor (index: number, why: string, options: { cause?: unknown } = {}) {
    super(index, why)
    this.index = index
    if (options.cause !== undefined) this.cause = options.cause
  }
}
