// The client's end of one exchange as a stream: what is written is the request body, what is read the response body. The request
// and the response have the same writers and readers as at the server's end. One class, since a Duplex has one state for both of
// its sides.
//
// All writes of one tick are sent as one chunk, in one write to the socket. The head and the end of the body are sent along if they
// fall into that tick. A request may wait for its connection, for its turn on it, or for a 100 (Continue): its writes wait too.

import { EventEmitter } from 'node:events'
import { Duplex, type Readable } from 'node:stream'
import type { Socket } from 'node:net'
import type { ClientCall, InterimHead, ResponseHead } from '../../types/client.d.ts'
import type { OutgoingFields, Trailers } from '../../types/transfer.d.ts'
import { AbortedError, OptionError, ServerGoneError, TrailersError } from '../errors.ts'
import { ItemReader } from '../exchange/item-reader.ts'
import { encodeItem, frameTexts } from '../items/codec.ts'
import { shortLived } from '../node/streams.ts'
import { type Landed, asLanded, bytesOf, copyForUser } from '../relay/read-buffers.ts'
import { type ContentReceiver, type ContentSource, type Methods, type Relay, type RelayTarget, idleSocket, isRelayTarget, pipeToRelay } from '../relay/relay.ts'
import { type BodyWriter, type Part, bodyWriter, frameContent, gather } from '../transfer/body-writer.ts'
import { writeTrailers } from '../transfer/field-lines.ts'
import { ResponseItems, toJson } from './items.ts'
import type { RequestStart } from './request.ts'
import { type CallLimits, ResponseReader } from './response-reader.ts'

type Done = (error?: Error | null) => void

const IDEMPOTENT: ReadonlySet<string> = new Set(['GET', 'HEAD', 'OPTIONS', 'TRACE', 'PUT', 'DELETE'])

/** Writing this buffer object ends the body, after everything that was written before. What is written behind it goes into the tunnel. */
const END_OF_BODY = Buffer.alloc(0)

/** The connection of a call, from its turn to send its request on. */
export interface CallConnection {
  readonly socket: Duplex
  /** The response may be read on. */
  read (): void
  /** Nobody wants more of the response for now. */
  pause (): void
  write (buffers: readonly Buffer[], done?: Done): void
  /** Ends this side of a tunnel. */
  end (done: Done): void
  /** Something has come to its end: the request, a head, the response, the call. */
  onProgress (): void
  /** Nothing more may pass: what was sent and received is incomplete. */
  abort (): void
}

export class Call extends Duplex implements ClientCall, RelayTarget, ContentSource {
  readonly request: RequestStart
  readonly originalMethods = methods
  hasSentRequest = false
  /** The response is complete, or the server has ended its side of the tunnel. */
  hasReceivedResponse = false
  protected connection: CallConnection | null = null
  private readonly writer: BodyWriter
  private failure: Error | null = null
  // The request
  writesAtOnce = false // set by the relay
  private headToSend: string
  private trailerLines = ''
  private isCorkedForTick = false
  private endWasCalled = false
  private writeSize = 0 // bytes of the write under way
  private writeCallback: Done = ignore // of the write under way; `ignore` if there is none
  private waitingContent: readonly Buffer[] | null = null // of a write that waits
  private phase: 'body' | 'waiting' | 'tunnel' | 'refused' = 'body'
  private afterBody: 'waiting' | 'tunnel' | 'refused' = 'waiting' // the response may arrive before the body has ended
  private hasEndedTunnel = false
  private source: Readable | null = null // of the body, if there is a payload
  private awaitsContinue: boolean
  private itemCount = 0
  // The response
  private readonly reader: ResponseReader
  private relay: Relay | null = null
  receiver: ContentReceiver | null = null
  private itemReader: ItemReader | null = null
  private responsePromise: Promise<ResponseHead> | null = null
  private resolve: (response: ResponseHead) => void = ignore
  private reject: (error: Error) => void = ignore

  constructor (request: RequestStart, limits: CallLimits) {
    super()
    this.request = request
    this.headToSend = request.head
    this.awaitsContinue = request.expectsContinue
    this.reader = new ResponseReader(request, limits)
    this.writer = bodyWriter(request.framing)
    // A caller may use only the promise, or only the stream. An error of the other one must not be unhandled.
    this.on('error', ignore)
    if (request.framing.kind === 'none') this.endBody()
  }

  get response (): Promise<ResponseHead> {
    this.responsePromise ??= this.waitForResponse()
    return this.responsePromise
  }

  private waitForResponse (): Promise<ResponseHead> {
    const promise = new Promise<ResponseHead>((resolve, reject) => {
      this.resolve = resolve
      this.reject = reject
    })
    promise.catch(ignore)
    if (this.head !== null) this.resolve(this.head)
    else if (this.destroyed) this.reject(this.errored ?? new AbortedError())
    return promise
  }

  get socket (): Socket | null {
    return this.connection === null ? null : this.connection.socket as Socket
  }

  get head (): ResponseHead | null {
    return this.reader.head
  }

  /** The connection carries another protocol behind the heads. */
  get isTunnel (): boolean {
    return this.reader.isTunnel
  }

  /** Neither side sends anything more. */
  get isOver (): boolean {
    if (!this.hasReceivedResponse) return false
    return this.isTunnel ? this.hasEndedTunnel : this.hasSentRequest || this.phase === 'refused'
  }

  /** The connection may be used for another request: it is at the end of this one, and of its response. */
  get isPersistent (): boolean {
    return this.hasSentRequest && this.reader.isPersistent
  }

  get hasSentHead (): boolean {
    return this.headToSend === ''
  }

  /** The server has begun a head, and we wait for the rest of it. */
  get isWithinHead (): boolean {
    return this.reader.isWithinHead
  }

  get trailers (): Trailers {
    return this.reader.trailers
  }

  setTrailers (fields: OutgoingFields): this {
    if (this.hasSentRequest || this.request.framing.kind !== 'chunked') throw new TrailersError()
    this.trailerLines = writeTrailers(fields)
    return this
  }

  iterateChunks (): NodeJS.AsyncIterator<any> {
    return this.iterator({ destroyOnReturn: false })
  }

  get items (): ItemReader {
    const { formats: { receive } } = this.request
    if (receive.length === 0) throw new OptionError('receive', 'call.items needs a format')
    this.itemReader ??= new ItemReader(this, new ResponseItems(receive, () => this.head!))
    return this.itemReader
  }

  /** For the reader of items. */
  get bodyIsComplete (): boolean {
    return this.hasReceivedResponse
  }

  send (item: unknown): boolean {
    const { formats: { send } } = this.request
    if (send === null) throw new OptionError('send', 'call.send() needs a format')
    const content = encodeItem(send.codec, toJson, item, this.itemCount)
    this.itemCount++
    return this.write(typeof content === 'string' ? frameTexts(send.codec, [content]) : content)
  }

  // The request

  /** Called when the request may be sent, with everything that was written before. */
  start (connection: CallConnection): void {
    this.connection = connection
    if (this.awaitsContinue) this.sendHead()
    else if (this.waitingContent !== null) this.writeInTurn(this.takeWaiting())
    else setImmediate(sendHeadAlone, this) // content may follow soon, from a pipe
  }

  /** Sends the head by itself, unless it was sent with content. */
  sendHead (): void {
    if (this.headToSend === '' || this.connection === null || this.destroyed) return
    const head = Buffer.from(this.headToSend, 'latin1')
    this.headToSend = ''
    this.connection.write([head])
    this.connection.onProgress()
  }

  override write (chunk: any, encoding?: any, done?: any): boolean {
    if (this.isDropping) return this.dropWrite(typeof encoding === 'function' ? encoding : done)
    if (!this.writesAtOnce && !this.isCorkedForTick) {
      this.isCorkedForTick = true
      this.cork()
      process.nextTick(uncorkAfterTick, this)
    }
    return super.write(chunk, encoding, done)
  }

  uncorkAfterTick (): void {
    this.isCorkedForTick = false
    this.uncork()
  }

  override end (chunk?: any, encoding?: any, done?: any): this {
    if (this.isDropping) {
      const callback = [chunk, encoding, done].find((argument) => typeof argument === 'function')
      if (callback !== undefined) setImmediate(callback)
      return this
    }
    this.endWasCalled = true
    return super.end(chunk, encoding, done)
  }

  /** We have ended the writable side, since the server does not want more. The writer need not know. */
  private get isDropping (): boolean {
    return this.afterBody === 'refused' && this.writableEnded
  }

  /** @returns false: 'drain' follows in the next turn of the event loop, for the same reason as in `finishWriteLater` */
  private dropWrite (done?: () => void): false {
    if (done !== undefined) setImmediate(done)
    this.emitDrainLater()
    return false
  }

  private emitDrainLater (): void {
    setImmediate(() => this.emit('drain'))
  }

  /** Sends the body from a source that is ours: it is stopped when nobody wants more of it. */
  sendFrom (source: Readable): void {
    this.source = source
    source.on('error', (error) => this.destroy(error))
    this.on('close', () => { if (!source.readableEnded) source.destroy() })
    source.pipe(this)
  }

  /** Ends the body. If the request offers to switch protocols, the writable side stays open for the tunnel. */
  endBody (content?: string | Uint8Array): void {
    if (!this.request.offersSwitch) {
      this.end(content)
      return
    }
    if (content !== undefined) this.write(content)
    this.write(END_OF_BODY)
  }

  override _write (content: Buffer, _encoding: BufferEncoding, done: Done): void {
    this.startWrite([content], done)
  }

  override _writev (chunks: { chunk: Buffer }[], done: Done): void {
    this.startWrite(chunks.map(({ chunk }) => chunk), done)
  }

  override _final (done: Done): void {
    this.startWrite([], done)
  }

  private startWrite (content: readonly Buffer[], done: Done): void {
    this.writeSize = sizeOf(content)
    this.writeCallback = done
    this.writeInTurn(content)
  }

  private writeInTurn (content: readonly Buffer[]): void {
    if (this.phase === 'refused' || this.failure !== null) this.finishWriteLater()
    else if (this.connection === null || this.awaitsContinue || this.phase === 'waiting') this.waitingContent = content
    else if (this.phase === 'tunnel') this.writeToTunnel(content)
    else if (this.hasSentRequest) this.finishWrite() // the end was sent with the last content
    else this.writeBody(content)
  }

  private takeWaiting (): readonly Buffer[] {
    const content = this.waitingContent!
    this.waitingContent = null
    return content
  }

  private writeToTunnel (content: readonly Buffer[]): void {
    if (content.length > 0) {
      this.connection!.write(content, this.onWritten)
    } else {
      this.connection!.end(this.onWritten)
      this.hasEndedTunnel = true
      this.connection!.onProgress()
    }
  }

  private writeBody (content: readonly Buffer[]): void {
    const mark = this.request.offersSwitch ? content.indexOf(END_OF_BODY) : -1
    const body = mark === -1 ? content : content.slice(0, mark)
    const rest = mark === -1 ? [] : content.slice(mark + 1)
    // The end is sent along with the last content: after end(), if nothing is buffered behind it.
    const ends = mark !== -1 || (this.endWasCalled && this.writableLength === this.writeSize)
    const parts: Part[] = this.headToSend === '' ? [] : [this.headToSend]
    try {
      const size = sizeOf(body)
      if (size > 0) this.writer.write(body, size, parts)
      if (ends) this.writer.end(this.trailerLines, parts)
    } catch (error) {
      this.finishWrite(error as Error)
      return
    }
    this.headToSend = ''
    if (ends) this.hasSentRequest = true
    const buffers = gather(parts)
    if (rest.length > 0) {
      this.connection!.write(buffers)
      this.leaveBody()
      this.writeInTurn(rest)
    } else {
      this.connection!.write(buffers, this.onWritten)
      if (ends) this.leaveBody()
    }
  }

  private readonly onWritten: Done = (error) => {
    if (!error) this.finishWrite()
    else if (this.isOver) this.onConnectionLost(new ServerGoneError({ cause: error }))
    // Otherwise the connection closes, which says more.
  }

  private finishWrite (error?: Error): void {
    const { writeCallback: done } = this
    this.writeCallback = ignore
    done(error)
  }

  /**
   * Finishes a write that is dropped, in the next turn of the event loop. If it finished at once, code that writes from memory without
   * end would never let other code run.
   */
  private finishWriteLater (): void {
    setImmediate(() => this.finishWrite())
  }

  /** The request is complete, or nobody wants the rest of it. */
  private leaveBody (): void {
    if (this.request.offersSwitch) this.phase = this.afterBody
    this.connection!.onProgress()
    if (this.waitingContent !== null) this.writeInTurn(this.takeWaiting())
  }

  /** The writable side may still become that of a tunnel. */
  get maySwitch (): boolean {
    return this.request.offersSwitch && this.phase !== 'refused'
  }

  /** Drops what is written from now on. These writes do not fail: it is no error that the server wants no more. */
  private refuseWrites (): void {
    this.phase = this.afterBody = 'refused'
    this.awaitsContinue = false
    this.waitingContent = null
    this.finishWrite()
    if (this.source === null) return
    this.source.destroy()
    this.end()
  }

  /** The server wants the body of the request, or has not said so in time. */
  continueRequest (): void {
    if (!this.awaitsContinue) return
    this.awaitsContinue = false
    this.emit('continue')
    if (this.waitingContent !== null) this.writeInTurn(this.takeWaiting())
  }

  /** The connection is gone. */
  onConnectionLost (error: Error): void {
    // A server that has answered may close: it does not want the rest of the request. But what is lost in a tunnel is missing.
    if (this.hasReceivedResponse && !this.isTunnel) this.refuseWrites()
    else this.fail(error)
  }

  /**
   * Whether the request may be sent again: it asks for the same each time (RFC 9110 section 9.2.2), and has no body, which would
   * have to be kept.
   */
  get mayRepeat (): boolean {
    const { request: { method, framing, offersSwitch } } = this
    return IDEMPOTENT.has(method) && framing.kind === 'none' && !offersSwitch && !this.destroyed
  }

  /** Makes the call wait for another connection, on which it sends its request again. */
  repeat (): void {
    this.connection = null
    this.headToSend = this.request.head
    this.finishWrite() // of the end, which is sent with the head
  }

  // Relaying the request

  get relaySocket (): Socket | null {
    const isFree = this.connection !== null && this.headToSend === '' && this.phase === 'body' && !this.awaitsContinue && this.writable && this.writeCallback === ignore && this.writableCorked === 0
    return isFree ? idleSocket(this.connection!.socket) : null
  }

  writeStraight (content: Buffer): void {
    try {
      this.connection!.write(frameContent(this.writer, [content], content.length)) // if it fails, the connection closes, which says more
    } catch (error) {
      this.destroy(error as Error)
    }
  }

  get copiesSmallWrites (): boolean {
    return this.request.framing.kind === 'chunked'
  }

  isWritingOnly (size: number): boolean {
    return this.writeCallback !== ignore && this.writeSize === size && this.writableLength === size
  }

  // The response

  override _read (): void {
    this.receiveMore()
  }

  receiveMore (): void {
    // After the response, the connection may have another call.
    if (!this.hasReceivedResponse) this.connection?.read()
  }

  /** Reads the response: one head, or content. @returns how many bytes of `data` belong to it */
  receive (data: Landed): number {
    const { reader, head } = this
    const { length } = reader.informational
    const content = reader.read(bytesOf(data))
    if (content.length > 0 && !this.pushContent(asLanded(content), reader.done)) this.connection!.pause()
    if (reader.informational.length > length) this.onInterimHead(reader.informational[length])
    else if (reader.head !== head) this.onHead(reader.head!)
    this.checkReader()
    return reader.error === null ? reader.consumed : data.length
  }

  private pushContent (content: Landed, isLast: boolean): boolean {
    if (this.receiver !== null) return this.receiver.onContent(content, isLast)
    // The last content is not relayed: it waits for the end, which may follow in the same tick.
    return this.relay === null || isLast ? this.push(copyForUser(content)) : this.relay.push(content)
  }

  override pipe<T extends NodeJS.WritableStream> (destination: T, options?: { end?: boolean }): T {
    this.relay = null
    if (!isRelayTarget(destination)) return super.pipe(destination, options)
    this.relay = pipeToRelay(this, destination, () => { super.pipe(destination, options) })
    return destination
  }

  private onInterimHead (head: InterimHead): void {
    if (head.statusCode === 100) this.continueRequest()
    this.connection!.onProgress()
    this.emit('information', head)
  }

  private onHead (head: ResponseHead): void {
    // A server that does not want the body need not read it (RFC 9110 section 10.1.1). Then the request stays incomplete.
    if (this.awaitsContinue && head.statusCode >= 300) this.refuseWrites()
    else this.continueRequest()
    if (this.request.offersSwitch) this.onSwitch(this.isTunnel)
    this.connection!.onProgress()
    this.resolve(head)
    this.emit('response', head)
  }

  /** The server has switched protocols, or refused to. If it has refused, writes for the tunnel are dropped. */
  private onSwitch (switched: boolean): void {
    this.afterBody = switched ? 'tunnel' : 'refused'
    if (this.phase === 'waiting') this.leaveBody()
    if (switched) return
    this.end()
    this.emitDrainLater() // Node does not emit it any more, and the writer does not know that we have ended
  }

  /** The server has ended its side. */
  onEnd (): void {
    if (this.hasReceivedResponse) return
    this.reader.end()
    this.checkReader()
  }

  private checkReader (): void {
    const { done, error } = this.reader
    if (error !== null) this.fail(error)
    if (!done || this.hasReceivedResponse) return
    this.hasReceivedResponse = true
    if (this.receiver === null) this.push(null)
    else this.receiver.onEnd()
    this.connection?.onProgress()
  }

  // Ending

  /** Called when the exchange fails. Items that have been received are read first: the last one may say what has happened. */
  fail (error: Error): void {
    this.failure ??= error
    this.connection?.abort()
    this.destroyIfRead()
    if (this.destroyed) return
    // The writer need not wait until the items are read.
    this.waitingContent = null
    this.finishWrite()
  }

  override read (size?: number): any {
    const content = super.read(size)
    this.destroyIfRead()
    return content
  }

  private destroyIfRead (): void {
    if (this.failure === null || (this.request.formats.receive.length > 0 && this.readableLength > 0)) return
    this.destroy(this.failure)
  }

  /** Leaving a loop destroys the call, as with other streams. But at the end of the response, the request may go on. */
  override [Symbol.asyncIterator] (): NodeJS.AsyncIterator<any> {
    const iterator = this.iterateChunks()
    const leave = iterator.return!
    iterator.return = shortLived((value) => {
      if (!this.readableEnded) this.destroy()
      return leave.call(iterator, value)
    })
    return iterator
  }

  /** Called when the call was destroyed: drops what refers to its user. See `shortLived`. */
  dropUser (): void {
    process.nextTick(() => { // 'close' is emitted in a tick that was queued before
      this.receiver = null
      if (this.isDropping) this.emit('drain') // of a write that was dropped just now
      EventEmitter.prototype.removeAllListeners.call(this) // that of a Readable would look for readers, in one more tick
      this.on('error', ignore)
    })
  }

  override _destroy (error: Error | null, done: Done): void {
    // An incomplete exchange makes the connection unusable. After a complete one, the next request may use it.
    if (!this.isOver) this.connection?.abort()
    done(error)
    if (this.head !== null && this.writeCallback === ignore) return // nobody waits: an error with its stack takes time
    const failure = error ?? new AbortedError()
    this.reject(failure)
    this.finishWrite(failure)
  }
}

/** The original methods, which the relay compares with. */
const { write, end, _write, _writev } = Call.prototype
const methods: Methods = { write, end, _write, _writev }

function sendHeadAlone (call: Call): void {
  call.sendHead()
}

function uncorkAfterTick (call: Call): void {
  call.uncorkAfterTick()
}

function sizeOf (content: readonly Buffer[]): number {
  let size = 0
  for (const { length } of content) size += length
  return size
}

function ignore (): void {}
