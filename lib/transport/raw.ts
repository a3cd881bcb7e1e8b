// The raw connection: bytes go from the socket through the body reader to the exchange, and from the exchange through the body
// writer to the socket. From the claim of a request until its connection is returned or closed, both directions are ours.
//
// One class, since reading, writing and ending are decided from the same state.

import type { IncomingMessage } from 'node:http'
import type { Socket } from 'node:net'
import type { OutgoingFields, Trailers } from '../../types/transfer.d.ts'
import { AbortedError, DestroyedError, DetachError, IdleError } from '../errors.ts'
import type { Borrower } from '../handoff/claim.ts'
import { type Handoff, claim } from '../handoff/handoff.ts'
import { progressOf, queuedBytes } from '../node/socket.ts'
import { type Landed, asLanded, bytesOf, copyIfLanded } from '../relay/read-buffers.ts'
import { type BodyReader, CloseReader, NO_BYTES, restOf } from '../transfer/body-reader.ts'
import { type Framing, bodyReader } from '../transfer/framing.ts'
import { writeInterimHead, writeResponseHead } from '../transfer/head-writer.ts'
import { checkUpgrade } from '../transfer/tunnel.ts'
import { Drain, cutOff, lingeringClose } from './ending.ts'
import type { IdleWatch, Watched } from './idle-watch.ts'
import { reasonToClose } from './persistence.ts'
import { RawResponse } from './raw-response.ts'
import { frameRequest } from './request-framing.ts'
import type { App, Detached, ExchangeEvents, ResponseStart, Transport, WriteCallback } from './transport.ts'

export interface RawOptions {
  idleTimeout: number
  maxTrailerSize: number
  maxChunkExtensionSize: number
  drainLimit: number
  drainTimeout: number
}

/**
 * Claims the connection of a request that is being routed.
 *
 * @returns null when there is none to claim
 */
export function claimRaw (request: IncomingMessage, app: App, idleWatch: IdleWatch, options: RawOptions): RawTransport | null {
  const transport = new RawTransport(request, app, idleWatch, options)
  return transport.claim() ? transport : null
}

export class RawTransport implements Transport, Borrower, Watched {
  exchange: ExchangeEvents | null = null
  ended = false // the connection may not have been returned or closed yet
  onEnded: () => void = ignore
  onIdleTimeout: () => void = ignore
  answerBegun = false
  readonly socket: Socket
  readonly requestFraming: Framing
  readonly framingError: Error | null
  failure: Error | null = null
  private readonly request: IncomingMessage
  private readonly app: App
  private readonly idleWatch: IdleWatch
  private readonly options: RawOptions
  private readonly bodyReader: BodyReader
  private reader: BodyReader // the body's; behind it, in a tunnel, one that reads to the end
  private handoff!: Handoff
  private readonly response: RawResponse
  private responseCloses = false
  private promised = false //  the response has told the client that the connection is kept
  private reading = false //   the exchange has asked for content
  private flowing = false //   what is read is ours
  private rest: Buffer = NO_BYTES // behind the body, while its last content is passed on
  private detached = false
  private readonly drain: Drain

  constructor (request: IncomingMessage, app: App, idleWatch: IdleWatch, options: RawOptions) {
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
    this.drain = new Drain(options.drainLimit)
  }

  claim (): boolean {
    const handoff = claim(this.request, this)
    if (handoff === null) return false
    this.handoff = handoff
    // Without a body no 100 is needed. Node would take it for missing, and close after an answer of its own.
    if (this.reader.done) handoff.setContinued()
    this.tellNode()
    return true
  }

  get rawSocket (): Socket {
    return this.socket
  }

  get trailers (): Trailers {
    return this.bodyReader.trailers
  }

  // Is the connection kept?

  private get isKept (): boolean {
    const { handoff, reader, options } = this
    return reasonToClose({
      requestPersists: handoff.requestPersists,
      responseCloses: this.responseCloses,
      isMalformed: this.framingError !== null || reader.error !== null,
      isBodyReadable: reader.done || this.reading || (!handoff.expectsContinue && (this.promised || this.requestFraming.length <= options.drainLimit)),
      clientHasEnded: handoff.isHalfClosed,
      isClosing: this.app.closing
    }) === null
  }

  /** Tells Node whether to keep the connection, in case it writes the answer. */
  private tellNode (): void {
    this.handoff.setKeepAlive(this.isKept)
  }

  /** Closes the connection behind an answer that somebody else gives. */
  refuse (): void {
    this.responseCloses = true
    this.tellNode()
  }

  // Reading

  read (): void {
    this.reading = true
    if (this.handoff.isTaken && !this.ended) this.deliver()
  }

  private deliver (): void {
    if (this.flowing) {
      this.handoff.read()
    } else if (this.goBehindBody()) {
      this.exchange!.onRequestEnd()
    } else {
      if (this.handoff.expectsContinue) this.writeContinue()
      this.flow()
    }
  }

  /** Once the body was read, goes on to the tunnel behind it, if there is one. @returns whether the request is complete */
  private goBehindBody (): boolean {
    if (this.reader === this.bodyReader && this.reader.done && this.exchange!.onBodyEnd()) this.reader = new CloseReader()
    return this.reader.done
  }

  private flow (): void {
    this.flowing = true
    this.handoff.read()
  }

  onData (data: Landed): void {
    const { reader } = this
    const input = bytesOf(data)
    const content = reader.read(input)
    // What follows the body is the parser's, or the tunnel's.
    this.rest = reader.done ? copyIfLanded(asLanded(restOf(input, reader.consumed))) : NO_BYTES
    let wantsMore = true
    let tooMuch = false
    if (this.ended) tooMuch = this.drain.drop(content.length)
    else if (content.length > 0) wantsMore = this.exchange!.onContent(asLanded(content), reader.done)
    if (this.failure !== null || this.detached) return
    if (reader.error !== null) {
      this.onReadError(reader.error)
    } else if (tooMuch) {
      this.close()
    } else if (reader.done) {
      this.stopFlow()
      this.onRead(wantsMore)
    } else if (!wantsMore) {
      this.handoff.pause()
    }
  }

  private onRead (wantsMore: boolean): void {
    this.drain.stop()
    if (this.ended) {
      this.returnOrClose()
    } else if (this.goBehindBody()) {
      this.tellNode()
      this.exchange!.onRequestEnd()
    } else if (wantsMore) {
      this.flow()
    }
  }

  private onReadError (error: Error): void {
    this.stopFlow()
    if (this.ended) {
      this.close()
    } else {
      this.tellNode()
      this.exchange!.onReadError(error)
    }
  }

  private stopFlow (): void {
    this.flowing = false
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
    if (start.statusCode === 101) checkUpgrade(request.httpVersionMinor, connection, upgrade, start.fields.upgrade)
    this.responseCloses = start.close || start.framing.kind === 'close'
    const persistent = this.isKept
    let head = writeResponseHead(start, persistent, handoff.keepAliveField)
    // RFC 9110 section 7.8: before a 101. Before any other answer it would be pointless.
    if (start.statusCode === 101 && handoff.expectsContinue) {
      handoff.setContinued()
      head = writeInterimHead(100, {}) + head
    }
    this.response.begin(head, start.framing)
    this.promised = persistent
    handoff.setHeadSent(head)
  }

  setTrailers (fields: OutgoingFields): void {
    this.response.setTrailers(fields)
  }

  writeInterim (statusCode: number, fields: OutgoingFields): boolean {
    const head = writeInterimHead(statusCode, fields)
    // RFC 9110 section 15.2: not to a client of HTTP/1.0.
    if (this.request.httpVersionMinor === 0) return false
    this.whenMayWrite(() => this.socket.write(head, 'latin1'))
    return true
  }

  private writeContinue (): void {
    this.handoff.setContinued()
    this.whenMayWrite(() => {
      // Pointless once a final response has begun.
      if (!this.response.begun && !this.answerBegun) this.socket.write(writeInterimHead(100, {}), 'latin1')
    })
  }

  get gone (): boolean {
    return this.socket.destroyed
  }

  write (content: readonly Buffer[], size: number, end: boolean, done: WriteCallback): void {
    this.response.write(content, size, end, done)
  }

  // Ending

  detach (): Detached {
    const { handoff, response, socket } = this
    if (!handoff.isTaken) throw new DetachError('the request is still being routed')
    if (!handoff.mayWrite) throw new DetachError('it is the turn of a request before this one')
    if (!this.bodyReader.done) throw new DetachError('the request body has not been read to its end')
    if (response.begun && !response.isTunnel) throw new DetachError('the response has begun')
    this.end()
    this.detached = true
    this.stopFlow() // the caller may just have been given the last of the body
    handoff.finish()
    return { socket, head: handoff.detach() }
  }

  finish (): void {
    this.end()
    this.handoff.finish()
    this.returnOrClose()
  }

  abort (error: Error): void {
    this.fail(error)
    // Responses to earlier requests must not be cut off with this one.
    this.whenMayWrite(() => this.cutOff())
  }

  private cutOff (): void {
    cutOff(this.socket, this.response.isCloseDelimited)
  }

  private end (): void {
    this.ended = true
    this.idleWatch.delete(this)
    this.onEnded()
  }

  /** After the response: returns the connection to Node if it is kept, once the rest of the request was dropped. */
  private returnOrClose (): void {
    if (!this.promised || !this.isKept) {
      this.close()
    } else if (this.reader.done) {
      this.handoff.returnToNode()
    } else {
      this.drain.start(this.options.drainTimeout, () => this.close())
      this.flow()
    }
  }

  private close (): void {
    this.drain.stop()
    this.handoff.release()
    lingeringClose(this.socket, this.handoff.isHalfClosed, this.options.drainTimeout)
  }

  // What the hand-off tells

  onTaken (): void {
    if (this.ended) return // while the request was routed: the connection is being cut off
    // Streams that are no sockets do not count their bytes.
    if ('bytesWritten' in this.socket) this.idleWatch.add(this)
    if (this.reading) this.deliver()
  }

  onAnswered (persistent: boolean): void {
    if (this.response.begun) {
      // Somebody else has ended a response that is ours, without what its framing needs.
      this.lose(new DestroyedError())
      this.cutOff()
      return
    }
    this.end()
    this.promised = persistent
    this.exchange?.onAnswered()
    this.returnOrClose()
  }

  onTimeout (): void {
    if (this.ended) return
    // In turn and before the head, Fastify's own listener for 'timeout' was called.
    if (!this.mayWrite || this.response.begun) this.onIdleTimeout()
    this.lose(new IdleError(this.options.idleTimeout))
    // Out of turn, the responses to earlier requests may still be sent.
    if (this.socket.writable) this.whenMayWrite(() => this.cutOff())
    else this.cutOff()
  }

  onEnd (): void {
    this.reader.end()
    if (this.reader.error !== null) {
      this.onReadError(this.reader.error)
    } else {
      this.stopFlow()
      this.onRead(true)
    }
  }

  onClose (error: Error | null): void {
    this.drain.stop()
    this.lose(new AbortedError({ cause: error }))
  }

  // What the idle watch asks

  get progress (): number {
    return progressOf(this.socket)
  }

  get isStuck (): boolean {
    return queuedBytes(this.socket) > 0
  }

  onIdle (): void {
    if (this.mayWrite) this.socket.emit('timeout') // Fastify and the app may listen
    // Otherwise a response to an earlier request is due. The app may take its time for that; the client may not.
    else if (this.isStuck || !this.socket.writable) this.onTimeout()
  }

  private lose (error: Error): void {
    if (this.ended) return
    this.fail(error)
    this.exchange?.onLost(error)
  }

  private fail (error: Error): void {
    this.end()
    this.failure = error
    if (this.handoff.isTaken) this.handoff.pause()
    // The request closes after this, and must find the abort of its signal in place.
    this.app.keepingSignal(this.request, () => this.handoff.fail(error))
  }
}

function ignore (): void {}
