// MB/s of content, by size of chunk.

import { type Body, type Direction, transfer } from '../client/transfer.ts'
import { PERIOD } from '../client/pattern.ts'
import type { Fleet, Samples } from '../rounds.ts'
import type { Server } from '../server.ts'

export interface Bulk {
  direction: Direction
  chunkSize: number
  connections: number
}

export async function bulk (fleet: Fleet, { direction, chunkSize, connections }: Bulk, rounds: number, seconds: number): Promise<Samples> {
  return fleet.rounds(rounds, `${direction} of ${chunkSize}`, prepare, async (server, length) => {
    const took = await transfer(server, { direction, chunkSize, length }, connections, false)
    return { value: length * connections / took / 1e6 }
  })

  /** Warms up, compares every byte, and finds how long a body takes `seconds`. */
  async function prepare (server: Server): Promise<number | null> {
    if (direction !== 'echo' && !server.peer.oneWay) return null
    let length = 4 * PERIOD
    const body = (): Body => ({ direction, chunkSize, length })
    for (;;) {
      const took = await transfer(server, body(), connections, true)
      const factor = seconds / took
      length = periods(length * Math.min(8, factor))
      if (factor < 2) return length
    }
  }
}

function periods (length: number): number {
  return Math.max(1, Math.round(length / PERIOD)) * PERIOD
}
