// The open exchanges of one app, and how they end when it closes, or when they are too old.

import type { ExchangeStatus } from '../../types/index.d.ts'
import { AgeError, ClosingError } from '../errors.ts'

/** An exchange, as the registry sees it. */
export interface OpenExchange {
  /** Milliseconds after which it is too old; 0: never */
  readonly maxAge: number
  /** Milliseconds that it gets to finish when it was told to end */
  readonly closeGrace: number
  /** Null until the first hook of this package has run. */
  readonly status: ExchangeStatus | null
  /** Tells it that the app is closing. It should end within `closeGrace`. */
  shutDown (reason: Error): void
  /** Tells it that it is too old. It should end within `closeGrace`. */
  expire (reason: Error): void
  /** Ends it: `closeGrace` has passed. */
  endNow (reason: Error): void
}

/** Milliseconds for the answer of an exchange that is ended before its first byte. Then it is cut off. */
const LAST_GRACE = 1000

export class Registry {
  isClosing = false
  /** The open exchanges, each with its timer: until it is too old, or, when it was told to end, until it is ended. Null if it has none. */
  private readonly open = new Map<OpenExchange, NodeJS.Timeout | null>()
  private onEmpty: (() => void) | null = null

  add (exchange: OpenExchange): void {
    this.open.set(exchange, null)
    if (this.isClosing) this.shutDown(exchange)
    else if (exchange.maxAge > 0) this.limitAge(exchange)
  }

  remove (exchange: OpenExchange): void {
    this.stopTimer(exchange)
    this.open.delete(exchange)
    if (this.open.size === 0) this.onEmpty?.()
  }

  /** The connection of the exchange is the user's: it has no age limit any more. */
  onDetached (exchange: OpenExchange): void {
    if (this.isClosing) return
    this.stopTimer(exchange)
    this.open.set(exchange, null)
  }

  /** What the open exchanges are doing, the oldest first. */
  exchanges (): ExchangeStatus[] {
    return [...this.open.keys()].map(({ status }) => status).filter((status) => status !== null)
  }

  /** Tells all open exchanges to end. Those still open after their `closeGrace` are ended. */
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
    this.startGrace(exchange, reason)
    exchange.shutDown(reason)
  }

  private limitAge (exchange: OpenExchange): void {
    const { maxAge } = exchange
    this.startTimer(exchange, maxAge, () => {
      const reason = new AgeError(maxAge)
      this.startGrace(exchange, reason)
      exchange.expire(reason)
    }).unref() // as the timeouts of sockets
  }

  private startGrace (exchange: OpenExchange, reason: Error): void {
    this.startTimer(exchange, exchange.closeGrace, () => {
      this.startTimer(exchange, LAST_GRACE, () => exchange.endNow(reason))
      exchange.endNow(reason)
    })
  }

  private startTimer (exchange: OpenExchange, delay: number, action: () => void): NodeJS.Timeout {
    this.stopTimer(exchange)
    const timer = setTimeout(action, delay)
    this.open.set(exchange, timer)
    return timer
  }

  private stopTimer (exchange: OpenExchange): void {
    const timer = this.open.get(exchange)
    if (timer) clearTimeout(timer)
  }
}
