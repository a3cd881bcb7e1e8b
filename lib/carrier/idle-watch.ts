// Finds the connections on which nothing moves. One timer looks at all of them: Node's own, one for each, which every read
// and every write refreshes, are 4 % of the cost of a small message there and back.

import { AsyncResource } from 'node:async_hooks'
import type { Socket } from 'node:net'
import { progressOf, queuedBytes } from '../net-internals.ts'

/** In how many steps a silence is measured; it is noticed up to one of them late. */
const STEPS = 4

/** With something to send: the kernel takes more only when much of what it has is gone, and as Node's own timeouts do. */
const STUCK_STEPS = 2 * STEPS

interface Silence {
  progress: number
  steps: number
}

export class IdleWatch {
  private readonly step: number
  private readonly sockets = new Map<Socket, Silence | null>()
  private timer: NodeJS.Timeout | null = null
  // Or the timer would run in the context of the request that started it, and keep what is stored there.
  private readonly context = new AsyncResource('fastify-duplex.IdleWatch')

  /** @param idleTimeout milliseconds; 0: never */
  constructor (idleTimeout: number) {
    this.step = idleTimeout / STEPS
  }

  /** From now on, the socket emits 'timeout' after each silence of so long, as after `setTimeout`. */
  add (socket: Socket): void {
    // Streams that are no sockets do not count their bytes.
    if (this.step === 0 || !('bytesWritten' in socket)) return
    this.sockets.set(socket, null)
    // As with the timeouts of sockets, no process waits for it.
    this.timer ??= this.context.runInAsyncScope(setInterval, null, this.look, this.step).unref()
  }

  delete (socket: Socket): void {
    this.sockets.delete(socket)
  }

  private readonly look = (): void => {
    for (const [socket, silence] of this.sockets) {
      const progress = progressOf(socket)
      if (silence === null || silence.progress !== progress) {
        this.sockets.set(socket, { progress, steps: 0 })
      } else if (++silence.steps >= (queuedBytes(socket) > 0 ? STUCK_STEPS : STEPS)) {
        silence.steps = 0
        socket.emit('timeout')
      }
    }
    if (this.sockets.size > 0) return
    clearInterval(this.timer!)
    this.timer = null
  }
}
