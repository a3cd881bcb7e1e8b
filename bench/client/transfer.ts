// Bulk: a body of a known length up, down, or both ways over one or more connections; how long it takes until the last
// byte has come back, and whether they all were the right ones.

import { Connection, type Target } from './connection.ts'
import { PATTERN, PERIOD, matches, seemsToMatch } from './pattern.ts'
import type { Protocol, Sink } from './session.ts'

export type Direction = 'echo' | 'up' | 'down'

export interface Body {
  direction: Direction
  /** Bytes of content in one chunk; divides PERIOD. */
  chunkSize: number
  /** Bytes of content, of each connection; a multiple of PERIOD. */
  length: number
}

/** Content in one write of the client. */
const WRITE_SIZE = 8 * PERIOD
/** Not even the end of the body. */
const NOTHING_TO_SEND = -1

/**
 * @param thorough compare every byte, not only some of each piece
 * @returns seconds from the first connection's opening to the last response's end
 */
export async function transfer (target: Target, body: Body, connections: number, thorough: boolean): Promise<number> {
  const start = process.hrtime.bigint()
  await Promise.all(Array.from({ length: connections }, () => new Transfer(target, body, thorough).over))
  return Number(process.hrtime.bigint() - start) / 1e9
}

class Transfer implements Sink {
  readonly over: Promise<void>
  private readonly connection: Connection
  private readonly body: Body
  private readonly chunkSize: number
  private readonly encoded: Buffer
  private readonly chunkLength: number
  private readonly last: Buffer | null
  private readonly thorough: boolean
  private resolve!: () => void
  private reject!: (error: Error) => void
  private left: number //    content to send
  private at = 0 //          in `encoded`, where the next write begins
  private received = 0
  private answer = '' //     to an upload: how many bytes have arrived
  private readonly expected: number
  private readonly pump = (): void => this.send()

  constructor (target: Target, body: Body, thorough: boolean) {
    const { protocol } = target
    this.body = body
    this.thorough = thorough
    this.chunkSize = Math.min(body.chunkSize, protocol.maxChunk)
    this.encoded = encode(protocol, this.chunkSize)
    this.chunkLength = this.encoded.length / (WRITE_SIZE / this.chunkSize)
    this.last = protocol.last
    this.left = body.direction === 'down' ? NOTHING_TO_SEND : body.length
    this.expected = body.direction === 'up' ? 0 : body.length
    this.over = new Promise((resolve, reject) => {
      this.resolve = resolve
      this.reject = reject
    })
    this.connection = new Connection(target, this, (error) => this.onClose(error), this.pump)
    const path = body.direction === 'down' ? `/down?length=${body.length}&size=${body.chunkSize}` : `/${body.direction}`
    this.connection.socket.write(protocol.open(path, body.direction !== 'down'))
    this.send()
  }

  private send (): void {
    const { chunkSize, connection: { socket, session } } = this
    while (this.left > 0) {
      const here = WRITE_SIZE - this.at / this.chunkLength * chunkSize
      const size = Math.min(this.left, here, session.room)
      const count = Math.floor(size / chunkSize)
      if (count === 0) return
      const end = this.at + count * this.chunkLength
      const more = socket.write(this.encoded.subarray(this.at, end))
      session.sent(count * chunkSize)
      this.at = end === this.encoded.length ? 0 : end
      this.left -= count * chunkSize
      if (!more && this.left > 0) {
        socket.once('drain', this.pump)
        return
      }
    }
    if (this.left === NOTHING_TO_SEND) return
    this.left = NOTHING_TO_SEND
    if (this.last === null) socket.end()
    else socket.write(this.last)
  }

  data (bytes: Buffer, from: number, to: number): void {
    if (this.body.direction === 'up') {
      this.answer += bytes.toString('latin1', from, to)
      return
    }
    const right = this.thorough ? matches(bytes, from, to, this.received) : seemsToMatch(bytes, from, to, this.received)
    if (!right) this.fail(new Error(`Wrong bytes near ${this.received}`))
    this.received += to - from
  }

  end (): void {
    if (this.received !== this.expected) {
      this.fail(new Error(`${this.received} bytes came back, not ${this.expected}`))
    } else if (this.body.direction === 'up' && this.answer !== String(this.body.length)) {
      this.fail(new Error(`"${this.answer.slice(0, 40)}" bytes have arrived, not ${this.body.length}`))
    } else {
      this.resolve()
    }
    this.connection.destroy()
  }

  /** The end of the connection is the end of a body without framing. */
  private onClose (error: Error | null): void {
    if (error !== null) this.fail(error)
    else if (this.last === null) this.end()
    else this.fail(new Error('The server closed the connection early'))
  }

  private fail (error: Error): void {
    this.reject(error)
    this.connection.destroy()
  }
}

const encodings = new Map<Protocol, Map<number, Buffer>>()

/** WRITE_SIZE of the pattern, cut into chunks: made once, since it takes long. */
function encode (protocol: Protocol, chunkSize: number): Buffer {
  let bySize = encodings.get(protocol)
  if (bySize === undefined) encodings.set(protocol, bySize = new Map())
  let encoded = bySize.get(chunkSize)
  if (encoded === undefined) {
    const chunks: Buffer[] = []
    for (let at = 0; at < WRITE_SIZE; at += chunkSize) {
      chunks.push(protocol.chunk(PATTERN.subarray(at % PERIOD, at % PERIOD + chunkSize)))
    }
    bySize.set(chunkSize, encoded = Buffer.concat(chunks))
  }
  return encoded
}
