// What a request on a duplex route carries with it, from its routing on: its transport, its stream, and who has answered.

import type { IncomingMessage } from 'node:http'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Authority } from '../../types/index.d.ts'
import { AbortedError, NotEnabledError } from '../errors.ts'
import { type ExchangeOwner, HttpDuplex } from '../exchange/http-duplex.ts'
import type { Registry } from '../exchange/registry.ts'
import type { Gate } from '../handoff/gate.ts'
import type { ResolvedOptions } from '../options.ts'
import { parseAuthority } from '../transfer/tunnel.ts'
import type { IdleWatch } from '../transport/idle-watch.ts'
import { NodeTransport } from '../transport/node-pair.ts'
import type { App, Transport } from '../transport/transport.ts'
import { runHooks } from './hooks.ts'
import { abortSignal, hijack, hooksOf } from './internals.ts'

/** What the exchanges of a route share: with the whole plugin, or with the route alone if it has options of its own. */
export interface RouteSetup {
  options: ResolvedOptions
  registry: Registry
  app: App
  idleWatch: IdleWatch
  /** Exchanges open now, of those under one `maxExchanges`. */
  admitted: { count: number }
  gate: Gate
}

export class RouteExchange implements ExchangeOwner {
  readonly setup: RouteSetup
  stream: HttpDuplex | null = null
  handlerHasReturned = false
  /** The handler has returned no promise: nobody but us can tell of a failure. */
  unattended = false
  /** `skipBodyParsing` was called once, with other hooks behind it. */
  skippedOnce = false
  /** `reply.send`, as it was before `noteAnswer`. */
  send: FastifyReply['send'] | null = null
  /** The answer is why the exchange has failed: a handler that answers after that comes too late. */
  answersFailure = false
  /** And an error handler has sent it. */
  failureAnswered = false
  private transport: Transport | null
  private authority: Authority | null = null
  private reply!: FastifyReply

  /** @param transport the raw connection; null where it could not be claimed */
  constructor (setup: RouteSetup, transport: Transport | null) {
    this.setup = setup
    this.transport = transport
  }

  transportOf (reply: FastifyReply): Transport {
    const { app, idleWatch, options } = this.setup
    this.transport ??= new NodeTransport(reply.request.raw, reply.raw, app, idleWatch, options)
    return this.transport
  }

  open (reply: FastifyReply): HttpDuplex {
    this.reply = reply
    this.stream = new HttpDuplex(this.transportOf(reply), reply, this, this.setup.registry, this.setup.options)
    return this.stream
  }

  get failure (): Error | null {
    return this.transport?.failure ?? null
  }

  /** Fastify has begun to answer. */
  get answerBegun (): boolean {
    return this.transport!.answerHasBegun
  }

  setAnswerBegun (): void {
    this.transport!.answerHasBegun = true
  }

  /** @throws {AuthorityError} FST_ERR_DUPLEX_AUTHORITY (400) */
  authorityOf ({ method, url }: IncomingMessage): Authority | null {
    // The extended CONNECT of HTTP/2 has a path (RFC 8441).
    if (method === 'CONNECT' && !url!.startsWith('/')) this.authority ??= parseAuthority(url!)
    return this.authority
  }

  // What the exchange asks of its owner

  onStreamError (): void {
    if (this.stream!.failure === null) this.answerFailure(this.reply)
  }

  /** Called before the exchange ends: onError hooks run before onResponse, up to the first that takes its time. */
  onCutOff (error: Error): void {
    if (!(error instanceof AbortedError)) runHooks(hooksOf(this.reply, 'onError'), this.reply.request, this.reply, error)
  }

  hijack (): () => void {
    return hijack(this.reply)
  }

  abortSignal (reason: Error): void {
    abortSignal(this.reply.request, reason)
  }

  // A stream that has failed before the head

  get isFailedUnanswered (): boolean {
    const { reply, stream } = this
    return stream !== null && stream.errored !== null && stream.failure === null && !this.answerBegun && !reply.sent
  }

  /**
   * Answers with the error, unless somebody else answers. A handler that listens for errors of the stream, as a pipeline or a
   * `for await` loop does, will. Once the handler has returned, its listeners have had their chance.
   */
  answerFailure (reply: FastifyReply): void {
    if (!this.isFailedUnanswered) return
    if (!this.unattended && this.stream!.listenerCount('error') > 1) return
    const answer = (): void => {
      if (!this.isFailedUnanswered) return
      this.answersFailure = true
      this.setAnswerBegun()
      this.send!.call(reply, this.stream!.errored)
    }
    // After the other listeners, or after the promises that such an error may settle.
    if (this.unattended) process.nextTick(answer)
    else setImmediate(answer)
  }
}

const kExchange = Symbol('fastify-duplex.exchange')

type DuplexRequest = IncomingMessage & { [kExchange]?: RouteExchange }

export function setExchange (request: IncomingMessage, exchange: RouteExchange): void {
  (request as DuplexRequest)[kExchange] = exchange
}

/** The exchange of a request on a duplex route. */
export function exchangeOf (request: IncomingMessage): RouteExchange {
  return (request as DuplexRequest)[kExchange]!
}

/** The getter of `reply.duplex`. */
export function getDuplex (this: FastifyReply): HttpDuplex {
  const exchange = (this.request.raw as DuplexRequest)[kExchange]
  if (exchange === undefined) throw new NotEnabledError(this.request.method, this.request.url)
  return exchange.stream ?? exchange.open(this)
}

/** The getter of `request.authority`. */
export function getAuthority (this: FastifyRequest): Authority | null {
  // Hooks that run before it is checked may ask for it, and must not take a malformed one for none.
  return (this.raw as DuplexRequest)[kExchange]?.authorityOf(this.raw) ?? null
}
