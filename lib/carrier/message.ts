// A request/response pair instead of a connection: app.inject(), HTTP/2, servers whose connections cannot be taken, and
// requests that were not routed at once. Node reads and frames; for the handler the exchange is the same.

import type { IncomingMessage, ServerResponse } from 'node:http'
import { type ServerHttp2Stream, constants } from 'node:http2'
import type { Duplex } from 'node:stream'
import { AbortedError } from '../errors.ts'
import { type BodyWriter, type Part, bodyWriter, gather } from '../transfer/body-writer.ts'
import { type Fields, type OutgoingFields, writeTrailers } from '../transfer/field-lines.ts'
import { type Framing, NO_BODY, UNTIL_CLOSE, framingFields, minorVersion, requestFraming } from '../transfer/framing.ts'
import { writeResponseHead } from '../transfer/head-writer.ts'
import type { Carrier, ResponseStart, Sink } from './carrier.ts'

export class MessageCarrier implements Carrier {
  sink: Sink | null = null
  over = false
  onOver: () => void = ignore
  answering = false
  readonly mayWrite = true // Node holds back what is not in turn
  readonly requestFraming: Framing = NO_BODY
  readonly framingError: Error | null = null
  failure: Error | null = null
  private readonly request: IncomingMessage
  private readonly response: ServerResponse
  private writer: BodyWriter | null = null
  private trailersToSend: OutgoingFields | null = null
  private reading = false
  private ended = false // all of the response has been written

  constructor (request: IncomingMessage, response: ServerResponse) {
    this.request = request
    this.response = response
    try {
      this.requestFraming = this.decideFraming()
    } catch (error) {
      this.framingError = error as Error
    }
    // Before Fastify's own, which asks for the failure.
    response.prependListener('finish', () => this.onFinish())
    response.on('close', () => this.onClose())
    // The client left during the hooks, before anybody listened.
    if (request.aborted) {
      this.failure = new AbortedError()
      this.over = true
    }
  }

  private decideFraming (): Framing {
    const { request } = this
    const framing = requestFraming(framingFields(request.rawHeaders), minorVersion(request))
    // A request of HTTP/2 need not announce its body, which ends with the stream.
    return framing === NO_BODY && request.httpVersionMajor > 1 && !isEmpty(request) ? UNTIL_CLOSE : framing
  }

  get socket (): Duplex {
    return this.request.socket
  }

  get trailers (): Readonly<Fields> {
    return this.request.trailers as Fields
  }

  read (): void {
    const { request } = this
    if (this.reading) {
      request.resume()
      return
    }
    this.reading = true
    request.on('data', (content: Buffer) => {
      if (!this.sink!.onContent(content)) request.pause()
    })
    request.on('end', () => this.sink!.onComplete())
    request.on('error', (error) => this.sink!.onReadError(new AbortedError({ cause: error })))
  }

  whenMayWrite (callback: () => void): void {
    callback()
  }

  writeHead (start: ResponseStart): void {
    const { response } = this
    // The same rules, though Node writes it.
    writeResponseHead(start, true)
    this.writer = bodyWriter(start.framing.kind === 'chunked' ? UNTIL_CLOSE : start.framing)
    const { connection, ...fields } = start.fields
    response.writeHead(start.statusCode, fields as Record<string, string>)
  }

  writeInterim (): boolean {
    return false
  }

  setTrailers (fields: OutgoingFields): void {
    writeTrailers(fields)
    this.trailersToSend = fields
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

  finish (): void {
    this.end()
  }

  private end (): void {
    this.over = true
    this.onOver()
  }

  abort (error: Error): void {
    this.end()
    this.failure = error
    if (this.response.listenerCount('error') > 0) this.response.emit('error', error)
    // A stream of HTTP/2 that is only destroyed may look like one that has ended.
    const { stream } = this.response as ServerResponse & { stream?: ServerHttp2Stream }
    if (stream) stream.close(constants.NGHTTP2_INTERNAL_ERROR)
    else this.response.destroy()
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
    if (this.over) return
    const error = new AbortedError()
    this.abort(error)
    this.sink?.onLost(error)
  }
}

/** Whether the head of a request of HTTP/2 was the end of it. */
function isEmpty (request: IncomingMessage & { stream?: { endAfterHeaders?: boolean } }): boolean {
  return request.stream?.endAfterHeaders === true
}

function ignore (): void {}
