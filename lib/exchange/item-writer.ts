// The items of a response. Items of JSON are collected as text: those of one turn of the event loop are written as one chunk.

import type { Duplex } from 'node:stream'
import type { Sending } from './items.ts'

/** The stream of an exchange, as the writer of its items sees it. */
export interface ItemSink extends Duplex {
  /** Writes the head before the first content. @returns false if that has failed */
  prepareWrite (content: string | Uint8Array): boolean
  /** Holds writes back until the end of this turn, when `flush` is called. @returns false if this stream writes at once */
  corkForTick (): boolean
}

export class ItemWriter {
  private readonly stream: ItemSink
  private readonly sending: Sending
  private text = ''
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
    const { stream } = this
    const content = this.sending.encode(item, this.count)
    this.count++
    if (stream.destroyed || stream.writableEnded) return stream.write(content) // Node reports the error
    this.startHeartbeat()
    if (typeof content !== 'string') return stream.write(content)
    if (!stream.prepareWrite(content)) return false
    this.text += content
    if (stream.corkForTick() && stream.writableLength + this.text.length < stream.writableHighWaterMark) return true
    return this.flush()
  }

  /** Writes what was collected. @returns as `write()` */
  flush (): boolean {
    const { text } = this
    this.heartbeat?.refresh() // also called for what the handler itself writes
    if (text === '') return true
    this.text = ''
    return this.stream.write(text)
  }

  /** From now on, something is sent when there has been no item for a while. */
  startHeartbeat (): void {
    const { stream, sending: { heartbeat } } = this
    if (heartbeat === null || this.heartbeat !== null) return
    this.heartbeat = setInterval(() => {
      if (stream.writable && stream.writableLength === 0) stream.write(heartbeat.content)
    }, heartbeat.timeout)
  }

  /** Drops what was collected. */
  stop (): void {
    this.text = ''
    this.stopHeartbeat()
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
