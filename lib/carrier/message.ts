// A request/response pair instead of a connection: app.inject(), HTTP/2, servers whose connections cannot be taken, and
// requests that were not routed at once. Node reads and frames; for the handler the exchange is the same.

import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Duplex } from 'node:stream'
import { AbortedError } from '../errors.ts'
import { type BodyWriter, type Part, bodyWriter, gather } from '../transfer/body-writer.ts'
import { type Fields, type OutgoingFields, writeTrailers } from '../transfer/field-lines.ts'
import { type Framing, NO_BODY, UNTIL_CLOSE, framingFields, requestFraming } from '../transfer/framing.ts'
import { writeResponseHead } from '../transfer/head-writer.ts'
import type { Carrier, ResponseStart, Sink } from './carrier.ts'

export class MessageCarrier implements Carrier {
  sink: Sink | null = null
  readonly mayWrite = true // Node holds back what is not in turn
  readonly requestFraming: Framing = NO_BODY
  readonly framingError: Error | null = null
  failure: Error | null = null
  private readonly request: IncomingMessage
  private readonly response: ServerResponse
  private writer: BodyWriter | null = null
  private trailersToSend: OutgoingFields | null = null
  private reading = false
  private over = false

  constructor (request: IncomingMessage, response: ServerResponse) {
    this.request = request
    this.response = response
    try {
      this.requestFraming = requestFraming(framingFields(request.rawHeaders), request.httpVersionMinor)
    } catch (error) {
      this.framingError = error as Error
    }
    response.on('finish', () => this.onFinish())
    response.on('close', () => this.onClose())
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

  write (content: readonly Buffer[], size: number, end: boolean, done: (error?: Error | null) => void): void {
    const { response } = this
    const parts: Part[] = []
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
    this.over = true
  }

  abort (error: Error): void {
    this.over = true
    this.failure = error
    if (this.response.listenerCount('error') > 0) this.response.emit('error', error)
    this.response.destroy()
  }

  private onFinish (): void {
    if (this.over) return
    this.over = true
    if (this.writer === null) this.sink?.onAnswered()
  }

  private onClose (): void {
    if (this.over) return
    const error = new AbortedError()
    this.abort(error)
    this.sink?.onLost(error)
  }
}
