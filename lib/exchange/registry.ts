// The open exchanges of one app, and how they end when it closes, or when they are too old.

import type { ExchangeStatus } from '../../types/index.d.ts'
import { AgeError, ClosingError } from '../errors.ts'
import { Entry, List } from '../transport/list.ts'

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

/** An open exchange, until it is removed. */
export class Registration extends Entry<OpenExchange> {
  /** Runs until the exchange is too old, or, when it was told to end, until it is ended. Null if it has none. */
  timer: NodeJS.Timeout | null = null
}

export class Registry {
  isClosing = false
  private readonly open = new List<Registration>()
  private onEmpty: (() => void) | null = null

  add (exchange: OpenExchange): Registration {
    const registration = new Registration(exchange)
    this.open.add(registration)
    if (this.isClosing) this.shutDown(registration)
    else if (exchange.maxAge > 0) this.limitAge(registration)
    return registration
  }

  remove (registration: Registration): void {
    this.stopTimer(registration)
    registration.leave()
    if (this.open.isEmpty) this.onEmpty?.()
  }

  /** The connection of the exchange is the user's: it has no age limit any more. */
  onDetached (registration: Registration): void {
    if (!this.isClosing) this.stopTimer(registration)
  }

  /** What the open exchanges are doing, the oldest first. */
  exchanges (): ExchangeStatus[] {
    return this.open.entries().map(({ member }) => member.status).filter((status) => status !== null)
  }

  /** Tells all open exchanges to end. Those still open after their `closeGrace` are ended. */
  startClosing (): void {
    this.isClosing = true
    for (const registration of this.open.entries()) {
      if (registration.isListed) this.shutDown(registration)
    }
  }

  /**
   * Resolves when no exchange is open any more, or after `timeout`.
   *
   * @param timeout milliseconds
   */
  async whenEmpty (timeout: number): Promise<void> {
    if (this.open.isEmpty) return
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, timeout)
      this.onEmpty = () => {
        clearTimeout(timer)
        resolve()
      }
    })
  }

  private shutDown (registration: Registration): void {
    const reason = new ClosingError()
    this.startGrace(registration, reason)
    registration.member.shutDown(reason)
  }

  private limitAge (registration: Registration): void {
    const { member: exchange } = registration
    const { maxAge } = exchange
    this.startTimer(registration, maxAge, () => {
      const reason = new AgeError(maxAge)
      this.startGrace(registration, reason)
      exchange.expire(reason)
    }).unref() // as the timeouts of sockets
  }

  private startGrace (registration: Registration, reason: Error): void {
    const { member: exchange } = registration
    this.startTimer(registration, exchange.closeGrace, () => {
      this.startTimer(registration, LAST_GRACE, () => exchange.endNow(reason))
      exchange.endNow(reason)
    })
  }

  private startTimer (registration: Registration, delay: number, action: () => void): NodeJS.Timeout {
    this.stopTimer(registration)
    registration.timer = setTimeout(action, delay)
    return registration.timer
  }

  private stopTimer (registration: Registration): void {
    if (registration.timer !== null) clearTimeout(registration.timer)
    registration.timer = null
  }
}
