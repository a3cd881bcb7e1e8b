// The exchange, as a stream: joins the two sides of one carrier, and knows when both are over.
//
// The point of no return is the first write: the head is made, checked and committed there, in one call, so that what is
// wrong with it can still be answered. Everything written in one tick leaves as one chunk, in one write, the head and
// the end of the body with it where they fall into the same tick.

import { Duplex } from 'node:stream'
import type { Socket } from 'node:net'
import type { FastifyError, FastifyReply } from 'fastify'
import type { FramingKind, HttpDuplex as PublicHttpDuplex, OutgoingFields, Trailers } from '../../types/index.d.ts'
import type { Carrier, Sink, WriteCallback } from '../carrier/carrier.ts'
import { AbortedError, BodyLimitError, DestroyedError, DetachError, DetachedError, HeadSentError, NoBodyError, StatusError, TrailersError } from '../errors.ts'
import { toKeep } from '../landing.ts'
import { pipesByNode } from '../node-methods.ts'
import { abortSignal, hijack } from '../fastify-internals.ts'
import { type Framing, UNTIL_CLOSE, minorVersion, responseFraming } from '../transfer/framing.ts'
import { asksToClose, isSendable } from '../transfer/head-writer.ts'
import { isTunnel } from '../transfer/tunnel.ts'
import { committed, failed, finished, publish, started } from './diagnostics.ts'
import type { Registry } from './registry.ts'

export interface ExchangeOptions {
  closeGrace: number
  bodyLimit: number
  highWaterMark?: number
}

/** Who answers for the failures of an exchange. */
export interface Owner {
  /** Every error of the stream: one to which nobody listens would end the process. */
  onStreamError (): void
  /** The response is about to be cut off. */
  onCutOff (error: Error): void
}

/** What can be asked of an exchange that is over. */
type Account = Pick<Carrier, 'failure' | 'requestFraming' | 'socket' | 'trailers'>

export class HttpDuplex extends Duplex implements PublicHttpDuplex, Sink {
  bytesRead = 0
  bytesWritten = 0
  private account: Account
  private carrier: Carrier
  private reply: FastifyReply
  private owner: Owner | null
  readonly closeGrace: number
  private readonly registry: Registry
  private readonly bodyLimit: number
  private responseFraming: Framing | null = null
  private requestDone = false
  private responseDone = false
  private over = false
  private endedWell = false
  private detached: Socket | null = null
  private gathering = false
  private ending = false
  private letGoOfSignal: () => void = ignore
  // The write under way, if `done` is set: a Writable has one at a time.
  private size = 0
  private last = false // it, or one before, has the end of the body
  private done: WriteCallback = ignore
  private piping = false // within `pipe`, into another exchange
  private dataListeners = 0 // added since
  // The last exchange this was piped into, and by which listener.
  private pipedTo: HttpDuplex | null = null
  private pipeListener: unknown = null

  constructor (carrier: Carrier, reply: FastifyReply, owner: Owner, registry: Registry, options: ExchangeOptions) {
    super({ highWaterMark: options.highWaterMark })
    this.account = carrier
    this.carrier = carrier
    this.reply = reply
    this.owner = owner
    this.registry = registry
    this.bodyLimit = options.bodyLimit
    this.closeGrace = options.closeGrace
    this.on('error', this.tellOwner)
    if (carrier.over) {
      // Opened after its end: by a handler whose client left during the hooks, or by an onResponse hook.
      this.over = true
      this.destroy(carrier.failure ?? undefined)
      return
    }
    carrier.sink = this
    registry.add(this)
    publish(started, this, reply)
  }

  /** Why the exchange failed: after the head, or with its connection. */
  get failure (): Error | null {
    return this.account.failure
  }

  get isDetached (): boolean {
    return this.detached !== null
  }

  get headersSent (): boolean {
    return this.responseFraming !== null
  }

  get framing (): { request: FramingKind, response: FramingKind | undefined } {
    return { request: this.account.requestFraming.kind, response: this.responseFraming?.kind }
  }

  get trailers (): Trailers {
    return this.account.trailers
  }

  get socket (): Socket {
    return this.account.socket as Socket
  }

  flushHeaders (): void {
    if (this.isDetached) throw new DetachedError()
    if (this.headersSent) throw new HeadSentError()
    if (this.isOutOfHand) return
    this.commit()
    this.carrier.whenMayWrite(() => this.carrier.write([], 0, false, ignore))
  }

  writeInformation (statusCode: number, fields: OutgoingFields = {}): boolean {
    if (this.isDetached) throw new DetachedError()
    if (!(statusCode >= 100 && statusCode < 200) || statusCode === 101) throw new StatusError(statusCode)
    if (this.headersSent) throw new HeadSentError()
    return !this.isOutOfHand && this.carrier.writeInterim(statusCode, fields)
  }

  /**
   * The client has left or sent nonsense, or somebody else answers, as Fastify does after `handlerTimeout`. A timer or an
   * event of the handler need not know: Node's own methods do not throw then.
   */
  private get isOutOfHand (): boolean {
    return this.destroyed || this.reply.sent || this.carrier.answering
  }

  detach ({ counted = true }: { counted?: boolean } = {}): { socket: Socket, head: Buffer } {
    const { reply } = this
    if (this.isDetached) throw new DetachedError()
    if (this.destroyed) throw new DetachError('the exchange is over')
    if (!this.headersSent && (reply.sent || this.carrier.answering)) throw new HeadSentError()
    if (this.gathering) this.endGathering()
    // What the socket has been given is on its way, before all that the caller will write.
    if (this.writableLength > this.size) throw new DetachError('something is still to be written')
    if (!this.headersSent && this.readableLength > 0) throw new DetachError('the request body has not been read to its end')
    const { socket, head } = this.carrier.detach()
    if (!this.headersSent) this.letGoOfSignal = hijack(reply)
    this.detached = socket
    this.removeAllListeners('data')
    // One by one, as a stream that flows gives them.
    const unread: Buffer[] = []
    for (let piece; (piece = this.read() as Buffer | string | null) !== null;) {
      unread.push(typeof piece === 'string' ? Buffer.from(piece, this.readableEncoding!) : piece)
    }
    if (counted) socket.once('close', () => this.registry.remove(this))
    else this.registry.remove(this)
    this.complete()
    this.destroy(new DetachedError())
    return { socket, head: unread.length === 0 ? head : toKeep(Buffer.concat([...unread, head])) }
  }

  setTrailers (fields: OutgoingFields): this {
    if (this.isDetached) throw new DetachedError()
    const framing = this.responseFraming
    // A client of HTTP/1.0 is sent none, as any recipient may drop them (RFC 9110 section 6.5.1).
    if (this.ending || (framing !== null && framing.kind !== 'chunked' && framing !== UNTIL_CLOSE)) throw new TrailersError()
    this.carrier.setTrailers(fields)
    return this
  }

  /**
   * Leaving a `for await` must not destroy the exchange, as it would any other stream: the response goes on.
   */
  override [Symbol.asyncIterator] (): NodeJS.AsyncIterator<any> {
    return this.iterator({ destroyOnReturn: false })
  }

  // Writing

  override write (chunk: any, encoding?: any, done?: any): boolean {
    // What is no content throws, and that can still be answered.
    if (typeof chunk !== 'string' && !ArrayBuffer.isView(chunk)) return super.write(chunk, encoding, done)
    if (!this.begin(chunk, typeof encoding === 'function' ? encoding : done)) return false
    if (!this.gathering) {
      this.gathering = true
      this.cork()
      process.nextTick(endGathering, this)
    }
    return super.write(chunk, encoding, done)
  }

  override end (chunk?: any, encoding?: any, done?: any): this {
    this.ending = true
    const callback = [chunk, encoding, done].find((argument) => typeof argument === 'function')
    if (!this.begin(chunk === callback ? null : chunk, callback)) return this
    return super.end(chunk, encoding, done)
  }

  endGathering (): void {
    this.gathering = false
    this.uncork()
  }

  /** Commits the head, if that has not been done; false when the stream cannot be written to. */
  private begin (chunk: unknown, callback: WriteCallback | undefined): boolean {
    if (this.detached === null && (this.destroyed || this.writableEnded)) return true // the stream's own errors are the right ones
    try {
      if (this.isDetached) throw new DetachedError()
      if (this.responseFraming === null) this.commit(chunk)
      return true
    } catch (error) {
      this.destroy(error as Error)
      if (callback) process.nextTick(callback, error)
      return false
    }
  }

  private commit (chunk?: unknown): void {
    const { reply } = this
    if (reply.sent || reply.raw.headersSent || this.carrier.answering) throw new HeadSentError()
    const fields = reply.getHeaders() as OutgoingFields
    try {
      this.writeHead(fields, chunk)
    } catch (error) {
      // What could not be sent must not go out with the answer to this error either.
      for (const name of Object.keys(fields)) {
        if (!isSendable(name, fields[name])) reply.removeHeader(name)
      }
      if (reply.statusCode < 200) reply.removeHeader('upgrade').code((error as FastifyError).statusCode!)
      throw error
    }
    this.letGoOfSignal = hijack(reply)
    publish(committed, this, reply)
  }

  private writeHead (fields: OutgoingFields, chunk: unknown): void {
    const { statusCode, request, raw } = this.reply
    const length = fields['content-length']
    const framing = responseFraming(request.method, statusCode, length === undefined ? undefined : String(length), minorVersion(request.raw))
    if (framing.kind === 'none' && (chunk as Buffer | null)?.length) throw new NoBodyError()
    // HTTP/2 has no reason phrase, and warns who asks for it.
    const statusMessage = request.raw.httpVersionMajor > 1 ? undefined : raw.statusMessage
    const { sendDate } = raw
    this.carrier.writeHead({ statusCode, statusMessage, fields, framing, date: sendDate, close: asksToClose(fields.connection) })
    this.responseFraming = framing
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
    if (this.carrier.mayWrite) this.dispatch(content)
    else this.carrier.whenMayWrite(() => this.dispatch(content))
  }

  private callBack (error?: Error): void {
    const { done } = this
    this.done = ignore
    done(error)
  }

  private dispatch (content: readonly Buffer[]): void {
    // With end() called and nothing buffered behind this, the end of the body goes along; once, for empty writes may
    // follow.
    if (this.last) {
      this.callBack()
      return
    }
    this.last = this.ending && this.writableLength === this.size
    try {
      this.carrier.write(content, this.size, this.last, this.onWritten)
    } catch (error) {
      this.callBack(error as Error)
    }
  }

  private readonly onWritten: WriteCallback = (error) => {
    if (error || this.carrier.gone) {
      this.callBack(new AbortedError({ cause: error }))
      return
    }
    this.bytesWritten += this.size
    this.responseDone = this.last
    this.callBack()
    if (this.responseDone) this.settle()
  }

  // Reading

  override _read (): void {
    this.carrier.read()
  }

  onContent (content: Buffer): boolean {
    this.bytesRead += content.length
    if (this.bytesRead > this.bodyLimit) {
      this.onReadError(new BodyLimitError(this.bodyLimit))
      return false
    }
    return this.push(content)
  }

  override pipe<T extends NodeJS.WritableStream> (destination: T, options?: { end?: boolean }): T {
    this.pipedTo = null
    this.piping = destination instanceof HttpDuplex && pipesByNode(this)
    this.dataListeners = 0
    this.pipeListener = null
    try {
      return super.pipe(destination, options)
    } finally {
      // Without a listener there was none or more than one, one of them from a listener for 'newListener'.
      if (this.piping && this.pipeListener !== null) this.pipedTo = destination as unknown as HttpDuplex
      this.piping = false
    }
  }

  /** Notes the listener by which a pipe passes content on: the only one for 'data' that is added within `pipe`. */
  override on (event: string | symbol, listener: (...args: any[]) => void): this {
    if (event === 'data' && this.piping) {
      this.pipeListener = this.dataListeners++ === 0 ? listener : null
    }
    return super.on(event, listener)
  }

  get relay (): Duplex | null {
    const { pipedTo } = this
    return pipedTo !== null && pipedTo.writesAtOnce && this.flowsInto(pipedTo) ? pipedTo.carrier.idleSocket : null
  }

  relayContent (content: Buffer): boolean {
    const to = this.pipedTo!
    to.gathering = true // as if it were: not to wait for the end of the tick
    try {
      return this.onContent(content)
    } finally {
      to.gathering = false
    }
  }

  hasRelayed (size: number): boolean {
    const { done, size: writing, writableLength } = this.pipedTo!
    return this.readableLength === 0 && done !== ignore && writing === size && writableLength === size
  }

  /** Whether what is pushed now is written to there, by the pipe and unseen. */
  private flowsInto (to: HttpDuplex): boolean {
    if (this.readableFlowing !== true || this.readableLength > 0) return false
    // Where somebody has replaced a method, it may see, and keep, what passes.
    if (this.on !== on || this.push !== push || this.emit !== emit) return false
    if (to.write !== write || to._write !== _write || to._writev !== _writev) return false
    const listeners = this.listeners('data')
    return listeners.length === 1 && listeners[0] === this.pipeListener
  }

  /** Whether what is written now is neither buffered nor refused, nor the first. */
  private get writesAtOnce (): boolean {
    return this.headersSent && this.writable && this.done === ignore && this.writableCorked === 0
  }

  onBodyEnd (): void {
    const { reply } = this
    if (this.responseFraming !== null || reply.sent || this.carrier.answering || !isTunnel(reply.request.method, reply.statusCode)) return
    // Who reads on wants what the client sends in the tunnel; and that waits for the head.
    try {
      this.flushHeaders()
    } catch (error) {
      this.destroy(error as Error)
    }
  }

  onComplete (): void {
    this.requestDone = true
    this.push(null)
    this.settle()
  }

  onReadError (error: Error): void {
    this.destroy(error)
    // Before the head there will be an answer and no abort of its own, for which a handler that does not read may wait.
    abortSignal(this.reply.request, error)
  }

  // Ending

  onLost (error: Error): void {
    this.fail(error)
    this.destroy(error)
  }

  onAnswered (): void {
    this.over = true
    this.destroy()
  }

  private fail (error: Error): void {
    this.over = true
    publish(failed, this, this.reply, error)
  }

  /** The app is closing. */
  shutDown (reason: Error): void {
    if (!this.reply.sent) this.reply.header('connection', 'close')
    abortSignal(this.reply.request, reason)
    this.emit('shutdown')
  }

  /** Ends the exchange when the response is complete, and the request is or nobody reads it. */
  settle (): void {
    if (this.over || !this.responseDone) return
    const isRead = this.listenerCount('data') > 0 || this.listenerCount('readable') > 0
    if (!this.requestDone && isRead) return
    this.endedWell = true
    this.registry.remove(this)
    this.complete()
    this.carrier.finish()
    if (!this.requestDone) this.destroy()
    else if (!isRead) this.resume() // to its end, which would keep the stream open
  }

  private complete (): void {
    this.over = true
    this.letGoOfSignal()
    this.letGoOfSignal = ignore
    publish(finished, this, this.reply)
  }

  /** Its time is over, for the app is closing. */
  giveUp (reason: Error): void {
    if (this.detached !== null) this.detached.destroy()
    else this.destroy(reason)
  }

  override _destroy (error: Error | null, done: WriteCallback): void {
    if (this.detached === null) this.registry.remove(this)
    if (this.over) {
      if (this.endedWell && error === null) this.letGo()
      done(error)
      return
    }
    const failure = error ?? new DestroyedError()
    // Before the head Fastify can still answer, and the connection lives.
    if (this.headersSent) {
      this.owner!.onCutOff(failure)
      this.carrier.abort(failure)
      this.fail(failure)
    }
    done(failure)
  }

  /**
   * After a good end: keeps the account, and nothing else of the exchange. In Node 24 and 26 every Writable outlives the
   * collections of young objects, and all it refers to with it: that was most of what these had to do.
   */
  private letGo (): void {
    const { failure, requestFraming, socket, trailers } = this.carrier
    this.account = { failure, requestFraming, socket, trailers }
    this.carrier = this.reply = this.owner = null as never
    this.pipedTo = this.pipeListener = null
  }

  /** A listener: `this` is the stream. */
  private tellOwner (): void {
    this.owner?.onStreamError() // who has it no more after a good end
  }
}

// As they are when nobody has replaced them.
const { on, push, emit, write, _write, _writev } = HttpDuplex.prototype

function endGathering (stream: HttpDuplex): void {
  stream.endGathering()
}

function ignore (): void {}
