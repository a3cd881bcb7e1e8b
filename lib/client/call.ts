// The client's end of one exchange as a stream: what is written is the request body, what is read the response body. The request
// and the response have the same writers and readers as at the server's end. One class, since a Duplex has one state for both of
// its sides.
//
// All writes of one tick are sent as one chunk, in one write to the socket. The head and the end of the body are sent along if they
// fall into that tick. A request may wait for its connection, for its turn on it, or for a 100 (Continue): its writes wait too.

import { Duplex } from 'node:stream'
import type { Socket } from 'node:net'
import type { ClientCall, ResponseHead } from '../../types/client.d.ts'
import type { ChunkedLimits, OutgoingFields, Trailers } from '../../types/transfer.d.ts'
import { AbortedError, OptionError } from '../errors.ts'
import { ItemReader } from '../exchange/item-reader.ts'
import { encodeItem, frameTexts } from '../items/codec.ts'
import { type Landed, asLanded, bytesOf, copyForUser } from '../relay/read-buffers.ts'
import { type Methods, type Relay, type RelayTarget, isRelayTarget, pipeToRelay, unseenSocket } from '../relay/relay.ts'
import { type BodyReader, NO_FIELDS } from '../transfer/body-reader.ts'
import { type BodyWriter, type Part, bodyWriter, gather } from '../transfer/body-writer.ts'
import { shouldClose } from '../transfer/connection-field.ts'
import { writeTrailers } from '../transfer/field-lines.ts'
import { TUNNEL, bodyReader, receivedFraming } from '../transfer/framing.ts'
import { ResponseHeadReader } from '../transfer/head-reader.ts'
import { ResponseItems, toJson } from './items.ts'
import type { RequestStart } from './request.ts'

type Done = (error?: Error | null) => void

const IDEMPOTENT: ReadonlySet<string> = new Set(['GET', 'HEAD', 'OPTIONS', 'TRACE', 'PUT', 'DELETE'])

/** Writing this buffer object ends the body, after everything that was written before. What is written behind it goes into the tunnel. */
const END_OF_BODY = Buffer.alloc(0)

export interface CallLimits extends ChunkedLimits {
  /** Bytes of all heads of one response together. */
  readonly maxHeadSize: number
}

/** The connection of a call, from its turn to send its request on. */
export interface CallConnection {
  readonly socket: Duplex
  /** The response may be read on. */
  read (): void
  /** Nobody wants more of the response for now. */
  pause (): void
  write (buffers: readonly Buffer[], done: Done): void
  /** Ends this side of a tunnel. */
  end (done: Done): void
  /** Part of the call has come to its end, or to its head: see `hasSentRequest`, `head` and `hasReceivedResponse`. */
  onProgress (): void
  /** Nothing more may pass: what was sent and received is incomplete. */
  abort (): void
}

export class Call extends Duplex implements ClientCall, RelayTarget {
  readonly response: Promise<ResponseHead>
  readonly request: RequestStart
  readonly originalMethods = methods
  head: ResponseHead | null = null
  hasSentRequest = false
  hasReceivedResponse = false
  /** The server keeps the connection after this response, and has understood the request as one. */
  isPersistent = false
  protected connection: CallConnection | null = null
  private readonly writer: BodyWriter
  private readonly limits: CallLimits
  private readonly informational: ResponseHead['informational'] = []
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
  private awaitsContinue: boolean
  private itemCount = 0
  // The response
  private headReader: ResponseHeadReader
  private headSize = 0 // of those before
  private reader: BodyReader | null = null
  /** The connection carries another protocol behind the heads. */
  isTunnel = false
  private relay: Relay | null = null
  private itemReader: ItemReader | null = null
  private resolve!: (response: ResponseHead) => void
  private reject!: (error: Error) => void

  constructor (request: RequestStart, limits: CallLimits) {
    super()
    this.request = request
    this.limits = limits
    this.headToSend = request.head
    this.awaitsContinue = request.expectsContinue
    this.headReader = new ResponseHeadReader(limits.maxHeadSize)
    this.writer = bodyWriter(request.framing)
    this.response = new Promise((resolve, reject) => {
      this.resolve = resolve
      this.reject = reject
    })
    // A caller may use only the promise, or only the stream. An error of the other one must not be unhandled.
    this.response.catch(ignore)
    this.on('error', ignore)
    if (request.framing.kind === 'none') this.endBody()
  }

  get socket (): Socket | null {
    return this.connection === null ? null : this.connection.socket as Socket
  }

  get trailers (): Trailers {
    return this.reader?.trailers ?? NO_FIELDS
  }

  setTrailers (fields: OutgoingFields): this {
    this.trailerLines = writeTrailers(fields)
    return this
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

  /** It is this call's turn to send its request. What was written waits no longer. */
  start (connection: CallConnection): void {
    this.connection = connection
    if (this.awaitsContinue) this.sendHead()
    else if (this.waitingContent !== null) this.writeNow(this.takeWaiting())
    else process.nextTick(sendHeadAlone, this)
  }

  /** Sends the head by itself, unless it was sent with content. */
  sendHead (): void {
    if (this.headToSend === '' || this.connection === null || this.destroyed) return
    const head = Buffer.from(this.headToSend, 'latin1')
    this.headToSend = ''
    this.connection.write([head], ignore)
    this.connection.onProgress()
  }

  override write (chunk: any, encoding?: any, done?: any): boolean {
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
    this.endWasCalled = true
    return super.end(chunk, encoding, done)
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
    this.startWrite([content], content.length, done)
  }

  override _writev (chunks: { chunk: Buffer }[], done: Done): void {
    let size = 0
    const content = chunks.map(({ chunk }) => {
      size += chunk.length
      return chunk
    })
    this.startWrite(content, size, done)
  }

  override _final (done: Done): void {
    this.startWrite([], 0, done)
  }

  private startWrite (content: readonly Buffer[], size: number, done: Done): void {
    this.writeSize = size
    this.writeCallback = done
    this.writeInTurn(content)
  }

  private writeInTurn (content: readonly Buffer[]): void {
    if (this.connection === null || this.awaitsContinue || this.phase === 'waiting') this.waitingContent = content
    else this.writeNow(content)
  }

  private takeWaiting (): readonly Buffer[] {
    const content = this.waitingContent!
    this.waitingContent = null
    return content
  }

  private writeNow (content: readonly Buffer[]): void {
    if (this.phase === 'tunnel') this.writeToTunnel(content)
    else if (this.phase === 'refused' || this.failure !== null || (this.hasSentRequest && !this.request.offersSwitch)) this.finishWrite()
    else this.writeBody(content)
  }

  private writeToTunnel (content: readonly Buffer[]): void {
    const isEnd = content.length === 0
    if (isEnd) this.connection!.end(this.onWritten)
    else this.connection!.write(content, this.onWritten)
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
      this.connection!.write(buffers, ignore)
      this.leaveBody()
      this.writeInTurn(rest)
    } else {
      this.connection!.write(buffers, this.onWritten)
      if (ends) this.leaveBody()
    }
  }

  private readonly onWritten: Done = (error) => {
    if (!error) {
      this.finishWrite()
    } else if (this.hasReceivedResponse) {
      // The server has answered, and does not read the rest.
      this.refuseWrites()
    } // else the connection closes, which says more
  }

  private finishWrite (error?: Error): void {
    const { writeCallback: done } = this
    this.writeCallback = ignore
    done(error)
  }

  /** The request is complete, or nobody wants the rest of it. */
  private leaveBody (): void {
    if (this.request.offersSwitch) this.phase = this.afterBody
    this.connection!.onProgress()
    if (this.waitingContent !== null && this.phase !== 'waiting') this.writeNow(this.takeWaiting())
  }

  /** The writable side may still become that of a tunnel. */
  get maySwitch (): boolean {
    return this.request.offersSwitch && this.phase !== 'refused'
  }

  /** Drops what is written from now on. */
  private refuseWrites (): void {
    this.phase = 'refused'
    this.awaitsContinue = false
    this.waitingContent = null
    this.finishWrite()
    if (!this.writableEnded) this.end()
  }

  /** The server wants the body of the request, or has not said so in time. */
  continueRequest (): void {
    if (!this.awaitsContinue) return
    this.awaitsContinue = false
    this.emit('continue')
    if (this.waitingContent !== null) this.writeInTurn(this.takeWaiting())
  }

  /** The connection is gone. The response was complete by then: the server has not wanted the rest of the request. */
  onConnectionLost (): void {
    this.refuseWrites()
  }

  /**
   * Whether the request may be sent again: it asks for the same each time (RFC 9110 section 9.2.2), and has no body, which would
   * have to be kept.
   */
  get mayRepeat (): boolean {
    const { request: { method, framing, offersSwitch } } = this
    return IDEMPOTENT.has(method) && framing.kind === 'none' && !offersSwitch && this.head === null && !this.destroyed
  }

  /** Makes the call wait for another connection, on which it sends its request again. */
  repeat (): void {
    this.connection = null
    this.headToSend = this.request.head
  }

  // Relaying the request

  get relaySocket (): Socket | null {
    const isFree = this.connection !== null && this.headToSend === '' && this.phase === 'body' && !this.awaitsContinue && this.writable && this.writeCallback === ignore && this.writableCorked === 0
    return isFree ? unseenSocket(this.connection!.socket) : null
  }

  isWritingOnly (size: number): boolean {
    return this.writeCallback !== ignore && this.writeSize === size && this.writableLength === size
  }

  // The response

  override _read (): void {
    this.connection?.read()
  }

  /** Reads the response. @returns how many bytes of `data` belong to it */
  receive (data: Landed): number {
    return this.reader === null ? this.receiveHead(data) : this.receiveContent(this.reader, data)
  }

  private receiveContent (reader: BodyReader, data: Landed): number {
    const content = reader.read(bytesOf(data))
    const { consumed, done } = reader
    if (content.length > 0 && !this.pushContent(asLanded(content), done)) this.connection!.pause()
    this.checkReader(reader)
    return consumed
  }

  private pushContent (content: Landed, isLast: boolean): boolean {
    // The last content is not relayed: it waits for the end, which may follow in the same tick.
    return this.relay === null || isLast ? this.push(copyForUser(content)) : this.relay.push(content)
  }

  override pipe<T extends NodeJS.WritableStream> (destination: T, options?: { end?: boolean }): T {
    this.relay = null
    if (!isRelayTarget(destination)) return super.pipe(destination, options)
    this.relay = pipeToRelay(this, destination, () => { super.pipe(destination, options) })
    return destination
  }

  private receiveHead (data: Landed): number {
    const { headReader } = this
    headReader.read(bytesOf(data))
    const { head, error, consumed } = headReader
    if (error !== null) this.fail(error)
    if (head === null) return data.length
    const { statusCode, statusMessage, minorVersion, headers } = head
    if (statusCode < 200 && statusCode !== 101) {
      this.onInterimHead({ statusCode, statusMessage, headers }, consumed)
      return consumed
    }
    try {
      const framing = receivedFraming(this.request.method, statusCode, head.fields, minorVersion)
      this.isTunnel = framing === TUNNEL
      if (this.isTunnel && !this.request.offersSwitch) throw new OptionError('headers', 'the server has switched protocols, which the request has not offered')
      this.reader = bodyReader(framing, this.limits)
      this.isPersistent = !shouldClose(minorVersion, head.fields.connection, framing)
    } catch (error) {
      this.fail(error as Error)
      return data.length
    }
    this.head = { statusCode, statusMessage, headers, httpVersion: `1.${minorVersion}`, informational: this.informational }
    this.onHead(statusCode)
    this.resolve(this.head)
    this.emit('response', this.head)
    this.checkReader(this.reader)
    return consumed
  }

  private onInterimHead (head: ResponseHead['informational'][number], size: number): void {
    this.informational.push(head)
    this.headSize += size
    this.headReader = new ResponseHeadReader(this.limits.maxHeadSize - this.headSize)
    if (head.statusCode === 100) this.continueRequest()
    this.emit('information', head)
  }

  private onHead (statusCode: number): void {
    // A server that does not want the body need not read it (RFC 9110 section 10.1.1). Then the request stays incomplete.
    if (this.awaitsContinue && statusCode >= 300) this.refuseWrites()
    else this.continueRequest()
    if (this.request.offersSwitch) this.onSwitch(this.isTunnel)
    this.connection!.onProgress()
  }

  /** The server has switched protocols, or refused to. If it has refused, writes for the tunnel are dropped. */
  private onSwitch (switched: boolean): void {
    this.afterBody = switched ? 'tunnel' : 'refused'
    if (this.phase === 'waiting') this.leaveBody()
    if (!switched) this.end()
  }

  /** The server has ended its side. */
  onEnd (): void {
    if (this.reader === null) {
      this.headReader.end()
      this.fail(this.headReader.error!)
    } else if (!this.reader.done) {
      this.reader.end()
      this.checkReader(this.reader)
    }
  }

  private checkReader ({ done, error }: BodyReader): void {
    if (error !== null) this.fail(error)
    if (!done || this.hasReceivedResponse) return
    this.hasReceivedResponse = true
    this.push(null)
    this.connection?.onProgress()
  }

  // Ending

  /** Called when the exchange fails. Items that have been received are read first: the last one may say what has happened. */
  fail (error: Error): void {
    this.failure ??= error
    this.connection?.abort()
    this.destroyIfRead()
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

  override _destroy (error: Error | null, done: Done): void {
    // An incomplete exchange makes the connection unusable. After a complete one, the next request may use it.
    const isSent = this.isTunnel ? this.writableFinished : this.hasSentRequest
    if (!this.hasReceivedResponse || !isSent) this.connection?.abort()
    this.reject(error ?? new AbortedError())
    done(error)
  }
}

/** The original methods, which the relay compares with. */
const { write, _write, _writev } = Call.prototype
const methods: Methods = { write, _write, _writev }

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
