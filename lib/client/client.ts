// The client's end of an injected exchange: writes a request and reads its response, with the same writers and readers as the
// server's end.

import { maxHeaderSize } from 'node:http'
import { Duplex } from 'node:stream'
import type { InjectedDuplex, InjectedResponse, OutgoingFields, Trailers } from '../../types/index.d.ts'
import { AbortedError, OptionError } from '../errors.ts'
import { ItemReader } from '../exchange/item-reader.ts'
import { encodeItem, frameTexts } from '../items/codec.ts'
import { type BodyReader, NO_FIELDS } from '../transfer/body-reader.ts'
import { type BodyWriter, bodyWriter, gather } from '../transfer/body-writer.ts'
import { writeTrailers } from '../transfer/field-lines.ts'
import { TUNNEL, bodyReader, receivedFraming } from '../transfer/framing.ts'
import { ResponseHeadReader } from '../transfer/head-reader.ts'
import { type ClientOptions, ResponseItems, toJson } from './items.ts'
import type { MemorySocket } from './memory-socket.ts'
import type { RequestStart } from './request.ts'

type Done = (error?: Error | null) => void

/** Writing this buffer object ends the body, after everything that was written before. */
const END_OF_BODY = Buffer.alloc(0)

/** No limits: the server is in the same process. */
const LIMITS = { maxTrailerSize: Infinity, maxChunkExtensionSize: Infinity }

/** The connection of an exchange. */
export interface Connection {
  readonly socket: MemorySocket
  /** Opens the next exchange. */
  open (options: ClientOptions): Client
  /** Called when a request is complete: the next one may be sent. */
  onSent (): void
}

/** The client's end of one exchange: the writable side is the request body, the readable side the response body. */
export class Client extends Duplex implements InjectedDuplex {
  readonly response: Promise<InjectedResponse>
  /** The response is complete. */
  hasReceivedResponse = false
  private readonly connection: Connection
  private readonly start: RequestStart
  private readonly writer: BodyWriter
  private readonly informational: InjectedResponse['informational'] = []
  private head: InjectedResponse | null = null
  private itemReader: ItemReader | null = null
  private sentItems = 0
  private failure: Error | null = null
  private headReader = new ResponseHeadReader(maxHeaderSize)
  private reader: BodyReader | null = null
  private trailerLines = ''
  private isSending = false
  private waitingWrite: (() => void) | null = null // a write that waits until the request may be sent
  private phase: 'body' | 'waiting' | 'tunnel' | 'refused' = 'body'
  private afterBody: 'waiting' | 'tunnel' | 'refused' = 'waiting' // the response may arrive before the body has ended
  private resolve!: (response: InjectedResponse) => void
  private reject!: (error: Error) => void

  constructor (connection: Connection, start: RequestStart) {
    super()
    this.connection = connection
    this.start = start
    this.writer = bodyWriter(start.framing)
    this.response = new Promise((resolve, reject) => {
      this.resolve = resolve
      this.reject = reject
    })
    // A caller may use only the promise, or only the stream. An error of the other one must not be unhandled.
    this.response.catch(ignore)
    this.on('error', ignore)
    if (start.framing.kind === 'none') this.endBody()
  }

  get socket (): Duplex {
    return this.connection.socket
  }

  get trailers (): Trailers {
    return this.reader?.trailers ?? NO_FIELDS
  }

  setTrailers (fields: OutgoingFields): this {
    this.trailerLines = writeTrailers(fields)
    return this
  }

  next (options: ClientOptions): Client {
    return this.connection.open(options)
  }

  /** The items of the response. */
  get items (): ItemReader {
    const { formats: { receive } } = this.start
    if (receive.length === 0) throw new OptionError('receive', 'client.items needs a format')
    this.itemReader ??= new ItemReader(this, new ResponseItems(receive, () => this.head!))
    return this.itemReader
  }

  /** For the reader of items. */
  get bodyIsComplete (): boolean {
    return this.hasReceivedResponse
  }

  /** Sends an item of the request. */
  send (item: unknown): boolean {
    const { formats: { send } } = this.start
    if (send === null) throw new OptionError('send', 'client.send() needs a format')
    const content = encodeItem(send.codec, toJson, item, this.sentItems)
    this.sentItems++
    return this.write(typeof content === 'string' ? frameTexts(send.codec, [content]) : content)
  }

  // The request

  /** Sends the head. No other request is sent before the body of this one has ended. */
  sendHead (): void {
    this.isSending = true
    this.socket.write(this.start.head, 'latin1')
    this.runWaitingWrite()
  }

  override _write (content: Buffer, _encoding: BufferEncoding, done: Done): void {
    this.whenItsTurn(() => {
      if (content === END_OF_BODY) this.sendEnd(done)
      else if (content.length === 0 || this.phase === 'refused' || this.failure !== null) done()
      else if (this.phase === 'tunnel') this.socket.write(content, done)
      else this.sendParts((parts) => this.writer.write([content], content.length, parts), done)
    })
  }

  override _final (done: Done): void {
    this.whenItsTurn(() => {
      if (this.phase === 'refused' || this.failure !== null) done()
      else if (this.phase === 'tunnel') this.socket.end(done)
      else this.sendEnd(done)
    })
  }

  /** Ends the body. If the request offers to switch protocols, the writable side stays open for the tunnel. */
  endBody (content?: string | Uint8Array): void {
    if (!this.start.offersSwitch) {
      this.end(content)
      return
    }
    if (content !== undefined) this.write(content)
    this.write(END_OF_BODY)
  }

  private sendEnd (done: Done): void {
    this.sendParts((parts) => this.writer.end(this.trailerLines, parts), done)
    if (this.start.offersSwitch) this.leaveBody()
    else this.connection.onSent()
  }

  /** Called when the server has switched protocols or refused to. If it has refused, writes for the tunnel are dropped. */
  private onSwitch (switched: boolean): void {
    this.afterBody = switched ? 'tunnel' : 'refused'
    if (this.phase === 'waiting') this.leaveBody()
    if (!switched) this.end()
  }

  private leaveBody (): void {
    this.phase = this.afterBody
    if (this.phase === 'refused') this.connection.onSent()
    this.runWaitingWrite()
  }

  private whenItsTurn (action: () => void): void {
    if (this.isSending && this.phase !== 'waiting') action()
    else this.waitingWrite = action
  }

  private runWaitingWrite (): void {
    const { waitingWrite } = this
    this.waitingWrite = null
    waitingWrite?.()
  }

  private sendParts (add: (parts: (string | Buffer)[]) => void, done: Done): void {
    const parts: (string | Buffer)[] = []
    try {
      add(parts)
    } catch (error) {
      done(error as Error)
      return
    }
    const buffers = gather(parts)
    if (buffers.length === 0) done()
    else this.socket.write(Buffer.concat(buffers), (error) => this.onWritten(error, done))
  }

  private onWritten (error: Error | null | undefined, done: Done): void {
    if (error) this.fail(error)
    done()
  }

  // The response

  override _read (): void {
    this.socket.resume()
  }

  /** Reads the response. @returns how many bytes of `data` belong to it */
  receive (data: Buffer): number {
    if (this.reader === null) return this.receiveHead(data)
    const content = this.reader.read(data)
    if (content.length > 0 && !this.push(content)) this.socket.pause()
    this.checkReader()
    return this.reader.consumed
  }

  private receiveHead (data: Buffer): number {
    const { headReader } = this
    headReader.read(data)
    const { head, error, consumed } = headReader
    if (error !== null) this.destroy(error)
    if (head === null) return data.length
    const { statusCode, statusMessage, minorVersion, headers } = head
    if (statusCode < 200 && statusCode !== 101) {
      this.informational.push({ statusCode, statusMessage, headers })
      this.headReader = new ResponseHeadReader(maxHeaderSize)
      return consumed
    }
    try {
      const framing = receivedFraming(this.start.method, statusCode, head.fields, minorVersion)
      this.reader = bodyReader(framing, LIMITS)
      if (this.start.offersSwitch) this.onSwitch(framing === TUNNEL)
    } catch (error) {
      this.destroy(error as Error)
      return data.length
    }
    this.head = { statusCode, statusMessage, headers, httpVersion: `1.${minorVersion}`, informational: this.informational }
    this.resolve(this.head)
    this.checkReader()
    return consumed
  }

  /** Called when the server has ended its side. */
  onEnd (): void {
    if (this.reader === null) {
      this.headReader.end()
      this.destroy(this.headReader.error!)
    } else {
      this.reader.end()
      this.checkReader()
    }
  }

  private checkReader (): void {
    const { done, error } = this.reader!
    if (error !== null) this.fail(error)
    if (!done) return
    this.hasReceivedResponse = true
    this.push(null)
  }

  /** Called when the response is cut off. Items that have been received are read first: the last one may say what has happened. */
  fail (error: Error): void {
    this.failure ??= error
    this.connection.socket.destroy()
    this.destroyIfRead()
  }

  override read (size?: number): any {
    const content = super.read(size)
    this.destroyIfRead()
    return content
  }

  private destroyIfRead (): void {
    if (this.failure === null || (this.start.formats.receive.length > 0 && this.readableLength > 0)) return
    this.destroy(this.failure)
  }

  override _destroy (error: Error | null, done: Done): void {
    // An incomplete exchange makes the connection unusable. After a complete one, the next request may use it.
    if (!this.hasReceivedResponse || !this.writableFinished) this.connection.socket.destroy()
    this.reject(error ?? new AbortedError())
    done(error)
  }
}

function ignore (): void {}
