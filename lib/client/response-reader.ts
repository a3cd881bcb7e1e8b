// Reads a response: interim heads, the final head, and then the body or the tunnel. What the server may do depends on the request.

import type { InterimHead, ResponseHead } from '../../types/client.d.ts'
import type { ResponseHead as ReceivedHead, ChunkedLimits, Trailers } from '../../types/transfer.d.ts'
import { HeadLimitError } from '../errors.ts'
import { type BodyReader, NO_BYTES, NO_FIELDS } from '../transfer/body-reader.ts'
import { asksToClose, shouldClose } from '../transfer/connection-field.ts'
import { TUNNEL, bodyReader, receivedFraming } from '../transfer/framing.ts'
import { ResponseHeadReader } from '../transfer/head-reader.ts'
import { checkUpgrade } from '../transfer/tunnel.ts'
import type { RequestStart } from './request.ts'

export interface CallLimits extends ChunkedLimits {
  /** Bytes of all heads of one response together. */
  readonly maxHeadSize: number
}

export class ResponseReader {
  /** The final head, once it has been read. */
  head: ResponseHead | null = null
  /** The heads before it. */
  readonly informational: InterimHead[] = []
  /** The connection carries another protocol behind the heads. */
  isTunnel = false
  /** The server keeps the connection after this response. */
  isPersistent = false
  /** The response is complete. */
  done = false
  error: Error | null = null
  /** How many bytes of the last input belonged to the response. */
  consumed = 0
  /** Part of a head has been read, but not all of it. */
  isWithinHead = false
  private readonly request: RequestStart
  private readonly limits: CallLimits
  private headReader: ResponseHeadReader
  private headSize = 0 // of all heads so far
  private mustClose = false // an interim head says so: most servers say it in the final one
  private body: BodyReader | null = null

  constructor (request: RequestStart, limits: CallLimits) {
    this.request = request
    this.limits = limits
    this.headReader = new ResponseHeadReader(limits.maxHeadSize)
  }

  get trailers (): Trailers {
    return this.body?.trailers ?? NO_FIELDS
  }

  /** Reads one head, or content. @returns the content, as a view of `input` */
  read (input: Buffer): Buffer {
    if (this.body === null) {
      this.readHead(input)
      return NO_BYTES
    }
    const content = this.body.read(input)
    this.consumed = this.body.consumed
    this.checkBody(this.body)
    return content
  }

  /** The connection has ended. Sets `done` if that marks the end of the response, else `error`. */
  end (): void {
    if (this.body === null) {
      this.headReader.end()
      this.error = this.headReader.error
    } else {
      this.body.end()
      this.checkBody(this.body)
    }
  }

  private checkBody ({ done, error }: BodyReader): void {
    this.done = done
    this.error = error
  }

  private readHead (input: Buffer): void {
    const { headReader, limits: { maxHeadSize } } = this
    headReader.read(input)
    const { head, error, consumed } = headReader
    this.consumed = consumed
    this.headSize += consumed
    this.isWithinHead = head === null
    // The limit of this reader is what the heads before have left.
    if (error !== null) this.error = error instanceof HeadLimitError ? new HeadLimitError(maxHeadSize) : error
    if (head === null) return
    if (head.statusCode < 200 && head.statusCode !== 101) this.onInterimHead(head)
    else this.onFinalHead(head)
  }

  private onInterimHead ({ statusCode, statusMessage, headers, fields }: ReceivedHead): void {
    this.mustClose ||= asksToClose(fields.connection)
    this.informational.push({ statusCode, statusMessage, headers })
    this.headReader = new ResponseHeadReader(this.limits.maxHeadSize - this.headSize)
  }

  private onFinalHead ({ statusCode, statusMessage, minorVersion, headers, fields }: ReceivedHead): void {
    const { request: { method, connection, upgrade }, informational } = this
    try {
      const framing = receivedFraming(method, statusCode, fields, minorVersion)
      if (statusCode === 101) checkUpgrade(1, connection, upgrade, fields.upgrade)
      this.isTunnel = framing === TUNNEL
      this.body = bodyReader(framing, this.limits)
      this.isPersistent = !shouldClose(minorVersion, fields.connection, framing) && !asksToClose(connection) && !this.mustClose
    } catch (error) {
      this.error = error as Error
      return
    }
    this.head = { statusCode, statusMessage, headers, httpVersion: `1.${minorVersion}`, informational }
    this.done = this.body.done
  }
}
