// Bulk transfer: a body of a known length up, down, or both ways, over one or more connections. Measures the time until
// the last byte has arrived, and checks that all bytes are right.

import { Connection, type Target } from './connection.ts'
import { PATTERN, PERIOD, matches, seemsToMatch } from './pattern.ts'
import type { Protocol, ResponseEvents } from './session.ts'

export type Direction = 'echo' | 'up' | 'down'

export interface Body {
  direction: Direction
  /** Bytes of content in one chunk. PERIOD must be a multiple of it. */
  chunkSize: number
  /** Bytes of content on each connection. It must be a multiple of PERIOD. */
  length: number
}

/** Bytes of content that the client writes at once. */
const WRITE_SIZE = 8 * PERIOD
/** The body and its end have been sent, or there is no body. */
const NOTHING_TO_SEND = -1

/**
 * @param comparesAll compares every byte, not only two of each read
 * @returns seconds from opening the first connection to the end of the last response
 */
export async function transfer (target: Target, body: Body, connections: number, comparesAll: boolean): Promise<number> {
  const start = process.hrtime.bigint()
  await Promise.all(Array.from({ length: connections }, () => new Transfer(target, body, comparesAll).finished))
  return Number(process.hrtime.bigint() - start) / 1e9
}

class Transfer implements ResponseEvents {
  readonly finished: Promise<void>
  private readonly connection: Connection
  private readonly body: Body
  private readonly chunkSize: number
  private readonly encoded: Buffer
  private readonly chunkLength: number
  private readonly lastChunk: Buffer | null
  private readonly comparesAll: boolean
  private resolve!: () => void
  private reject!: (error: Error) => void
  private left: number //    bytes of content to send
  private at = 0 //          where in `encoded` the next write begins
  private received = 0
  private answer = '' //     to an upload: how many bytes the server has received
  private readonly expected: number
  private readonly resume = (): void => this.send()

  constructor (target: Target, body: Body, comparesAll: boolean) {
    const { protocol } = target
    this.body = body
    this.comparesAll = comparesAll
    this.chunkSize = Math.min(body.chunkSize, protocol.maxChunk)
    this.encoded = encode(protocol, this.chunkSize)
    this.chunkLength = this.encoded.length / (WRITE_SIZE / this.chunkSize)
    this.lastChunk = protocol.lastChunk
    this.left = body.direction === 'down' ? NOTHING_TO_SEND : body.length
    this.expected = body.direction === 'up' ? 0 : body.length
    this.finished = new Promise((resolve, reject) => {
      this.resolve = resolve
      this.reject = reject
    })
    this.connection = new Connection(target, this, (error) => this.onClose(error), this.resume)
    const path = body.direction === 'down' ? `/down?length=${body.length}&size=${body.chunkSize}` : `/${body.direction}`
    this.connection.socket.write(protocol.encodeHead(path, body.direction !== 'down'))
    this.send()
  }

  private send (): void {
    const { chunkSize, connection: { socket, session } } = this
    while (this.left > 0) {
      const untilEnd = WRITE_SIZE - this.at / this.chunkLength * chunkSize
      const size = Math.min(this.left, untilEnd, session.credit)
      const count = Math.floor(size / chunkSize)
      if (count === 0) return
      const end = this.at + count * this.chunkLength
      const hasRoom = socket.write(this.encoded.subarray(this.at, end))
      session.consumeCredit(count * chunkSize)
      this.at = end === this.encoded.length ? 0 : end
      this.left -= count * chunkSize
      if (!hasRoom && this.left > 0) {
        socket.once('drain', this.resume)
        return
      }
    }
    if (this.left === NOTHING_TO_SEND) return
    this.left = NOTHING_TO_SEND
    if (this.lastChunk === null) socket.end()
    else socket.write(this.lastChunk)
  }

  onData (bytes: Buffer, from: number, to: number): void {
    if (this.body.direction === 'up') {
      this.answer += bytes.toString('latin1', from, to)
      return
    }
    const isRight = this.comparesAll ? matches(bytes, from, to, this.received) : seemsToMatch(bytes, from, to, this.received)
    if (!isRight) this.fail(new Error(`Wrong bytes near ${this.received}`))
    this.received += to - from
  }

  onEnd (): void {
    if (this.received !== this.expected) {
      this.fail(new Error(`${this.received} bytes came back instead of ${this.expected}`))
    } else if (this.body.direction === 'up' && this.answer !== String(this.body.length)) {
      this.fail(new Error(`The server received "${this.answer.slice(0, 40)}" bytes instead of ${this.body.length}`))
    } else {
      this.resolve()
    }
    this.connection.destroy()
  }

  /** A body without framing ends with its connection. */
  private onClose (error: Error | null): void {
    if (error !== null) this.fail(error)
    else if (this.lastChunk === null) this.onEnd()
    else this.fail(new Error('The server closed the connection early'))
  }

  private fail (error: Error): void {
    this.reject(error)
    this.connection.destroy()
  }
}

const encodings = new Map<Protocol, Map<number, Buffer>>()

/** WRITE_SIZE bytes of the pattern, as chunks. They are cached, because encoding takes long. */
function encode (protocol: Protocol, chunkSize: number): Buffer {
  let bySize = encodings.get(protocol)
  if (bySize === undefined) encodings.set(protocol, bySize = new Map())
  let encoded = bySize.get(chunkSize)
  if (encoded === undefined) {
    const chunks: Buffer[] = []
    for (let at = 0; at < WRITE_SIZE; at += chunkSize) {
      chunks.push(protocol.encodeChunk(PATTERN.subarray(at % PERIOD, at % PERIOD + chunkSize)))
    }
    bySize.set(chunkSize, encoded = Buffer.concat(chunks))
  }
  return encoded
}
