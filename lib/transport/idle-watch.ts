// Finds exchanges on which nothing moves. One timer looks at all exchanges of a route. Node's own timeouts, one per connection
// and refreshed by every read and write, are 4 % of the cost of a small message there and back, and they make Node emit
// 'timeout', for which others listen.

import { AsyncResource } from 'node:async_hooks'

/** Steps in which silence is measured. It is noticed up to one step late. */
const STEPS = 4

/** The same while data waits to be sent: the kernel accepts more only when much of what it has was sent. Node's timeouts do so too. */
const STUCK_STEPS = 2 * STEPS

export interface Watched {
  /** A number that changes with every byte that is received, or that the kernel accepts. */
  readonly progress: number
  /** Whether data waits for the kernel to accept it. */
  readonly isStuck: boolean
  /** Nothing has moved during the timeout. Called again after each further timeout. */
  onIdle (): void
}

interface Silence {
  progress: number
  steps: number
}

export class IdleWatch {
  private readonly step: number
  private readonly watched = new Map<Watched, Silence | null>()
  private timer: NodeJS.Timeout | null = null
  // Otherwise the timer would run in the async context of the request that started it, and keep what is stored there alive.
  private readonly context = new AsyncResource('fastify-duplex.IdleWatch')

  /** @param idleTimeout milliseconds; 0: never */
  constructor (idleTimeout: number) {
    this.step = idleTimeout / STEPS
  }

  add (one: Watched): void {
    if (this.step === 0) return
    this.watched.set(one, null)
    // Like the timeouts of sockets, it does not keep the process alive.
    this.timer ??= this.context.runInAsyncScope(setInterval, null, this.look, this.step).unref()
  }

  delete (one: Watched): void {
    this.watched.delete(one)
  }

  private readonly look = (): void => {
    for (const [one, silence] of this.watched) {
      const { progress } = one
      if (silence === null || silence.progress !== progress) {
        this.watched.set(one, { progress, steps: 0 })
      } else if (++silence.steps >= (one.isStuck ? STUCK_STEPS : STEPS)) {
        silence.steps = 0
        one.onIdle()
      }
    }
    if (this.watched.size > 0) return
    clearInterval(this.timer!)
    this.timer = null
  }
}
