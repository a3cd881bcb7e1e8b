// The open exchanges of one app, and how they end when it closes.

import type { ExchangeStatus } from '../../types/index.d.ts'
import { ClosingError } from '../errors.ts'

/** An exchange, as the registry sees it. */
export interface OpenExchange {
  /** Milliseconds that it gets to finish when the app closes */
  readonly closeGrace: number
  /** Null until the first hook of this package has run. */
  readonly status: ExchangeStatus | null
  /** Tells it that the app is closing. It should end within `closeGrace`. */
  shutDown (reason: Error): void
  /** Destroys it when `closeGrace` has passed. */
  destroyForClosing (reason: Error): void
}

/** Milliseconds for the answer of an exchange that is destroyed before its first byte. Then it is cut off. */
const LAST_GRACE = 1000

export class Registry {
  isClosing = false
  /** The open exchanges, each with its `closeGrace` timer while the app is closing; otherwise with null. */
  private readonly open = new Map<OpenExchange, NodeJS.Timeout | null>()
  private onEmpty: (() => void) | null = null

  add (exchange: OpenExchange): void {
    this.open.set(exchange, null)
    if (this.isClosing) this.shutDown(exchange)
  }

  remove (exchange: OpenExchange): void {
    const timer = this.open.get(exchange)
    if (timer) clearTimeout(timer)
    this.open.delete(exchange)
    if (this.open.size === 0) this.onEmpty?.()
  }

  /** What the open exchanges are doing, the oldest first. */
  exchanges (): ExchangeStatus[] {
    return [...this.open.keys()].map(({ status }) => status).filter((status) => status !== null)
  }

  /** Tells all open exchanges to end. Those still open after their `closeGrace` are destroyed. */
  startClosing (): void {
    this.isClosing = true
    for (const exchange of this.open.keys()) this.shutDown(exchange)
  }

  /**
   * Resolves when no exchange is open any more, or after `timeout`.
   *
   * @param timeout milliseconds
   */
  async whenEmpty (timeout: number): Promise<void> {
    if (this.open.size === 0) return
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, timeout)
      this.onEmpty = () => {
        clearTimeout(timer)
        resolve()
      }
    })
  }

  private shutDown (exchange: OpenExchange): void {
    const reason = new ClosingError()
    this.open.set(exchange, setTimeout(() => {
      this.open.set(exchange, setTimeout(() => exchange.destroyForClosing(reason), LAST_GRACE))
      exchange.destroyForClosing(reason)
    }, exchange.closeGrace))
    exchange.shutDown(reason)
  }
}
