// Node's HTTP/2 compatibility API: each request and its response have a stream of their own. And what follows from it: which
// version of HTTP is spoken.

import type { IncomingMessage, ServerResponse } from 'node:http'
import type { ServerHttp2Stream } from 'node:http2'

/** The stream of a response; undefined for HTTP/1. */
export function streamOf (response: ServerResponse & { stream?: ServerHttp2Stream }): ServerHttp2Stream | undefined {
  return response.stream
}

/** Whether a request is one of HTTP/2. Its version alone does not tell: a request line of HTTP/1 may name any version. */
export function isHttp2 (request: IncomingMessage & { stream?: unknown }): boolean {
  return request.stream !== undefined
}

/**
 * The minor version of HTTP/1 by which a request is answered. HTTP/2 counts as 1.1, because it can do the same; it marks the end
 * of a body itself. A version that is refused counts as 1.0, which asks the least of a client.
 */
export function minorVersion (request: IncomingMessage): number {
  if (isHttp2(request)) return 1
  return request.httpVersionMajor === 1 ? request.httpVersionMinor : 0
}

/** Whether this is an HTTP/2 request that may have a body. HTTP/2 need not announce a body, which ends with the stream. */
export function mayHaveBody ({ stream }: IncomingMessage & { stream?: { endAfterHeaders?: boolean } }): boolean {
  return stream !== undefined && stream.endAfterHeaders !== true
}

const cutRequests = new WeakSet<IncomingMessage>()

/**
 * Calls back, later, if a request of HTTP/2 ends without END_STREAM (RFC 9113 section 8.1). If a stream is reset, or its
 * connection closes, Node ends its readable side as well. It closes the stream before that.
 */
export function onCutRequest (request: IncomingMessage & { stream?: ServerHttp2Stream }, onCut: () => void): void {
  const stream = request.stream!
  if (stream.endAfterHeaders) return
  const { push } = stream
  let hasEnded = false
  stream.push = function (chunk: unknown, encoding?: BufferEncoding) {
    if (chunk === null && !hasEnded) {
      hasEnded = true
      if (stream.closed) {
        cutRequests.add(request)
        process.nextTick(onCut)
      }
    }
    return push.call(stream, chunk, encoding)
  }
}

/** Whether `onCutRequest` has called back. */
export function wasCut (request: IncomingMessage): boolean {
  return cutRequests.has(request)
}

/** Fields that HTTP/2 forbids (RFC 9113 section 8.2.2), and the one that upgrades HTTP/1.1 to HTTP/2. */
const CONNECTION_FIELDS = ['connection', 'http2-settings', 'keep-alive', 'proxy-connection', 'te', 'transfer-encoding', 'upgrade']

/**
 * Drops the fields that HTTP/2 forbids from a response. A handler that serves both versions may set them. Node throws for some
 * of them. The answer to that error would have the same fields, so Node would throw again, and the process would end.
 */
export function dropConnectionFields (response: ServerResponse): void {
  const { writeHead } = response as { writeHead (statusCode: number, ...rest: unknown[]): ServerResponse }
  response.writeHead = (statusCode: number, ...rest: unknown[]) => {
    for (const name of CONNECTION_FIELDS) response.removeHeader(name)
    return writeHead.call(response, statusCode, ...rest.map(withoutConnectionFields))
  }
}

function withoutConnectionFields (argument: unknown): unknown {
  if (typeof argument !== 'object' || argument === null || Array.isArray(argument)) return argument
  return Object.fromEntries(Object.entries(argument).filter(([name]) => !CONNECTION_FIELDS.includes(name.toLowerCase())))
}
