// Node's request/response pair instead of the raw connection: for app.inject(), HTTP/2, servers whose connections cannot be
// borrowed, and requests that were not routed at once. Node reads the request and frames the response. For the handler the
// exchange is the same.
//
// One class, as `RawTransport`: reading, writing and ending depend on the same state.

import type { IncomingMessage, OutgoingHttpHeaders, ServerResponse } from 'node:http'
import { type ServerHttp2Stream, constants } from 'node:http2'
import type { Duplex } from 'node:stream'
import type { OutgoingFields, Trailers } from '../../types/transfer.d.ts'
import { AbortedError, TunnelError } from '../errors.ts'
import { dropConnectionFields, isHttp2, mayHaveBody, minorVersion, onCutRequest, streamOf, wasCut } from '../node/http2.ts'
import { isInTurn, keepUnread, whenInTurn } from '../node/response.ts'
import { hasServerTimeout, progressOf, queuedBytes } from '../node/socket.ts'
import { isRead, setAutoDestroy } from '../node/streams.ts'
import { asLanded } from '../relay/read-buffers.ts'
import { NO_FIELDS } from '../transfer/body-reader.ts'
import { trailerNames } from '../transfer/field-lines.ts'
import { type Framing, NO_BODY, TUNNEL, UNTIL_CLOSE } from '../transfer/framing.ts'
import { forbidsLength, writeInterimHead, writeResponseHead } from '../transfer/head-writer.ts'
import { Drain, cutOff, destroyAfter } from './ending.ts'
import type { IdleWatch, IdleWatching, Watched } from './idle-watch.ts'
import { NodeResponse, checkTrailers } from './node-response.ts'
import { frameRequest } from './request-framing.ts'
import type { App, ExchangeEvents, ResponseStart, Transport, WriteCallback } from './transport.ts'

/** See `DuplexOptions`. */
export interface NodeTransportOptions {
  drainLimit: number
  drainTimeout: number
}

export class NodeTransport implements Transport, Watched {
  readonly mayWrite = true // Node itself holds back responses that are out of turn
  readonly rawSocket = null
  readonly awaitsContinue = false // Node itself has sent the 100
  readonly requestFraming: Framing
  readonly framingError: Error | null
  private exchange: ExchangeEvents | null = null // null as well after its end
  private readonly request: IncomingMessage
  private readonly response: ServerResponse
  private readonly stream: ServerHttp2Stream | undefined // undefined for HTTP/1
  private head: { statusCode: number, fields: OutgoingHttpHeaders, hasLength: boolean } | null = null // written, but not handed over yet
  private responseFraming: Framing | null = null
  private responseBody: NodeResponse | null = null
  private trailersToSend: OutgoingFields | null = null
  private contentWasRequested = false
  private previousTimeout: number | null = null // milliseconds: the connection's timeout, while the idle watch replaces it
  private readonly idleWatch: IdleWatch
  private watching: IdleWatching | null = null
  private readonly options: NodeTransportOptions
  private contentBytes = 0 // of both directions
  private responseIsWritten = false // to its end
  private endsWithHead = false
  private nodeHasFinished = false // and Fastify is told with it

  constructor (request: IncomingMessage, response: ServerResponse, app: App, idleWatch: IdleWatch, options: NodeTransportOptions) {
    this.request = request
    this.response = response
    this.stream = streamOf(response)
    this.idleWatch = idleWatch
    this.options = options
    const { framing, error } = frameRequest(request)
    const isUnannounced = framing === NO_BODY && (mayHaveBody(request) || app.hasInjectedBody(request))
    this.requestFraming = isUnannounced ? UNTIL_CLOSE : framing
    this.framingError = error
    // Where Node has found the end of the request, another recipient may not.
    if (error !== null) response.shouldKeepAlive = false
    if (this.stream !== undefined) dropConnectionFields(response)
    // Before Fastify's own listener, which logs the failure.
    response.prependListener('finish', () => this.onFinish())
    // A response of HTTP/1 also closes after its end. The request may still be read then.
    response.on('close', () => { if (this.stream !== undefined || !this.nodeHasFinished) this.onClose() })
  }

  start (exchange: ExchangeEvents): void {
    const { request, response, stream } = this
    this.exchange = exchange
    if (request.aborted || this.isClosed) {
      exchange.onGone(new AbortedError()) // the client has left during the hooks
      return
    }
    if (countsBytes(request, response)) {
      this.watching = this.idleWatch.start(this)
      if (stream === undefined) whenInTurn(response, () => { this.suspendTimeout() })
    }
    if (stream === undefined) {
      openExchanges(request.socket).add(this)
      // When it closes, Fastify aborts `request.signal`. Node would close it when it was read.
      setAutoDestroy(request, false)
      return
    }
    onCutRequest(request, () => { this.exchange?.onReadError(new AbortedError()) })
    // The response finishes only when its stream closes, which waits for the rest of the request.
    stream.on('finish', () => { if (this.exchange?.answerHasBegun) this.onAnswered() })
    // Before Node's own listener, which closes the request.
    stream.prependListener('close', () => { if (this.bothSidesHaveEnded) this.exchange?.onBothEnded() })
  }

  private get isClosed (): boolean {
    return this.stream?.closed ?? this.request.socket.destroyed
  }

  get isReadByOthers (): boolean {
    const { request, contentWasRequested } = this
    if (this.exchange === null) return false
    return contentWasRequested ? request.listenerCount('data') > 1 || request.listenerCount('readable') > 0 : isRead(request)
  }

  get socket (): Duplex {
    return this.request.socket
  }

  /** A copy: HTTP/2 adds a symbol to the trailers, so that they do not equal an object with the same fields. */
  get trailers (): Trailers {
    return Object.fromEntries(Object.entries(this.request.trailers as Trailers | undefined ?? NO_FIELDS)) // app.inject() has none
  }

  // Reading

  read (): void {
    const { request } = this
    if (this.contentWasRequested) {
      request.resume()
      return
    }
    this.contentWasRequested = true
    if (request.method === 'CONNECT') this.exchange!.onBodyEnd() // CONNECT has no body
    request.on('data', (content: Buffer) => {
      this.contentBytes += content.length
      // HTTP/2 emits views of what it has read from the connection, which may hold data of other streams. So it is `Landed`.
      if (this.exchange?.onContent(asLanded(content), false) === false && this.exchange !== null) request.pause()
    })
    request.on('end', () => { if (!wasCut(request)) this.exchange?.onRequestEnd() })
    request.on('error', (error) => this.exchange?.onReadError(new AbortedError({ cause: error })))
  }

  // Writing

  whenMayWrite (callback: () => void): void {
    callback()
  }

  writeHead (start: ResponseStart): void {
    const { response, stream } = this
    // After CONNECT, a stream of HTTP/2 is a tunnel (RFC 9113 section 8.5). Node refuses a 101 on it.
    if (start.framing === TUNNEL && stream === undefined) throw new TunnelError('A tunnel')
    // Only to apply the same checks: Node writes the head.
    writeResponseHead(start, true)
    this.responseFraming = start.framing
    this.responseBody = new NodeResponse(response, start.framing, () => this.exchange?.onAnswered())
    const leftOut = ['connection']
    if (forbidsLength(start)) leftOut.push('content-length')
    const fields = Object.entries(start.fields).filter(([name, value]) => value !== undefined && !leftOut.includes(name.toLowerCase()))
    if (start.close && stream === undefined) fields.push(['connection', 'close'])
    if (start.framing.kind === 'chunked' && this.trailersToSend !== null) {
      const names = trailerNames(this.trailersToSend)
      if (names !== '') fields.push(['trailer', names])
    }
    this.head = { statusCode: start.statusCode, fields: Object.fromEntries(fields) as OutgoingHttpHeaders, hasLength: !forbidsLength(start) }
    // Node ends an HTTP/2 stream with the head if there is no content.
    this.endsWithHead = start.framing.kind === 'none' && stream !== undefined
  }

  takeBack (): void {
    this.responseBody!.takeBack()
    this.head = this.responseBody = null
  }

  refuse (): void {
    this.response.shouldKeepAlive = false
  }

  /** Gives the head to Node. @returns false if other code has done so: then the response is cut off */
  private begin (): boolean {
    const { response } = this
    const { statusCode, fields, hasLength } = this.head!
    if (response.headersSent) {
      this.exchange!.onAnswered()
      return false
    }
    if (!hasLength) response.removeHeader('content-length')
    response.writeHead(statusCode, fields) // throws what those throw who have wrapped it
    this.head = null
    this.exchange!.onFirstByte()
    return true
  }

  writeInterim (statusCode: number, fields: OutgoingFields): boolean {
    const { request, response, stream } = this
    const head = writeInterimHead(statusCode, fields)
    if (stream !== undefined) {
      if (stream.destroyed || stream.closed) return false
      stream.additionalHeaders({ ':status': statusCode, ...fields } as OutgoingHttpHeaders)
      return true
    }
    // Not to a client of HTTP/1.0 (RFC 9110 section 15.2). A response of app.inject() cannot hold one.
    if (minorVersion(request) === 0 || isInjected(request, response)) return false
    // Straight to the socket: Node has methods for some statuses, and only from Node 24 on for all. Node itself writes nothing
    // before the head.
    whenInTurn(response, () => { response.socket!.write(head, 'latin1') })
    return true
  }

  setTrailers (fields: OutgoingFields): void {
    this.trailersToSend = checkTrailers(fields)
  }

  get connectionIsGone (): boolean {
    // Only for HTTP/1. An HTTP/2 stream may be destroyed when a write calls back, even after a good end.
    return this.stream === undefined && this.request.socket.destroyed
  }

  write (content: readonly Buffer[], size: number, end: boolean, done: WriteCallback = ignore): void {
    const buffers = this.responseBody!.frame(content, size, end, this.trailersToSend)
    this.responseIsWritten = end || this.endsWithHead
    if (this.responseIsWritten) keepUnread(this.request, this.stream) // until `finish` drops it
    if (this.head !== null && !this.begin()) return
    this.contentBytes += size
    this.responseBody!.send(buffers, size, this.trailersToSend, end, done)
  }

  // Ending

  detach (): never {
    throw new TunnelError('detach()')
  }

  finish (): void {
    this.forgetExchange()
    this.dropRest()
  }

  /** Reads and drops the rest of the request: until `drainTimeout`, and on HTTP/2 up to `drainLimit`. */
  private dropRest (): void {
    const { request, response, stream, options: { drainLimit, drainTimeout } } = this
    request.resume()
    if (request.readableEnded || isInjected(request, response) || this.isClosed) return
    const drain = new Drain()
    const { socket } = request
    const stopDraining = (): void => {
      drain.stop()
      if (stream === undefined) socket.removeListener('close', stopDraining)
    }
    const onLimit = (): void => {
      drain.stop()
      if (stream !== undefined) {
        stream.close(constants.NGHTTP2_NO_ERROR) // the client need not send the rest (RFC 9113 section 8.1)
      } else {
        socket.end()
        drain.start(drainTimeout, () => socket.destroy())
      }
    }
    drain.start(drainTimeout, onLimit)
    if (stream !== undefined) {
      let dropped = 0
      request.on('data', (content: Buffer) => {
        dropped += content.length
        // Node sends trailers after the stream has finished. A reset would overtake them.
        if (dropped > drainLimit && stream.state.localClose === 1) onLimit()
      })
    }
    request.on('close', stopDraining).on('end', stopDraining)
    if (stream === undefined) socket.on('close', stopDraining)
  }

  /** Suspends the server's timeout, which is meant for requests that are answered at once. The idle watch replaces it. */
  private suspendTimeout (): void {
    if (this.exchange === null) return
    const { socket } = this.request
    if (!hasServerTimeout(socket)) return
    this.previousTimeout = socket.timeout!
    socket.setTimeout(0)
  }

  private forgetExchange (): ExchangeEvents | null {
    const { exchange } = this
    this.exchange = null
    this.watching?.leave()
    if (this.stream === undefined) this.leaveConnection()
    this.restoreTimeout()
    return exchange
  }

  private leaveConnection (): void {
    const { request } = this
    openExchanges(request.socket).delete(this)
    setAutoDestroy(request, true)
    if (request.readableEnded) request.destroy()
  }

  private restoreTimeout (): void {
    if (this.previousTimeout !== null) this.request.socket.setTimeout(this.previousTimeout)
    this.previousTimeout = null
  }

  abort (error: Error, lingers: boolean): void {
    this.forgetExchange()
    const { request, response, stream } = this
    if (!this.nodeHasFinished && response.listenerCount('error') > 0) response.emit('error', error)
    response.on('error', ignore) // Fastify's listener is called only once, and app.inject() emits another error
    // With an error, since an HTTP/2 stream that is destroyed without one may look complete. Not with `close(code)`: it made
    // Node 26 abort (an assertion in Http2Stream::OnTrailers).
    if (stream !== undefined) this.resetStream(stream, error, lingers)
    else if (lingers && this.responseFraming!.kind !== 'close' && request.socket.writable && !isInjected(request, response)) this.closeAfterDrain()
    else if (this.nodeHasFinished) this.cutOff()
    // In turn: from Node 24 on, a response that is destroyed earlier would leave the connection open.
    // Later than the end of the response before it, which would not look complete on a connection that is gone.
    else if (isInTurn(response)) this.cutOff()
    else whenInTurn(response, () => { process.nextTick(() => this.cutOff()) })
  }

  /** @param lingers whether the client has time to read what was written */
  private resetStream (stream: ServerHttp2Stream, error: Error, lingers: boolean): void {
    if (!lingers) {
      stream.destroy(error)
      return
    }
    const drain = new Drain()
    const reset = (): void => {
      drain.stop()
      stream.destroy(error)
    }
    stream.on('close', () => drain.stop())
    drain.start(this.options.drainTimeout, reset)
    stream.write('', reset) // calls back when everything before it was sent
  }

  /** Closes the connection when the client has had time to read what was written. */
  private closeAfterDrain (): void {
    const { socket } = this.request
    destroyAfter(socket, this.options.drainTimeout)
    this.request.resume()
    socket.end()
  }

  private cutOff (): void {
    const { request, response, responseFraming } = this
    if (isInjected(request, response) || request.socket.destroyed) response.destroy()
    else cutOff(request.socket, responseFraming?.kind === 'close')
  }

  private onFinish (): void {
    this.nodeHasFinished = true
    this.restoreTimeout() // before Node's own listener, which sets its `keepAliveTimeout`
    if (this.exchange === null) return
    if (this.responseBody === null && this.response.writableEnded) {
      this.onAnswered()
    } else if (!this.responseIsWritten) {
      // HTTP/2 also emits 'finish' for a stream that was reset. Fastify's listener, which is called next, logs the failure.
      this.onClose()
    }
  }

  /** Other code has sent the whole response. */
  private onAnswered (): void {
    this.forgetExchange()!.onAnswered()
    this.dropRest()
  }

  /** The response is closed, or the connection. */
  onClose (): void {
    // A stream of HTTP/2 closes as well when both its sides have ended. The handler may not have ended a response to HEAD yet.
    // 'finish' alone does not tell: the response emits it also for a stream that was reset.
    if (this.isAnswered && (!this.contentWasRequested || this.request.readableEnded)) this.exchange?.onRestLost()
    else if (!this.bothSidesHaveEnded) this.exchange?.onGone(new AbortedError())
    // Otherwise a reader that is slower than the client finds the rest in `request`.
  }

  private get isAnswered (): boolean {
    return this.responseIsWritten && (this.stream === undefined ? this.nodeHasFinished : this.stream.writableFinished)
  }

  /** Whether a stream of HTTP/2 has closed because the whole request was received, and the whole response sent. */
  private get bothSidesHaveEnded (): boolean {
    return this.isAnswered && this.stream?.readableEnded === true && !wasCut(this.request)
  }

  // For the idle watch, and for the speed of the client

  get isBehindOthers (): boolean {
    return this.stream === undefined && !isInTurn(this.response)
  }

  get progress (): number {
    const { request, stream, contentBytes } = this
    // For HTTP/2 only the bytes of this stream: progress on another stream must not keep this one open.
    return stream === undefined ? progressOf(request.socket) : contentBytes - stream.bufferSize
  }

  get isStuck (): boolean {
    const { request, stream } = this
    return stream === undefined ? queuedBytes(request.socket) > 0 : stream.bufferSize > 0
  }

  onIdle (): void {
    const { exchange, request: { socket }, response, stream } = this
    // A response to an earlier request is due. Waiting for the app is not limited, but waiting for the client is.
    if (stream === undefined && !this.nodeHasFinished && !isInTurn(response) && !this.isStuck && socket.writable) return
    exchange!.onIdleTimeout()
    exchange!.onIdle(stream !== undefined || (isInTurn(response) && socket.writable))
    // No response can be sent any more, but Node would wait for the earlier ones.
    if (stream === undefined && !socket.writable) socket.destroy()
  }
}

/** The transports of each connection whose exchange is open. */
const open = new WeakMap<Duplex, Set<NodeTransport>>()

/**
 * Tells the exchanges of a connection when it closes. Node emits 'close' neither on a response that is out of turn, nor on a
 * request that is read behind its response. One listener for all: Node warns about too many.
 */
function openExchanges (socket: Duplex): Set<NodeTransport> {
  let transports = open.get(socket)
  if (transports === undefined) {
    const all = transports = new Set()
    open.set(socket, all)
    socket.on('close', () => { for (const transport of all) transport.onClose() })
  }
  return transports
}

/** Whether app.inject() has made the pair. Then there is no connection below it, and the response is collected elsewhere. */
function isInjected (request: IncomingMessage, response: ServerResponse): boolean {
  return response.socket !== null && !isHttp2(request) && response.socket !== request.socket
}

/** Whether progress can be measured: not with app.inject(), and not on a connection that does not count its bytes. */
function countsBytes (request: IncomingMessage, response: ServerResponse): boolean {
  return isHttp2(request) || (!isInjected(request, response) && 'bytesWritten' in request.socket)
}

function ignore (): void {}
