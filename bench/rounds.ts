// Rounds: every peer once in each, so that all of them see the same moods of the machine; ratios are taken within a
// round, and the median of the rounds is the result.

import type { Peer } from './peers.ts'
import { Server } from './server.ts'

export interface Sample {
  /** What is compared. */
  value: number
  /** Share of the time that the server was busy: well below 1, something else held it up. */
  busy?: number
  [detail: string]: number | undefined
}

/** Samples by peer, in the order of the rounds; a peer that failed has none. */
export type Samples = Map<string, Sample[]>

export class Fleet {
  private readonly servers: Server[] = []
  readonly failures: string[] = []

  static async start (peers: Peer[]): Promise<Fleet> {
    const fleet = new Fleet()
    for (const peer of peers) fleet.servers.push(await Server.start(peer))
    return fleet
  }

  async stop (): Promise<void> {
    await Promise.all(this.servers.map((server) => server.stop()))
  }

  /** Runs `measure` once with each server in each of the rounds, after `prepare`. */
  async rounds<T> (count: number, what: string, prepare: (server: Server) => Promise<T>, measure: (server: Server, prepared: T) => Promise<Sample>): Promise<Samples> {
    const samples: Samples = new Map()
    const prepared = new Map<Server, T>()
    for (const server of this.servers) {
      await this.attempt(server, what, async () => { prepared.set(server, await prepare(server)) })
    }
    for (let round = 0; round < count; round++) {
      for (const server of this.servers) {
        if (!prepared.has(server)) continue
        const right = await this.attempt(server, what, async () => {
          const before = server.busy
          const start = performance.now()
          const sample = await measure(server, prepared.get(server)!)
          const busy = (server.busy - before) / ((performance.now() - start) / 1000)
          samples.set(server.peer.id, [...samples.get(server.peer.id) ?? [], { busy, ...sample }])
        })
        if (!right) {
          prepared.delete(server)
          samples.delete(server.peer.id)
        }
      }
    }
    return samples
  }

  private async attempt (server: Server, what: string, run: () => Promise<void>): Promise<boolean> {
    try {
      await run()
      return true
    } catch (error) {
      this.failures.push(`${server.peer.id}, ${what}: ${(error as Error).message}`)
      console.error(`FAILED: ${this.failures.at(-1)}`)
      return false
    }
  }
}

export function median (values: number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
}
