// A request/response pair instead of a connection: app.inject(), HTTP/2, servers whose connections cannot be taken, and
// requests that were not routed at once. Node reads and frames; for the handler the exchange is the same.

import type { IncomingMessage, OutgoingHttpHeaders, ServerResponse } from 'node:http'
import { type ServerHttp2Stream, constants } from 'node:http2'
import type { Duplex, Writable } from 'node:stream'
import { AbortedError, IdleError, TunnelError } from '../errors.ts'
import { NO_FIELDS } from '../transfer/body-reader.ts'
import { type BodyWriter, type Part, bodyWriter, gather } from '../transfer/body-writer.ts'
import { type Fields, type OutgoingFields, writeTrailers } from '../transfer/field-lines.ts'
import { type Framing, NO_BODY, TUNNEL, UNTIL_CLOSE } from '../transfer/framing.ts'
import { writeInterimHead, writeResponseHead } from '../transfer/head-writer.ts'
import { toKeep } from '../landing.ts'
import { progressOf, queuedBytes } from '../net-internals.ts'
import { type Carrier, type ResponseStart, type Sink, type WriteCallback, frame } from './carrier.ts'
import type { IdleWatch, Watched } from './idle-watch.ts'

/** Bytes given to a stream of HTTP/2 at a time: who takes none of them for `idleTimeout` is silent. */
const STREAM_WRITE_SIZE = 64 * 1024

/** Milliseconds */
export interface MessageOptions {
  idleTimeout: number
  drainTimeout: number
}

export class MessageCarrier implements Carrier, Watched {
  sink: Sink | null = null
  over = false
  onOver: () => void = ignore
  onIdleTimeout: () => void = ignore
  answering = false
  readonly mayWrite = true // Node holds back what is not in turn
  readonly idleSocket = null // Node's response does not tell
  readonly requestFraming: Framing
  readonly framingError: Error | null
  failure: Error | null = null
  private readonly request: IncomingMessage
  private readonly response: ServerResponse
  private writer: BodyWriter | null = null
  private trailersToSend: OutgoingFields | null = null
  private reading = false
  private timeoutBefore: number | null = null // of the connection whose timer is ours meanwhile
  private readonly idleWatch: IdleWatch
  private readonly options: MessageOptions
  private moved = 0 //     bytes of content, in both directions
  private ended = false // all of the response has been written
  private endsWithHead = false
  private writes = 0
  private pending: WriteCallback = ignore // of the last write

  constructor (request: IncomingMessage, response: ServerResponse, idleWatch: IdleWatch, options: MessageOptions) {
    this.request = request
    this.response = response
    this.idleWatch = idleWatch
    this.options = options
    const { framing, error } = frame(request)
    this.requestFraming = framing === NO_BODY && hasUnannouncedBody(request) ? UNTIL_CLOSE : framing
    this.framingError = error
    if (request.httpVersionMajor > 1) dropConnectionFields(response)
    // Before Fastify's own, which asks for the failure.
    response.prependListener('finish', () => this.onFinish())
    response.on('close', () => this.onClose())
    response.on('drain', () => this.onWritten())
    if (request.aborted || (request.httpVersionMajor === 1 && request.socket.destroyed)) {
      this.abort(new AbortedError()) // the client left during the hooks, before anybody listened
      return
    }
    if (countsBytes(request, response)) {
      idleWatch.add(this)
      if (request.httpVersionMajor === 1) this.whenInTurn(() => { this.suspendTimeout() })
    }
    if (response.socket === null) this.onSocketClose()
  }

  /** Node does not close a response that is not in turn. One listener for all those of a connection, or Node warns. */
  private onSocketClose (): void {
    const { request: { socket }, response } = this
    let waiting = outOfTurn.get(socket)
    if (waiting === undefined) {
      const carriers = waiting = new Set()
      outOfTurn.set(socket, carriers)
      socket.on('close', () => { for (const carrier of carriers) carrier.onClose() })
    }
    const carriers = waiting.add(this)
    response.once('socket', () => { carriers.delete(this) })
  }

  get socket (): Duplex {
    return this.request.socket
  }

  get trailers (): Readonly<Fields> {
    return this.request.trailers as Fields | undefined ?? NO_FIELDS // app.inject() has none
  }

  read (): void {
    const { request } = this
    if (this.reading) {
      request.resume()
      return
    }
    this.reading = true
    if (request.method === 'CONNECT') this.sink!.onBodyEnd() // which has none
    request.on('data', (content: Buffer) => {
      this.moved += content.length
      // HTTP/2 gives views of what it has read of the connection, with other streams in it.
      if (this.sink?.onContent(toKeep(content)) === false) request.pause()
    })
    request.on('end', () => this.sink?.onComplete())
    request.on('error', (error) => this.sink?.onReadError(new AbortedError({ cause: error })))
  }

  whenMayWrite (callback: () => void): void {
    callback()
  }

  writeHead (start: ResponseStart): void {
    const { response } = this
    // A stream of HTTP/2 is a tunnel after CONNECT (RFC 9113 section 8.5); its 101 is refused by Node.
    if (start.framing === TUNNEL && streamOf(response) === undefined) throw new TunnelError('A tunnel')
    // The same rules, though Node writes it.
    writeResponseHead(start, true)
    this.writer = bodyWriter(start.framing.kind === 'chunked' ? UNTIL_CLOSE : start.framing)
    const fields = Object.entries(start.fields).filter(([name, value]) => value !== undefined && name.toLowerCase() !== 'connection')
    if (start.close && streamOf(response) === undefined) fields.push(['connection', 'close'])
    // Without content Node ends a stream with its head.
    this.endsWithHead = start.framing === NO_BODY && streamOf(response) !== undefined
    response.writeHead(start.statusCode, Object.fromEntries(fields) as OutgoingHttpHeaders)
  }

  writeInterim (statusCode: number, fields: OutgoingFields): boolean {
    const { request, response } = this
    const head = writeInterimHead(statusCode, fields)
    const stream = streamOf(response)
    if (stream !== undefined) {
      if (stream.destroyed || stream.closed) return false
      stream.additionalHeaders({ ':status': statusCode, ...fields } as OutgoingHttpHeaders)
      return true
    }
    // RFC 9110 section 15.2: not to a client of HTTP/1.0; and app.inject() has nowhere to put it.
    if (request.httpVersionMinor === 0 || isInjected(request, response)) return false
    // Node's own methods for this have some of the statuses, and from Node 24 on all. It writes nothing before the head.
    if (response.socket !== null) response.socket.write(head, 'latin1')
    else response.once('socket', (socket) => { socket.write(head, 'latin1') })
    return true
  }

  setTrailers (fields: OutgoingFields): void {
    writeTrailers(fields)
    this.trailersToSend = Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined))
  }

  get gone (): boolean {
    // HTTP/2 calls back when the stream has been destroyed, well or not.
    return this.request.httpVersionMajor === 1 && this.request.socket.destroyed
  }

  write (content: readonly Buffer[], size: number, end: boolean, done: WriteCallback): void {
    const { response } = this
    const parts: Part[] = []
    this.ended = end || this.endsWithHead
    this.moved += size
    if (size > 0) this.writer!.write(content, size, parts)
    if (end) this.writer!.end('', parts)
    if (end && this.trailersToSend !== null) response.addTrailers(this.trailersToSend as Record<string, string>)
    const buffers = gather(parts)
    if (streamOf(response) !== undefined && size > STREAM_WRITE_SIZE) {
      this.writeInParts(buffers, end, done)
      return
    }
    // One chunk of all buffers. Uncorked before `end`: Node 22.0 to 25.9 and 26.0 to 26.8 would send the last chunk first.
    if (buffers.length > 1) response.cork()
    for (const buffer of buffers.slice(0, -1)) response.write(buffer)
    if (buffers.length > 0) this.writeLast(buffers.at(-1)!, end ? ignore : done)
    if (buffers.length > 1) response.uncork()
    if (end) {
      this.endResponse(done)
    } else if (buffers.length === 0) {
      response.flushHeaders()
      done()
    }
  }

  /**
   * Done when more may be written: by the callback or by 'drain'. Others replace `write`, and compression drops its callback; of
   * corked content Node 22 to 26 tell no 'drain'.
   */
  private writeLast (buffer: Buffer, done: WriteCallback): void {
    const write = ++this.writes
    this.pending = done
    const written: WriteCallback = (error) => { if (write === this.writes) this.onWritten(error) }
    if (this.response.write(buffer, written)) process.nextTick(written)
  }

  private onWritten (error?: Error | null): void {
    const { pending } = this
    this.pending = ignore
    pending(error)
  }

  /** One part after the other: how much of a write has left, a stream of HTTP/2 does not tell. */
  private writeInParts (buffers: readonly Buffer[], end: boolean, done: WriteCallback): void {
    const left = buffers.flatMap((buffer) => {
      const parts: Buffer[] = []
      for (let at = 0; at < buffer.length; at += STREAM_WRITE_SIZE) parts.push(buffer.subarray(at, at + STREAM_WRITE_SIZE))
      return parts
    }).values()
    const next: WriteCallback = (error) => {
      const part = error ? undefined : left.next().value
      if (part !== undefined) this.writeLast(part, next)
      else if (error || !end) done(error)
      else this.endResponse(done)
    }
    next()
  }

  /** Without a callback: others replace `end` (compression, light-my-request 6.8.0) and take it for content. */
  private endResponse (done: () => void): void {
    const { response } = this
    // The response of HTTP/2 is finished only when its stream is closed.
    const written: Writable = streamOf(response) ?? response
    if (written.writableFinished) process.nextTick(done)
    else written.once('finish', done)
    response.end()
  }

  detach (): never {
    throw new TunnelError('detach()')
  }

  finish (): void {
    const { request, response } = this
    this.end()
    this.sink = null // what still comes is dropped
    if (request.readableEnded) return
    request.resume()
    const stream = streamOf(response)
    if (stream === undefined) return
    // Until the client has sent the rest, the stream would not close; it need not send it (RFC 9113 section 8.1).
    const timer = setTimeout(() => stream.close(constants.NGHTTP2_NO_ERROR), this.options.drainTimeout)
    stream.on('close', () => clearTimeout(timer))
  }

  private whenInTurn (callback: () => void): void {
    if (this.response.socket !== null) callback()
    else this.response.once('socket', callback)
  }

  /** The timeout of the connection is for requests that are answered at once. */
  private suspendTimeout (): void {
    if (this.over) return
    this.timeoutBefore = this.request.socket.timeout ?? 0
    this.request.socket.setTimeout(0)
  }

  private end (): void {
    if (this.over) return
    this.over = true
    this.idleWatch.delete(this)
    this.onOver()
    if (this.timeoutBefore !== null) this.request.socket.setTimeout(this.timeoutBefore)
  }

  abort (error: Error): void {
    this.end()
    this.failure = error
    const { response } = this
    if (response.listenerCount('error') > 0) response.emit('error', error)
    response.on('error', ignore) // Fastify listens once, and app.inject() has an error of its own for a client that goes away
    // With an error: a stream of HTTP/2 that is only destroyed may look like one that has ended. Not `close(code)`, which
    // Node 26 was seen to abort on (an assertion in Http2Stream::OnTrailers).
    const stream = streamOf(response)
    if (stream !== undefined) stream.destroy(error)
    // From Node 24 on, a response that is destroyed before its turn leaves the connection open when its turn comes.
    else this.whenInTurn(() => { response.destroy() })
  }

  private onFinish (): void {
    if (this.over) return
    this.end()
    if (this.writer === null && this.response.writableEnded) {
      this.sink?.onAnswered()
    } else if (!this.ended) {
      // HTTP/2 calls a stream finished that was reset. Fastify, behind us in the queue, asks for the failure.
      this.failure = new AbortedError()
      this.sink?.onLost(this.failure)
    }
  }

  private onClose (): void {
    if (!this.over) this.lose(new AbortedError())
  }

  // What the idle watch asks

  get progress (): number {
    const { request, response, moved } = this
    const stream = streamOf(response)
    // Of HTTP/2 the stream's own bytes alone: a client must not keep one stream open by what moves on another.
    return stream === undefined ? progressOf(request.socket) : moved - stream.bufferSize
  }

  get isStuck (): boolean {
    const stream = streamOf(this.response)
    return stream === undefined ? queuedBytes(this.request.socket) > 0 : stream.bufferSize > 0
  }

  onIdle (): void {
    const { request: { socket, httpVersionMajor }, response } = this
    // A response to an earlier request is due. The app may take its time for it; the client may not.
    if (httpVersionMajor === 1 && response.socket === null && !this.isStuck && socket.writable) return
    this.onIdleTimeout()
    this.lose(new IdleError(this.options.idleTimeout))
    if (httpVersionMajor === 1 && !socket.writable) socket.destroy() // no response can be sent on it, and Node waits for those before this one
  }

  private lose (error: Error): void {
    this.abort(error)
    this.sink?.onLost(error)
  }
}

/** The exchanges of a connection whose responses are not in turn. */
const outOfTurn = new WeakMap<Duplex, Set<MessageCarrier>>()

function streamOf (response: ServerResponse & { stream?: ServerHttp2Stream }): ServerHttp2Stream | undefined {
  return response.stream
}

// RFC 9113 section 8.2.2, and the one of HTTP/1.1 that upgrades to HTTP/2.
const CONNECTION_FIELDS = ['connection', 'http2-settings', 'keep-alive', 'proxy-connection', 'te', 'transfer-encoding', 'upgrade']

/**
 * Drops the fields of a response that HTTP/2 forbids. Node throws for some of them: also for the answer to that error, which
 * has them too, and that ends the process. Whoever answers, a handler for both versions may set them.
 */
function dropConnectionFields (response: ServerResponse): void {
  const { writeHead } = response as { writeHead (statusCode: number, ...rest: unknown[]): ServerResponse }
  response.writeHead = (statusCode: number, ...rest: unknown[]) => {
    for (const name of CONNECTION_FIELDS) response.removeHeader(name)
    return writeHead.call(response, statusCode, ...rest.map(withoutConnectionFields))
  }
}

function withoutConnectionFields (argument: unknown): unknown {
  if (typeof argument !== 'object' || argument === null || Array.isArray(argument)) return argument
  return Object.fromEntries(Object.entries(argument).filter(([name]) => !CONNECTION_FIELDS.includes(name.toLowerCase())))
}

/** Whether app.inject() made the pair: there is no connection below, so what is written goes elsewhere. */
function isInjected (request: IncomingMessage, response: ServerResponse): boolean {
  return response.socket !== null && request.httpVersionMajor === 1 && response.socket !== request.socket
}

/** Whether one can see that nothing moves: not with app.inject(), nor on every stream that serves as a connection. */
function countsBytes (request: IncomingMessage, response: ServerResponse): boolean {
  return request.httpVersionMajor > 1 || (!isInjected(request, response) && 'bytesWritten' in request.socket)
}

/** A request of HTTP/2, or of app.inject() with a stream, need not announce its body, which ends with the stream. */
function hasUnannouncedBody (request: IncomingMessage & { stream?: { endAfterHeaders?: boolean }, _lightMyRequest?: { payload: unknown } }): boolean {
  const { stream, _lightMyRequest: injected } = request
  return (stream !== undefined && stream.endAfterHeaders !== true) || (injected !== undefined && injected.payload !== null)
}

function ignore (): void {}
