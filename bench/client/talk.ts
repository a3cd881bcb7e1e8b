// Many connections at once, each with one open exchange that either sends messages and gets them back, or is idle.

import { Connection, type Target } from './connection.ts'
import type { ResponseEvents } from './session.ts'

/** A line of JSON, so that routes of items can be compared. */
export const MESSAGE = Buffer.from('"a message of 32 bytes, a line"\n')

export class Talker implements ResponseEvents {
  readonly ready: Promise<void>
  /** Called whenever a message has come back. */
  onMessage: () => void = ignore
  onFailure: (error: Error) => void = ignore
  private readonly connection: Connection
  private readonly message: Buffer
  private received = 0
  private resolve!: () => void
  private reject!: (error: Error) => void

  constructor (target: Target) {
    this.ready = new Promise((resolve, reject) => {
      this.resolve = resolve
      this.reject = reject
    })
    this.message = target.protocol.encodeChunk(MESSAGE)
    this.connection = new Connection(target, this, (error) => this.fail(error ?? new Error('The server closed the connection')))
    this.connection.socket.write(target.protocol.encodeHead('/echo', true))
    this.send()
  }

  send (): void {
    this.connection.socket.write(this.message)
    this.connection.session.consumeCredit(MESSAGE.length)
  }

  onData (bytes: Buffer, from: number, to: number): void {
    for (; from < to; from++) {
      if (bytes[from] !== MESSAGE[this.received++]) return this.fail(new Error('Wrong bytes in a message'))
    }
    if (this.received < MESSAGE.length) return
    this.received = 0
    this.resolve()
    this.onMessage()
  }

  onEnd (): void {
    this.fail(new Error('The response ended early'))
  }

  close (): void {
    this.connection.destroy()
  }

  private fail (error: Error): void {
    this.connection.destroy()
    this.reject(error)
    this.onFailure(error)
  }
}

function ignore (): void {}

/** An address has 64,000 ports at most, and by default 28,000. */
const CONNECTIONS_PER_ADDRESS = 20_000

/**
 * Opens `count` exchanges, in batches. Each has got one message back when this resolves.
 *
 * @param before how many exchanges are open already
 */
export async function openTalkers ({ port, protocol }: Target, count: number, before = 0): Promise<Talker[]> {
  const talkers: Talker[] = []
  while (talkers.length < count) {
    const address = Math.floor((before + talkers.length) / CONNECTIONS_PER_ADDRESS)
    const target = { port, protocol, localAddress: address === 0 ? undefined : `127.0.0.${1 + address}` }
    const batch = Array.from({ length: Math.min(100, count - talkers.length) }, () => new Talker(target))
    talkers.push(...batch)
    await Promise.all(batch.map((talker) => talker.ready))
  }
  return talkers
}

export interface TalkResult {
  messages: number
  seconds: number
  /** What the clock has advanced meanwhile. */
  clocked: number
  /** Milliseconds of each round trip. */
  latencies: Float64Array
}

/**
 * Every connection sends its next message when the previous one has come back.
 *
 * @param clock read before the first message and after the last: opening and closing the exchanges is no part of the result
 */
export async function talk (target: Target, connections: number, seconds: number, clock = (): number => performance.now()): Promise<TalkResult> {
  const talkers = await openTalkers(target, connections)
  const latencies: number[] = []
  const clockAtStart = clock()
  const start = performance.now()
  await new Promise<void>((resolve, reject) => {
    let talking = connections
    for (const talker of talkers) {
      let sentAt = performance.now()
      talker.onFailure = reject
      talker.onMessage = () => {
        const now = performance.now()
        latencies.push(now - sentAt)
        sentAt = now
        if (now - start < seconds * 1000) talker.send()
        else if (--talking === 0) resolve()
      }
      talker.send()
    }
  })
  const took = (performance.now() - start) / 1000
  const clocked = clock() - clockAtStart
  for (const talker of talkers) talker.close()
  return { messages: latencies.length, seconds: took, clocked, latencies: Float64Array.from(latencies).sort() }
}
