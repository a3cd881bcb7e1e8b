// A handler that passes its exchange on to another server. It is the client of that server: what comes in on one side is written to
// the other, under backpressure, and each side is told how the other has ended.

import type { FastifyReply, FastifyRequest, RouteHandlerMethod } from 'fastify'
import type { HttpDuplex } from '../../types/index.d.ts'
import type { ForwardedRequest, ForwardedResponse, ProxyOptions } from '../../types/proxy.d.ts'
import type { OutgoingFields } from '../../types/transfer.d.ts'
import { Agent } from '../client/agent.ts'
import { Call } from '../client/call.ts'
import { type Limits, limitsOf } from '../client/limits.ts'
import { type Target, parseTarget } from '../client/origin.ts'
import { requestStart } from '../client/request.ts'
import { OptionError, PathError, UpstreamError } from '../errors.ts'
import { trimBlanks } from '../transfer/field-lines.ts'
import { addForwarded, dropConnectionOptions, requestFields, responseFields, trailersToPass } from './fields.ts'

/** See the public types. */
export function proxy (options: ProxyOptions): RouteHandlerMethod {
  const upstream = new Upstream(options)
  return async (request, reply) => {
    if (reply.duplex === undefined) throw new OptionError('upstream', 'a proxy needs a route with "duplex: true"')
    await new Passage(request, reply, upstream).run()
  }
}

const OPTIONS: Readonly<Record<keyof ProxyOptions, true>> = {
  upstream: true, prefix: true, rewritePrefix: true, forwarded: true, preserveHost: true, rewriteRequest: true, rewriteResponse: true, agent: true, headersTimeout: true, bodyTimeout: true, expectTimeout: true, maxHeadSize: true, maxTrailerSize: true, maxChunkExtensionSize: true
}

/** The server that requests are passed on to. */
class Upstream {
  readonly options: ProxyOptions
  readonly limits: Limits
  readonly agent: Agent
  private readonly target: Target | null // null if it is chosen for each request
  private readonly prefix: string

  constructor (options: ProxyOptions) {
    for (const name of Object.keys(options)) {
      if (!Object.hasOwn(OPTIONS, name)) throw new OptionError(name, 'there is no such option')
    }
    const { upstream, agent, prefix = '' } = options
    this.options = options
    this.prefix = prefix
    this.limits = limitsOf(options)
    this.agent = agent as Agent | undefined ?? new Agent()
    this.target = typeof upstream === 'function' ? null : parseTarget(upstream)
  }

  /** Begins to send the request of an exchange. */
  open (request: FastifyRequest, duplex: HttpDuplex): Call {
    const { options: { upstream, preserveHost = false, forwarded = false, rewriteRequest }, target, limits, agent } = this
    const { origin, path: base } = target ?? parseTarget((upstream as (request: FastifyRequest) => string | URL)(request))
    const fields = requestFields(request.raw.rawHeaders)
    dropConnectionOptions(fields, request.headers.connection)
    if (forwarded) addForwarded(fields, request)
    if (!preserveHost) delete fields.host
    let head: ForwardedRequest = { method: request.method, path: this.pathOf(request, base), headers: fields }
    if (rewriteRequest !== undefined) head = rewriteRequest(head, request)
    const headers = { 'user-agent': undefined, ...head.headers, ...framingFields(request, duplex), ...connectionFields(request, duplex) }
    const call = new Call(requestStart({ method: head.method, target: head.path, host: origin.host, minorVersion: 1, headers }), limits)
    agent.send(call, origin, limits)
    return call
  }

  /** @throws {PathError} FST_ERR_DUPLEX_PATH */
  private pathOf ({ method, raw: { url = '/' } }: FastifyRequest, base: string): string {
    const { prefix, options: { rewritePrefix = '' } } = this
    if (method === 'CONNECT' || url === '*') return url
    // An absolute-form target is for proxies that the client has chosen. A server gets a path (RFC 9112 section 3.2.1).
    const path = url.replace(/^https?:\/\/[^/?]*/i, '')
    if ((base !== '/' || prefix !== '') && DOT_SEGMENT.test(path)) throw new PathError(base + prefix)
    const rest = prefix !== '' && path.startsWith(prefix) ? rewritePrefix + path.slice(prefix.length) : path
    return base.replace(/\/$/, '') + (rest.startsWith('/') ? rest : `/${rest}`)
  }
}

/** `.` or `..` between slashes, also encoded, and with the backslashes that some servers take for slashes. Not in the query. */
const DOT_SEGMENT = /^[^?]*[/\\](?:\.|%2e){1,2}(?:[/\\?]|%2f|%5c|$)/i

/** The body is framed as that of the client. */
function framingFields (request: FastifyRequest, { framing }: HttpDuplex): OutgoingFields {
  if (framing.request === 'length') return { 'content-length': request.headers['content-length'] }
  if (framing.request !== 'none') return { 'transfer-encoding': 'chunked' }
  return request.headers['content-length'] === undefined ? {} : { 'content-length': 0 }
}

function connectionFields (request: FastifyRequest, duplex: HttpDuplex): OutgoingFields {
  const { te, trailer } = request.headers
  const options: string[] = []
  const fields: OutgoingFields = {}
  if (/(^|,)\s*trailers\s*(,|;|$)/i.test(String(te ?? ''))) {
    fields.te = 'trailers'
    options.push('te')
  }
  if (duplex.framing.request === 'chunked' && trailer !== undefined) fields.trailer = trailer
  const protocols = offeredProtocols(request, duplex)
  if (protocols !== undefined) {
    fields.upgrade = protocols
    options.push('upgrade')
  }
  if (options.length > 0) fields.connection = options.join(', ')
  return fields
}

/** The protocols that the client would switch to. Behind a body the offer is not passed on: a server may always ignore it. */
function offeredProtocols ({ headers, raw: { httpVersionMajor } }: FastifyRequest, { framing }: HttpDuplex): string | undefined {
  const isOffer = httpVersionMajor === 1 && framing.request === 'none' && String(headers.connection ?? '').split(',').some((option) => trimBlanks(option).toLowerCase() === 'upgrade')
  return isOffer ? headers.upgrade : undefined
}

/** One exchange on its way. */
class Passage {
  private readonly request: FastifyRequest
  private readonly reply: FastifyReply
  private readonly duplex: HttpDuplex
  private readonly upstream: Upstream
  private call!: Call
  private resolve!: () => void

  constructor (request: FastifyRequest, reply: FastifyReply, upstream: Upstream) {
    this.request = request
    this.reply = reply
    this.duplex = reply.duplex
    this.upstream = upstream
  }

  /** Resolves when the exchange is over. Rejects if it has failed and can still be answered. */
  async run (): Promise<void> {
    const { duplex } = this
    const call = this.call = this.upstream.open(this.request, duplex)
    const closed = new Promise<void>((resolve) => { this.resolve = resolve })
    // When the client leaves, the server need not go on. And behind an early answer, nobody reads the rest of the request.
    duplex.on('close', () => {
      call.destroy()
      this.resolve()
    })
    call.on('information', ({ statusCode, headers }) => {
      // A 100 is answered by reading: only then the client sends its body.
      if (statusCode !== 100 && !duplex.headersSent) duplex.writeInformation(statusCode, responseFields(headers))
    })
    if (call.request.expectsContinue) call.once('continue', () => this.passRequest())
    else if (!call.request.offersSwitch) this.passRequest()
    try {
      await call.response
    } catch (error) {
      if (duplex.destroyed) return
      duplex.unpipe(call)
      throw upstreamError(error as Error)
    }
    if (duplex.destroyed) return
    this.passHead()
    if (call.request.offersSwitch && call.isTunnel) this.passRequest()
    this.passResponse()
    await closed
  }

  private passRequest (): void {
    const { duplex, call } = this
    duplex.on('end', () => {
      if (Object.keys(duplex.trailers).length > 0 && duplex.framing.request === 'chunked') call.setTrailers(trailersToPass(duplex.trailers))
      call.end()
    })
    call.on('close', () => {
      duplex.unpipe(call)
      duplex.stopReading()
    })
    duplex.pipe(call, { end: false })
  }

  private passHead (): void {
    const { call, reply, request } = this
    const { statusCode, statusMessage, headers } = call.head!
    let head: ForwardedResponse = { statusCode, headers: responseFields(headers) }
    const { rewriteResponse } = this.upstream.options
    if (rewriteResponse !== undefined) head = rewriteResponse(head, request, reply)
    reply.code(head.statusCode)
    for (const name of Object.keys(head.headers)) reply.header(name, head.headers[name])
    if (statusCode === 101) reply.header('upgrade', headers.upgrade)
    if (request.raw.httpVersionMajor === 1 && head.statusCode === statusCode) reply.raw.statusMessage = statusMessage
  }

  private passResponse (): void {
    const { duplex, call } = this
    call.on('end', () => {
      if (Object.keys(call.trailers).length > 0 && !duplex.headersSent) duplex.flushHeaders()
      if (duplex.framing.response === 'chunked') duplex.setTrailers(trailersToPass(call.trailers))
      duplex.end()
    })
    // Behind the head nobody can be told but by the end of the connection.
    call.on('error', (error) => { duplex.destroy(upstreamError(error)) })
    call.pipe(duplex, { end: false })
    // The head is sent with the first content, unless that keeps the client waiting.
    setImmediate(() => { if (!duplex.headersSent && !duplex.destroyed) duplex.flushHeaders() })
  }
}

/** A response that is malformed is no fault of the client. */
function upstreamError (error: Error & { statusCode?: number }): Error {
  const { statusCode = 500 } = error
  return statusCode === 502 || statusCode === 504 ? error : new UpstreamError(error.message, { cause: error })
}
