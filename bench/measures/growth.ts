// Costs that must stay constant: the cost of a byte however long the body is, and the cost of an exchange however many
// others are open. The cost of a chunk however it is segmented is measured in micro.ts, because the kernel would join the
// segments. Costs are processor time of the server, so that the client is not measured.

import { openTalkers } from '../client/talk.ts'
import { runExchanges } from '../client/exchanges.ts'
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
  /** Nanoseconds per byte, or microseconds per exchange. */
  cost: number
}

/** In each round, the longest body takes about a second per GiB. */
export async function byLength (peer: Peer, longest: number, rounds: number): Promise<Point[]> {
  const server = await Server.start(peer)
  try {
    const points: Point[] = []
    await transfer(server, { direction: 'echo', chunkSize: CHUNK_SIZE, length: 256 * MIB }, 1, false)
    for (let length = MIB; length <= longest; length *= 4) {
      // Short bodies are sent several times: the clock of the processor time is too coarse for one.
      const times = Math.max(1, 64 * MIB / length)
      const costs: number[] = []
      for (let round = 0; round < rounds; round++) {
        const before = server.processorTime
        for (let i = 0; i < times; i++) await transfer(server, { direction: 'echo', chunkSize: CHUNK_SIZE, length }, 1, false)
        costs.push((server.processorTime - before) / (length * times) * 1e9)
      }
      points.push({ x: length, cost: median(costs) })
    }
    return points
  } finally {
    await server.stop()
  }
}

export async function byOpenExchanges (peer: Peer, maxOpen: number, rounds: number, seconds: number): Promise<Point[]> {
  const server = await Server.start(peer)
  try {
    const points: Point[] = []
    const talkers = []
    await warmUp(server, SHORT)
    for (let open = 1; open <= maxOpen; open *= 10) {
      if (open > connectionLimit()) {
        console.log(`SKIPPED: ${open} open exchanges, more than the limit of open files`)
        break
      }
      talkers.push(...await openTalkers(server, open - talkers.length))
      const costs: number[] = []
      // Collects the garbage of opening the connections, so that it is not measured.
      await server.measureMemory()
      for (let round = 0; round < rounds; round++) {
        const before = server.processorTime
        const { exchanges } = await runExchanges(server, SHORT, CONNECTIONS, seconds)
        costs.push((server.processorTime - before) / exchanges * 1e6)
      }
      points.push({ x: open, cost: median(costs) })
    }
    for (const talker of talkers) talker.close()
    return points
  } finally {
    await server.stop()
  }
}
