// Many connections at once, each with one exchange open: messages back and forth, or silence.

import { Connection, type Target } from './connection.ts'
import type { Sink } from './session.ts'

export const MESSAGE = Buffer.from('a message of 32 bytes, no more.\n')

export class Talker implements Sink {
  readonly ready: Promise<void>
  /** Called with each message that has come back. */
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
    this.message = target.protocol.chunk(MESSAGE)
    this.connection = new Connection(target, this, (error) => this.fail(error ?? new Error('The server closed the connection')))
    this.connection.socket.write(target.protocol.open('/echo', true))
    this.say()
  }

  say (): void {
    this.connection.socket.write(this.message)
    this.connection.session.sent(MESSAGE.length)
  }

  data (bytes: Buffer, from: number, to: number): void {
    for (; from < to; from++) {
      if (bytes[from] !== MESSAGE[this.received++]) return this.fail(new Error('Wrong bytes in a message'))
    }
    if (this.received < MESSAGE.length) return
    this.received = 0
    this.resolve()
    this.onMessage()
  }

  end (): void {
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

/** Opens `count` exchanges, some at a time; each has had one message back. */
export async function openTalks (target: Target, count: number): Promise<Talker[]> {
  const talkers: Talker[] = []
  while (talkers.length < count) {
    const some = Array.from({ length: Math.min(100, count - talkers.length) }, () => new Talker(target))
    talkers.push(...some)
    await Promise.all(some.map((talker) => talker.ready))
  }
  return talkers
}

export interface Talk {
  messages: number
  seconds: number
  /** Milliseconds of each round trip. */
  latencies: Float64Array
}

/** Every connection says the next message when the last one has come back. */
export async function talk (target: Target, connections: number, seconds: number): Promise<Talk> {
  const talkers = await openTalks(target, connections)
  const latencies: number[] = []
  const start = performance.now()
  await new Promise<void>((resolve, reject) => {
    let talking = connections
    for (const talker of talkers) {
      let said = performance.now()
      talker.onFailure = reject
      talker.onMessage = () => {
        const now = performance.now()
        latencies.push(now - said)
        said = now
        if (now - start < seconds * 1000) talker.say()
        else if (--talking === 0) resolve()
      }
      talker.say()
    }
  })
  const took = (performance.now() - start) / 1000
  for (const talker of talkers) talker.close()
  return { messages: latencies.length, seconds: took, latencies: Float64Array.from(latencies).sort() }
}
