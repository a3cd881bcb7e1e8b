// Items: rows per second that are read, validated and answered with one result each.

import { type Shape, loop, sendRows } from '../client/rows.ts'
import type { Fleet, Samples } from '../rounds.ts'
import { ROWS } from '../rows.ts'
import type { Server } from '../server.ts'

const FASTER = 1.1
const MAX_RUNS = 10

export async function items (fleet: Fleet, shape: Shape, rounds: number, seconds: number): Promise<Samples> {
  return fleet.rounds(rounds, `items, ${shape}`, warmUp, async (server, times) => ({ value: times * ROWS.length / await run(server, times) }))

  function run (server: Server, times: number): Promise<number> {
    return server.peer.id === 'items-limit' ? loop(server, times) : sendRows(server, shape, times)
  }

  /** @returns how often all rows must be sent to take `seconds` */
  async function warmUp (server: Server): Promise<number> {
    let times = 1
    let best = 0
    for (let count = 0; ; count++) {
      const took = await run(server, times)
      const rate = times / took
      const isSteady = rate < best * FASTER || count === MAX_RUNS
      best = Math.max(best, rate)
      times = Math.max(1, Math.round(times * Math.min(8, seconds / took)))
      if (isSteady && (took > seconds / 2 || count === MAX_RUNS)) return times
    }
  }
}
