// The exchange, as a stream: joins the two sides of one transport, and knows when both have ended. One class, since a Duplex
// has one state for both of its sides.
//
// The point of no return is the first write: the head is made, checked and written there, in one call, so that what is wrong
// with it can still be answered. Everything written in one tick is sent as one chunk in one write, together with the head and
// the end of the body if they fall into the same tick.

import { Duplex } from 'node:stream'
import type { Socket } from 'node:net'
import type { FastifyReply } from 'fastify'
import type { FramingKind, HttpDuplex as PublicHttpDuplex, OutgoingFields, Trailers } from '../../types/index.d.ts'
import { AbortedError, BodyLimitError, DestroyedError, DetachError, DetachedError, HeadSentError, StatusError, TrailersError } from '../errors.ts'
import { isPiped } from '../node/streams.ts'
import { type Landed, asLanded, copyForUser } from '../relay/read-buffers.ts'
import { type Relay, type RelayTarget, pipeToRelay, unseenSocket } from '../relay/relay.ts'
import { type Framing, NO_BODY, TUNNEL, UNTIL_CLOSE } from '../transfer/framing.ts'
import { isTunnel } from '../transfer/tunnel.ts'
import type { ExchangeEvents, Transport, WriteCallback } from '../transport/transport.ts'
import { failed, finished, headWritten, publish, started } from './diagnostics.ts'
import type { OpenExchange, Registry } from './registry.ts'
import { writeHead } from './response-head.ts'

export interface ExchangeOptions {
  closeGrace: number
  drainTimeout: number
  bodyLimit: number
  highWaterMark?: number
}

/** The owner of an exchange answers for it to Fastify. */
export interface ExchangeOwner {
  readonly handlerHasReturned: boolean
  /** Every error of the stream. One that nobody listens for would end the process. */
  onStreamError (): void
  /** The response is about to be cut off. */
  onCutOff (error: Error): void
  /** Takes the reply out of Fastify's care. @returns a function to call when the exchange has ended well */
  hijack (): () => void
  /** Aborts `request.signal`. */
  abortSignal (reason: Error): void
}

/** What can be asked of an exchange that has ended. */
type Summary = Pick<Transport, 'failure' | 'requestFraming' | 'socket' | 'trailers'>

export class HttpDuplex extends Duplex implements PublicHttpDuplex, ExchangeEvents, OpenExchange, RelayTarget {
  bytesRead = 0
  bytesWritten = 0
  readonly closeGrace: number
  private readonly drainTimeout: number
  private summary: Summary
  private transport: Transport
  private reply: FastifyReply
  private owner: ExchangeOwner | null
  private readonly registry: Registry
  private readonly bodyLimit: number
  private responseFraming: Framing | null = null
  private requestEnded = false
  private responseEnded = false
  private ended = false
  private endedWell = false
  private detached: Socket | null = null
  private readerIsWatched = false
  private pauseTimer: NodeJS.Timeout | null = null
  private dropAbort: () => void = ignore // of `request.signal`, when the request closes
  // Writing
  writesAtOnce = false // in the order of `relay/`
  private isCorkedForTick = false
  private endCalled = false
  private size = 0 //     of the write under way, if `done` is set: a Writable has one at a time
  private last = false // that write, or an earlier one, has the end of the body
  private done: WriteCallback = ignore
  /** Of the last pipe into another exchange. */
  private relay: Relay | null = null

  constructor (transport: Transport, reply: FastifyReply, owner: ExchangeOwner, registry: Registry, options: ExchangeOptions) {
    super({ highWaterMark: options.highWaterMark })
    this.summary = transport
    this.transport = transport
    this.reply = reply
    this.owner = owner
    this.registry = registry
    this.bodyLimit = options.bodyLimit
    this.closeGrace = options.closeGrace
    this.drainTimeout = options.drainTimeout
    this.on('error', this.tellOwner)
    if (transport.hasEnded) {
      // Opened too late: by a handler whose client left during the hooks, or by an onResponse hook.
      this.ended = true
      this.destroy(transport.failure ?? undefined)
      return
    }
    transport.exchange = this
    registry.add(this)
    publish(started, this, reply)
  }

  /** Why the exchange failed: after the head, or with its connection. */
  get failure (): Error | null {
    return this.summary.failure
  }

  get isDetached (): boolean {
    return this.detached !== null
  }

  get headersSent (): boolean {
    return this.responseFraming !== null
  }

  get framing (): { request: FramingKind, response: FramingKind | undefined } {
    return { request: this.summary.requestFraming.kind, response: this.responseFraming?.kind }
  }

  get trailers (): Trailers {
    return this.summary.trailers
  }

  get socket (): Socket {
    return this.summary.socket as Socket
  }

  flushHeaders (): void {
    if (this.isDetached) throw new DetachedError()
    if (this.headersSent) throw new HeadSentError()
    if (this.cannotAnswer) return
    this.writeHead()
    this.transport.whenMayWrite(() => this.transport.write([], 0, false, ignore))
  }

  writeInformation (statusCode: number, fields: OutgoingFields = {}): boolean {
    if (this.isDetached) throw new DetachedError()
    if (!(statusCode >= 100 && statusCode < 200) || statusCode === 101) throw new StatusError(statusCode)
    if (this.headersSent) throw new HeadSentError()
    return !this.cannotAnswer && this.transport.writeInterim(statusCode, fields)
  }

  /**
   * The client has left or sent nonsense, or somebody else answers, as Fastify does after `handlerTimeout`. A timer or a
   * listener of the handler need not know that: like Node's own methods, ours do not throw then.
   */
  private get cannotAnswer (): boolean {
    return this.destroyed || this.reply.sent || this.transport.answerHasBegun
  }

  detach ({ counted = true }: { counted?: boolean } = {}): { socket: Socket, head: Buffer } {
    const { reply } = this
    if (this.isDetached) throw new DetachedError()
    if (this.destroyed) throw new DetachError('the exchange is over')
    if (!this.headersSent && (reply.sent || this.transport.answerHasBegun)) throw new HeadSentError()
    if (this.isCorkedForTick) this.uncorkTick()
    // What the socket was given is sent before anything that the caller will write.
    if (this.writableLength > this.size) throw new DetachError('something is still to be written')
    if (!this.headersSent && this.readableLength > 0) throw new DetachError('the request body has not been read to its end')
    const { socket, head } = this.transport.detach()
    if (!this.headersSent) this.dropAbort = this.owner!.hijack()
    this.detached = socket
    this.removeAllListeners('data')
    // One by one, like a flowing stream.
    const unread: Buffer[] = []
    for (let chunk; (chunk = this.read() as Buffer | string | null) !== null;) {
      unread.push(typeof chunk === 'string' ? Buffer.from(chunk, this.readableEncoding!) : chunk)
    }
    if (counted) socket.once('close', () => this.registry.remove(this))
    else this.registry.remove(this)
    this.complete()
    this.destroy(new DetachedError())
    return { socket, head: unread.length === 0 ? head : copyForUser(asLanded(Buffer.concat([...unread, head]))) }
  }

  setTrailers (fields: OutgoingFields): this {
    if (this.isDetached) throw new DetachedError()
    const framing = this.responseFraming
    // A client of HTTP/1.0 is sent none: any recipient may drop them (RFC 9110 section 6.5.1).
    if (this.endCalled || (framing !== null && framing.kind !== 'chunked' && framing !== UNTIL_CLOSE)) throw new TrailersError()
    this.transport.setTrailers(fields)
    return this
  }

  /**
   * Leaving a `for await` loop must not destroy the exchange, as it would destroy another stream: the response goes on.
   */
  override [Symbol.asyncIterator] (): NodeJS.AsyncIterator<any> {
    return this.iterator({ destroyOnReturn: false })
  }

  // Writing

  override write (chunk: any, encoding?: any, done?: any): boolean {
    // Node throws for anything else, and that can still be answered.
    if (typeof chunk !== 'string' && !ArrayBuffer.isView(chunk)) return super.write(chunk, encoding, done)
    if (!this.begin(chunk, typeof encoding === 'function' ? encoding : done)) return false
    if (!this.isCorkedForTick && !this.writesAtOnce) {
      this.isCorkedForTick = true
      this.cork()
      process.nextTick(uncorkTick, this)
    }
    return super.write(chunk, encoding, done)
  }

  /** A stream that has failed never drains. Code that waits for that must not wait for ever: its next read or write tells it. */
  override on (event: string | symbol, listener: (...args: any[]) => void): this {
    if (event === 'drain' && this.destroyed) setImmediate(emitDrain, this)
    return super.on(event, listener)
  }

  override end (chunk?: any, encoding?: any, done?: any): this {
    this.endCalled = true
    const callback = [chunk, encoding, done].find((argument) => typeof argument === 'function')
    if (!this.begin(chunk === callback ? null : chunk, callback)) return this
    return super.end(chunk, encoding, done)
  }

  uncorkTick (): void {
    this.isCorkedForTick = false
    this.uncork()
  }

  /** Writes the head, if that was not done yet. @returns false when the stream cannot be written to */
  private begin (chunk: unknown, callback: WriteCallback | undefined): boolean {
    if (this.detached === null && (this.destroyed || this.writableEnded)) return true // the stream's own errors are the right ones
    try {
      if (this.isDetached) throw new DetachedError()
      if (this.responseFraming === null) this.writeHead(chunk)
      return true
    } catch (error) {
      this.destroy(error as Error)
      if (callback) process.nextTick(callback, error)
      return false
    }
  }

  private writeHead (content?: unknown): void {
    this.responseFraming = writeHead(this.transport, this.reply, content)
    this.dropAbort = this.owner!.hijack()
    publish(headWritten, this, this.reply)
  }

  override _write (chunk: Buffer, _encoding: BufferEncoding, done: WriteCallback): void {
    this.send([chunk], chunk.length, done)
  }

  override _writev (chunks: { chunk: Buffer }[], done: WriteCallback): void {
    const content: Buffer[] = new Array(chunks.length)
    let size = 0
    for (let i = 0; i < chunks.length; i++) {
      content[i] = chunks[i].chunk
      size += content[i].length
    }
    this.send(content, size, done)
  }

  override _final (done: WriteCallback): void {
    this.send([], 0, done)
  }

  private send (content: readonly Buffer[], size: number, done: WriteCallback): void {
    this.size = size
    this.done = done
    if (this.transport.mayWrite) this.dispatch(content)
    else this.transport.whenMayWrite(() => this.dispatch(content))
  }

  private callBack (error?: Error): void {
    const { done } = this
    this.done = ignore
    done(error)
  }

  private dispatch (content: readonly Buffer[]): void {
    // After end(), with nothing buffered behind this write, the end of the body is sent along; once, for empty writes may
    // follow.
    if (this.last) {
      this.callBack()
      return
    }
    this.last = this.endCalled && this.writableLength === this.size
    try {
      this.transport.write(content, this.size, this.last, this.onWritten)
    } catch (error) {
      this.callBack(error as Error)
    }
  }

  private readonly onWritten: WriteCallback = (error) => {
    if (error || this.transport.connectionIsGone) {
      this.callBack(new AbortedError({ cause: error }))
      return
    }
    this.bytesWritten += this.size
    this.responseEnded = this.last
    this.callBack()
    if (this.responseEnded) this.finishIfComplete()
  }

  // Reading

  override _read (): void {
    this.transport.read()
  }

  onContent (content: Landed, last: boolean): boolean {
    this.bytesRead += content.length
    if (this.bytesRead > this.bodyLimit) {
      this.onReadError(new BodyLimitError(this.bodyLimit))
      return false
    }
    // The last of a body is not relayed: the end of the response may follow it in the same tick, in the same write.
    return this.relay === null || last ? this.push(copyForUser(content)) : this.relay.push(content)
  }

  override pipe<T extends NodeJS.WritableStream> (destination: T, options?: { end?: boolean }): T {
    this.relay = null
    if (!(destination instanceof HttpDuplex)) return super.pipe(destination, options)
    this.relay = pipeToRelay(this, destination, methods, () => { super.pipe(destination, options) })
    return destination
  }

  get relaySocket (): Socket | null {
    const isFree = this.headersSent && this.writable && this.done === ignore && this.writableCorked === 0 && this.transport.mayWrite
    return isFree ? unseenSocket(this.transport.rawSocket) : null
  }

  isWritingOnly (size: number): boolean {
    return this.done !== ignore && this.size === size && this.writableLength === size
  }

  onBodyEnd (): boolean {
    const { reply } = this
    // A handler that reads on wants what the client sends through the tunnel, and the client waits for the head.
    if (this.responseFraming === null && !reply.sent && !this.transport.answerHasBegun && isTunnel(reply.request.method, reply.statusCode)) {
      try {
        this.flushHeaders()
      } catch (error) {
        this.destroy(error as Error)
      }
    }
    return this.responseFraming === TUNNEL
  }

  onRequestEnd (): void {
    this.requestEnded = true
    this.push(null)
    this.finishIfComplete()
  }

  onReadError (error: Error): void {
    this.destroy(error)
    // Before the head the error is answered, and nothing else aborts the signal. A handler that does not read may wait for it.
    this.owner!.abortSignal(error)
  }

  // Ending

  onFailure (error: Error): void {
    this.fail(error)
    this.destroy(error)
  }

  onAnswered (): void {
    this.ended = true
    this.destroy()
  }

  private fail (error: Error): void {
    this.ended = true
    publish(failed, this, this.reply, error)
  }

  /** The app is closing. */
  shutDown (reason: Error): void {
    if (!this.reply.sent) this.reply.header('connection', 'close')
    this.owner!.abortSignal(reason)
    this.emit('shutdown')
  }

  /** Ends the exchange when the response is complete, and the request is complete or nobody reads it. */
  finishIfComplete (): void {
    if (this.ended || !this.responseEnded) return
    const isRead = this.listenerCount('data') > 0 || this.listenerCount('readable') > 0
    if (!this.requestEnded && isRead) this.watchReader()
    else this.finish(isRead)
  }

  /** The reader may leave at any time. After the handler has returned, one that pauses has `drainTimeout` to resume. */
  private watchReader (): void {
    if (!this.readerIsWatched) {
      this.readerIsWatched = true
      this.on('pause', this.onReaderChange)
    }
    if (this.isLeft) this.pauseTimer ??= setTimeout(() => { this.onPauseTimeout() }, this.drainTimeout)
  }

  private onReaderChange (): void {
    if (this.readerIsWatched) process.nextTick(() => this.finishIfComplete())
  }

  // Not by 'removeListener', which Node does not always emit for streams.

  override removeListener (event: string | symbol, listener: (...args: any[]) => void): this {
    this.onReaderChange()
    return super.removeListener(event, listener)
  }

  override off (event: string | symbol, listener: (...args: any[]) => void): this {
    return this.removeListener(event, listener)
  }

  override removeAllListeners (event?: string | symbol): this {
    this.onReaderChange()
    return event === undefined ? super.removeAllListeners() : super.removeAllListeners(event)
  }

  private onPauseTimeout (): void {
    this.pauseTimer = null
    if (this.isLeft) this.finish(false)
  }

  /** Whether the reader has paused, and there is no handler, and no target of a pipe, that would resume it. */
  private get isLeft (): boolean {
    return this.owner!.handlerHasReturned && this.isPaused() && !isPiped(this)
  }

  private finish (isRead: boolean): void {
    this.endedWell = true
    this.registry.remove(this)
    this.complete()
    this.transport.finish()
    if (!this.requestEnded && this.summary.requestFraming === NO_BODY) this.onRequestEnd()
    if (!this.requestEnded) this.destroy()
    else if (!isRead) this.resume() // otherwise its unread end would keep the stream open
  }

  private complete (): void {
    this.ended = true
    this.dropAbort()
    this.dropAbort = ignore
    publish(finished, this, this.reply)
  }

  destroyForClosing (reason: Error): void {
    if (this.detached !== null) this.detached.destroy()
    else this.destroy(reason)
  }

  override _destroy (error: Error | null, done: WriteCallback): void {
    if (this.detached === null) this.registry.remove(this)
    if (this.pauseTimer !== null) clearTimeout(this.pauseTimer)
    if (this.listenerCount('drain') > 0) setImmediate(emitDrain, this)
    if (this.ended) {
      if (this.endedWell && error === null) this.keepSummary()
      done(error)
      return
    }
    const failure = error ?? new DestroyedError()
    // Before the head Fastify can still answer, and the connection lives.
    if (this.headersSent) {
      this.owner!.onCutOff(failure)
      this.transport.abort(failure)
      this.fail(failure)
    }
    done(failure)
  }

  /** After a clean finish, keep a summary only: on Node 24 and 26 a Writable survives minor collections, and all it refers to. */
  private keepSummary (): void {
    const { failure, requestFraming, socket, trailers } = this.transport
    this.summary = { failure, requestFraming, socket, trailers }
    this.transport = this.reply = this.owner = null as never
    this.relay = null
  }

  /** A listener: `this` is the stream. */
  private tellOwner (): void {
    this.owner?.onStreamError() // there is none after a clean finish
  }
}

// As they are while nobody has replaced them.
const { on, write, _write, _writev } = HttpDuplex.prototype
const methods = { on, write, _write, _writev }

function emitDrain (stream: HttpDuplex): void {
  stream.emit('drain')
}

function uncorkTick (stream: HttpDuplex): void {
  stream.uncorkTick()
}

function ignore (): void {}
