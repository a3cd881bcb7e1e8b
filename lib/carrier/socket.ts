// The raw connection, after the hand-off: socket -> body reader -> exchange, exchange -> body writer -> socket.
// From the claim to the settlement this is the one owner of both directions.

import type { IncomingMessage } from 'node:http'
import { Socket } from 'node:net'
import { AbortedError, DestroyedError, DetachError, IdleError } from '../errors.ts'
import { type Borrower, type Handoff, claim, closeSoon } from '../handoff.ts'
import { isLanded, toHold, toKeep } from '../landing.ts'
import { writesByNode } from '../node-methods.ts'
import { progressOf, queuedBytes, resetConnection, startReading } from '../net-internals.ts'
import { type BodyReader, CloseReader, NO_BYTES, restOf } from '../transfer/body-reader.ts'
import { type BodyWriter, COPY_BELOW, type Part, bodyWriter, gather } from '../transfer/body-writer.ts'
import { type Fields, type OutgoingFields, writeTrailers } from '../transfer/field-lines.ts'
import { type Framing, TUNNEL, bodyReader } from '../transfer/framing.ts'
import { writeInterimHead, writeResponseHead } from '../transfer/head-writer.ts'
import { checkUpgrade } from '../transfer/tunnel.ts'
import { type Carrier, type Detached, type ResponseStart, type Sink, frame, type WriteCallback } from './carrier.ts'
import type { IdleWatch, Watched } from './idle-watch.ts'

export interface SocketOptions {
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
export function claimSocket (request: IncomingMessage, app: { closing: boolean }, idleWatch: IdleWatch, options: SocketOptions): SocketCarrier | null {
  const carrier = new SocketCarrier(request, app, idleWatch, options)
  return carrier.claim() ? carrier : null
}

export class SocketCarrier implements Carrier, Borrower, Watched {
  sink: Sink | null = null
  over = false //              the connection may not have been settled yet
  onOver: () => void = ignore
  onIdleTimeout: () => void = ignore
  answering = false
  readonly socket: Socket
  readonly requestFraming: Framing
  readonly framingError: Error | null
  failure: Error | null = null
  private readonly request: IncomingMessage
  private readonly app: { closing: boolean }
  private readonly idleWatch: IdleWatch
  private readonly options: SocketOptions
  private readonly bodyReader: BodyReader
  private reader: BodyReader // the body's; in a tunnel, behind that, one that reads to the end
  private handoff!: Handoff
  private writer: BodyWriter | null = null
  private head = '' //         written, not sent yet
  private trailerLines = ''
  private untilClose = false
  private tunnel = false
  private reading = false //   somebody has asked for content
  private flowing = false //   what comes is ours
  private reusable = false
  private rest: Buffer = NO_BYTES // behind the body, while the last of that is passed on
  private detached = false
  private dropped = 0 //       bytes of the body read for nobody
  private drainTimer: NodeJS.Timeout | null = null

  constructor (request: IncomingMessage, app: { closing: boolean }, idleWatch: IdleWatch, options: SocketOptions) {
    this.request = request
    this.app = app
    this.idleWatch = idleWatch
    this.socket = request.socket
    this.options = options
    const { framing, error } = frame(request)
    this.requestFraming = framing
    this.framingError = error
    this.bodyReader = bodyReader(framing, options)
    this.reader = this.bodyReader
  }

  /** Closes the connection behind the answer that somebody else gives. */
  refuse (): void {
    this.handoff.allowKeepAlive(false)
  }

  claim (): boolean {
    const handoff = claim(this.request, this)
    if (handoff === null) return false
    this.handoff = handoff
    // No body, no 100; without this Node would close after an answer of its own.
    if (this.reader.done) handoff.setContinued()
    handoff.allowKeepAlive(this.framingError === null && this.willBeRead)
    return true
  }

  get trailers (): Readonly<Fields> {
    return this.bodyReader.trailers
  }

  /** Whether the whole body will be off the connection soon after the response, as far as one can know before. */
  private get willBeRead (): boolean {
    return this.reader.done || (!this.handoff.expectsContinue && this.requestFraming.length <= this.options.drainLimit)
  }

  // Reading

  read (): void {
    this.reading = true
    if (this.handoff.taken && !this.over) this.deliver()
  }

  private deliver (): void {
    if (!this.flowing) {
      if (this.isRead()) {
        this.sink?.onComplete()
        return
      }
      if (this.handoff.expectsContinue) this.writeContinue()
    }
    this.flow()
  }

  /** Whether all has been read that is the exchange's. Where its body ends, a tunnel may begin. */
  private isRead (): boolean {
    if (this.reader !== this.bodyReader || !this.reader.done) return this.reader.done
    this.sink?.onBodyEnd()
    if (this.tunnel) this.reader = new CloseReader()
    return !this.tunnel
  }

  private flow (): void {
    this.flowing = true
    this.handoff.read()
  }

  onData (piece: Buffer): void {
    const { reader } = this
    const content = reader.read(piece)
    // What follows the body belongs to the parser, or to a tunnel.
    this.rest = reader.done ? toHold(restOf(piece, reader.consumed)) : NO_BYTES
    let more = true
    if (this.over) this.dropped += content.length
    else if (content.length > 0) more = this.passOn(content)
    if (this.failure !== null || this.detached) return
    if (reader.error !== null) {
      this.onReadError(reader.error)
    } else if (this.dropped > this.options.drainLimit) {
      this.linger()
    } else if (reader.done) {
      this.stopFlow()
      this.onRead(more)
    } else if (!more) {
      this.handoff.pause()
    }
  }

  /** Passes content on, in memory of its own if it can be kept. */
  private passOn (content: Buffer): boolean {
    const { sink, handoff: { landing } } = this
    // The last of a body is not relayed: the end of the response may follow it within the tick.
    const to = this.reader.done ? null : sink!.relay
    if (to === null || !isLanded(content)) return sink!.onContent(toKeep(content))
    if (content.length < COPY_BELOW) return sink!.relayContent(Buffer.from(content))
    const own = landing.wantOwn()
    if (own === null) return sink!.onContent(toKeep(content))
    try {
      return sink!.relayContent(content)
    } finally {
      // Also when a listener for 'pause' has thrown.
      if (sink!.hasRelayed(content.length)) own.writer = to
      else landing.abandon(own)
    }
  }

  private onRead (more: boolean): void {
    this.clearDrain()
    if (this.over) {
      this.settle()
    } else if (this.isRead()) {
      this.handoff.allowKeepAlive(true)
      this.sink!.onComplete()
    } else if (more) {
      this.flow()
    }
  }

  private onReadError (error: Error): void {
    this.stopFlow()
    if (this.over) {
      this.linger()
    } else {
      this.handoff.allowKeepAlive(false)
      this.sink!.onReadError(error)
    }
  }

  private stopFlow (): void {
    this.flowing = false
    this.handoff.leaveOff(this.rest)
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
    const persistent = handoff.persistent && !this.app.closing && !start.close && start.framing.kind !== 'close' &&
      this.framingError === null && this.reader.error === null && (this.reading || this.willBeRead)
    this.head = writeResponseHead(start, persistent, handoff.keepAlive)
    // RFC 9110 section 7.8: before a 101, however pointless it is before any other answer.
    if (start.statusCode === 101 && handoff.expectsContinue) {
      handoff.setContinued()
      this.head = writeInterimHead(100, {}) + this.head
    }
    this.writer = bodyWriter(start.framing)
    this.untilClose = start.framing.kind === 'close'
    this.tunnel = start.framing === TUNNEL
    this.reusable = persistent
    handoff.setHead(this.head)
  }

  setTrailers (fields: OutgoingFields): void {
    this.trailerLines = writeTrailers(fields)
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
      // A final response has made it pointless.
      if (this.writer === null && !this.answering) this.socket.write(writeInterimHead(100, {}), 'latin1')
    })
  }

  get gone (): boolean {
    return this.socket.destroyed
  }

  get idleSocket (): Socket | null {
    const { socket } = this
    const isIdle = socket instanceof Socket && socket.writableLength === 0 && socket.writableCorked === 0 && writesByNode(socket)
    return isIdle && !socket.destroyed && this.mayWrite ? socket : null
  }

  write (content: readonly Buffer[], size: number, end: boolean, done: WriteCallback): void {
    const { socket } = this
    const parts: Part[] = []
    if (this.head !== '') parts.push(this.head)
    if (size > 0) this.writer!.write(content, size, parts)
    if (end) this.writer!.end(this.untilClose ? '' : this.trailerLines, parts)
    this.head = ''
    const buffers = gather(parts)
    if (end && this.tunnel) {
      // Only this half: what the client sends may still come.
      for (const buffer of buffers) socket.write(buffer)
      socket.end(done)
    } else if (buffers.length === 0) {
      process.nextTick(done)
    } else if (buffers.length === 1) {
      socket.write(buffers[0], done)
    } else {
      socket.cork()
      for (let i = 0; i < buffers.length - 1; i++) socket.write(buffers[i])
      socket.write(buffers[buffers.length - 1], done)
      socket.uncork()
    }
  }

  // Ending

  detach (): Detached {
    const { handoff, socket } = this
    if (!handoff.taken) throw new DetachError('the request is still being routed')
    if (!handoff.mayWrite) throw new DetachError('it is the turn of a request before this one')
    if (!this.bodyReader.done) throw new DetachError('the request body has not been read to its end')
    if (this.writer !== null && !this.tunnel) throw new DetachError('the response has begun')
    this.end()
    this.detached = true
    this.stopFlow() // by who has just been given the last of the body
    handoff.finish()
    return { socket, head: handoff.detach() }
  }

  finish (): void {
    this.end()
    this.handoff.finish()
    this.settle()
  }

  abort (error: Error): void {
    this.fail(error)
    // The responses to requests before this one are not its to cut off.
    this.whenMayWrite(() => this.cutOff())
  }

  private cutOff (): void {
    // Where only the end of the connection ends the body, a FIN would make this look like a complete response.
    if (this.untilClose) resetConnection(this.socket)
    else this.socket.destroy()
  }

  private end (): void {
    this.over = true
    this.idleWatch.delete(this)
    this.onOver()
  }

  /** After the response: the connection goes back to the server, if the request allows it and is off it. */
  private settle (): void {
    const { handoff, reader } = this
    if (!this.reusable || this.app.closing || reader.error !== null || handoff.halfClosed || (!reader.done && handoff.expectsContinue)) {
      this.linger()
    } else if (reader.done) {
      handoff.giveBack()
    } else {
      this.drainTimer = setTimeout(() => this.linger(), this.options.drainTimeout)
      this.flow()
    }
  }

  /**
   * Closes the connection after a lingering read (RFC 9112 section 9.6): a close with bytes unread is a reset, which
   * would make the client lose the response it has not read yet.
   */
  private linger (): void {
    const { socket, handoff } = this
    this.clearDrain()
    handoff.letGo()
    const timer = setTimeout(() => socket.destroy(), this.options.drainTimeout)
    socket.on('close', () => clearTimeout(timer))
    if (handoff.halfClosed) {
      closeSoon(socket)
      return
    }
    socket.on('end', () => closeSoon(socket))
    socket.on('data', drop)
    startReading(socket)
    socket.end()
  }

  private clearDrain (): void {
    if (this.drainTimer !== null) clearTimeout(this.drainTimer)
    this.drainTimer = null
  }

  // What the hand-off tells

  onTaken (): void {
    if (this.over) return // while the request was routed: the connection is being cut off
    // Streams that are no sockets do not count their bytes.
    if ('bytesWritten' in this.socket) this.idleWatch.add(this)
    if (this.reading) this.deliver()
  }

  onAnswered (reusable: boolean): void {
    if (this.writer !== null) {
      // Somebody else has ended a response that is ours, without what its framing needs.
      this.lose(new DestroyedError())
      this.cutOff()
      return
    }
    this.end()
    this.reusable = reusable
    this.sink?.onAnswered()
    this.settle()
  }

  onTimeout (): void {
    if (this.over) return
    // In turn and before the head, Fastify's own listener for 'timeout' has been called.
    if (!this.mayWrite || this.writer !== null) this.onIdleTimeout()
    this.lose(new IdleError(this.options.idleTimeout))
    // Where it is not its turn, the responses before it may yet be sent.
    if (this.socket.writable) this.whenMayWrite(() => this.cutOff())
    else this.cutOff()
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
    // Else a response to an earlier request is due. The app may take its time for it; the client may not.
    else if (this.isStuck || !this.socket.writable) this.onTimeout()
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
    this.clearDrain()
    this.lose(new AbortedError({ cause: error }))
  }

  private lose (error: Error): void {
    if (this.over) return
    this.fail(error)
    this.sink?.onLost(error)
  }

  private fail (error: Error): void {
    this.end()
    this.failure = error
    if (this.handoff.taken) this.handoff.pause()
    this.handoff.fail(error)
  }
}

function drop (): void {}

function ignore (): void {}
