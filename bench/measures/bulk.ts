// Throughput in MB/s of content, by chunk size.

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
const MAX_RUNS = 10

export async function bulk (fleet: Fleet, { direction, chunkSize, connections }: Bulk, rounds: number, seconds: number): Promise<Samples> {
  return fleet.rounds(rounds, `${direction} of ${chunkSize}`, prepare, async (server, length) => {
    const took = await transfer(server, { direction, chunkSize, length }, connections, false)
    return { value: length * connections / took / 1e6 }
  })

  /** Warms up, compares every byte, and finds the length of a body that takes `seconds`. */
  async function prepare (server: Server): Promise<number | null> {
    if (server.peer.isLines || (direction !== 'echo' && !server.peer.hasOneWay)) return null
    let length = 4 * PERIOD
    let best = 0
    for (let run = 0; ; run++) {
      const took = await transfer(server, { direction, chunkSize, length }, connections, true)
      const rate = length / took
      // As long as the rate grows, code is still being compiled.
      const isSteady = rate < best * FASTER || run === MAX_RUNS
      best = Math.max(best, rate)
      length = toPeriods(length * Math.min(8, seconds / took))
      if (isSteady && took > seconds / 2) return length
    }
  }
}

function toPeriods (length: number): number {
  return Math.max(1, Math.round(length / PERIOD)) * PERIOD
}
