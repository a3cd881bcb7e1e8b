// Costs that must stay constant: the cost of a byte and of an item however long the body is, and the cost of an exchange however
// many others are open. The cost of a chunk however it is segmented is measured in micro.ts, because the kernel would join the
// segments. Costs are processor time of the server, so that the client is not measured.

import { openTalkers } from '../client/talk.ts'
import { runExchanges } from '../client/exchanges.ts'
import { sendRows } from '../client/rows.ts'
import { transfer } from '../client/transfer.ts'
import { connectionLimit } from '../isolation.ts'
import type { Peer } from '../peers.ts'
import { median } from '../rounds.ts'
import { ROWS } from '../rows.ts'
import { Server } from '../server.ts'
import { CONNECTIONS, SHORT, warmUp } from './exchanges.ts'

const CHUNK_SIZE = 16 * 1024
const MIB = 2 ** 20
/** Bytes of a row in JSON, about. */
const ROW_SIZE = 100

export interface Point {
  x: number
  /** Nanoseconds per byte or item, or microseconds per exchange. */
  cost: number
}

/** Nanoseconds per byte. In each round, the longest body takes about a second per GiB. */
export async function byLength (peer: Peer, longest: number, rounds: number): Promise<Point[]> {
  return alongBody(peer, longest / MIB, 64, rounds, async (server, mib) => {
    await transfer(server, { direction: 'echo', chunkSize: CHUNK_SIZE, length: mib * MIB }, 1, false)
    return mib * MIB
  })
}

/** Nanoseconds per item. @param longest bytes, about */
export async function byItems (peer: Peer, longest: number, rounds: number): Promise<Point[]> {
  const longestTimes = Math.max(1, Math.round(longest / ROWS.length / ROW_SIZE))
  const points = await alongBody(peer, longestTimes, 16, rounds, async (server, times) => {
    await sendRows(server, 'large', times)
    return times * ROWS.length
  })
  return points.map(({ x, cost }) => ({ x: x * ROWS.length, cost }))
}

/** @param send sends a body that is `length` units long, and returns how many bytes or items that is. @param least what one round sends at least */
async function alongBody (peer: Peer, longest: number, least: number, rounds: number, send: (server: Server, length: number) => Promise<number>): Promise<Point[]> {
  const lengths: number[] = []
  for (let length = 1; length < longest; length *= 4) lengths.push(length)
  lengths.push(longest)
  const server = await Server.start(peer)
  try {
    const points: Point[] = []
    await send(server, Math.min(longest, 4 * least))
    for (const length of lengths) {
      // Short bodies are sent several times: the clock of the processor time is too coarse for one.
      const times = Math.max(1, Math.round(least / length))
      const costs: number[] = []
      for (let round = 0; round < rounds; round++) {
        const before = server.processorTime
        let count = 0
        for (let i = 0; i < times; i++) count += await send(server, length)
        costs.push((server.processorTime - before) / count * 1e9)
      }
      points.push({ x: length, cost: median(costs) })
    }
    return points
  } finally {
    await server.stop()
  }
}

/** As many open exchanges as are wanted, or as the limit of open files allows. */
export function upToLimit (wanted: number): number {
  const limit = connectionLimit()
  if (wanted <= limit) return wanted
  console.log(`SKIPPED: ${wanted} open exchanges, the limit of open files allows ${limit}: measured with these instead`)
  return limit
}

export async function byOpenExchanges (peer: Peer, maxOpen: number, rounds: number, seconds: number): Promise<Point[]> {
  const server = await Server.start(peer)
  try {
    const points: Point[] = []
    const talkers = []
    const most = upToLimit(maxOpen)
    await warmUp(server, SHORT)
    for (const open of [1, 10, 100, 1000, 10_000, most].filter((count, i, counts) => count < most || i === counts.length - 1)) {
      talkers.push(...await openTalkers(server, open - talkers.length, talkers.length))
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
