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
  /** As in `Sample`, if the measure knows it better than from its beginning and end. */
  busy?: number
}

export interface Sample extends Measured {
  /** Processor time of the server, divided by the time that passed. */
  busy: number
}

/**
 * Samples by peer, in the order of the rounds. It lacks peers that failed, or that cannot be measured so. Peers that stalled have
 * no samples.
 */
export type Samples = Map<string, Sample[]>

/**
 * Runs one round after the other, each with new processes and the peers in the opposite order: processes of one program differ for as
 * long as they live, and none returns its memory.
 */
export async function freshRounds (peers: Peer[], count: number, limit: number | undefined, what: string, warmUp: (server: Server) => Promise<void>, measure: (server: Server) => Promise<Measured>): Promise<Samples> {
  const samples: Samples = new Map(peers.map(({ id }) => [id, []]))
  let left = peers
  for (let round = 0; round < count; round++) {
    const fleet = await Fleet.start(round % 2 === 0 ? left : [...left].reverse(), limit)
    try {
      const measured = await fleet.rounds(1, what, warmUp, measure)
      for (const [id, [sample]] of measured) {
        if (sample === undefined) samples.set(id, []) // stalled
        else samples.get(id)!.push(sample)
      }
      for (const { id } of left) if (!measured.has(id)) samples.delete(id)
      left = left.filter(({ id }) => measured.get(id)?.length === 1)
    } finally {
      await fleet.stop()
    }
  }
  return samples
}

/** One server process for each peer. */
export class Fleet {
  private readonly servers: Server[] = []
  private readonly limit: number

  private constructor (limit: number) {
    this.limit = limit
  }

  /** @param limit for one peer in one round, in milliseconds: a peer that hangs must not block the others */
  static async start (peers: Peer[], limit = 60_000): Promise<Fleet> {
    const fleet = new Fleet(limit)
    for (const peer of peers) {
      await attempt(peer, 'start', limit, async () => { fleet.servers.push(await Server.start(peer)) })
    }
    return fleet
  }

  async stop (): Promise<void> {
    await Promise.all(this.servers.splice(0).map((server) => server.stop()))
  }

  /** Runs `measure` once per server and round. `prepare` runs once per server before that, and skips it by returning null. */
  async rounds<T> (count: number, what: string, prepare: (server: Server) => Promise<T | null>, measure: (server: Server, prepared: T) => Promise<Measured>): Promise<Samples> {
    const samples: Samples = new Map()
    const prepared = new Map<Server, T>()
    for (const server of this.servers) {
      const outcome = await attempt(server.peer, what, this.limit, async () => {
        const ready = await prepare(server)
        if (ready === null) return
        prepared.set(server, ready)
        samples.set(server.peer.id, [])
      })
      if (outcome === 'stalled') samples.set(server.peer.id, [])
    }
    for (let round = 0; round < count; round++) {
      for (const [server, ready] of prepared) {
        const outcome = await attempt(server.peer, what, this.limit, async () => {
          const before = server.processorTime
          const start = performance.now()
          const measured = await measure(server, ready)
          const busy = (server.processorTime - before) / ((performance.now() - start) / 1000)
          samples.get(server.peer.id)!.push({ busy, ...measured })
        })
        if (outcome === 'done') continue
        prepared.delete(server)
        if (outcome === 'stalled') samples.set(server.peer.id, [])
        else samples.delete(server.peer.id)
      }
    }
    return samples
  }
}

type Outcome = 'done' | 'stalled' | 'failed'

async function attempt (peer: Peer, what: string, limit: number, run: () => Promise<void>): Promise<Outcome> {
  const timeout = new AbortController()
  const stall = sleep(limit, 'stalled' as const, { signal: timeout.signal })
  stall.catch(() => {}) // that it was aborted
  try {
    const outcome = await Promise.race([run().then(() => 'done' as const), stall])
    if (outcome === 'stalled') report('STALLED', `no result within ${limit} ms`, peer.mayStall !== true)
    return outcome
  } catch (error) {
    report('FAILED', (error as Error).message, true)
    return 'failed'
  } finally {
    timeout.abort()
  }

  function report (outcome: string, reason: string, isFailure: boolean): void {
    console.error(`${outcome}: ${peer.id}, ${what}: ${reason}`)
    if (isFailure) process.exitCode = 1
  }
}

export function median (values: number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
}
