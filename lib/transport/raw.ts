// The raw connection: bytes go from the socket through the body reader to the exchange, and from the exchange through the body
// writer to the socket. This class has both directions of the connection from the claim of a request until the connection is
// returned or closed.
//
// One class, since reading, writing and ending depend on the same state.

import type { IncomingMessage } from 'node:http'
import type { Socket } from 'node:net'
import type { OutgoingFields, Trailers } from '../../types/transfer.d.ts'
import { AbortedError, DestroyedError, DetachError } from '../errors.ts'
import type { Borrower } from '../handoff/claim.ts'
import { type Handoff, claim } from '../handoff/handoff.ts'
import { minorVersion } from '../node/http2.ts'
import { progressOf, queuedBytes } from '../node/socket.ts'
import { isRead } from '../node/streams.ts'
import { type Landed, asLanded, bytesOf, copyIfLanded } from '../relay/read-buffers.ts'
import { type BodyReader, CloseReader, NO_BYTES, restOf } from '../transfer/body-reader.ts'
import { type Framing, bodyReader } from '../transfer/framing.ts'
import { writeInterimHead, writeResponseHead } from '../transfer/head-writer.ts'
import { checkUpgrade } from '../transfer/tunnel.ts'
import { Drain, cutOff, lingeringClose } from './ending.ts'
import type { IdleWatch, IdleWatching, Watched } from './idle-watch.ts'
import { type ConnectionState, reasonToClose } from './persistence.ts'
import { RawResponse } from './raw-response.ts'
import { frameRequest } from './request-framing.ts'
import type { App, Detached, ExchangeEvents, ResponseStart, Transport, WriteCallback } from './transport.ts'

/** See `DuplexOptions`: times in milliseconds, sizes in bytes. */
export interface RawTransportOptions {
  maxTrailerSize: number
  maxChunkExtensionSize: number
  drainLimit: number
  drainTimeout: number
  allowHalfOpen: boolean
}

/**
 * Claims the connection of a request that is being routed.
 *
 * @returns null if it cannot be claimed: then Node must read and write it
 */
export function claimRaw (request: IncomingMessage, app: App, idleWatch: IdleWatch, options: RawTransportOptions): RawTransport | null {
  const transport = new RawTransport(request, app, idleWatch, options)
  return transport.claim() ? transport : null
}

export class RawTransport implements Transport, Borrower, Watched {
  readonly socket: Socket
  readonly requestFraming: Framing
  readonly framingError: Error | null
  private exchange: ExchangeEvents | null = null // null as well after its end, while the rest of the request is dropped
  private readonly request: IncomingMessage
  private readonly app: App
  private readonly idleWatch: IdleWatch
  private readonly options: RawTransportOptions
  private readonly bodyReader: BodyReader
  private reader: BodyReader // `bodyReader`; after the body, in a tunnel, one that reads until the connection ends
  private handoff!: Handoff
  private readonly response: RawResponse
  private responseCloses = false
  private announced: ConnectionState['announced'] = null
  private contentWasRequested = false // the exchange has asked for content at least once
  private bodyHasBegun = false // a byte of it, or of its framing, was read
  private isFlowing = false // bytes from the connection go to `reader`
  private rest: Buffer = NO_BYTES // the bytes behind the body, while its last content is passed on
  private isLeft = false // cut off or detached: nothing more is passed on
  private watching: IdleWatching | null = null
  private isIdle = false // for `idleTimeout`
  private readonly drain = new Drain()

  constructor (request: IncomingMessage, app: App, idleWatch: IdleWatch, options: RawTransportOptions) {
    this.request = request
    this.app = app
    this.idleWatch = idleWatch
    this.socket = request.socket
    this.options = options
    const { framing, error } = frameRequest(request)
    this.requestFraming = framing
    this.framingError = error
    this.bodyReader = bodyReader(framing, options)
    this.reader = this.bodyReader
    this.response = new RawResponse(this.socket)
  }

  /** @returns whether the connection is borrowed now */
  claim (): boolean {
    const handoff = claim(this.request, this)
    if (handoff === null) return false
    this.handoff = handoff
    // Without a body no 100 is needed. Node would miss it, and close the connection after an answer that Node writes.
    if (this.reader.done) handoff.setContinued()
    this.tellNodeIfKept()
    return true
  }

  start (exchange: ExchangeEvents): void {
    this.exchange = exchange
  }

  get requestIsRead (): boolean {
    return this.bodyReader.done
  }

  get isReadByOthers (): boolean {
    return this.exchange !== null && isRead(this.request)
  }

  get rawSocket (): Socket {
    return this.socket
  }

  get trailers (): Trailers {
    return this.bodyReader.trailers
  }

  // Is the connection kept?

  private isKept (responseCloses = this.responseCloses): boolean {
    const { handoff, reader, options } = this
    return reasonToClose({
      requestPersists: handoff.requestPersists,
      responseCloses,
      isMalformed: this.framingError !== null || reader.error !== null,
      bodyIsRead: reader.done,
      bodyIsWanted: this.contentWasRequested,
      awaitsContinue: handoff.expectsContinue,
      bodyLength: this.requestFraming.length,
      drainLimit: options.drainLimit,
      drainHasFailed: this.drain.hasFailed,
      isHalfClosed: handoff.isHalfClosed,
      isClosing: this.app.isClosing,
      announced: this.announced
    }) === null
  }

  /** Tells Node whether to keep the connection, in case Node writes the answer. */
  private tellNodeIfKept (): void {
    this.handoff.setKeepAlive(this.isKept())
  }

  refuse (): void {
    this.responseCloses = true
    this.tellNodeIfKept()
  }

  // Reading

  read (): void {
    this.contentWasRequested = true
    if (this.handoff.isTaken && this.exchange !== null) this.deliver()
  }

  private deliver (): void {
    if (this.isFlowing) {
      this.handoff.read()
      return
    }
    const isComplete = this.completeBody()
    if (isComplete === true) {
      this.exchange!.onRequestEnd()
    } else if (isComplete === false) {
      if (this.handoff.expectsContinue) this.writeContinue()
      this.startFlow()
    }
  }

  /**
   * At the end of the body, continues with the tunnel behind it, if there is one.
   *
   * @returns whether the request is complete; null if it is not known yet whether there is a tunnel
   */
  private completeBody (): boolean | null {
    if (this.reader === this.bodyReader && this.reader.done) {
      const isTunnel = this.exchange!.onBodyEnd()
      if (isTunnel === null) return null
      if (isTunnel) this.reader = new CloseReader()
    }
    return this.reader.done
  }

  private startFlow (): void {
    this.isFlowing = true
    this.handoff.read()
  }

  onData (data: Landed): void {
    const { reader } = this
    const input = bytesOf(data)
    this.bodyHasBegun = true
    const content = reader.read(input)
    // The bytes behind the body belong to the next request or to the tunnel.
    this.rest = reader.done ? copyIfLanded(asLanded(restOf(input, reader.consumed))) : NO_BYTES
    let wantsMore = true
    if (this.exchange !== null && content.length > 0) wantsMore = this.exchange.onContent(asLanded(content), reader.done)
    if (this.isLeft) return
    if (reader.error !== null) {
      this.onReaderError(reader.error)
    } else if (reader.done) {
      this.stopFlow()
      this.onReaderDone(wantsMore)
    } else if (!wantsMore && this.exchange !== null) {
      this.handoff.pause()
    }
  }

  private onReaderDone (wantsMore: boolean): void {
    this.stopDraining()
    if (this.exchange === null) {
      this.returnOrClose()
      return
    }
    const isComplete = this.completeBody()
    if (isComplete === true) {
      this.tellNodeIfKept()
      this.exchange.onRequestEnd()
    } else if (isComplete === false && wantsMore) {
      this.startFlow()
    }
  }

  private onReaderError (error: Error): void {
    this.stopFlow()
    if (this.exchange === null) {
      this.returnOrClose()
    } else {
      this.tellNodeIfKept()
      this.exchange.onReadError(error)
    }
  }

  private stopFlow (): void {
    this.isFlowing = false
    this.handoff.stopBefore(this.rest)
    this.rest = NO_BYTES
  }

  // Writing

  get mayWrite (): boolean {
    return this.handoff.mayWrite
  }

  whenMayWrite (callback: () => void): void {
    if (this.handoff.mayWrite) callback()
    else this.handoff.whenMayWrite(callback)
  }

  writeHead (start: ResponseStart): void {
    const { handoff, request } = this
    const { connection, upgrade } = request.headers
    if (start.statusCode === 101) checkUpgrade(minorVersion(request), connection, upgrade, start.fields.upgrade)
    const responseCloses = start.close || start.framing.kind === 'close'
    const isKept = this.isKept(responseCloses)
    let head = writeResponseHead(start, isKept, handoff.keepAliveField, this.response.trailerNames)
    // A 100 comes before a 101 (RFC 9110 section 7.8). Before any other final response it would be pointless.
    if (start.statusCode === 101 && handoff.expectsContinue) {
      handoff.setContinued()
      head = writeInterimHead(100, {}) + head
    }
    this.response.prepare(head, start.framing)
    this.responseCloses = responseCloses
    this.announced = isKept ? 'keep-alive' : 'close'
    handoff.setHeadSent(head)
  }

  takeBack (): void {
    if (this.handoff.isEndedByOthers) return // nobody can answer any more: `onAnswered` follows, and cuts off
    this.response.takeBack()
    this.handoff.takeHeadBack()
    this.responseCloses = false
    this.announced = null
    this.tellNodeIfKept()
  }

  setTrailers (fields: OutgoingFields): void {
    this.response.setTrailers(fields)
  }

  writeInterim (statusCode: number, fields: OutgoingFields): boolean {
    const head = writeInterimHead(statusCode, fields)
    // Not to a client of HTTP/1.0 (RFC 9110 section 15.2).
    if (minorVersion(this.request) === 0) return false
    this.whenMayWrite(() => this.socket.write(head, 'latin1'))
    return true
  }

  /** Sends a 100, before anything that is written later. Behind a final head it would be pointless. */
  private writeContinue (): void {
    const { handoff, response } = this
    if (handoff.headersSent) return
    handoff.setContinued()
    this.whenMayWrite(() => {
      if (this.exchange?.answerHasBegun === false && handoff.headersSent === response.hasHead) this.socket.write(writeInterimHead(100, {}), 'latin1')
    })
  }

  get awaitsContinue (): boolean {
    return this.handoff.expectsContinue && !this.bodyHasBegun && !this.handoff.holdsData
  }

  get connectionIsGone (): boolean {
    return this.socket.destroyed
  }

  write (content: readonly Buffer[], size: number, end: boolean, done?: WriteCallback, mayEndAtOnce = false): void {
    const { response, exchange } = this
    const buffers = response.frame(content, size, end)
    if (!response.hasBegun) {
      response.begin()
      exchange!.onFirstByte()
    }
    response.send(buffers, end, done, mayEndAtOnce)
  }

  // Ending

  detach (): Detached {
    const { handoff, response, socket } = this
    if (!handoff.isTaken) throw new DetachError('the request is still being routed')
    if (!handoff.mayWrite) throw new DetachError('it is the turn of a request before this one')
    if (!this.bodyReader.done) throw new DetachError('the request body has not been read to its end')
    if ((response.hasBegun && !response.isTunnel) || handoff.isEndedByOthers) throw new DetachError('the response has begun')
    this.forgetExchange()
    this.isLeft = true
    this.stopFlow() // the last content of the body may be on its way to the caller, with more bytes behind it
    handoff.finish()
    return { socket, head: handoff.detach() }
  }

  finish (): void {
    this.forgetExchange()
    if (this.handoff.isEndedByOthers) return // `onAnswered` follows, and cuts off
    this.handoff.finish()
    this.returnOrClose()
  }

  abort (error: Error, lingers: boolean): void {
    const { handoff } = this
    this.forgetExchange()
    this.isLeft = true
    if (handoff.isTaken) handoff.pause()
    // The request closes after this. `request.signal` must still abort then.
    this.app.keepSignalDuring(this.request, () => handoff.fail(error))
    // Responses to earlier requests must not be cut off with this one, if they can still be sent.
    if (lingers && !this.response.isCloseDelimited && this.socket.writable) this.close()
    else if (this.socket.writable) this.whenMayWrite(() => this.cutOff())
    else this.cutOff()
  }

  private cutOff (): void {
    cutOff(this.socket, this.response.isCloseDelimited)
  }

  private forgetExchange (): ExchangeEvents | null {
    const { exchange } = this
    this.exchange = null
    this.watching?.leave()
    return exchange
  }

  /** After the response: drops the rest of the request, and returns the connection to Node if it is kept. Otherwise closes it. */
  private returnOrClose (): void {
    if (!this.isKept()) {
      this.close()
    } else if (this.reader.done) {
      this.handoff.returnToNode()
    } else {
      this.app.draining.add(this.handoff)
      this.drain.start(this.options.drainTimeout, () => this.returnOrClose())
      this.startFlow()
    }
  }

  private stopDraining (): void {
    this.drain.stop()
    this.app.draining.delete(this.handoff)
  }

  private close (): void {
    this.stopDraining()
    this.handoff.release()
    lingeringClose(this.socket, this.handoff.isHalfClosed, this.options.drainTimeout)
  }

  // Events of the borrowed connection

  onTaken (): void {
    if (this.exchange === null) return // it has ended while the request was routed, and the connection is being cut off
    // Streams that are not sockets do not count their bytes.
    if ('bytesWritten' in this.socket) this.watching = this.idleWatch.start(this)
    if (this.contentWasRequested) this.deliver()
  }

  onFinish (): void {
    if (this.response.hasHead) this.exchange?.onForeignEnd()
  }

  onAnswered (promisedToPersist: boolean): void {
    if (this.response.hasHead) {
      // Other code has ended `reply.raw` after our head: the end of the body, as its framing requires it, is missing.
      this.exchange?.onAnswered()
      this.cutOff()
      return
    }
    this.announced = promisedToPersist ? 'keep-alive' : 'close'
    this.forgetExchange()?.onAnswered()
    this.returnOrClose()
  }

  onTimeout (): void {
    const { exchange, mayWrite } = this
    // Only we end the exchange, if the app listens to the timeouts that it has set.
    if (exchange === null || (!this.isIdle && this.handoff.emitTimeout())) return
    this.isIdle = false
    // If the response is in turn and has not begun, Fastify's own listener for 'timeout' has run the onTimeout hooks.
    if (!mayWrite || this.response.hasBegun) exchange.onIdleTimeout()
    exchange.onIdle(mayWrite && this.socket.writable)
  }

  onEnd (): void {
    this.reader.end()
    if (this.reader.error !== null) {
      this.onReaderError(this.reader.error)
    } else {
      this.stopFlow()
      this.onReaderDone(true)
    }
  }

  onHalfClose (): void {
    if (this.exchange === null || this.response.isTunnel) return
    if (this.options.allowHalfOpen) this.exchange.onHalfClose()
    else this.exchange.onGone(new AbortedError())
  }

  onClose (error: Error | null): void {
    this.stopDraining()
    // Otherwise other code on this side has destroyed the connection, as Fastify does when a stream that it sends has failed.
    const clientHasLeft = error !== null || this.handoff.clientHasEnded
    this.exchange?.onGone(clientHasLeft ? new AbortedError({ cause: error }) : new DestroyedError())
  }

  // For the idle watch, and for the speed of the client

  get isBehindOthers (): boolean {
    return !this.mayWrite
  }

  get progress (): number {
    return progressOf(this.socket)
  }

  get isStuck (): boolean {
    return queuedBytes(this.socket) > 0
  }

  onIdle (): void {
    this.isIdle = true
    if (this.mayWrite) this.socket.emit('timeout') // as Node would: Fastify and the app may listen
    // Otherwise a response to an earlier request is due. Waiting for the app is not limited, but waiting for the client is.
    else if (this.isStuck || !this.socket.writable) this.onTimeout()
  }
}
