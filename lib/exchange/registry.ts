// The open exchanges of one app: how many there are, and what becomes of them when it closes.

import { ClosingError } from '../errors.ts'
import type { HttpDuplex } from './http-duplex.ts'

export class Registry {
  /** The app is closing: no connection is given back. */
  closing = false
  /** With what ends each of them, once the app is closing. */
  private readonly open = new Map<HttpDuplex, NodeJS.Timeout | null>()
  private onEmpty: (() => void) | null = null

  add (exchange: HttpDuplex): void {
    this.open.set(exchange, null)
    if (this.closing) process.nextTick(() => this.shutDown(exchange))
  }

  remove (exchange: HttpDuplex): void {
    const timer = this.open.get(exchange)
    if (timer) clearTimeout(timer)
    this.open.delete(exchange)
    if (this.open.size === 0) this.onEmpty?.()
  }

  /**
   * Tells all open exchanges to end; who has not when its `closeGrace` is over is destroyed.
   *
   * @param patience milliseconds to wait for that
   */
  async close (patience: number): Promise<void> {
    this.closing = true
    for (const exchange of [...this.open.keys()]) this.shutDown(exchange)
    if (this.open.size === 0) return
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, patience)
      this.onEmpty = () => {
        clearTimeout(timer)
        resolve()
      }
    })
  }

  private shutDown (exchange: HttpDuplex): void {
    if (!this.open.has(exchange)) return
    const reason = new ClosingError()
    this.open.set(exchange, setTimeout(() => exchange.giveUp(reason), exchange.closeGrace))
    try {
      exchange.shutDown(reason)
    } catch (error) {
      exchange.giveUp(error as Error) // a listener has thrown: the others must still be told
    }
  }
}
