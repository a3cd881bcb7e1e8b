// Writes a response body through Node's ServerResponse, which frames it.

import type { ServerResponse } from 'node:http'
import type { Writable } from 'node:stream'
import type { OutgoingFields } from '../../types/transfer.d.ts'
import { streamOf } from '../node/http2.ts'
import { shortLived } from '../node/streams.ts'
import { NO_FIELDS } from '../transfer/body-reader.ts'
import { type BodyWriter, type Part, bodyWriter, gather } from '../transfer/body-writer.ts'
import { FieldMap, writeTrailers } from '../transfer/field-lines.ts'
import { type Framing, UNTIL_CLOSE, allowsTrailers } from '../transfer/framing.ts'
import type { WriteCallback } from './transport.ts'

type Method = (...args: unknown[]) => any

/** Bytes given to an HTTP/2 stream at a time. A client that accepts none of them for `idleTimeout` is idle. */
const STREAM_WRITE_SIZE = 64 * 1024

export class NodeResponse {
  private readonly response: ServerResponse
  private readonly writer: BodyWriter
  private readonly nodeMethods: Pick<ServerResponse, 'write' | 'end'>
  private readonly allowsTrailers: boolean
  private isOurs = false // the call of `write` or `end` that is under way
  private isSending = false // `send` is on the call stack
  private writes = 0
  private pending: WriteCallback = ignore // the callback of the last write

  /**
   * @param onForeignEnd called when other code ends the response, such as the error filter of a framework. It is not ended then: it
   *   would look complete. What other code writes is dropped.
   */
  constructor (response: ServerResponse, framing: Framing, onForeignEnd: () => void) {
    this.response = response
    this.writer = bodyWriter(framing.kind === 'chunked' ? UNTIL_CLOSE : framing)
    this.allowsTrailers = allowsTrailers(framing)
    response.on('drain', this.onDrain)
    const { write, end } = response
    this.nodeMethods = { write, end }
    response.write = shortLived((...args: unknown[]) => {
      if (this.isOurs) return (write as Method).apply(response, args)
      const callback = args.find((argument) => typeof argument === 'function')
      if (callback !== undefined) process.nextTick(callback as Method)
      return true
    }) as typeof write
    response.end = shortLived((...args: unknown[]) => {
      if (this.isOurs) (end as Method).apply(response, args)
      else onForeignEnd()
      return response
    }) as typeof end
  }

  /** Leaves the response to other code: nothing of it was sent. */
  takeBack (): void {
    Object.assign(this.response, this.nodeMethods)
    this.response.removeListener('drain', this.onDrain)
  }

  /** Node emits 'drain' during a write to a socket that it has ended. Not at once: code that writes again would never let go. */
  private readonly onDrain = (): void => {
    if (this.isSending) setImmediate(this.onDrain)
    else this.onWritten()
  }

  /** @returns the bytes of some content, as far as Node does not frame it. Node writes the `trailers` */
  frame (content: readonly Buffer[], size: number, end: boolean, trailers: OutgoingFields | null): Buffer[] {
    const parts: Part[] = []
    if (size > 0) this.writer.write(content, size, parts)
    if (end) this.writer.end(this.allowsTrailers ? '' : writeTrailers(trailers ?? NO_FIELDS), parts)
    return gather(parts)
  }

  /** As `Transport.write`. `trailers` are sent at the end of the body. */
  send (buffers: readonly Buffer[], size: number, trailers: OutgoingFields | null, end: boolean, done: WriteCallback): void {
    this.isSending = true
    try {
      this.sendNow(buffers, size, trailers, end, done)
    } finally {
      this.isSending = false
    }
  }

  private sendNow (buffers: readonly Buffer[], size: number, trailers: OutgoingFields | null, end: boolean, done: WriteCallback): void {
    const { response } = this
    if (end && trailers !== null) response.addTrailers(trailers as Record<string, string>)
    if (streamOf(response) !== undefined && size > STREAM_WRITE_SIZE) {
      this.writeInSlices(buffers, end, done)
      return
    }
    // Corked, so that Node makes one chunk of all buffers. Uncorked before `end`: Node 22.0 to 25.9 and 26.0 to 26.8 would send
    // the last chunk first.
    if (buffers.length > 1) response.cork()
    for (const buffer of buffers.slice(0, -1)) this.write(buffer, ignore)
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
   * Writes a buffer, and calls back when more may be written: after the callback of Node's `write`, or after 'drain'. Neither is
   * enough alone. Compression replaces `write` and drops the callback; Node 22 to 26 emit no 'drain' for corked content.
   */
  private writeLast (buffer: Buffer, done: WriteCallback): void {
    const write = ++this.writes
    this.pending = done
    const written: WriteCallback = (error) => { if (write === this.writes) this.onWritten(error) }
    if (this.write(buffer, written)) process.nextTick(written)
  }

  private write (buffer: Buffer, written: WriteCallback): boolean {
    this.isOurs = true
    try {
      return this.response.write(buffer, written)
    } finally {
      this.isOurs = false
    }
  }

  private onWritten (error?: Error | null): void {
    const { pending } = this
    this.pending = ignore
    pending(error)
  }

  /** Writes one slice after another, since an HTTP/2 stream does not tell how much of a write was sent. */
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

  /**
   * Ends the response. Does not give `end` a callback: compression and light-my-request 6.8.0 replace `end`, and take a callback
   * for content.
   */
  private end (done: () => void): void {
    const { response } = this
    // The stream, since an HTTP/2 response finishes only when its stream is closed.
    const writable: Writable = streamOf(response) ?? response
    if (writable.writableFinished) process.nextTick(done)
    else writable.once('finish', done)
    this.isOurs = true // until it has finished: compression ends it later
    response.end()
  }
}

/**
 * Checks trailers. Throws the errors of the trailer writer.
 *
 * @returns trailers for `NodeResponse.write`: one value for each name, since some repeated fields make Node end the process over HTTP/2
 */
export function checkTrailers (fields: OutgoingFields): OutgoingFields {
  writeTrailers(fields)
  const names = new Map<string, string>() // the spelling of each
  const trailers = new FieldMap()
  for (const [key, value] of Object.entries(fields)) {
    if (value === undefined) continue
    const name = names.get(key.toLowerCase()) ?? key
    names.set(key.toLowerCase(), name)
    trailers[name] = [...(name in trailers ? [trailers[name]] : []), value].flat().join(', ')
  }
  return trailers
}

function ignore (): void {}
