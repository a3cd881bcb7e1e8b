// Node's HTTP/2 compatibility API: its requests and responses stand on a stream of their own.

import type { IncomingMessage, ServerResponse } from 'node:http'
import type { ServerHttp2Stream } from 'node:http2'

/** The stream of a response; undefined for HTTP/1. */
export function streamOf (response: ServerResponse & { stream?: ServerHttp2Stream }): ServerHttp2Stream | undefined {
  return response.stream
}

/** Whether a request of HTTP/2 may have a body. It need not announce one: the body ends with the stream. */
export function mayHaveBody ({ stream }: IncomingMessage & { stream?: { endAfterHeaders?: boolean } }): boolean {
  return stream !== undefined && stream.endAfterHeaders !== true
}

// RFC 9113 section 8.2.2, and the field of HTTP/1.1 that upgrades to HTTP/2.
const CONNECTION_FIELDS = ['connection', 'http2-settings', 'keep-alive', 'proxy-connection', 'te', 'transfer-encoding', 'upgrade']

/**
 * Drops the fields that HTTP/2 forbids from a response, whoever writes it: a handler for both versions may set them. Node
 * throws for some of them. It would throw again for the answer to that error, which has them too, and so end the process.
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
