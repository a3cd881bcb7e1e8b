// A response body, written through Node's ServerResponse, which frames it.

import type { ServerResponse } from 'node:http'
import type { Writable } from 'node:stream'
import type { OutgoingFields } from '../../types/transfer.d.ts'
import { streamOf } from '../node/http2.ts'
import { type BodyWriter, type Part, bodyWriter, gather } from '../transfer/body-writer.ts'
import { writeTrailers } from '../transfer/field-lines.ts'
import { type Framing, UNTIL_CLOSE } from '../transfer/framing.ts'
import type { WriteCallback } from './transport.ts'

/** Bytes given to a stream of HTTP/2 at a time. A client that takes none of them for `idleTimeout` is silent. */
const STREAM_WRITE_SIZE = 64 * 1024

export class NodeResponse {
  private readonly response: ServerResponse
  private readonly writer: BodyWriter
  private writes = 0
  private pending: WriteCallback = ignore // of the last write

  constructor (response: ServerResponse, framing: Framing) {
    this.response = response
    this.writer = bodyWriter(framing.kind === 'chunked' ? UNTIL_CLOSE : framing)
    response.on('drain', () => this.onWritten())
  }

  write (content: readonly Buffer[], size: number, trailers: OutgoingFields | null, end: boolean, done: WriteCallback): void {
    const { response } = this
    const parts: Part[] = []
    if (size > 0) this.writer.write(content, size, parts)
    if (end) this.writer.end('', parts)
    if (end && trailers !== null) response.addTrailers(trailers as Record<string, string>)
    const buffers = gather(parts)
    if (streamOf(response) !== undefined && size > STREAM_WRITE_SIZE) {
      this.writeInSlices(buffers, end, done)
      return
    }
    // One chunk of all buffers. Uncork before `end`: Node 22.0 to 25.9 and 26.0 to 26.8 would send the last chunk first.
    if (buffers.length > 1) response.cork()
    for (const buffer of buffers.slice(0, -1)) response.write(buffer)
    if (buffers.length > 0) this.writeLast(buffers.at(-1)!, end ? ignore : done)
    if (buffers.length > 1) response.uncork()
    if (end) {
      this.end(done)
    } else if (buffers.length === 0) {
      response.flushHeaders()
      done()
    }
  }

  /**
   * Done when more may be written: by the callback, or by 'drain'. Others replace `write`, and compression drops the callback.
   * Node 22 to 26 emit no 'drain' for corked content.
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

  /** Writes one slice after another: a stream of HTTP/2 does not tell how much of a write was sent. */
  private writeInSlices (buffers: readonly Buffer[], end: boolean, done: WriteCallback): void {
    const slices = buffers.flatMap((buffer) => {
      const slices: Buffer[] = []
      for (let at = 0; at < buffer.length; at += STREAM_WRITE_SIZE) slices.push(buffer.subarray(at, at + STREAM_WRITE_SIZE))
      return slices
    }).values()
    const next: WriteCallback = (error) => {
      const slice = error ? undefined : slices.next().value
      if (slice !== undefined) this.writeLast(slice, next)
      else if (error || !end) done(error)
      else this.end(done)
    }
    next()
  }

  /** Without a callback: others replace `end` and take it for content (compression, light-my-request 6.8.0). */
  private end (done: () => void): void {
    const { response } = this
    // The response of HTTP/2 is finished only when its stream is closed.
    const written: Writable = streamOf(response) ?? response
    if (written.writableFinished) process.nextTick(done)
    else written.once('finish', done)
    response.end()
  }
}

/** Trailers for `NodeResponse.write`. Throws what the trailer writer throws. */
export function checkTrailers (fields: OutgoingFields): OutgoingFields {
  writeTrailers(fields)
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined))
}

function ignore (): void {}
