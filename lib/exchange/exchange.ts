// One exchange, from the claim of its request on. It tells its life what happens (`life.ts`), and does what the life orders: to the
// transport below it, to the stream that the handler uses, and to Fastify above it.
//
// One class, since each order of the life is one of its methods.

import type { Duplex } from 'node:stream'
import type { FastifyReply } from 'fastify'
import type { ExchangeStatus, HttpDuplex as PublicHttpDuplex, OutgoingFields } from '../../types/index.d.ts'
import { AbortedError, AgeError, ClosingError, DestroyedError, IdleError, NotEndedError, RateError } from '../errors.ts'
import type { Landed } from '../relay/read-buffers.ts'
import { NO_BODY } from '../transfer/framing.ts'
import type { ExchangeEvents, Transport } from '../transport/transport.ts'
import { failed, finished, headWritten, publish, started } from './diagnostics.ts'
import type { Receiving, Sending } from './items.ts'
import { CLAIMED, type Event, type Order, type Stage } from './life.ts'
import type { OpenExchange, Registration, Registry } from './registry.ts'
import type { Paced, PaceWatching, RateWatch } from './rate-watch.ts'
import { stateOf } from './status.ts'

/** See `DuplexOptions`: times in milliseconds, sizes in bytes. */
export interface ExchangeOptions {
  idleTimeout: number
  minRate: number
  maxAge: number
  closeGrace: number
  drainTimeout: number
  bodyLimit: number
  incremental: boolean
  highWaterMark?: number
}

/** A mistake on a route, of which its method and its URL are said. */
export type Mistake = new (method: string, url: string) => Error

/** What an exchange needs of Fastify. */
export interface ExchangeOwner {
  /** Null until the first hook of this package has run. */
  readonly reply: FastifyReply | null
  readonly handlerHasBegun: boolean
  /** Null without `minRate`. */
  readonly rateWatch: RateWatch | null
  /** The format of the items of the request; null if its body is bytes. */
  readonly receiving: Receiving | null
  /** The format of the items of the response; null if its body is bytes. */
  readonly sending: Sending | null
  /** Why there is no such format, although the route has some. */
  readonly formatError: Error | null
  /** The header fields of the reply. They are not a copy. */
  headers (): OutgoingFields
  /**
   * Called before the first head of a stream: runs the onSend hooks, if the route wants that.
   *
   * @returns a promise if they are asynchronous; null if the head may be made now
   * @throws what a hook fails with
   */
  beforeHead (): Promise<void> | null
  /** Logs a mistake, once for the route. */
  warnOnce (Mistake: Mistake): void
  /** Called when the response is about to be cut off. */
  onCutOff (error: Error): void
  /** Answers with an error, unless the handler does so at once. */
  answerFailure (error: Error): void
  /** Answers with an error. */
  answerNow (error: Error): void
  /** Called when no byte has moved for `idleTimeout`, if Fastify has not noticed that itself. */
  onIdleTimeout (): void
  /**
   * As `reply.hijack()`: Fastify sends no response of its own any more.
   *
   * @returns a function to call when the exchange has ended well: otherwise `request.signal` would abort then
   */
  hijack (): () => void
  /** Aborts `request.signal`. */
  abortSignal (reason: Error): void
}

/** The stream of an exchange. */
export interface ExchangeStream extends Duplex {
  /** Whether somebody listens for content. */
  readonly isRead: boolean
  /** With `minRate`: whether somebody waits for content, and none is there. */
  readonly isWaitedFor: boolean
  /** Whether the head opens a tunnel. */
  readonly isTunnel: boolean
  /** Whether there is nothing to read: no request body, and no tunnel. */
  readonly hasNoContent: boolean
  onContent (content: Landed, last: boolean): boolean
  onBodyEnd (): boolean | null
  /** Ends the readable side. */
  endRequest (): void
  /** The client has ended its side behind its request. */
  onHalfClose (reason: Error): void
  /** Reports when the reader leaves. */
  watchReader (): void
  /** Forgets the head. */
  takeBack (): void
  /** The exchange has ended well. Ends the stream, if the reader does not. */
  release (wasRead: boolean, requestEnded: boolean): void
}

type Orders = { [order in Order]: (reason?: Error) => void }

export class Exchange implements ExchangeEvents, OpenExchange, Paced, Orders {
  life: Stage = CLAIMED
  /** Why the exchange has failed; null if it has not. */
  failure: Error | null = null
  onEnded: () => void = ignore
  /** The response has failed, and its last item was written. It should arrive before the response is cut off; nothing follows it. */
  lastWordsFor: Error | null = null
  stream: ExchangeStream & PublicHttpDuplex | null = null
  readonly transport: Transport
  readonly owner: ExchangeOwner
  readonly options: ExchangeOptions
  readonly registry: Registry
  readonly registration: Registration
  private paceWatching: PaceWatching | undefined
  private cancelSignalAbort: () => void = ignore // keeps `request.signal` from aborting when the request closes

  constructor (transport: Transport, owner: ExchangeOwner, registry: Registry, options: ExchangeOptions) {
    this.transport = transport
    this.owner = owner
    this.registry = registry
    this.options = options
    this.registration = registry.add(this)
    transport.start(this)
  }

  happens (event: Event, reason?: Error): void {
    const { stage, orders } = this.life.after(event)
    this.life = stage
    for (const order of orders) this[order](reason)
  }

  /** A stream was made: for the handler, or for an error handler. */
  open (stream: ExchangeStream & PublicHttpDuplex): void {
    const isFirst = this.stream === null
    this.stream = stream
    if (this.isOver) return
    if (isFirst) publish(started, stream, this.owner.reply!)
    if (isFirst) this.paceWatching = this.owner.rateWatch?.add(this)
    if (this.life.goodbye === 'said') process.nextTick(() => this.tell(stream))
  }

  /** Tells the handler to end. If a listener throws, only its own exchange fails. */
  private tell (stream: ExchangeStream): void {
    try {
      stream.emit('shutdown')
    } catch (error) {
      this.endNow(error as Error)
    }
  }

  get maxAge (): number {
    return this.options.maxAge
  }

  get closeGrace (): number {
    return this.options.closeGrace
  }

  get isOver (): boolean {
    return this.life.connection !== 'held'
  }

  get endedWell (): boolean {
    return this.life.connection === 'ending' && this.life.response === 'complete'
  }

  /** Nothing was handed over yet. */
  get canAnswer (): boolean {
    const { connection, response } = this.life
    return connection === 'held' && (response === 'none' || response === 'written')
  }

  get answerHasBegun (): boolean {
    return this.life.response === 'from Fastify'
  }

  // Events of the transport

  onContent (content: Landed, last: boolean): boolean {
    return this.life.request === 'stopped' ? false : this.stream!.onContent(content, last)
  }

  onBodyEnd (): boolean | null {
    return this.stream!.onBodyEnd()
  }

  onRequestEnd (): void {
    this.happens('request complete')
  }

  onReadError (error: Error): void {
    this.happens('request failed', error)
  }

  onFirstByte (): void {
    this.happens('first byte')
  }

  onForeignEnd (): void {
    this.failure = new DestroyedError()
  }

  onAnswered (): void {
    this.happens('answered')
  }

  onHalfClose (): void {
    const reason = new AbortedError()
    this.happens('client half-closed', reason)
    this.stream?.onHalfClose(reason)
  }

  onGone (error: Error): void {
    this.happens('client gone', error)
  }

  onRestLost (): void {
    this.happens('reader left')
  }

  onBothEnded (): void {
    this.keepSignal()
  }

  onIdleTimeout (): void {
    this.owner.onIdleTimeout()
  }

  onIdle (canAnswer: boolean): void {
    const { idleTimeout } = this.options
    this.happens(canAnswer && this.owner.reply !== null ? 'idle' : 'stuck', this.isForgotten ? new NotEndedError(idleTimeout) : new IdleError(idleTimeout))
  }

  /** Only the app could go on: it neither reads nor writes, and the handler has returned. */
  private get isForgotten (): boolean {
    const { life: { handler, request, response }, stream } = this
    return handler === 'returned' && (response === 'none' || response === 'begun') && stream !== null && !stream.writableEnded && stream.writableLength === 0 && (request !== 'open' || !stream.isRead)
  }

  // For the rate watch

  get bytesReceived (): number {
    return this.stream!.bytesRead
  }

  get bytesTaken (): number {
    return this.transport.progress - this.bytesReceived
  }

  get waitsForContent (): boolean {
    const { life: { request, response }, stream, transport } = this
    return request === 'open' && response !== 'from Fastify' && stream!.isWaitedFor && !stream!.isTunnel && !transport.isBehindOthers
  }

  get waitsForTaker (): boolean {
    return this.life.response === 'begun' && this.transport.isStuck && !this.stream!.isTunnel
  }

  onTooSlow (what: 'sent' | 'taken'): void {
    this.happens('too slow', new RateError(what, this.options.minRate))
  }

  // Events of the registry

  get status (): ExchangeStatus | null {
    const { life, stream, transport: { requestFraming }, owner: { reply, handlerHasBegun } } = this
    if (reply === null) return null
    const { request } = reply
    const framing = stream?.framing ?? { request: requestFraming.kind, response: undefined }
    return {
      request,
      id: request.id,
      method: request.method,
      route: request.routeOptions.url!,
      state: stateOf(life, { handlerHasBegun, isTunnel: stream?.isTunnel ?? false, hasBody: requestFraming !== NO_BODY }),
      framing,
      bytesRead: stream?.bytesRead ?? 0,
      bytesWritten: stream?.bytesWritten ?? 0,
      age: reply.elapsedTime
    }
  }

  shutDown (reason: Error): void {
    this.happens('app closes', reason)
  }

  expire (reason: Error): void {
    this.happens('too old', reason)
  }

  endNow (reason: Error): void {
    this.happens('grace over', reason)
  }

  // Orders

  endRequest (): void {
    this.stream!.endRequest()
  }

  fail (reason?: Error): void {
    if (this.stream !== null) this.stream.destroy(reason)
    else this.owner.answerNow(reason!)
  }

  failNow (reason?: Error): void {
    this.stream?.destroy(reason)
    setImmediate(() => {
      this.owner.answerNow(this.stream?.errored ?? reason!)
      if (this.canAnswer) this.happens('stuck', reason)
    })
  }

  refuse (): void {
    this.transport.refuse()
  }

  /** While the connection stays open, nothing else aborts the signal. A handler that does not read may wait for it. */
  abortSignal (reason?: Error): void {
    this.owner.abortSignal(reason!)
  }

  takeBack (): void {
    this.transport.takeBack()
    this.stream!.takeBack()
  }

  answer (reason?: Error): void {
    this.owner.answerFailure(reason!)
  }

  hijack (): void {
    this.cancelSignalAbort = this.owner.hijack()
    publish(headWritten, this.stream!, this.owner.reply!)
  }

  watchReader (): void {
    this.stream!.watchReader()
  }

  finish (): void {
    const stream = this.stream!
    const wasRead = stream.isRead
    this.end()
    this.complete()
    this.transport.finish()
    const isEmpty = this.life.request === 'open' && stream.hasNoContent
    if (isEmpty) stream.endRequest()
    stream.release(wasRead, isEmpty || this.life.request === 'complete' || this.life.request === 'stopped')
  }

  finishAnswered (): void {
    this.end()
    this.stream?.destroy()
  }

  cutOff (why: Error = this.failure ?? new DestroyedError()): void {
    const { stream, owner } = this
    const reason = this.lastWordsFor ?? why
    this.failure = reason
    this.end()
    if (!this.answerHasBegun) owner.onCutOff(reason) // an answer of Fastify has its own onError
    this.transport.abort(reason, this.lastWordsFor !== null)
    owner.abortSignal(reason)
    if (stream === null) return
    publish(failed, stream, owner.reply!, reason)
    stream.destroy(reason)
  }

  leave (): void {
    if (this.life.response === 'none') this.cancelSignalAbort = this.owner.hijack()
    this.onEnded()
    this.paceWatching?.leave()
    this.registry.onDetached(this.registration)
    this.complete()
  }

  /** Fastify has a reply now. */
  onReply (): void {
    if (this.life.goodbye === 'said') this.sayGoodbye(this.registry.isClosing ? new ClosingError() : new AgeError(this.maxAge))
  }

  sayGoodbye (reason?: Error): void {
    const { reply } = this.owner
    if (reply === null) return
    if (this.registry.isClosing && !reply.sent) reply.header('connection', 'close')
    this.owner.abortSignal(reason!)
    if (this.stream !== null) this.tell(this.stream)
  }

  destroySocket (): void {
    this.transport.socket.destroy()
  }

  private end (): void {
    this.registry.remove(this.registration)
    this.paceWatching?.leave()
    this.onEnded()
  }

  private complete (): void {
    this.keepSignal()
    publish(finished, this.stream!, this.owner.reply!)
  }

  private keepSignal (): void {
    this.cancelSignalAbort()
    this.cancelSignalAbort = ignore
  }
}

function ignore (): void {}
