// The state of a request on a duplex route, from its routing on: its transport, its stream, and whether it was answered.

import type { IncomingMessage } from 'node:http'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Authority } from '../../types/index.d.ts'
import { AbortedError, NotEnabledError } from '../errors.ts'
import { type ExchangeOwner, HttpDuplex } from '../exchange/http-duplex.ts'
import type { Registry } from '../exchange/registry.ts'
import type { Gate } from '../handoff/gate.ts'
import { isHttp2 } from '../node/http2.ts'
import type { ResolvedOptions } from '../options.ts'
import { connectTarget } from '../transfer/tunnel.ts'
import type { IdleWatch } from '../transport/idle-watch.ts'
import { NodeTransport } from '../transport/node-pair.ts'
import { targetOf } from '../transport/request-framing.ts'
import type { App, Transport } from '../transport/transport.ts'
import { runHooks } from './hooks.ts'
import { abortSignal, hijack, hooksOf } from './internals.ts'

/** What all exchanges of a route share. The routes share the objects of the plugin, except where they have different options. */
export interface RouteSetup {
  options: ResolvedOptions
  registry: Registry
  app: App
  idleWatch: IdleWatch
  /** The number of open exchanges that count for the route's `maxExchanges`. */
  admitted: { count: number }
  gate: Gate
}

export class RouteExchange implements ExchangeOwner {
  readonly setup: RouteSetup
  stream: HttpDuplex | null = null
  handlerHasReturned = false
  /** The handler has returned without a promise: it will not throw when the stream fails. */
  isUnattended = false
  /** `skipBodyParsing` was called, and other preParsing hooks were behind it. */
  hasSkippedOnce = false
  /** The original `reply.send`, which `recordAnswer` replaces. */
  send: FastifyReply['send'] | null = null
  /** We have begun to answer with the error of the stream. An answer of the handler now comes too late. */
  isAnsweringFailure = false
  /** The last error handler has sent that answer. */
  hasAnsweredFailure = false
  private transport: Transport | null
  private authority: Authority | null = null
  private reply!: FastifyReply

  /** @param transport the raw connection; null if it could not be claimed: then Node's request/response pair is used */
  constructor (setup: RouteSetup, transport: Transport | null) {
    this.setup = setup
    this.transport = transport
  }

  /** The transport of the request, made at the first call if the raw connection was not claimed. */
  transportOf (reply: FastifyReply): Transport {
    const { app, idleWatch, options } = this.setup
    this.transport ??= new NodeTransport(reply.request.raw, reply.raw, app, idleWatch, options)
    return this.transport
  }

  /** Makes `reply.duplex`. */
  openStream (reply: FastifyReply): HttpDuplex {
    this.reply = reply
    this.stream = new HttpDuplex(this.transportOf(reply), reply, this, this.setup.registry, this.setup.options)
    return this.stream
  }

  /** Why the exchange has failed; null if it has not. */
  get failure (): Error | null {
    return this.transport?.failure ?? null
  }

  /** Fastify has begun to answer. */
  get answerHasBegun (): boolean {
    return this.transport!.answerHasBegun
  }

  markAnswerBegun (): void {
    this.transport!.answerHasBegun = true
  }

  /**
   * The target of a CONNECT request; null for other requests.
   *
   * @throws {AuthorityError} FST_ERR_DUPLEX_AUTHORITY (400)
   */
  authorityOf (request: IncomingMessage): Authority | null {
    if (request.method === 'CONNECT') this.authority ??= connectTarget(targetOf(request), isHttp2(request))
    return this.authority
  }

  // ExchangeOwner

  onStreamError (): void {
    if (this.stream!.failure === null) this.answerFailure(this.reply)
  }

  /** Runs the onError hooks. They begin before onResponse, since this is called before the exchange ends; async ones may end later. */
  onCutOff (error: Error): void {
    if (!(error instanceof AbortedError)) runHooks(hooksOf(this.reply, 'onError'), this.reply.request, this.reply, error)
  }

  hijack (): () => void {
    return hijack(this.reply)
  }

  abortSignal (reason: Error): void {
    abortSignal(this.reply.request, reason)
  }

  /** Whether the stream has failed before its head, and nobody has begun to answer. */
  get isFailedUnanswered (): boolean {
    const { reply, stream } = this
    return stream !== null && stream.errored !== null && stream.failure === null && !this.answerHasBegun && !reply.sent
  }

  /**
   * Answers with the error of the stream, if `isFailedUnanswered`. A handler that listens for errors of the stream, as a pipeline
   * or a `for await` loop does, is expected to answer itself. If it has returned without a promise, it is given until the next
   * tick.
   */
  answerFailure (reply: FastifyReply): void {
    if (!this.isFailedUnanswered) return
    if (!this.isUnattended && this.stream!.listenerCount('error') > 1) return
    const answer = (): void => {
      if (!this.isFailedUnanswered) return
      this.isAnsweringFailure = true
      this.markAnswerBegun()
      this.send!.call(reply, this.stream!.errored)
    }
    // After the other listeners have run; or, if the handler has a promise, after that was rejected because of the error.
    if (this.isUnattended) process.nextTick(answer)
    else setImmediate(answer)
  }
}

const kExchange = Symbol('fastify-duplex.exchange')

type DuplexRequest = IncomingMessage & { [kExchange]?: RouteExchange }

export function setExchange (request: IncomingMessage, exchange: RouteExchange): void {
  (request as DuplexRequest)[kExchange] = exchange
}

/** The exchange of a request. The request must be on a duplex route. */
export function exchangeOf (request: IncomingMessage): RouteExchange {
  return (request as DuplexRequest)[kExchange]!
}

/**
 * The getter of `reply.duplex`.
 *
 * @throws {NotEnabledError} FST_ERR_DUPLEX_NOT_ENABLED: the route is not a duplex route
 */
export function getDuplex (this: FastifyReply): HttpDuplex {
  const exchange = (this.request.raw as DuplexRequest)[kExchange]
  if (exchange === undefined) throw new NotEnabledError(this.request.method, this.request.url)
  return exchange.stream ?? exchange.openStream(this)
}

/**
 * The getter of `request.authority`.
 *
 * @throws {AuthorityError} FST_ERR_DUPLEX_AUTHORITY: malformed. Early hooks may read it before admission has checked it, and must
 *   not mistake a malformed authority for none.
 */
export function getAuthority (this: FastifyRequest): Authority | null {
  return (this.raw as DuplexRequest)[kExchange]?.authorityOf(this.raw) ?? null
}
