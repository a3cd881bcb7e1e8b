// Short exchanges, one after the other on each connection, which is kept where the server keeps it.

import { Connection, type Target } from './connection.ts'
import type { Sink } from './session.ts'

export interface Short {
  path: string
  content: Buffer
  answer: Buffer
}

export interface Exchanged {
  exchanges: number
  seconds: number
}

/** @param connections how many run such exchanges at once */
export async function exchange (target: Target, short: Short, connections: number, seconds: number): Promise<Exchanged> {
  const start = performance.now()
  const until = start + seconds * 1000
  const exchangers = Array.from({ length: connections }, () => new Exchanger(target, short, until))
  await Promise.all(exchangers.map((exchanger) => exchanger.over))
  const took = (performance.now() - start) / 1000
  return { exchanges: exchangers.reduce((sum, { count }) => sum + count, 0), seconds: took }
}

class Exchanger implements Sink {
  readonly over: Promise<void>
  count = 0
  private connection!: Connection
  private readonly target: Target
  private readonly short: Short
  private readonly until: number
  private resolve!: () => void
  private reject!: (error: Error) => void
  private index = 0
  private received = 0
  private ended = true

  constructor (target: Target, short: Short, until: number) {
    this.target = target
    this.short = short
    this.until = until
    this.over = new Promise((resolve, reject) => {
      this.resolve = resolve
      this.reject = reject
    })
    this.connect()
  }

  private connect (): void {
    this.index = 0
    this.connection = new Connection(this.target, this, (error) => this.onClose(error))
    this.ask()
  }

  private ask (): void {
    this.ended = false
    this.received = 0
    this.connection.socket.write(this.target.protocol.exchange(this.short.path, this.short.content, this.index++)!)
  }

  data (bytes: Buffer, from: number, to: number): void {
    const { answer } = this.short
    for (; from < to; from++) {
      if (bytes[from] !== answer[this.received++]) return this.fail(new Error('Wrong bytes in a short exchange'))
    }
  }

  end (): void {
    this.ended = true
    if (this.received !== this.short.answer.length) return this.fail(new Error('A short answer to a short exchange'))
    this.count++
    if (performance.now() >= this.until) {
      this.connection.destroy()
      this.resolve()
    } else if (!this.connection.session.closing) {
      this.ask()
    }
  }

  private onClose (error: Error | null): void {
    if (error === null && this.ended) this.connect()
    else this.fail(error ?? new Error('The server closed the connection within an exchange'))
  }

  private fail (error: Error): void {
    this.connection.destroy()
    this.reject(error)
  }
}
