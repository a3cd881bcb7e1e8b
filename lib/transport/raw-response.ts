// Writes a response to the raw connection.

import type { Socket } from 'node:net'
import type { OutgoingFields } from '../../types/transfer.d.ts'
import { writeBuffers, writeMessage } from '../node/socket.ts'
import { type BodyWriter, COPY_BELOW, type Part, bodyWriter, frameContent, gather } from '../transfer/body-writer.ts'
import { trailerNames, writeTrailers } from '../transfer/field-lines.ts'
import { type Framing, TUNNEL } from '../transfer/framing.ts'
import type { WriteCallback } from './transport.ts'

export class RawResponse {
  /** The head was handed to the socket. */
  hasBegun = false
  isTunnel = false
  /** The body ends with the connection. */
  isCloseDelimited = false
  private readonly socket: Socket
  private head = '' // written, but not handed over yet
  private writer: BodyWriter | null = null
  /** Names of the trailers, as `Trailer` announces them. */
  trailerNames = ''
  private trailerLines = ''

  constructor (socket: Socket) {
    this.socket = socket
  }

  /** Takes the head, which is sent with the first content. */
  prepare (head: string, framing: Framing): void {
    this.head = head
    this.writer = bodyWriter(framing)
    this.isCloseDelimited = framing.kind === 'close'
    this.isTunnel = framing === TUNNEL
  }

  /** Drops a head that was not handed over. */
  takeBack (): void {
    this.head = ''
    this.writer = null
    this.isCloseDelimited = this.isTunnel = false
  }

  get hasHead (): boolean {
    return this.writer !== null
  }

  /** The head is handed over now. */
  begin (): void {
    this.hasBegun = true
    this.head = ''
  }

  setTrailers (fields: OutgoingFields): void {
    this.trailerLines = writeTrailers(fields)
    this.trailerNames = trailerNames(fields)
  }

  /** @returns the bytes of some content, with the head before the first, and the end of the body behind the last */
  frame (content: readonly Buffer[], size: number, end: boolean): Buffer[] {
    if (this.head === '' && size > 0 && !end) return frameContent(this.writer!, content, size)
    const parts: Part[] = []
    if (this.head !== '') parts.push(this.head)
    if (size > 0) this.writer!.write(content, size, parts)
    if (end) this.writer!.end(this.isCloseDelimited ? '' : this.trailerLines, parts)
    return gather(parts)
  }

  /** @param mayEndAtOnce whether `done` may be called within this call although this is the end */
  send (buffers: readonly Buffer[], end: boolean, done?: WriteCallback, mayEndAtOnce = false): void {
    const { socket } = this
    if (end && this.isTunnel) {
      // Ends only this side: the client may still send.
      for (const buffer of buffers) socket.write(buffer)
      socket.end(done)
    } else if ((!end || mayEndAtOnce) && done !== undefined && buffers.length === 1 && buffers[0].length < COPY_BELOW) {
      // Not large content: the relay looks for its write.
      writeMessage(socket, buffers[0], done)
    } else {
      writeBuffers(socket, buffers, done)
    }
  }
}
