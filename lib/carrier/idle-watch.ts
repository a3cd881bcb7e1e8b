// Finds the exchanges on which nothing moves. One timer looks at all those of a route: Node's own, one for each connection,
// which every read and every write refreshes, are 4 % of the cost of a small message there and back. And Node's emit
// 'timeout', for which others listen.

import { AsyncResource } from 'node:async_hooks'

/** In how many steps a silence is measured; it is noticed up to one of them late. */
const STEPS = 4

/** With something to send: the kernel takes more only when much of what it has is gone, and as Node's own timeouts do. */
const STUCK_STEPS = 2 * STEPS

export interface Watched {
  /** A number that changes with every byte that comes, or that the kernel takes. */
  readonly progress: number
  /** Whether something waits for the kernel to take it. */
  readonly isStuck: boolean
  /** Nothing has moved for as long as the timeout. Called again after each further timeout. */
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
  // Or the timer would run in the context of the request that started it, and keep what is stored there.
  private readonly context = new AsyncResource('fastify-duplex.IdleWatch')

  /** @param idleTimeout milliseconds; 0: never */
  constructor (idleTimeout: number) {
    this.step = idleTimeout / STEPS
  }

  add (one: Watched): void {
    if (this.step === 0) return
    this.watched.set(one, null)
    // As with the timeouts of sockets, no process waits for it.
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
