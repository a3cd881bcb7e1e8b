// Node's HTTP/2 compatibility API: each request and its response have a stream of their own.

import type { IncomingMessage, ServerResponse } from 'node:http'
import type { ServerHttp2Stream } from 'node:http2'

/** The stream of a response; undefined for HTTP/1. */
export function streamOf (response: ServerResponse & { stream?: ServerHttp2Stream }): ServerHttp2Stream | undefined {
  return response.stream
}

/** Whether this is an HTTP/2 request that may have a body. HTTP/2 need not announce a body, which ends with the stream. */
export function mayHaveBody ({ stream }: IncomingMessage & { stream?: { endAfterHeaders?: boolean } }): boolean {
  return stream !== undefined && stream.endAfterHeaders !== true
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
