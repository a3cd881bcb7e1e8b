// Whether the reader of a request whose response is complete has left. Then the exchange ends, and the rest of the request is dropped.
// A reader that stays may read to the end. It may leave at any time, so it is watched.

import { Readable } from 'node:stream'
import { isPiped, isRead } from '../node/streams.ts'
import type { ContentReceiver } from '../relay/relay.ts'
import { type Framing, NO_BODY } from '../transfer/framing.ts'
import type { Exchange } from './exchange.ts'
import type { RequestBody, WebHalves } from './halves.ts'

/** The stream of an exchange, as its watch sees it. */
export interface WatchedStream extends Readable {
  readonly requestFraming: Framing
  readonly isTunnel: boolean
  /** Whether somebody listens for content. */
  readonly isRead: boolean
  /** A relay that takes the content. */
  readonly receiver: ContentReceiver | null
  /** The number of loops that read. */
  readonly loops: number
  /** The number of chunks that were read. */
  readonly reads: number
  readonly requestHalf: RequestBody | null
  readonly webStreams: WebHalves | null
  onReaderChange (): void
}

export class ReaderWatch {
  private readonly stream: WatchedStream
  private exchange: Exchange | null // null when it is over
  private isListening = false
  private timer: NodeJS.Timeout | undefined

  constructor (stream: WatchedStream, exchange: Exchange) {
    this.stream = stream
    this.exchange = exchange
  }

  /**
   * Looks whether the reader has left. It has `drainTimeout` to begin, if it was given the request half. After the handler has returned,
   * one that pauses has as long to resume.
   */
  check (): void {
    const { stream, exchange } = this
    if (exchange === null) return
    if (!stream.isRead && !this.halfMayBeRead) {
      exchange.happens('reader left')
      return
    }
    if (stream.receiver !== null) return
    this.listen()
    if (!this.seemsToHaveLeft) return
    const { reads } = stream
    this.timer ??= setTimeout(() => { this.checkAgain(reads) }, exchange.options.drainTimeout)
  }

  private listen (): void {
    if (this.isListening) return
    this.isListening = true
    this.stream.on('pause', () => { this.onChange() }).on('resume', () => { this.stopTimer() })
    Object.assign(this.stream, WATCHED)
  }

  /** A loop, and a reader that listens for 'readable', seem to pause between two chunks. They have left if they take nothing. */
  private checkAgain (readsBefore: number): void {
    this.timer = undefined
    if (this.stream.reads > readsBefore || !this.seemsToHaveLeft) this.check()
    else this.exchange!.happens('reader left')
  }

  /** Whether nobody has begun to read; or the reader has paused, and there is no handler, and no target of a pipe, that would resume it. */
  private get seemsToHaveLeft (): boolean {
    const { stream } = this
    if (!stream.isRead) return true
    const seemsPaused = stream.isPaused() || stream.loops > 0
    return this.exchange!.life.handler === 'returned' && seemsPaused && !isPiped(stream) && stream.requestHalf?.isPiped !== true
  }

  /** Whether the request half has an owner that may still begin to read, as undici does when it is connected. */
  private get halfMayBeRead (): boolean {
    const { requestHalf, webStreams, requestFraming, isTunnel } = this.stream
    if (requestHalf?.isUnread !== true || (requestFraming === NO_BODY && !isTunnel)) return false
    return this.exchange!.life.handler === 'running' || (webStreams === null ? isRead(requestHalf) : webStreams.readable.locked)
  }

  /** A reader has paused, or one of them has left. */
  onChange (): void {
    // A handler that is running may read again. Not in this tick: code that waits with promises listens again in a microtask.
    if (this.exchange?.life.handler === 'returned') setImmediate(() => { this.check() })
  }

  private stopTimer (): void {
    clearTimeout(this.timer)
    this.timer = undefined
  }

  /** The exchange is over. */
  stop (): void {
    this.stopTimer()
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
