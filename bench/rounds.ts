// Rounds: every peer once in each, so that all of them see the same moods of the machine; ratios are taken within a
// round, and the median of the rounds is the result.

import { setTimeout as sleep } from 'node:timers/promises'
import type { Peer } from './peers.ts'
import { Server } from './server.ts'

/** What one peer did in one round. */
export interface Measured {
  value: number
  /** Milliseconds that half of the round trips took at most, and 99 of 100. */
  p50?: number
  p99?: number
}

export interface Sample extends Measured {
  /** Processor time of the server, as a share of the time that passed. */
  busy: number
}

/** Samples by peer, in the order of the rounds; a peer that failed, or has no such thing, is not among them. */
export type Samples = Map<string, Sample[]>

/** One server process of each peer. */
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

  /** Runs `measure` once with each server in each of the rounds; `prepare`, before, can also refuse a server with null. */
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
        const right = await attempt(server.peer, what, async () => {
          const before = server.busy
          const start = performance.now()
          const measured = await measure(server, ready)
          const busy = (server.busy - before) / ((performance.now() - start) / 1000)
          samples.get(server.peer.id)!.push({ ...measured, busy })
        })
        if (right) continue
        prepared.delete(server)
        samples.delete(server.peer.id)
      }
    }
    return samples
  }
}

/** Milliseconds for one peer in one round: a peer that hangs must not hang the rest. */
const LIMIT = 60_000

async function attempt (peer: Peer, what: string, run: () => Promise<void>): Promise<boolean> {
  const late = new AbortController()
  try {
    await Promise.race([run(), sleep(LIMIT, null, late).then(() => { throw new Error(`nothing for ${LIMIT} ms`) })])
    return true
  } catch (error) {
    console.error(`FAILED: ${peer.id}, ${what}: ${(error as Error).message}`)
    process.exitCode = 1
    return false
  } finally {
    late.abort()
  }
}

export function median (values: number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
}
