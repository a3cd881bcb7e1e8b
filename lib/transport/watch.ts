// One timer that looks at all exchanges of a route, instead of one timer for each.

import { AsyncResource } from 'node:async_hooks'
import { Entry, List } from './list.ts'

/** One that is watched, until it leaves. */
export class Watching<One, State> extends Entry<One> {
  /** What the last look has returned; null before the first look */
  state: State | null = null
}

export abstract class Watch<One, State> {
  /** Milliseconds between two looks */
  private readonly period: number
  private readonly watched = new List<Watching<One, State>>()
  private timer: NodeJS.Timeout | null = null
  // Without it, the timer would run in the async context of the request that started it, and keep the data of that context
  // alive.
  private readonly context = new AsyncResource('fastify-duplex.Watch')

  constructor (period: number) {
    this.period = period
  }

  add (one: One): Watching<One, State> {
    const watching = new Watching<One, State>(one)
    this.watched.add(watching)
    // Like the timeouts of sockets, the timer does not keep the process alive.
    this.timer ??= this.context.runInAsyncScope(setInterval, null, this.check, this.period).unref()
    return watching
  }

  /**
   * Looks at one of them, which may leave.
   *
   * @param state what the last look has returned; null at the first look
   */
  protected abstract look (one: One, state: State | null): State

  private readonly check = (): void => {
    for (const watching of this.watched.entries()) {
      if (watching.isListed) watching.state = this.look(watching.member, watching.state)
    }
    if (!this.watched.isEmpty) return
    clearInterval(this.timer!)
    this.timer = null
  }
}
