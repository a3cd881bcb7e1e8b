// Short exchanges, one after the other on each connection. A connection is reused as long as the server keeps it open.

import { Connection, type Target } from './connection.ts'
import type { ResponseEvents } from './session.ts'

export interface ShortExchange {
  path: string
  content: Buffer
  response: Buffer
}

export interface ExchangeCount {
  exchanges: number
  seconds: number
}

/** @param connections how many connections run exchanges at the same time */
export async function runExchanges (target: Target, short: ShortExchange, connections: number, seconds: number): Promise<ExchangeCount> {
  const start = performance.now()
  const until = start + seconds * 1000
  const loops = Array.from({ length: connections }, () => new ExchangeLoop(target, short, () => performance.now() >= until))
  await Promise.all(loops.map((loop) => loop.finished))
  const took = (performance.now() - start) / 1000
  return { exchanges: loops.reduce((sum, { count }) => sum + count, 0), seconds: took }
}

/** Runs exactly so many exchanges, on one connection. */
export async function runCounted (target: Target, short: ShortExchange, exchanges: number): Promise<void> {
  await new ExchangeLoop(target, short, (count) => count === exchanges).finished
}

class ExchangeLoop implements ResponseEvents {
  readonly finished: Promise<void>
  count = 0
  private connection!: Connection
  private readonly target: Target
  private readonly short: ShortExchange
  private readonly isOver: (count: number) => boolean
  private resolve!: () => void
  private reject!: (error: Error) => void
  private index = 0
  private received = 0
  private responseEnded = true

  constructor (target: Target, short: ShortExchange, isOver: (count: number) => boolean) {
    this.target = target
    this.short = short
    this.isOver = isOver
    this.finished = new Promise((resolve, reject) => {
      this.resolve = resolve
      this.reject = reject
    })
    this.connect()
  }

  private connect (): void {
    this.index = 0
    this.connection = new Connection(this.target, this, (error) => this.onClose(error))
    this.sendRequest()
  }

  private sendRequest (): void {
    this.responseEnded = false
    this.received = 0
    this.connection.socket.write(this.target.protocol.encodeExchange(this.short.path, this.short.content, this.index++)!)
  }

  onData (bytes: Buffer, from: number, to: number): void {
    const { response } = this.short
    for (; from < to; from++) {
      if (bytes[from] !== response[this.received++]) return this.fail(new Error('Wrong bytes in a short exchange'))
    }
  }

  onEnd (): void {
    this.responseEnded = true
    if (this.received !== this.short.response.length) return this.fail(new Error('The response to a short exchange is too short'))
    this.count++
    if (this.isOver(this.count)) {
      this.connection.destroy()
      this.resolve()
    } else if (!this.connection.session.willClose) {
      this.sendRequest()
    }
  }

  private onClose (error: Error | null): void {
    if (error === null && this.responseEnded) this.connect()
    else this.fail(error ?? new Error('The server closed the connection during an exchange'))
  }

  private fail (error: Error): void {
    this.connection.destroy()
    this.reject(error)
  }
}
