// The halves of an exchange, each for code that treats it as a stream of its own. Such code destroys the stream that it was given:
// undici and pipeline() do so when they have read it, or when they fail. The other half lives on.

import { type Duplex, Readable } from 'node:stream'
import { ReadableStream, WritableStream } from 'node:stream/web'
import { DestroyedError } from '../errors.ts'
import { bytesFrom, drained, isPiped, shortLived } from '../node/streams.ts'
import { areReadsNoted, isWaitedFor, noteReads } from './waiting-reader.ts'

/** The stream of an exchange, as its halves see it. */
interface Whole extends Duplex {
  /** Looks whether somebody still reads: with a complete response, the exchange ends if nobody does. */
  recheckReader (): void
}

export interface WebHalves {
  readable: ReadableStream<Uint8Array>
  writable: WritableStream<string | Uint8Array>
}

/** The request half. It reads from the exchange only while its own reader wants more. */
export class RequestBody extends Readable {
  /** The number of chunks that were read, but not of those that were emitted as 'data' at once. */
  reads = 0
  private readonly exchange: Whole
  private isConnected = false
  private isComplete = false
  private isIterated = false

  constructor (exchange: Whole) {
    super({ highWaterMark: 0 }) // the exchange has a buffer
    this.exchange = exchange
    if (areReadsNoted(exchange)) noteReads(this)
    // An 'error' without a listener would end the process.
    this.on('error', ignore)
    if (exchange.readableAborted) this.destroy(exchange.errored ?? undefined)
  }

  /** Whether the handler would see an error of the request. */
  get handlesErrors (): boolean {
    return this.listenerCount('error') > 1
  }

  get isPiped (): boolean {
    return isPiped(this)
  }

  /** Whether nothing was read through this stream yet, and it is still open. */
  get isUnread (): boolean {
    return !this.isConnected && !this.destroyed
  }

  /** Whether the exchange was read through this stream, but nobody listens to it any more. */
  get isLeft (): boolean {
    return this.isConnected && !this.destroyed && this.listenerCount('data') + this.listenerCount('readable') + this.listenerCount('end') === 0
  }

  /** Whether the exchange is not read through this stream, or its reader waits. */
  get isReady (): boolean {
    return !this.isConnected || this.destroyed || isWaitedFor(this)
  }

  override _read (): void {
    const { exchange } = this
    if (exchange.readableEnded) {
      this.onEnd()
      return
    }
    if (!this.isConnected) {
      this.isConnected = true
      exchange.on('data', this.onData).on('end', this.onEnd)
    }
    exchange.resume()
  }

  /** For a reader that takes one chunk for each 'readable'. A loop reads on by itself, and may leave before. */
  override read (size?: number): any {
    const chunk = super.read(size)
    if (chunk === null) return null
    this.reads++
    if (this.readableLength === 0 && !this.isIterated && this.listenerCount('readable') > 0) process.nextTick(readOn, this)
    return chunk
  }

  private readonly onData = (chunk: Buffer | string): void => {
    const wasFlowing = this.readableFlowing === true
    this.push(bytesFrom(chunk, this.exchange))
    // With setEncoding(), the chunk may end within a character. If it holds nothing else, the reader has got nothing, and still waits.
    if (this.readableLength > 0 || (wasFlowing && this.readableFlowing !== true)) this.exchange.pause()
  }

  private readonly onEnd = (): void => {
    this.isComplete = true
    this.push(null)
  }

  /** Ends an empty body, if nobody has begun to read it. */
  endUnread (): void {
    if (!this.isUnread) return
    this.onEnd()
    this.resume()
  }

  /** The exchange is over. */
  onClose (error: Error | null): void {
    if (!this.isComplete) this.destroy(error ?? undefined)
  }

  override iterator (options?: { destroyOnReturn?: boolean }): NodeJS.AsyncIterator<any> {
    this.isIterated = true
    return super.iterator(options)
  }

  /** The reader of an iterator may leave while it waits for a chunk, as `fetch` does. Node's own iterator would wait on. */
  override [Symbol.asyncIterator] (): NodeJS.AsyncIterator<any> {
    const iterator = this.iterator()
    const leave = iterator.return!
    iterator.return = shortLived((value) => {
      this.destroy()
      return leave.call(iterator, value)
    })
    return iterator
  }

  override _destroy (error: Error | null, done: (error?: Error | null) => void): void {
    const { exchange } = this
    if (this.isConnected) {
      exchange.off('data', this.onData).off('end', this.onEnd)
      // Nothing more is read, until the response is complete and the rest of the request is dropped.
      if (!this.isComplete && exchange.listenerCount('data') === 0) exchange.pause()
    }
    done(error)
    if (!this.isComplete) exchange.recheckReader()
  }
}

/** Both halves as web streams. */
export function webHalves (request: RequestBody, response: Duplex): WebHalves {
  return { readable: webReadable(request), writable: webWritable(response) }
}

/**
 * Not with Readable.toWeb(): its stream would stop between two reads that do not wait for each other, since the request half buffers
 * nothing; and that of a request that was cut off before would look complete.
 */
function webReadable (request: RequestBody): ReadableStream<Uint8Array> {
  let chunks: NodeJS.AsyncIterator<any> | null = null // from the first read on
  return new ReadableStream<Uint8Array>({
    start (controller) {
      const fail = (): void => { if (!request.readableEnded) controller.error(request.errored ?? new DestroyedError()) }
      if (request.closed) fail()
      else request.on('close', fail)
    },
    async pull (controller) {
      chunks ??= request.iterator()
      const { value, done } = await chunks.next()
      if (done) {
        controller.close()
        return
      }
      const chunk = bytesFrom(value, request)
      controller.enqueue(new Uint8Array(chunk.buffer, chunk.byteOffset, chunk.length))
    },
    cancel (reason) {
      request.destroy(reason instanceof Error ? reason : undefined)
    }
  }, { highWaterMark: 0 }) // nothing is read before somebody reads
}

/** Not with Writable.toWeb(): closing its stream would wait for the end of the request. */
function webWritable (response: Duplex): WritableStream<string | Uint8Array> {
  const failure = (): Error => response.errored ?? new DestroyedError()
  return new WritableStream({
    start (controller) {
      if (response.closed) controller.error(failure())
      response.on('close', () => { if (!response.writableFinished) controller.error(failure()) })
    },
    async write (chunk) {
      try {
        if (!response.write(chunk)) await drained(response)
      } catch (error) {
        response.destroy(error as Error)
      }
      if (response.destroyed) throw failure()
    },
    close () {
      return new Promise((resolve, reject) => {
        response.end((error?: Error | null) => { if (error) reject(error); else resolve() })
      })
    },
    abort (reason) {
      response.destroy(reason instanceof Error ? reason : new DestroyedError({ cause: reason }))
    }
  })
}

function readOn (request: RequestBody): void {
  request.read(0)
}

function ignore (): void {}
