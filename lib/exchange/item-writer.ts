// The items of a response. Items of text are collected: those of one turn of the event loop are written as one chunk.

import type { Duplex } from 'node:stream'
import type { FramingKind } from '../../types/index.d.ts'
import type { Sending } from './items.ts'

/** The stream of an exchange, as the writer of its items sees it. */
export interface ItemSink extends Duplex {
  readonly framing: { readonly response: FramingKind | undefined }
  /** Writes the head before the first content. @returns false if that has failed */
  prepareWrite (content: string | Uint8Array): boolean
  /** Holds writes back until the end of this turn, when `flush` is called. */
  corkForTick (): void
}

/** Characters that are collected at most. */
const MAX_TEXT = 64 * 1024

export class ItemWriter {
  private readonly stream: ItemSink
  private readonly sending: Sending
  /** The items collected in this turn. If there are any, the stream is open, its head is written, and `flush` follows at the end of the turn. */
  private texts: string[] = []
  private length = 0
  /** Characters that are collected before they are written, and whether the stream has room for them. */
  private limit = 0
  private hasRoom = false
  private count = 0
  private heartbeat: NodeJS.Timeout | null = null

  constructor (stream: ItemSink, sending: Sending) {
    this.stream = stream
    this.sending = sending
  }

  /**
   * @returns as `write()`
   * @throws {ItemSerializeError} FST_ERR_DUPLEX_ITEM_SERIALIZE: nothing of the item was written
   */
  send (item: unknown): boolean {
    const content = this.sending.encode(item, this.count)
    this.count++
    if (typeof content !== 'string') return this.sendBytes(content)
    return this.texts.length === 0 ? this.sendFirst(content) : this.collect(content)
  }

  private sendBytes (content: Uint8Array): boolean {
    const { stream } = this
    if (!stream.destroyed && !stream.writableEnded) this.startHeartbeat()
    return stream.write(content)
  }

  private sendFirst (content: string): boolean {
    const { stream } = this
    if (stream.destroyed || stream.writableEnded) return stream.write(content, 'utf8') // Node reports the error
    this.startHeartbeat()
    if (!stream.prepareWrite(content)) return false
    stream.corkForTick()
    const room = stream.writableHighWaterMark - stream.writableLength
    this.hasRoom = room > 0
    // The items that fill the stream are written at once: only a write makes the stream emit 'drain'. A handler that sends although
    // the stream is full should not cause many small writes.
    this.limit = this.hasRoom ? room : MAX_TEXT
    return this.collect(content)
  }

  private collect (content: string): boolean {
    this.texts.push(content)
    this.length += content.length
    return this.length < this.limit ? this.hasRoom : this.flush()
  }

  /** Writes the collected items. @returns as `write()` */
  flush (): boolean {
    const { texts } = this
    this.heartbeat?.refresh() // also called for what the handler itself writes
    if (texts.length === 0) return true
    this.drop()
    return this.stream.write(this.sending.frame(texts), 'utf8')
  }

  /** From now on, something is sent when there has been no item for a while. */
  startHeartbeat (): void {
    const { stream, sending: { heartbeat } } = this
    if (heartbeat === null || this.heartbeat !== null) return
    this.heartbeat = setInterval(() => {
      // Within a content-length they would take the place of items.
      if (stream.writable && stream.writableLength === 0 && stream.framing.response !== 'length') stream.write(heartbeat.content, 'utf8')
    }, heartbeat.timeout)
  }

  /** Drops the collected items, and stops the heartbeats. */
  stop (): void {
    this.drop()
    this.stopHeartbeat()
  }

  private drop (): void {
    this.texts = []
    this.length = 0
  }

  stopHeartbeat (): void {
    if (this.heartbeat !== null) clearInterval(this.heartbeat)
  }

  /** What the client is told last when the response fails; null if that is nothing. */
  lastItem (error: Error): string | Uint8Array | null {
    try {
      return this.sending.encodeFailure(error, this.count)
    } catch {
      return null // the user's function has failed: the first error counts
    }
  }
}
