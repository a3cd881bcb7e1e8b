// Finds exchanges on which no byte moves for `idleTimeout`. One timer checks all exchanges of a route, and one all calls of the
// client that have the same `bodyTimeout`. Node's own timeouts (one per connection, refreshed by every read and write) would take
// 4 % of the time of a small message and its reply. They would also make Node emit 'timeout', to which other code listens.

import { Watch, type Watching } from './watch.ts'

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

export interface Silence {
  progress: number
  steps: number
}

export type IdleWatching = Watching<Watched, Silence>

export class IdleWatch extends Watch<Watched, Silence> {
  private readonly isOn: boolean

  /** @param idleTimeout milliseconds; 0: never */
  constructor (idleTimeout: number) {
    super(idleTimeout / STEPS)
    this.isOn = idleTimeout > 0
  }

  /** @returns null if nothing is watched, since there is no timeout */
  start (one: Watched): IdleWatching | null {
    return this.isOn ? this.add(one) : null
  }

  protected look (one: Watched, silence: Silence | null): Silence {
    const { progress } = one
    if (silence === null || silence.progress !== progress) return { progress, steps: 0 }
    if (++silence.steps >= (one.isStuck ? STUCK_STEPS : STEPS)) {
      silence.steps = 0
      one.onIdle()
    }
    return silence
  }
}

/** Cap on the watches that are remembered. */
const MAX_WATCHES = 16

const watches = new Map<number, IdleWatch>()

/** @returns the watch that everything with this timeout shares, in milliseconds */
export function sharedIdleWatch (timeout: number): IdleWatch {
  let watch = watches.get(timeout)
  if (watch === undefined) {
    if (watches.size === MAX_WATCHES) watches.clear() // those in use go on
    watch = new IdleWatch(timeout)
    watches.set(timeout, watch)
  }
  return watch
}
