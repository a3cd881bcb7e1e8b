/// <reference types="node" />

import type { FastifyPluginAsync, FastifyReply, FastifyRequest, RouteHandlerMethod, RouteShorthandOptions } from 'fastify'
import type { Agent, InterimHead, OpenOptions, ResponseHead } from './client'
import type { DuplexOptions } from './index'
import type { OutgoingFields } from './transfer'

/** The head of a request, as it is sent to the upstream server. */
export interface ForwardedRequest {
  method: string
  /** The request-target. */
  path: string
  /** By lower-case name. Those of the connection, and those that frame the body, are not among them. */
  headers: OutgoingFields
}

/** The head of a response, as it is sent to the client. */
export interface ForwardedResponse {
  statusCode: number
  /** By lower-case name. Those of the connection are not among them. `content-length` must stay as it is. */
  headers: OutgoingFields
}

export interface ProxyOptions extends Pick<OpenOptions, 'agent' | 'headersTimeout' | 'bodyTimeout' | 'expectTimeout' | 'maxHeadSize' | 'maxTrailerSize' | 'maxChunkExtensionSize'> {
  /** `http:`, `https:` or `unix:/path/of/socket`. A path in it is put in front of that of the request. A function chooses one for each request */
  upstream: string | URL | ((request: FastifyRequest) => string | URL)
  /** Taken off the path of the request, if it is there. Parameters (`:name`) stand for any segment. Default: nothing */
  prefix?: string
  /** Put in the place of `prefix`; a path without that prefix is refused then: FST_ERR_DUPLEX_PATH (400). Default: nothing */
  rewritePrefix?: string
  /**
   * Whether to add the fields Forwarded (RFC 7239) and X-Forwarded-For, -Host and -Proto. Addresses are appended to those that the client has
   * sent. Host and protocol replace them: with `trustProxy`, they are those of the proxy before. Default: false
   */
  forwarded?: boolean
  /** Whether the upstream server gets the Host field of the client, instead of its own. Default: false */
  preserveHost?: boolean
  /** Changes the head of the request. Returns it, or another one. Fields of the connection and of the framing are ignored in it. */
  rewriteRequest?: (head: ForwardedRequest, request: FastifyRequest) => ForwardedRequest
  /** Changes the head of the response. Returns it, or another one. */
  rewriteResponse?: (head: ForwardedResponse, request: FastifyRequest, reply: FastifyReply) => ForwardedResponse
}

/**
 * A handler for duplex routes that passes the exchange on to another server, in full duplex: both bodies as they come, trailers,
 * interim responses, Expect, Upgrade and CONNECT with their tunnels, and early answers, which do not stop the upload. What is passed
 * on is framed anew.
 *
 * Before the response has begun, the error handlers answer failures: FST_ERR_DUPLEX_CONNECT, _SERVER_GONE or _UPSTREAM with 502,
 * _SERVER_TIMEOUT with 504. After that the response is cut off. When the client leaves, the call of the upstream server is aborted at once.
 *
 * A path with dot segments, which could lead out of the route, is refused: FST_ERR_DUPLEX_PATH. A client that ends its side counts as
 * gone, except in a tunnel.
 *
 * @throws FST_ERR_DUPLEX_OPTION
 */
export declare function proxy (options: ProxyOptions): RouteHandlerMethod

export interface DuplexProxyOptions extends ProxyOptions {
  /** Options of the routes. Default: true */
  duplex?: true | DuplexOptions
  /** The methods. Default: all that the app supports */
  httpMethods?: string[]
  /** As of any route. */
  preHandler?: RouteShorthandOptions['preHandler']
  config?: RouteShorthandOptions['config']
}

/** The same as a plugin, with a prefix, as @fastify/http-proxy has it. */
export declare const duplexProxy: FastifyPluginAsync<DuplexProxyOptions>

export type { Agent, InterimHead, ResponseHead }
