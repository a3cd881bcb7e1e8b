// One timer that looks at all exchanges of a route, instead of one timer for each.

import { AsyncResource } from 'node:async_hooks'

export abstract class Watch<One, State> {
  /** Milliseconds between two looks */
  private readonly period: number
  private readonly watched = new Map<One, State | null>()
  private timer: NodeJS.Timeout | null = null
  // Without it, the timer would run in the async context of the request that started it, and keep the data of that context
  // alive.
  private readonly context = new AsyncResource('fastify-duplex.Watch')

  constructor (period: number) {
    this.period = period
  }

  add (one: One): void {
    this.watched.set(one, null)
    // Like the timeouts of sockets, the timer does not keep the process alive.
    this.timer ??= this.context.runInAsyncScope(setInterval, null, this.check, this.period).unref()
  }

  delete (one: One): void {
    this.watched.delete(one)
  }

  /**
   * Looks at one of them. May delete it.
   *
   * @param state what the last look has returned; null at the first look
   */
  protected abstract look (one: One, state: State | null): State

  private readonly check = (): void => {
    for (const [one, state] of this.watched) {
      const next = this.look(one, state)
      if (next !== state && this.watched.has(one)) this.watched.set(one, next)
    }
    if (this.watched.size > 0) return
    clearInterval(this.timer!)
    this.timer = null
  }
}
