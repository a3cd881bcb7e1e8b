// The state of a request on a duplex route, from its routing on: its transport, its stream, and whether it was answered.

import type { IncomingMessage } from 'node:http'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Authority, OutgoingFields } from '../../types/index.d.ts'
import { AbortedError, NotEnabledError, OnSendError, OnSendPayloadError, RawRequestError, ReplyTrailerError, SentLateError } from '../errors.ts'
import { Exchange, type ExchangeOwner, type Mistake } from '../exchange/exchange.ts'
import { HttpDuplex } from '../exchange/http-duplex.ts'
import type { Receiving, Sending } from '../exchange/items.ts'
import type { RateWatch } from '../exchange/rate-watch.ts'
import type { Registry } from '../exchange/registry.ts'
import type { Gate } from '../handoff/gate.ts'
import { isHttp2 } from '../node/http2.ts'
import type { ResolvedOptions } from '../options.ts'
import { NO_BODY } from '../transfer/framing.ts'
import { connectTarget } from '../transfer/tunnel.ts'
import type { IdleWatch } from '../transport/idle-watch.ts'
import { NodeTransport } from '../transport/node-pair.ts'
import { targetOf } from '../transport/request-framing.ts'
import type { App, Transport } from '../transport/transport.ts'
import { runHooks, runOnSend } from './hooks.ts'
import { abortSignal, hasTrailers, headersOf, hijack, hooksOf } from './internals.ts'
import type { ItemFormats } from './item-formats.ts'

/** For a SentLateError. */
export const LATE_VALUE = 'A value that is returned'

/** What all exchanges of a route share. The routes share the objects of the plugin, except where they have different options. */
export interface RouteSetup {
  options: ResolvedOptions
  registry: Registry
  app: App
  idleWatch: IdleWatch
  /** Null without `minRate`. */
  rateWatch: RateWatch | null
  /** The number of open exchanges that count for the route's `maxExchanges`. */
  admitted: { count: number }
  gate: Gate
  /** Null if the bodies are bytes. */
  items: ItemFormats | null
  /** The mistakes that were logged. */
  warnings: Set<Mistake>
  /** Compiles the formats of items, for all routes. */
  compileWhenReady: (() => void)[]
}

export class RouteExchange implements ExchangeOwner {
  readonly setup: RouteSetup
  exchange: Exchange | null
  reply: FastifyReply | null = null
  handlerHasBegun = false
  /** The handler has returned, and its promise is resolved, if it has one: it will not throw when the stream fails. */
  isUnattended = false
  /** `skipBodyParsing` was called, and other preParsing hooks were behind it. */
  hasSkippedOnce = false
  /** The original `reply.send`, which `recordAnswer` replaces. */
  send: FastifyReply['send'] | null = null
  /** We have begun to answer with the error of the stream. An answer of the handler now comes too late. */
  isAnsweringFailure = false
  /** The last error handler has sent that answer. */
  hasAnsweredFailure = false
  private sentLate: Error | null = null
  /** An error handler is running that has not answered yet. It may answer with a stream of its own. */
  isHandlingError = false
  /** The stream is that of an error handler. */
  hasErrorStream = false
  private authority: Authority | null = null
  receiving: Receiving | null = null
  sending: Sending | null = null
  /** Why the request is refused: its items, or those that the client accepts, have no format of the route. */
  formatError: Error | null = null

  /** @param transport the raw connection; null if it could not be claimed: then Node's request/response pair is used */
  constructor (setup: RouteSetup, transport: Transport | null) {
    this.setup = setup
    this.exchange = transport === null ? null : new Exchange(transport, this, setup.registry, setup.options)
  }

  /** Called with the reply, before anything else needs it. @returns the exchange, made at the first call if the raw connection was not claimed */
  begin (reply: FastifyReply): Exchange {
    if (this.reply !== null) return this.exchange!
    const { app, idleWatch, items, options, registry } = this.setup
    this.reply = reply
    if (this.exchange === null) {
      const transport = new NodeTransport(reply.request.raw, reply.raw, app, idleWatch, options)
      this.exchange = new Exchange(transport, this, registry, options)
    }
    if (items !== null) this.chooseFormats(items, reply)
    this.exchange.onReply()
    return this.exchange
  }

  /** `reply.duplex`. The stream of the handler cannot be used in an error handler: code of the handler may still write to it. */
  streamOf (reply: FastifyReply): HttpDuplex {
    const exchange = this.begin(reply)
    const previous = this.stream
    const isForError = this.isHandlingError && !reply.sent && !reply.raw.headersSent && !exchange.isOver
    if (previous !== null && !isForError) return previous
    const stream = new HttpDuplex(exchange, reply)
    exchange.open(stream)
    if (isForError) {
      this.isHandlingError = false
      this.hasErrorStream = true
      exchange.happens('error handler writes')
      stream.replace(previous)
    }
    return stream
  }

  get stream (): HttpDuplex | null {
    return this.exchange?.stream as HttpDuplex | null ?? null
  }

  /** Why the exchange has failed; null if it has not. */
  get failure (): Error | null {
    return this.exchange?.failure ?? null
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

  /** Chooses the formats of the items. Where the request or the client allows none, the items are null, and the request is refused. */
  private chooseFormats (items: ItemFormats, reply: FastifyReply): void {
    try {
      // First: an error handler may answer a bad content-type with items.
      this.sending = items.sendingOf(reply.request, reply)
      this.receiving = items.receivingOf(reply.request, reply, this.exchange!.transport.requestFraming !== NO_BODY)
    } catch (error) {
      this.formatError = error as Error
    }
  }

  // ExchangeOwner

  get rateWatch (): RateWatch | null {
    return this.setup.rateWatch
  }

  headers (): OutgoingFields {
    return headersOf(this.reply!)
  }

  beforeHead (): Promise<void> | null {
    const { setup: { options: { onSend } } } = this
    const reply = this.reply!
    if (hasTrailers(reply)) this.warnOnce(ReplyTrailerError)
    const hooks = hooksOf(reply, 'onSend')
    if (hooks.length === 0 || onSend === false) return null
    if (onSend) return runOnSend(hooks, reply.request, reply, () => { this.warnOnce(OnSendPayloadError) })
    this.warnOnce(OnSendError)
    return null
  }

  warnOnce (Mistake: Mistake): void {
    const { reply, setup: { warnings } } = this
    if (warnings.has(Mistake)) return
    warnings.add(Mistake)
    const { method, routeOptions } = reply!.request
    const mistake = new Mistake(method, routeOptions.url!)
    reply!.log.warn({ err: mistake }, mistake.message)
  }

  /** Called when the handler has returned, and when its promise is resolved. */
  warnOfRawReader (): void {
    if (this.exchange!.transport.isReadByOthers) this.warnOnce(RawRequestError)
  }

  /** Runs the onError hooks. They begin before onResponse, since this is called before the exchange ends; async ones may end later. */
  onCutOff (error: Error): void {
    const { reply } = this
    if (reply !== null && !(error instanceof AbortedError)) runHooks(hooksOf(reply, 'onError'), reply.request, reply, error)
  }

  /** Not before admission, as Fastify does it. */
  onIdleTimeout (): void {
    const { reply, send } = this
    if (send !== null) runHooks(hooksOf(reply!, 'onTimeout'), reply!.request, reply)
  }

  hijack (): () => void {
    return hijack(this.reply!)
  }

  abortSignal (reason: Error): void {
    if (this.reply !== null) abortSignal(this.reply.request, reason)
  }

  /** Whether nobody has begun to answer. */
  get isUnanswered (): boolean {
    const { reply, exchange } = this
    return reply !== null && exchange!.life.response === 'none' && !exchange!.isOver && !reply.sent
  }

  /** The error of the stream, if it has failed before its head, and nobody has begun to answer; otherwise null. */
  get unansweredFailure (): Error | null {
    return this.isUnanswered ? this.stream?.errored ?? null : null
  }

  /**
   * A handler that listens for errors of the stream, as a pipeline or a `for await` loop does, is expected to answer itself. If
   * it has returned without a promise, it is given until the next turn of the event loop.
   */
  answerFailure (error: Error): void {
    // After the other listeners have run; or, if the handler has a promise, after that was rejected because of the error.
    if (this.isUnattended || !this.stream!.handlesErrors) setImmediate(() => this.answerNow(error))
  }

  /**
   * Something comes behind the head that Fastify is to send. If the handler runs, it may still end the response. Otherwise, as
   * before the handler, nobody does: the response is cut off, or answered with an error if nothing of it was sent.
   *
   * @param what the mistake, in words
   */
  refuseLate (what: string): void {
    const { stream, exchange, reply } = this
    const error = new SentLateError(what)
    const handlerRuns = this.handlerHasBegun && exchange!.life.handler === 'running'
    if (!handlerRuns && !stream!.writableEnded) stream!.destroy(error)
    else reply!.log.warn({ err: this.sentLate = error }, error.message)
  }

  /** The handler has returned. @param value what it has returned, or what its promise was resolved with */
  onReturn (value: unknown): void {
    const { stream, sentLate } = this
    this.exchange!.happens('handler returned')
    if (this.isLate(value)) this.refuseLate(LATE_VALUE)
    else if (sentLate !== null && stream?.writableEnded === false) stream.destroy(sentLate)
  }

  /** @param value what a handler or an error handler has returned: nothing more can be sent behind the head */
  isLate (value: unknown): boolean {
    const { stream, reply } = this
    // `reply.duplex.end()` returns the stream.
    return stream?.headersSent === true && value !== undefined && value !== stream && value !== reply
  }

  answerNow (error: Error): void {
    if (!this.isUnanswered || this.isAnsweringFailure) return
    const { reply, send } = this
    this.isAnsweringFailure = true
    this.exchange!.happens('Fastify answers')
    // Early hooks may use the stream before admission has replaced `reply.send`.
    ;(send ?? reply!.send).call(reply!, error)
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
  return exchange.streamOf(this)
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
