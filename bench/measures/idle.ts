// KiB of memory for each open, idle exchange.

import { openTalkers } from '../client/talk.ts'
import { connectionLimit } from '../isolation.ts'
import type { Peer } from '../peers.ts'
import { Fleet, type Measured, type Samples } from '../rounds.ts'
import type { Server } from '../server.ts'

/** Enough to make the fixed growth of a process, above all its young generation, insignificant. */
const EXCHANGES = 4000
const WARM_UP = 200

/** Each round starts new processes, because a process does not return memory to the system. */
export async function idle (peers: Peer[], rounds: number, limit?: number): Promise<Samples> {
  const samples: Samples = new Map()
  for (let round = 0; round < rounds; round++) {
    const fleet = await Fleet.start(peers, limit)
    try {
      for (const [id, measured] of await fleet.rounds(1, 'idle exchanges', warmUp, measure)) {
        samples.set(id, [...samples.get(id) ?? [], ...measured])
      }
    } finally {
      await fleet.stop()
    }
  }
  return samples
}

async function warmUp (server: Server): Promise<void> {
  for (const talker of await openTalkers(server, WARM_UP)) talker.close()
}

async function measure (server: Server): Promise<Measured> {
  const open = Math.min(EXCHANGES, connectionLimit() >> 1) // a proxy needs two connections for each
  const before = await server.measureMemory()
  const talkers = await openTalkers(server, open)
  const after = await server.measureMemory()
  for (const talker of talkers) talker.close()
  return { value: (after - before) / open }
}
