// Each round measures every peer once, so that all peers meet the same conditions of the machine. Ratios are taken within
// a round, and the result is the median of the rounds.

import { setTimeout as sleep } from 'node:timers/promises'
import type { Peer } from './peers.ts'
import { Server } from './server.ts'

/** The result of one peer in one round. */
export interface Measured {
  value: number
  /** Percentiles of the round trips, in milliseconds. */
  p50?: number
  p99?: number
}

export interface Sample extends Measured {
  /** Processor time of the server, divided by the time that passed. */
  busy: number
}

/** Samples by peer, in the order of the rounds. It lacks peers that failed, or that cannot be measured so. */
export type Samples = Map<string, Sample[]>

/** One server process for each peer. */
export class Fleet {
  private readonly servers: Server[] = []

  static async start (peers: Peer[]): Promise<Fleet> {
    const fleet = new Fleet()
    for (const peer of peers) {
      await attempt(peer, 'start', async () => { fleet.servers.push(await Server.start(peer)) })
    }
    return fleet
  }

  async stop (): Promise<void> {
    await Promise.all(this.servers.map((server) => server.stop()))
  }

  /** Runs `measure` once per server and round. `prepare` runs once per server before that, and skips it by returning null. */
  async rounds<T> (count: number, what: string, prepare: (server: Server) => Promise<T | null>, measure: (server: Server, prepared: T) => Promise<Measured>): Promise<Samples> {
    const samples: Samples = new Map()
    const prepared = new Map<Server, T>()
    for (const server of this.servers) {
      await attempt(server.peer, what, async () => {
        const ready = await prepare(server)
        if (ready === null) return
        prepared.set(server, ready)
        samples.set(server.peer.id, [])
      })
    }
    for (let round = 0; round < count; round++) {
      for (const [server, ready] of prepared) {
        const succeeded = await attempt(server.peer, what, async () => {
          const before = server.processorTime
          const start = performance.now()
          const measured = await measure(server, ready)
          const busy = (server.processorTime - before) / ((performance.now() - start) / 1000)
          samples.get(server.peer.id)!.push({ ...measured, busy })
        })
        if (succeeded) continue
        prepared.delete(server)
        samples.delete(server.peer.id)
      }
    }
    return samples
  }
}

/** Time limit for one peer in one round, in milliseconds: a peer that hangs must not block the others. */
const LIMIT = 60_000

async function attempt (peer: Peer, what: string, run: () => Promise<void>): Promise<boolean> {
  const timeout = new AbortController()
  try {
    await Promise.race([run(), sleep(LIMIT, null, timeout).then(() => { throw new Error(`no result within ${LIMIT} ms`) })])
    return true
  } catch (error) {
    console.error(`FAILED: ${peer.id}, ${what}: ${(error as Error).message}`)
    process.exitCode = 1
    return false
  } finally {
    timeout.abort()
  }
}

export function median (values: number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
}
