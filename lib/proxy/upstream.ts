// The server that requests are passed on to, and the head of the request that it gets.

import type { FastifyRequest } from 'fastify'
import type { HttpDuplex } from '../../types/index.d.ts'
import type { ProxyOptions } from '../../types/proxy.d.ts'
import type { OutgoingFields } from '../../types/transfer.d.ts'
import { Agent } from '../client/agent.ts'
import { Call } from '../client/call.ts'
import { type Limits, limitsOf } from '../client/limits.ts'
import { type Origin, parseTarget } from '../client/origin.ts'
import { requestStart } from '../client/request.ts'
import { OptionError } from '../errors.ts'
import { checkNames } from '../options.ts'
import { listElements } from '../transfer/field-lines.ts'
import { addForwarded, isPassedOn, requestFields } from './fields.ts'
import { PathMap } from './path.ts'

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
    else if (raw.httpVersionMajor > 1) fields.host = request.host
    if (forwarded) addForwarded(fields, request)
    const head = { method, path, headers: fields }
    const { headers, ...line } = rewriteRequest === undefined ? head : rewriteRequest(head, request)
    const call = new Call(requestStart({
      method: line.method,
      target: line.path,
      host: origin.host,
      minorVersion: 1,
      headers: { 'user-agent': undefined, ...withoutOwnFields(headers), ...framingFields(request, duplex), ...connectionFields(request) }
    }), limits)
    return { call, send: () => agent.send(call, origin, limits) }
  }
}

/** Without the fields that the proxy sets itself: `rewriteRequest` may have set some, in any case. */
function withoutOwnFields (headers: OutgoingFields): OutgoingFields {
  return Object.fromEntries(Object.entries(headers).filter(([name]) => isPassedOn(name.toLowerCase()) || name === 'proxy-authorization'))
}

/** The body is framed as that of the client. Whether the head says that there is none is up to its writer. */
function framingFields ({ headers }: FastifyRequest, { framing: { request: kind } }: HttpDuplex): OutgoingFields {
  if (kind === 'length') return { 'content-length': Number(listElements(headers['content-length'])[0]) }
  if (kind !== 'none') return { 'transfer-encoding': 'chunked', trailer: headers.trailer }
  return { 'content-length': 0 }
}

function connectionFields (request: FastifyRequest): OutgoingFields {
  const { te } = request.headers
  const fields: OutgoingFields = {}
  const options: string[] = []
  if (listElements(te).some((element) => /^trailers\s*(;|$)/.test(element))) {
    fields.te = 'trailers'
    options.push('te')
  }
  const protocols = offeredProtocols(request)
  if (protocols !== undefined) {
    fields.upgrade = protocols
    options.push('upgrade')
  }
  if (options.length > 0) fields.connection = options.join(', ')
  return fields
}

/** The protocols that the client would switch to. HTTP/1.0 and HTTP/2 have no such offers. */
function offeredProtocols ({ headers, raw: { httpVersion } }: FastifyRequest): string | undefined {
  return httpVersion === '1.1' && listElements(headers.connection).includes('upgrade') ? headers.upgrade : undefined
}
