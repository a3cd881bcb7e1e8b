// MB/s of content, by size of chunk.

import { type Direction, transfer } from '../client/transfer.ts'
import { PERIOD } from '../client/pattern.ts'
import type { Fleet, Samples } from '../rounds.ts'
import type { Server } from '../server.ts'

export interface Bulk {
  direction: Direction
  chunkSize: number
  connections: number
}

const FASTER = 1.1
const MOST_RUNS = 10

export async function bulk (fleet: Fleet, { direction, chunkSize, connections }: Bulk, rounds: number, seconds: number): Promise<Samples> {
  return fleet.rounds(rounds, `${direction} of ${chunkSize}`, prepare, async (server, length) => {
    const took = await transfer(server, { direction, chunkSize, length }, connections, false)
    return { value: length * connections / took / 1e6 }
  })

  /** Warms up, compares every byte, and finds how long a body takes `seconds`. */
  async function prepare (server: Server): Promise<number | null> {
    if (direction !== 'echo' && !server.peer.oneWay) return null
    let length = 4 * PERIOD
    let best = 0
    for (let run = 0; ; run++) {
      const took = await transfer(server, { direction, chunkSize, length }, connections, true)
      const rate = length / took
      // A rate that still grows is that of code still being compiled.
      const steady = rate < best * FASTER || run === MOST_RUNS
      best = Math.max(best, rate)
      length = periods(length * Math.min(8, seconds / took))
      if (steady && took > seconds / 2) return length
    }
  }
}

function periods (length: number): number {
  return Math.max(1, Math.round(length / PERIOD)) * PERIOD
}
