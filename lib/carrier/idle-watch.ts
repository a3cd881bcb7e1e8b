// Finds the connections on which nothing moves. One timer looks at all of them: Node's own, one for each, which every read
// and every write refreshes, are 4 % of the cost of a small message there and back.

import type { Socket } from 'node:net'
import { progressOf } from '../net-internals.ts'

/** In how many steps a silence is measured; it is noticed up to one of them late. */
const STEPS = 4

interface Silence {
  progress: number
  steps: number
}

export class IdleWatch {
  private readonly step: number
  private readonly sockets = new Map<Socket, Silence | null>()
  private timer: NodeJS.Timeout | null = null

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
    this.timer ??= setInterval(this.look, this.step).unref()
  }

  delete (socket: Socket): void {
    this.sockets.delete(socket)
  }

  private readonly look = (): void => {
    for (const [socket, silence] of this.sockets) {
      const progress = progressOf(socket)
      if (silence === null || silence.progress !== progress) {
        this.sockets.set(socket, { progress, steps: 0 })
      } else if (++silence.steps === STEPS) {
        silence.steps = 0
        socket.emit('timeout')
      }
    }
    if (this.sockets.size > 0) return
    clearInterval(this.timer!)
    this.timer = null
  }
}
