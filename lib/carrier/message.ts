// A request/response pair instead of a connection: app.inject(), HTTP/2, servers whose connections cannot be taken, and
// requests that were not routed at once. Node reads and frames; for the handler the exchange is the same.

import type { IncomingMessage, OutgoingHttpHeaders, ServerResponse } from 'node:http'
import { type ServerHttp2Stream, constants } from 'node:http2'
import type { Duplex } from 'node:stream'
import { AbortedError, IdleError, TunnelError } from '../errors.ts'
import { NO_FIELDS } from '../transfer/body-reader.ts'
import { type BodyWriter, type Part, bodyWriter, gather } from '../transfer/body-writer.ts'
import { type Fields, type OutgoingFields, writeTrailers } from '../transfer/field-lines.ts'
import { type Framing, NO_BODY, TUNNEL, UNTIL_CLOSE } from '../transfer/framing.ts'
import { writeInterimHead, writeResponseHead } from '../transfer/head-writer.ts'
import { type Carrier, type ResponseStart, type Sink, frame } from './carrier.ts'

export class MessageCarrier implements Carrier {
  sink: Sink | null = null
  over = false
  onOver: () => void = ignore
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
  private ended = false // all of the response has been written

  /** @param idleTimeout milliseconds; 0: none */
  constructor (request: IncomingMessage, response: ServerResponse, idleTimeout: number) {
    this.request = request
    this.response = response
    const { framing, error } = frame(request)
    this.requestFraming = framing === NO_BODY && hasUnannouncedBody(request) ? UNTIL_CLOSE : framing
    this.framingError = error
    // Before Fastify's own, which asks for the failure.
    response.prependListener('finish', () => this.onFinish())
    response.on('close', () => this.onClose())
    // The client left during the hooks, before anybody listened.
    if (request.aborted) {
      this.failure = new AbortedError()
      this.over = true
    } else if (hasTimer(request, response)) {
      // A stream of HTTP/2 has one of its own.
      if (request.httpVersionMajor === 1) this.timeoutBefore = request.socket.timeout ?? 0
      // The transport's own timer: it sees the partial progress of a slow reader.
      response.setTimeout(idleTimeout, () => this.onTimeout(idleTimeout))
    }
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
      if (this.sink?.onContent(content) === false) request.pause()
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
    const fields = Object.entries(start.fields).filter(([name, value]) => value !== undefined && !isConnectionField(name, response))
    if (start.close && streamOf(response) === undefined) fields.push(['connection', 'close'])
    response.writeHead(start.statusCode, Object.fromEntries(fields) as OutgoingHttpHeaders)
  }

  writeInterim (statusCode: number, fields: OutgoingFields): boolean {
    const { request, response } = this
    const head = writeInterimHead(statusCode, fields)
    const stream = streamOf(response)
    if (stream !== undefined) {
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

  write (content: readonly Buffer[], size: number, end: boolean, done: (error?: Error | null) => void): void {
    const { response } = this
    const parts: Part[] = []
    this.ended = end
    if (size > 0) this.writer!.write(content, size, parts)
    if (end) this.writer!.end('', parts)
    if (end && this.trailersToSend !== null) response.addTrailers(this.trailersToSend as Record<string, string>)
    response.cork()
    const buffers = gather(parts)
    const last = buffers.length - 1
    buffers.forEach((buffer, i) => response.write(buffer, i === last && !end ? done : undefined))
    if (end) response.end(done)
    else if (size === 0) response.flushHeaders()
    response.uncork()
  }

  detach (): never {
    throw new TunnelError('detach()')
  }

  finish (): void {
    this.end()
    this.sink = null // what still comes is dropped
  }

  private end (): void {
    if (this.over) return
    this.over = true
    this.onOver()
    if (this.timeoutBefore !== null) this.request.socket.setTimeout(this.timeoutBefore)
  }

  abort (error: Error): void {
    this.end()
    this.failure = error
    const { response } = this
    if (response.listenerCount('error') > 0) response.emit('error', error)
    response.on('error', ignore) // Fastify listens once, and app.inject() has an error of its own for a client that goes away
    // A stream of HTTP/2 that is only destroyed may look like one that has ended.
    const stream = streamOf(response)
    if (stream !== undefined) stream.close(constants.NGHTTP2_INTERNAL_ERROR)
    else response.destroy()
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

  private onTimeout (idleTimeout: number): void {
    if (!this.over) this.lose(new IdleError(idleTimeout))
  }

  private lose (error: Error): void {
    this.abort(error)
    this.sink?.onLost(error)
  }
}

function streamOf (response: ServerResponse & { stream?: ServerHttp2Stream }): ServerHttp2Stream | undefined {
  return response.stream
}

/** Whether a field is about the connection: Node's own then, and forbidden in HTTP/2 (RFC 9113 section 8.2.2). */
function isConnectionField (name: string, response: ServerResponse): boolean {
  const key = name.toLowerCase()
  return key === 'connection' || (streamOf(response) !== undefined && (key === 'upgrade' || key === 'http2-settings'))
}

/** Whether app.inject() made the pair: there is no connection below, so what is written goes elsewhere. */
function isInjected (request: IncomingMessage, response: ServerResponse): boolean {
  return response.socket !== null && request.httpVersionMajor === 1 && response.socket !== request.socket
}

/** Whether there is a timer below, which neither app.inject() has nor every stream that serves as a connection. */
function hasTimer (request: IncomingMessage, response: ServerResponse): boolean {
  return !isInjected(request, response) && typeof request.socket.setTimeout === 'function'
}

/** A request of HTTP/2, or of app.inject() with a stream, need not announce its body, which ends with the stream. */
function hasUnannouncedBody (request: IncomingMessage & { stream?: { endAfterHeaders?: boolean }, _lightMyRequest?: { payload: unknown } }): boolean {
  const { stream, _lightMyRequest: injected } = request
  return (stream !== undefined && stream.endAfterHeaders !== true) || (injected !== undefined && injected.payload !== null)
}

function ignore (): void {}
