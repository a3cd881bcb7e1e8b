// The exchange as a stream: `reply.duplex`. The exchange decides when it ends. One class, since a Duplex has one state for both of
// its sides.
//
// The first write makes and checks the head in one call, so that an error in the head can still be answered. All writes of one
// tick are sent as one chunk in one write to the socket. The head and the end of the body are sent along if they fall into that
// tick. Until then nothing is handed over, and all of it can be taken back.

import { Duplex, type Readable } from 'node:stream'
import type { Socket } from 'node:net'
import type { FastifyReply } from 'fastify'
import type { FramingKind, HttpDuplex as PublicHttpDuplex, OutgoingFields, Trailers } from '../../types/index.d.ts'
import { AbortedError, BodyLimitError, DestroyedError, DetachError, DetachedError, HeadSentError, HijackedError, NoItemsError, ReadersError, StatusError, TrailersError } from '../errors.ts'
import { bytesFrom, fillSilently, neverReadAhead } from '../node/streams.ts'
import { type Landed, asLanded, bytesOf, copyForUser } from '../relay/read-buffers.ts'
import { type ContentReceiver, type ContentSource, type Methods, type Relay, type RelayTarget, idleSocket, isRelayTarget, pipeToRelay } from '../relay/relay.ts'
import { type Framing, NO_BODY, TUNNEL, allowsTrailers } from '../transfer/framing.ts'
import { isTunnel } from '../transfer/tunnel.ts'
import type { Transport, WriteCallback } from '../transport/transport.ts'
import { contentError, isContent } from './content.ts'
import type { Exchange, ExchangeStream } from './exchange.ts'
import { ChunkIterator, type ChunkSource } from './chunk-iterator.ts'
import { wakeWriters } from './failed-stream.ts'
import { ItemReader } from './item-reader.ts'
import { ItemWriter } from './item-writer.ts'
import { type Receiving, type Sending, describeItems } from './items.ts'
import { RequestBody, type WebHalves, webHalves } from './halves.ts'
import { ReaderWatch, type WatchedStream } from './reader-watch.ts'
import { writeHead } from './response-head.ts'
import { areReadsNoted, isWaitedFor, noteReads } from './waiting-reader.ts'

/** What remains of the transport after a clean finish. */
type Summary = Pick<Transport, 'requestFraming' | 'socket' | 'trailers'>

export class HttpDuplex extends Duplex implements PublicHttpDuplex, ExchangeStream, RelayTarget, ContentSource, ChunkSource, WatchedStream {
  bytesRead = 0
  bytesWritten = 0
  private summary: Summary
  private exchange: Exchange
  private transport: Transport
  private reply: FastifyReply
  private responseFraming: Framing | null = null // not null from the first write on
  private detachedSocket: Socket | null = null
  /** Called in the tick behind the destruction, as a listener for 'close' would be. Generators need it, and a listener costs more. */
  whenClosed: (() => void) | null = null
  loops = 0
  waitingLoop: ChunkIterator | null = null
  leavingLoops = 0
  requestHasEnded = false
  endWasRead = false
  detachWasCalled = false
  private reads = 0 // chunks that were read, but not those that were emitted as 'data' at once
  foundTooLittle = false
  requestHalf: RequestBody | null = null
  webStreams: WebHalves | null = null
  private readerWatch: ReaderWatch | null = null // from the end of the response on, if the request lasts longer
  private readonly receiving: Receiving | null // null if the request body is bytes
  private readonly sending: Sending | null // null if the response body is bytes
  private itemReader: ItemReader | null = null
  private itemWriter: ItemWriter | null = null
  private itemFields: readonly string[] = NO_NAMES // added to the head
  // The head waits for the onSend hooks, and then the write under way, or a flush, waits for the head.
  private hooksWereCalled = false
  private headIsAwaited = false
  private flushIsAwaited = false
  private awaitedWrite: readonly Buffer[] | null = null
  bodyIsComplete = false
  private bodyEndListener: (() => void) | null = null
  private holdsTunnel = false
  /** Called when the client ends its side behind its request: as `request.signal`, which costs more. */
  halfCloseListener: ((reason: Error) => void) | null = null
  readonly originalMethods = methods
  // Writing. A Writable has one write under way at a time.
  writesAtOnce = false // set by the relay
  private isCorkedForTick = false // until the end of the tick
  private tickIsOver = false
  private endWasCalled = false
  private firstWrite: readonly Buffer[] | null = null // waits for the end of the tick
  private writeSize = 0 // bytes of the write under way
  private writeCallback: WriteCallback = ignore // of the write under way; `ignore` if there is none
  private endWasWritten = false // the end of the body was given to the transport
  private drops = 0 // writes that a response without a body has dropped
  /** The relay of the last pipe into another exchange. */
  private relay: Relay | null = null
  receiver: ContentReceiver | null = null

  constructor (exchange: Exchange, reply: FastifyReply) {
    super({ highWaterMark: exchange.options.highWaterMark })
    this.summary = exchange.transport
    this.exchange = exchange
    this.transport = exchange.transport
    this.reply = reply
    this.receiving = exchange.owner.receiving
    this.sending = exchange.owner.sending
    neverReadAhead(this)
    if (exchange.options.minRate > 0) noteReads(this)
    // An 'error' without a listener would end the process.
    this.on('error', ignore)
    // Opened too late: the client has left during the hooks, or an onResponse hook opens it.
    if (exchange.isOver) this.destroy(exchange.failure ?? undefined)
  }

  /**
   * Takes the place of the stream that the handler has used, in an error handler. The readable side ends. The rest of the request
   * is dropped.
   */
  replace (previous: HttpDuplex | null): void {
    this.pushEnd()
    if (previous === null) return
    this.bytesRead = previous.bytesRead
    previous.destroy(new HeadSentError()) // code of the handler may still use it
  }

  get isDetached (): boolean {
    return this.detachedSocket !== null
  }

  get headersSent (): boolean {
    return this.responseFraming !== null || this.headIsAwaited
  }

  get framing (): { request: FramingKind, response: FramingKind | undefined } {
    return { request: this.summary.requestFraming.kind, response: this.responseFraming?.kind }
  }

  get isTunnel (): boolean {
    return this.responseFraming === TUNNEL
  }

  get requestFraming (): Framing {
    return this.summary.requestFraming
  }

  get hasNoContent (): boolean {
    return this.requestFraming === NO_BODY && !this.isTunnel
  }

  get trailers (): Trailers {
    return this.summary.trailers
  }

  get socket (): Socket {
    return this.summary.socket as Socket
  }

  get requestBody (): Readable {
    this.requestHalf ??= new RequestBody(this)
    return this.requestHalf
  }

  web (): ReturnType<PublicHttpDuplex['web']> {
    this.webStreams ??= webHalves(this.requestBody as RequestBody, this)
    return this.webStreams as ReturnType<PublicHttpDuplex['web']>
  }

  get items (): ItemReader {
    this.itemReader ??= this.makeItemReader()
    return this.itemReader
  }

  private makeItemReader (): ItemReader {
    const { receiving } = this
    if (receiving === null) throw new NoItemsError('receive', 'receive')
    return new ItemReader(this, receiving)
  }

  send (item: unknown): boolean {
    if (this.isDetached) throw new DetachedError()
    return this.itemsToSend.send(item)
  }

  private get itemsToSend (): ItemWriter {
    this.itemWriter ??= this.makeItemWriter()
    return this.itemWriter
  }

  private makeItemWriter (): ItemWriter {
    const { sending } = this
    const exchange = this.exchange as Exchange | null // null after a clean finish
    if (sending === null) throw exchange?.owner.formatError ?? new NoItemsError('send', 'send')
    return new ItemWriter(this, sending)
  }

  /** Whether the handler sends items, instead of bytes. */
  get sendsItems (): boolean {
    return this.sending !== null
  }

  /** The handler has failed behind the first byte: destroys the stream. The last item of the response says why, if it has items. */
  fail (error: Error): void {
    const { exchange, itemWriter } = this
    // A content-length would make a response look whole if the last item happened to fill it.
    const mayTell = this.writable && exchange.life.response === 'begun' && this.responseFraming!.kind !== 'length'
    const last = itemWriter === null || !mayTell ? null : itemWriter.lastItem(error)
    if (last === null) {
      this.destroy(error)
      return
    }
    const timer = setTimeout(() => this.destroy(error), exchange.options.drainTimeout)
    this.once('close', () => clearTimeout(timer))
    this.write(last, 'utf8', () => this.destroy(error))
    exchange.lastWordsFor = error
    exchange.abortSignal(error)
    itemWriter!.stop()
    while (this.writableCorked > 0) this.uncork()
  }

  /** Whether code of the handler listens for errors of the stream or of its request half. */
  get handlesErrors (): boolean {
    return this.loops > 0 || this.listenerCount('error') > 1 || this.requestHalf?.handlesErrors === true
  }

  flushHeaders (): void {
    if (this.isDetached) throw new DetachedError()
    if (this.headersSent) throw new HeadSentError()
    if (this.cannotAnswer) return
    this.beginHead()
    if (this.sending !== null) this.itemsToSend.startHeartbeat()
    if (this.headIsAwaited) this.flushIsAwaited = true
    else this.flushHead()
  }

  private flushHead (): void {
    this.transport.whenMayWrite(() => { if (this.headersSent && !this.destroyed) this.transport.write([], 0, false) })
  }

  writeInformation (statusCode: number, fields: OutgoingFields = {}): boolean {
    if (this.isDetached) throw new DetachedError()
    if (!(statusCode >= 100 && statusCode < 200) || statusCode === 101) throw new StatusError(statusCode)
    if (this.headersSent) throw new HeadSentError()
    return !this.cannotAnswer && this.transport.writeInterim(statusCode, fields)
  }

  /**
   * The client has left, the request is malformed, or Fastify answers, for example after `handlerTimeout`. A timer or a listener
   * of the handler may not know that. So our methods do not throw then, like Node's own methods.
   */
  private get cannotAnswer (): boolean {
    return this.destroyed || this.reply.sent || this.reply.raw.headersSent || this.exchange.answerHasBegun
  }

  detach ({ counted = true }: { counted?: boolean } = {}): { socket: Socket, head: Buffer } {
    const { reply } = this
    if (this.isDetached) throw new DetachedError()
    if (this.destroyed) throw new DetachError('the exchange is over')
    if (!this.headersSent && (reply.sent || this.exchange.answerHasBegun)) throw new HeadSentError()
    if (this.headIsAwaited) throw new DetachError('the onSend hooks are running')
    if (this.isCorkedForTick) this.uncorkAfterTick()
    // The write under way does not matter: the socket sends it before anything that the caller will write.
    if (this.writableLength > this.writeSize) throw new DetachError('something is still to be written')
    const unreadByHalf = this.requestHalf?.readableLength ?? 0
    if (!this.headersSent && this.readableLength + unreadByHalf > 0) throw new DetachError('the request body has not been read to its end')
    this.detachWasCalled = true // onResponse runs during the next call
    const { socket, head } = this.transport.detach()
    this.detachedSocket = socket
    this.removeAllListeners('data')
    const unread = [...(unreadByHalf > 0 ? readAll(this.requestHalf!) : []), ...readAll(this)]
    this.exchange.happens('detached')
    if (counted) socket.once('close', () => this.exchange.registry.remove(this.exchange.registration))
    else this.exchange.registry.remove(this.exchange.registration)
    this.destroy(new DetachedError())
    return { socket, head: unread.length === 0 ? head : copyForUser(asLanded(Buffer.concat([...unread, head]))) }
  }

  stopReading (): this {
    if (this.isDetached) throw new DetachedError()
    this.exchange?.happens('reading stopped')
    return this
  }

  setTrailers (fields: OutgoingFields): this {
    if (this.isDetached) throw new DetachedError()
    const framing = this.responseFraming
    // A client of HTTP/1.0 gets none, but that is no error: any recipient may drop trailers (RFC 9110 section 6.5.1).
    if (this.endWasCalled || (framing !== null && !allowsTrailers(framing))) throw new TrailersError()
    this.transport.setTrailers(fields)
    return this
  }

  /** A handler that leaves a `for await` loop may still write the response. So this does not destroy the stream, as it usually does. */
  override [Symbol.asyncIterator] (): NodeJS.AsyncIterator<any> {
    // A listener for 'data' loses nothing to a loop.
    if (this.loops > 0 || this.listenerCount('readable') > 0) (this.exchange as Exchange | null)?.owner.warnOnce(ReadersError)
    return this.iterateChunks()
  }

  iterateChunks (): ChunkIterator {
    return new ChunkIterator(this)
  }

  // Writing

  override write (chunk: any, encoding?: any, done?: any): boolean {
    // Before the head is written: the error can still be answered.
    if (typeof chunk !== 'string' && !ArrayBuffer.isView(chunk)) return this.refuseContent(chunk)
    if (!this.prepareWrite(chunk, typeof encoding === 'function' ? encoding : done)) return false
    this.itemWriter?.flush()
    if (!this.writesAtOnce) this.corkForTick()
    return super.write(chunk, encoding, done)
  }

  override end (chunk?: any, encoding?: any, done?: any): this {
    const callback = [chunk, encoding, done].find((argument) => typeof argument === 'function')
    if (chunk !== callback && chunk !== undefined && chunk !== null && !isContent(chunk)) {
      this.refuseContent(chunk)
      return this
    }
    if (!this.prepareWrite(chunk === callback ? null : chunk, callback)) return this
    this.endWasCalled = true
    this.itemWriter?.flush()
    this.itemWriter?.stopHeartbeat()
    return super.end(chunk, encoding, done)
  }

  /** @throws {ContentError} FST_ERR_DUPLEX_CONTENT: unless a pipe has written it. What a pipe throws would end the process */
  private refuseContent (value: unknown): false {
    const error = contentError(value, this.sendsItems)
    if (this.listenerCount('unpipe') === 0) throw error
    this.destroy(error)
    return false
  }

  corkForTick (): void {
    if (this.isCorkedForTick) return
    this.isCorkedForTick = true
    this.cork()
    process.nextTick(uncorkAfterTick, this)
  }

  uncorkAfterTick (): void {
    this.itemWriter?.flush()
    this.isCorkedForTick = false
    this.tickIsOver = true
    this.uncork()
    this.tickIsOver = false
    const { firstWrite } = this
    if (firstWrite === null) return
    this.firstWrite = null
    this.writeWhenInTurn(firstWrite, true)
  }

  /** Writes the head, if it was not written yet. @returns false if the write has failed: then `callback` gets the error */
  prepareWrite (chunk: unknown, callback?: WriteCallback): boolean {
    if (this.detachedSocket === null && (this.destroyed || this.writableEnded)) return true // Node reports the error
    if (this.detachedSocket === null && this.exchange.lastWordsFor !== null) {
      if (callback) process.nextTick(callback, new DestroyedError())
      return false
    }
    try {
      if (this.isDetached) throw new DetachedError()
      if (this.responseFraming === null) this.beginHead(chunk)
      return true
    } catch (error) {
      this.destroy(error as Error)
      if (callback) process.nextTick(callback, error)
      return false
    }
  }

  /** Makes the head, now or when the onSend hooks are done. */
  private beginHead (content?: unknown): void {
    if (this.headIsAwaited) return
    this.checkUnanswered()
    const hooks = this.hooksWereCalled ? null : this.exchange.owner.beforeHead()
    this.hooksWereCalled = true
    if (hooks === null) {
      this.writeHead(content)
      return
    }
    this.headIsAwaited = true
    hooks.then(() => { this.onHooksDone(content) }).catch((error) => { this.destroy(error) })
  }

  private onHooksDone (content: unknown): void {
    if (this.destroyed) return
    this.headIsAwaited = false
    const { awaitedWrite } = this
    this.awaitedWrite = null
    try {
      this.writeHead(content)
    } catch (error) {
      this.destroy(error as Error)
      if (awaitedWrite !== null) this.finishWrite(error as Error)
      return
    }
    if (this.responseFraming === TUNNEL) this.receiveMore() // the end of the request body has waited for the head
    if (awaitedWrite !== null) this.writeWhenInTurn(awaitedWrite)
    else if (this.flushIsAwaited) this.flushHead()
  }

  /** @throws {HeadSentError} FST_ERR_DUPLEX_HEAD_SENT */
  private checkUnanswered (): void {
    const { reply, exchange } = this
    if (reply.sent && !reply.raw.writableEnded && !reply.raw.headersSent) {
      const error = new HijackedError()
      exchange.happens('hijacked', error)
      throw error
    }
    if (reply.sent || exchange.answerHasBegun) throw new HeadSentError('Fastify answers this request')
    if (reply.raw.headersSent) throw new HeadSentError('reply.raw was used. Leave it out: set the status and the headers with reply.code() and reply.header(), and write with reply.duplex')
  }

  private writeHead (content: unknown): void {
    const { reply, exchange } = this
    this.checkUnanswered()
    if (this.sending !== null) this.itemFields = describeItems(reply, this.sending)
    try {
      this.responseFraming = writeHead(this.transport, reply, exchange.owner.headers(), content, exchange.options.incremental)
    } catch (error) {
      this.removeItemFields()
      throw error
    }
    exchange.happens('head written')
  }

  takeBack (): void {
    this.responseFraming = null
    this.itemWriter?.stop()
    this.removeItemFields()
  }

  /** Another answer follows, which is not made of items. */
  private removeItemFields (): void {
    for (const name of this.itemFields) this.reply.removeHeader(name)
  }

  override _write (chunk: Buffer, _encoding: BufferEncoding, done: WriteCallback): void {
    // From Node 26.12 on, a pipe may call this past `write`.
    if (this.responseFraming === null && !this.prepareWrite(chunk, done)) return
    this.startWrite([chunk], chunk.length, done)
  }

  override _writev (chunks: { chunk: Buffer }[], done: WriteCallback): void {
    const content: Buffer[] = new Array(chunks.length)
    let size = 0
    for (let i = 0; i < chunks.length; i++) {
      content[i] = chunks[i].chunk
      size += content[i].length
    }
    this.startWrite(content, size, done)
  }

  override _final (done: WriteCallback): void {
    this.startWrite([], 0, done)
  }

  private startWrite (content: readonly Buffer[], size: number, done: WriteCallback): void {
    this.writeSize = size
    this.writeCallback = done
    if (this.headIsAwaited) {
      this.awaitedWrite = content
      return
    }
    // end() writes at once, but what fails in this tick is not sent.
    if (this.tickIsOver || this.exchange.life.response !== 'written') this.writeWhenInTurn(content)
    else if (this.isCorkedForTick) this.firstWrite = content
    else process.nextTick(writeAfterTick, this, content)
  }

  /** @param isOutside nothing of the handler, and no method of this stream, is on the call stack */
  writeWhenInTurn (content: readonly Buffer[], isOutside = false): void {
    if (this.transport.mayWrite) this.writeNow(content, isOutside)
    else this.transport.whenMayWrite(() => this.writeNow(content))
  }

  private finishWrite (error?: Error): void {
    const { writeCallback: done } = this
    this.writeCallback = ignore
    done(error)
  }

  private writeNow (content: readonly Buffer[], isOutside = false): void {
    // The end of the body is sent along with the last write: after end(), if nothing is buffered behind it. Node may still call
    // _write or _final after that, with nothing to send. A write that waits for its turn may have been taken back.
    if (this.endWasWritten || this.responseFraming === null) {
      this.finishWrite()
      return
    }
    this.endWasWritten = this.endWasCalled && this.writableLength === this.writeSize
    try {
      this.transport.write(content, this.writeSize, this.endWasWritten, this.onWritten, isOutside)
    } catch (error) {
      this.finishWrite(error as Error)
    }
  }

  private readonly onWritten: WriteCallback = (error) => {
    if (error || this.transport.connectionIsGone) {
      this.finishWrite(new AbortedError({ cause: error }))
      return
    }
    const isDropped = this.responseFraming!.kind === 'none'
    if (!isDropped) this.bytesWritten += this.writeSize
    const responseEnded = this.endWasWritten
    // A write that is dropped does not wait for the client. If all of them finished at once, a handler that writes from memory without
    // end would never let other code run.
    if (isDropped && !responseEnded && ++this.drops % DROPS_PER_TURN === 0) setImmediate(() => this.finishWrite())
    else this.finishWrite()
    if (responseEnded) this.exchange.happens('response complete')
  }

  // Reading

  override read (size?: number): any {
    const chunk = super.read(size)
    if (chunk !== null) this.reads++
    else if (size !== 0) this.foundTooLittle = true // read(0) is Node's own
    return chunk
  }

  override _read (): void {
    fillSilently(this, receiveMore)
  }

  receiveMore (): void {
    this.transport.read()
  }

  onContent (content: Landed, last: boolean): boolean {
    this.bytesRead += content.length
    this.foundTooLittle = false
    const { bodyLimit } = this.exchange.options
    if (this.bytesRead > bodyLimit) {
      this.exchange.onReadError(new BodyLimitError(bodyLimit))
      return false
    }
    if (this.receiver !== null) return this.receiver.onContent(content, last)
    if (this.waitingLoop !== null && this.isReadByLoop) {
      this.reads++
      this.waitingLoop.receive(copyForUser(content))
      return true
    }
    // The last content of a body is not relayed: it waits for the end of the response, which may follow in the same tick.
    if (this.relay !== null && !last) return this.relay.push(content)
    // With setEncoding(), `push` decodes the bytes before it returns: nothing keeps them.
    return this.push(this.readableEncoding !== null && this.push === push ? bytesOf(content) : copyForUser(content))
  }

  /** Whether the waiting loop would be the only one to see the next chunk. Not for the first: then the stream must note that it was read. */
  private get isReadByLoop (): boolean {
    return this.readableDidRead && this.readableLength === 0 && this.readableEncoding === null && this.push === push &&
      this.listenerCount('readable') === 1 && this.listenerCount('data') === 0 && !areReadsNoted(this)
  }

  override pipe<T extends NodeJS.WritableStream> (destination: T, options?: { end?: boolean }): T {
    this.relay = null
    if (!isRelayTarget(destination)) return super.pipe(destination, options)
    this.relay = pipeToRelay(this, destination, () => { super.pipe(destination, options) })
    return destination
  }

  get relaySocket (): Socket | null {
    const isFree = this.itemWriter === null && this.writable && this.writeCallback === ignore && this.writableCorked === 0 && this.exchange.life.response === 'begun'
    return isFree ? idleSocket(this.transport.rawSocket) : null
  }

  writeStraight (content: Buffer): void {
    try {
      this.transport.write([content], content.length, false) // if it fails, the connection is gone, which ends the exchange
      if (this.responseFraming!.kind !== 'none') this.bytesWritten += content.length
    } catch (error) {
      this.destroy(error as Error)
    }
  }

  get copiesSmallWrites (): boolean {
    return this.responseFraming!.kind === 'chunked'
  }

  isWritingOnly (size: number): boolean {
    return this.writeCallback !== ignore && this.writeSize === size && this.writableLength === size
  }

  /**
   * For a proxy: keeps back what follows the body of the request. Whether that is a tunnel, it may know only when its upstream server has the
   * body and has answered.
   *
   * @param onBodyEnd called when the body was read
   */
  holdTunnel (onBodyEnd: () => void): void {
    this.bodyEndListener = onBodyEnd
    this.holdsTunnel = true
  }

  releaseTunnel (): void {
    this.holdsTunnel = false
    this.receiveMore()
  }

  onBodyEnd (): boolean | null {
    const { bodyEndListener } = this
    this.bodyEndListener = null
    bodyEndListener?.()
    if (this.holdsTunnel) return null
    const { reply } = this
    // A handler that reads behind the body waits for bytes from the tunnel. But the client sends none before it has the head.
    if (this.responseFraming === null && !reply.sent && !this.exchange.answerHasBegun && isTunnel(reply.request.method, reply.statusCode)) {
      try {
        if (!this.headersSent) this.flushHeaders()
      } catch (error) {
        this.destroy(error as Error)
      }
      if (this.headIsAwaited) return null
    }
    return this.isTunnel
  }

  get clientHasEnded (): boolean {
    return this.exchange.life.client === 'half-closed'
  }

  onHalfClose (reason: Error): void {
    this.halfCloseListener?.(reason)
  }

  endRequest (): void {
    this.bodyIsComplete = this.exchange.life.request === 'complete'
    const { receiver } = this
    if (receiver === null) {
      this.pushEnd()
      return
    }
    this.receiver = null
    fillSilently(this, pushEnd)
    receiver.onEnd()
    this.endWasRead = true
    this.read() // nobody else reads the end
  }

  pushEnd (): void {
    this.requestHasEnded = true
    this.push(null)
  }

  // Ending

  get isRead (): boolean {
    return this.receiver !== null || this.loops > 0 || this.listenerCount('data') > 0 || this.listenerCount('readable') > 0
  }

  get taken (): number {
    return this.reads + (this.itemReader?.itemsTaken ?? 0) + (this.requestHalf?.reads ?? 0)
  }

  get hasUnreadItems (): boolean {
    return this.itemReader?.hasUnread === true
  }

  get isWaitedFor (): boolean {
    const { receiver, requestHalf } = this
    return receiver === null ? isWaitedFor(this) && requestHalf?.isReady !== false : receiver.wantsContent
  }

  watchReader (): void {
    this.readerWatch ??= new ReaderWatch(this, this.exchange)
    this.readerWatch.check()
  }

  onReaderChange (): void {
    this.readerWatch?.onChange()
  }

  recheckReader (): void {
    this.readerWatch?.check()
  }

  release (wasRead: boolean, requestEnded: boolean): void {
    this.readerWatch?.stop()
    if (!requestEnded) this.destroy()
    else if (!wasRead && !this.readableEnded && !(this.endWasRead && this.readableLength === 0)) this.closeUnread()
  }

  private closeUnread (): void {
    if (this.readableLength === 0 || !this.bodyIsComplete) this.resume() // the stream closes when its end is read
    else if (this.requestHalf?.isUnread === true) setTimeout(dropUnread, this.exchange.options.drainTimeout, this).unref()
    else setImmediate(dropUnread, this) // code that waits with promises listens again in a microtask
  }

  /**
   * Drops what nobody reads. Code that reads it later gets an error: otherwise the body would look shorter than it is. Code that only
   * waits for the end gets that.
   */
  dropUnread (): void {
    if (this.isRead) return
    if (this.listenerCount('end') > 0) this.resume()
    else this.destroy()
  }

  override _destroy (error: Error | null, done: WriteCallback): void {
    const { exchange } = this
    if (this.whenClosed !== null) process.nextTick(this.whenClosed)
    this.itemWriter?.stop()
    if (exchange.endedWell && error === null) {
      if (this.bytesRead === 0 && this.readableEnded) this.requestHalf?.endUnread() // its owner finds an empty body, not a failure
      this.requestHalf?.onClose(null)
      this.keepSummary()
      done(null)
      return
    }
    this.readerWatch?.stop()
    wakeWriters(this)
    const failure = exchange.isOver ? error : error ?? new DestroyedError()
    this.requestHalf?.onClose(failure)
    this.headIsAwaited = false
    if (this.awaitedWrite !== null) {
      this.awaitedWrite = null
      this.finishWrite(failure ?? new DestroyedError())
    }
    if (exchange.stream === this) exchange.happens('stream destroyed', failure ?? undefined)
    done(failure)
  }

  /**
   * After a clean finish, keeps a summary only: see `shortLived`.
   */
  private keepSummary (): void {
    const { requestFraming, socket, trailers } = this.transport
    this.summary = { requestFraming, socket, trailers }
    this.exchange = this.transport = this.reply = null as never
    this.relay = null
  }
}

/** The original methods, which the relay compares with. */
const { push, write, end, _write, _writev } = HttpDuplex.prototype
const methods: Methods = { write, end, _write, _writev }

/** How many writes of a response without a body are dropped in one turn of the event loop. */
const DROPS_PER_TURN = 64

const NO_NAMES: readonly string[] = []

/** What a stream has buffered. */
function readAll (stream: Readable): Buffer[] {
  const chunks: Buffer[] = []
  // In a loop: a stream that flows returns one chunk at a time.
  for (let chunk; (chunk = stream.read() as Buffer | string | null) !== null;) {
    chunks.push(bytesFrom(chunk, stream))
  }
  return chunks
}

function receiveMore (stream: HttpDuplex): void {
  stream.receiveMore()
}

function dropUnread (stream: HttpDuplex): void {
  stream.dropUnread()
}

function pushEnd (stream: HttpDuplex): void {
  stream.pushEnd()
}

function writeAfterTick (stream: HttpDuplex, content: readonly Buffer[]): void {
  stream.writeWhenInTurn(content, true)
}

function uncorkAfterTick (stream: HttpDuplex): void {
  stream.uncorkAfterTick()
}

function ignore (): void {}
