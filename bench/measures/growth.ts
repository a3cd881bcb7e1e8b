// What must not grow: the cost of a byte with the length of its body, the cost of an exchange with the number of others
// that are open. (The third, the cost of a chunk with its segmentation, is in micro.ts: a kernel joins what is sent in
// pieces.) Costs are processor time of the server, so that the client's own growth is not measured.

import { openTalks } from '../client/talk.ts'
import { exchange } from '../client/exchanges.ts'
import { transfer } from '../client/transfer.ts'
import { connectionLimit } from '../isolation.ts'
import type { Peer } from '../peers.ts'
import { median } from '../rounds.ts'
import { Server } from '../server.ts'
import { CONNECTIONS, SHORT, warmUp } from './exchanges.ts'

const CHUNK_SIZE = 16 * 1024
const MIB = 2 ** 20

export interface Point {
  x: number
  /** Nanoseconds per byte, microseconds per exchange. */
  cost: number
}

/** The longest body takes about a second for each GiB, in each round. */
export async function byLength (peer: Peer, longest: number, rounds: number): Promise<Point[]> {
  const server = await Server.start(peer)
  try {
    const points: Point[] = []
    await transfer(server, { direction: 'echo', chunkSize: CHUNK_SIZE, length: 256 * MIB }, 1, false)
    for (let length = MIB; length <= longest; length *= 4) {
      // Short bodies several times: a clock of microseconds is too coarse for one.
      const times = Math.max(1, 64 * MIB / length)
      const costs: number[] = []
      for (let round = 0; round < rounds; round++) {
        const before = server.busy
        for (let i = 0; i < times; i++) await transfer(server, { direction: 'echo', chunkSize: CHUNK_SIZE, length }, 1, false)
        costs.push((server.busy - before) / (length * times) * 1e9)
      }
      points.push({ x: length, cost: median(costs) })
    }
    return points
  } finally {
    await server.stop()
  }
}

export async function byOpenExchanges (peer: Peer, most: number, rounds: number, seconds: number): Promise<Point[]> {
  const server = await Server.start(peer)
  try {
    const points: Point[] = []
    const talkers = []
    await warmUp(server, SHORT)
    for (let open = 1; open <= most; open *= 10) {
      if (open > connectionLimit()) {
        console.log(`SKIPPED: ${open} open exchanges, beyond the limit of open files`)
        break
      }
      talkers.push(...await openTalks(server, open - talkers.length))
      const costs: number[] = []
      // What the opening has left to collect is not part of it.
      await server.memory()
      for (let round = 0; round < rounds; round++) {
        const before = server.busy
        const { exchanges } = await exchange(server, SHORT, CONNECTIONS, seconds)
        costs.push((server.busy - before) / exchanges * 1e6)
      }
      points.push({ x: open, cost: median(costs) })
    }
    for (const talker of talkers) talker.close()
    return points
  } finally {
    await server.stop()
  }
}
