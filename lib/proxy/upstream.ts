// The server that requests are passed on to, and the head of the request that it gets.

import type { FastifyRequest } from 'fastify'
import type { ForwardedRequest, ProxyOptions } from '../../types/proxy.d.ts'
import type { OutgoingFields } from '../../types/transfer.d.ts'
import { Agent } from '../client/agent.ts'
import { Call } from '../client/call.ts'
import { type Limits, limitsOf } from '../client/limits.ts'
import { type Origin, parseTarget } from '../client/origin.ts'
import { checkedStart } from '../client/request.ts'
import { HostError, OptionError } from '../errors.ts'
import type { HttpDuplex } from '../exchange/http-duplex.ts'
import { checkNames } from '../options.ts'
import { FieldMap, listElements } from '../transfer/field-lines.ts'
import { CHUNKED, type Framing } from '../transfer/framing.ts'
import { isHost } from '../transfer/host.ts'
import { addForwarded, isPassedOn, requestFields } from './fields.ts'
import { PathMap } from './path.ts'
import { checkedResult } from './rewrite.ts'

interface Server { readonly origin: Origin, readonly paths: PathMap }

const OPTIONS: Readonly<Record<keyof ProxyOptions, true>> = {
  upstream: true, prefix: true, rewritePrefix: true, forwarded: true, preserveHost: true, rewriteRequest: true, rewriteResponse: true, agent: true, headersTimeout: true, bodyTimeout: true, expectTimeout: true, maxHeadSize: true, maxTrailerSize: true, maxChunkExtensionSize: true
}

export class Upstream {
  readonly options: ProxyOptions
  private readonly limits: Limits
  private readonly agent: Agent
  private readonly server: Server | null // null if it is chosen for each request

  /** @throws {OptionError} FST_ERR_DUPLEX_OPTION */
  constructor (options: ProxyOptions) {
    checkNames(options, OPTIONS)
    this.options = options
    this.limits = limitsOf(options)
    // Its clients bound the number of connections. A limit here would make a request wait behind tunnels that stay open.
    this.agent = options.agent as Agent | undefined ?? new Agent({ maxConnections: Infinity })
    this.server = typeof options.upstream === 'function' ? null : this.serverAt(options.upstream)
  }

  private serverAt (url: string | URL): Server {
    const { prefix = '', rewritePrefix = '' } = this.options
    const { origin, path } = parseTarget(url)
    if (path.includes('?')) throw new OptionError('upstream', 'a query cannot be put in front of a path')
    return { origin, paths: new PathMap(path, prefix, rewritePrefix) }
  }

  /** The call for a request. It is not sent yet. */
  callFor (request: FastifyRequest, duplex: HttpDuplex): { call: Call, send: () => void } {
    const { limits, agent, options: { upstream, rewriteRequest, preserveHost = false, forwarded = false } } = this
    const { origin, paths } = this.server ?? this.serverAt((upstream as (request: FastifyRequest) => string | URL)(request))
    const { raw, method } = request
    const path = paths.targetOf(method, raw.url!)
    const fields = requestFields(raw)
    if (method === 'CONNECT') fields.host = path
    else if (!preserveHost) fields.host = origin.host
    else if (raw.httpVersionMajor > 1) fields.host = checkedHost(request.host)
    if (forwarded) addForwarded(fields, request)
    let head: ForwardedRequest = { method, path, headers: fields }
    if (rewriteRequest !== undefined) head = withoutOwnFields(checkedResult('rewriteRequest', rewriteRequest(head, request)))
    addConnectionFields(head.headers, request)
    const start = checkedStart({ method: head.method, target: head.path, fields: head.headers, framing: framingOf(duplex) }, request.headers.trailer)
    const call = new Call(start, limits)
    return { call, send: () => agent.send(call, origin, limits) }
  }
}

/** HTTP/1 has been checked before. */
function checkedHost (host: string): string {
  if (!isHost(host)) throw new HostError('it is not one host with an optional port')
  return host
}

/** Without the fields that the proxy sets itself: `rewriteRequest` may have set some, in any case. */
function withoutOwnFields ({ method, path, headers }: ForwardedRequest): ForwardedRequest {
  if (typeof method !== 'string' || typeof path !== 'string') throw new OptionError('rewriteRequest', 'it must return a head with a method and a path')
  const fields: OutgoingFields = new FieldMap()
  for (const key of Object.keys(headers)) {
    const name = key.toLowerCase()
    if (isPassedOn(name) || name === 'proxy-authorization') fields[name] = headers[key]
  }
  return { method: method.toUpperCase(), path, headers: fields }
}

/** The body is framed as that of the client. */
function framingOf ({ requestFraming: framing }: HttpDuplex): Framing {
  return framing.kind === 'length' || framing.kind === 'none' ? framing : CHUNKED
}

function addConnectionFields (fields: OutgoingFields, request: FastifyRequest): void {
  const { te } = request.headers
  const options: string[] = []
  if (te !== undefined && listElements(te).some((element) => /^trailers\s*(;|$)/.test(element))) {
    fields.te = 'trailers'
    options.push('te')
  }
  const protocols = offeredProtocols(request)
  if (protocols !== undefined) {
    fields.upgrade = protocols
    options.push('upgrade')
  }
  if (options.length > 0) fields.connection = options.join(', ')
}

/** The protocols that the client would switch to. HTTP/1.0 and HTTP/2 have no such offers. */
function offeredProtocols ({ headers, raw: { httpVersion } }: FastifyRequest): string | undefined {
  return httpVersion === '1.1' && listElements(headers.connection).includes('upgrade') ? headers.upgrade : undefined
}
