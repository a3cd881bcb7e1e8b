// Whether the reader of a request has left. Behind a complete response, the exchange then ends, and the rest of the request is dropped.
// A reader that stays may read to the end.

import { Readable } from 'node:stream'
import { isPiped, isRead } from '../node/streams.ts'
import type { ContentReceiver } from '../relay/relay.ts'
import type { Exchange } from './exchange.ts'
import type { RequestBody, WebHalves } from './halves.ts'

/** The stream of an exchange, as its watch sees it. */
export interface WatchedStream extends Readable {
  /** Whether there is nothing to read: no request body, and no tunnel. */
  readonly hasNoContent: boolean
  /** Whether somebody listens for content. */
  readonly isRead: boolean
  /** A relay that takes the content. */
  readonly receiver: ContentReceiver | null
  /** The number of loops that read. */
  readonly loops: number
  /** The number of those that leave, but still wait. */
  readonly leavingLoops: number
  /** A number that grows with everything that a reader takes from a buffer. */
  readonly taken: number
  /** Whether items were decoded that were not taken yet. */
  readonly hasUnreadItems: boolean
  /** Whether a read has found less than it wants, and nothing has come since. */
  readonly foundTooLittle: boolean
  readonly requestHalf: RequestBody | null
  readonly webStreams: WebHalves | null
  onReaderChange (): void
}

export class ReaderWatch {
  private readonly stream: WatchedStream
  private exchange: Exchange | null // null when it is over
  private isListening = false
  private timer: NodeJS.Timeout | undefined
  private takenBefore: number | null = null // `taken`, when reading first seemed to be over; null if it does not

  constructor (stream: WatchedStream, exchange: Exchange) {
    this.stream = stream
    this.exchange = exchange
  }

  /**
   * Checks whether the reader has left. The owner of the request half has `drainTimeout` to begin to read. After the handler has returned, a
   * reader has `drainTimeout` to take some of the content that is there. Some readers leave without an event, so a timer checks again.
   * A client that waits for a 100 has `drainTimeout` to begin its body: most clients send none when they have the whole response.
   */
  check (): void {
    const { stream, exchange } = this
    if (exchange === null) return
    if (!stream.isRead && !this.halfMayBeRead) {
      exchange.happens('reader left')
      return
    }
    this.listen()
    if (this.seemsOver && this.takenBefore === null) this.startTimer(stream.taken)
    else if (this.timer === undefined && exchange.life.handler === 'returned') this.startTimer(null)
  }

  private listen (): void {
    if (this.isListening) return
    this.isListening = true
    const { stream } = this
    stream.on('pause', () => { this.onChange() }).on('resume', () => { if (stream.readableFlowing === true) this.takenBefore = null })
    Object.assign(stream, WATCHED)
  }

  private startTimer (takenBefore: number | null): void {
    clearTimeout(this.timer)
    this.takenBefore = takenBefore
    this.timer = setTimeout(() => { this.onTimeout() }, this.exchange!.options.drainTimeout)
    if (takenBefore === null) this.timer.unref() // only looks again: it does not keep a process alive that has nothing else to do
  }

  private onTimeout (): void {
    const hasTakenNothing = this.takenBefore === this.stream.taken
    this.timer = undefined
    this.takenBefore = null
    if (hasTakenNothing && this.seemsOver) this.exchange!.happens('reader left')
    else this.check()
  }

  /** Whether nothing more seems to be read. If nothing is taken for `drainTimeout` either, the reader has left. */
  private get seemsOver (): boolean {
    const { stream } = this
    const { life, transport } = this.exchange!
    if (!stream.isRead || transport.awaitsContinue) return true
    // The handler, or the target of a pipe, may resume a reader that has paused.
    if (life.handler === 'running' || stream.receiver !== null || isPiped(stream) || stream.requestHalf?.isPiped === true) return false
    const dataReaders = stream.listenerCount('data') - (stream.requestHalf?.isLeft === true ? 1 : 0)
    if (stream.readableFlowing === true) return dataReaders === 0
    if (stream.loops > 0 ? stream.loops === stream.leavingLoops : stream.listenerCount('readable') === 0) return true
    return stream.hasUnreadItems || (stream.readableLength > 0 && !stream.foundTooLittle)
  }

  /** Whether the request half has an owner that may still begin to read, as undici does when it is connected. */
  private get halfMayBeRead (): boolean {
    const { requestHalf, webStreams, hasNoContent } = this.stream
    if (requestHalf?.isUnread !== true || hasNoContent) return false
    return this.exchange!.life.handler === 'running' || (webStreams === null ? isRead(requestHalf) : webStreams.readable.locked)
  }

  /** A reader has paused, or one of them has left. */
  onChange (): void {
    // A handler that is running may read again. Not in this tick: code that waits with promises listens again in a microtask.
    if (this.exchange?.life.handler === 'returned') setImmediate(() => { this.check() })
  }

  /** The exchange is over. */
  stop (): void {
    clearTimeout(this.timer)
    this.exchange = null
  }
}

const { off, removeAllListeners } = Readable.prototype

/** Methods of a stream whose reader is watched. Not by 'removeListener', which Node does not always emit for streams. */
const WATCHED = {
  removeListener (this: WatchedStream, event: string | symbol, listener: (...args: any[]) => void): WatchedStream {
    this.onReaderChange()
    return off.call(this, event, listener) as WatchedStream
  },
  off (this: WatchedStream, event: string | symbol, listener: (...args: any[]) => void): WatchedStream {
    return this.removeListener(event, listener) as WatchedStream
  },
  removeAllListeners (this: WatchedStream, ...events: (string | symbol)[]): WatchedStream {
    this.onReaderChange()
    return removeAllListeners.apply(this, events as [string]) as WatchedStream
  }
}
