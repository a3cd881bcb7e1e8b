// Finds exchanges on which no byte moves for `idleTimeout`. One timer checks all exchanges of a route. Node's own timeouts (one
// per connection, refreshed by every read and write) would take 4 % of the time of a small message and its reply. They would
// also make Node emit 'timeout', to which other code listens.

import { AsyncResource } from 'node:async_hooks'

/** Checks per `idleTimeout`. An idle exchange is noticed up to one check late. */
const STEPS = 4

/**
 * Checks without progress while data waits for the kernel. The kernel accepts more only after it has sent much of what it has,
 * so this takes twice as long. Node's timeouts do the same.
 */
const STUCK_STEPS = 2 * STEPS

export interface Watched {
  /** A number that changes with every byte that is received from the client, or accepted by the kernel. */
  readonly progress: number
  /** Whether data waits for the kernel to accept it. */
  readonly isStuck: boolean
  /** Called when nothing has moved for `idleTimeout`, and again after each further `idleTimeout`. */
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
  // Without it, the timer would run in the async context of the request that started it, and keep the data of that context
  // alive.
  private readonly context = new AsyncResource('fastify-duplex.IdleWatch')

  /** @param idleTimeout milliseconds; 0: never */
  constructor (idleTimeout: number) {
    this.step = idleTimeout / STEPS
  }

  add (one: Watched): void {
    if (this.step === 0) return
    this.watched.set(one, null)
    // Like the timeouts of sockets, the timer does not keep the process alive.
    this.timer ??= this.context.runInAsyncScope(setInterval, null, this.check, this.step).unref()
  }

  delete (one: Watched): void {
    this.watched.delete(one)
  }

  private readonly check = (): void => {
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
