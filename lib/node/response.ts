// Node's ServerResponse. It is assigned to the connection, but an exchange on the raw connection does not write through it. It
// serves as a record: Node and Fastify read its private fields to learn how far the response is.

import { type IncomingMessage, ServerResponse } from 'node:http'
import type { ServerHttp2Stream } from 'node:http2'

type Listener = (...args: any[]) => void

interface Response extends ServerResponse {
  finished: boolean
  _hasBody: boolean
  _storeHeader?: Listener
  maxRequestsOnConnectionReached?: boolean
  _header: string | null
  _headerSent: boolean
  _keepAliveTimeout: number
  _last: boolean
  _maxRequestsPerSocket: number
  _expect_continue: boolean
  _sent100: boolean
}

/** Node's own methods: middlewares replace them. */
const { end, write, writeHead } = ServerResponse.prototype

/** Whether other code has wrapped `writeHead`, as the package on-headers does. */
export function isHeadWrapped (response: ServerResponse): boolean {
  return response.writeHead !== writeHead
}

/** Whether other code has wrapped `write`, as compression does. */
export function isWriteWrapped (response: ServerResponse): boolean {
  return response.write !== write
}

/**
 * Calls `writeHead`, which other code has wrapped. Node's own one, which is called last, puts the status and the fields that it is
 * given into the response, but does not make a head of them. Then calls `send`.
 *
 * @throws what the wrappers or `send` have thrown. Then the response is as before, except for fields that were changed
 */
export function withWrappedHead (response: ServerResponse, send: () => void): void {
  const record = response as Response
  const { statusCode, statusMessage, shouldKeepAlive, _hasBody } = record
  // Node puts fields that it is given into the response only if any was set before.
  if (response.getHeaderNames().length === 0) {
    response.setHeader('vary', '')
    response.removeHeader('vary')
  }
  try {
    record._storeHeader = ignore
    try {
      response.writeHead(statusCode)
    } finally {
      delete record._storeHeader
    }
    send()
  } catch (error) {
    Object.assign(record, { statusCode, statusMessage, shouldKeepAlive, _hasBody })
    throw error
  }
}

/** The value of the `Keep-Alive` field that Node would send, like `timeout=72`; undefined if it would send none. */
export function keepAliveField (response: ServerResponse): string | undefined {
  const { _keepAliveTimeout: timeout, _maxRequestsPerSocket: max } = response as Response
  if (!(timeout > 0)) return undefined
  return `timeout=${Math.floor(timeout / 1000)}${max > 0 ? `, max=${max}` : ''}`
}

/** Whether `server.maxRequestsPerSocket` makes this the last response of its connection. */
export function isLastAllowed (response: ServerResponse): boolean {
  return (response as Response).maxRequestsOnConnectionReached === true
}

/** Whether the client waits for a 100 before it sends its body (RFC 9110 section 10.1.1), and none was sent. */
export function expectsContinue (response: ServerResponse): boolean {
  return (response as Response)._expect_continue && !(response as Response)._sent100
}

/** Records that a 100 is being sent, or that none is needed any more. */
export function setContinued (response: ServerResponse): void {
  (response as Response)._sent100 = true
}

/** Whether the responses to earlier requests of the connection are complete, so that this one may be written. */
export function isInTurn (response: ServerResponse): boolean {
  return response.socket !== null
}

const waiting = new WeakMap<ServerResponse, (() => void)[]>()

/** Calls back once, later, when `isInTurn` becomes true. One listener for all callbacks: Node warns about too many. */
export function onTurn (response: ServerResponse, callback: () => void): void {
  const callbacks = waiting.get(response)
  if (callbacks !== undefined) {
    callbacks.push(callback)
    return
  }
  const all = [callback]
  waiting.set(response, all)
  response.once('socket', () => {
    waiting.delete(response)
    for (const call of all) call()
  })
}

/** Calls back once: now if `isInTurn` is true, otherwise when it becomes true. */
export function whenInTurn (response: ServerResponse, callback: () => void): void {
  if (isInTurn(response)) callback()
  else onTurn(response, callback)
}

/** The `end` of responses whose head was recorded before their turn. */
const heldEnds = new WeakMap<ServerResponse, ServerResponse['end']>()

/**
 * Records a head that is written directly to the socket. Node then believes that nothing is left to send. If the response is
 * ended before its turn, Node would finish it at once, and an assertion of Node would fail. So `end` waits for the turn.
 */
export function setHeadSent (response: ServerResponse, head: string): void {
  const record = response as Response
  record._header = head
  record._headerSent = true
  record._hasBody = false // what other code writes to it is dropped
  if (isInTurn(response)) return
  const { end } = response
  heldEnds.set(response, end)
  response.end = ((...args: unknown[]) => {
    const endNow = (): void => { (end as Listener).apply(response, args) }
    if (isInTurn(response) || record.finished) endNow()
    else onTurn(response, endNow)
    return response
  }) as typeof end
}

/** Undoes `setHeadSent`. */
export function takeHeadBack (response: ServerResponse): void {
  const record = response as Response
  record._header = null
  record._headerSent = false
  record._hasBody = response.req.method !== 'HEAD'
  const end = heldEnds.get(response)
  if (end !== undefined) response.end = end
}

/**
 * Finishes a response that was written directly to the socket. Node starts its keep-alive timeout and the next response of the
 * connection. Fastify runs the onResponse hooks and logs.
 */
export function finishResponse (response: ServerResponse): void {
  (response as Response).finished = true
  clearLast(response)
  endUnread(response.req)
  response.emit('finish')
  if (response.end !== end) callWrappedEnd(response)
}

/**
 * Keeps a request that nobody has read, so that it can be read behind the end of its response. Node would drop it, and over HTTP/2 close
 * its stream. For Node's HTTP/1, this notes what the first read would note.
 *
 * @param stream undefined for HTTP/1
 */
export function keepUnread (request: IncomingMessage & { _consuming?: boolean, _readableState?: { readingMore: boolean } }, stream: ServerHttp2Stream | undefined): void {
  if (stream?.readableFlowing === null) stream.pause()
  if (stream !== undefined || request._consuming !== false) return // it is being read; or it is one of app.inject()
  request._consuming = true
  request._readableState!.readingMore = false
}

/** Ends a request that nobody has read. Node would make it flow for that, which takes one tick more. */
function endUnread (request: IncomingMessage & { _dumped?: boolean }): void {
  if (!request.complete || request.readableFlowing !== null) return
  request._dumped = true
  request.read()
}

/** Calls `end`, which other code has wrapped, as express-session does to save the session. Node's own one does nothing any more. */
function callWrappedEnd (response: ServerResponse): void {
  try {
    response.end()
  } catch {
    // Compression in @fastify/express, which makes it believe that there was no head: with Fastify alone it fails too.
  }
}

/** Keeps Node from closing the connection behind this response. @returns whether Node was about to close it */
export function clearLast (response: ServerResponse): boolean {
  const { _last: last } = response as Response
  ;(response as Response)._last = false
  return last
}

function ignore (): void {}
