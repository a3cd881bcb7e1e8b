// KiB of memory for each open, idle exchange.

import { openTalkers } from '../client/talk.ts'
import { connectionLimit } from '../isolation.ts'
import type { Peer } from '../peers.ts'
import { type Measured, type Samples, freshRounds } from '../rounds.ts'
import type { Server } from '../server.ts'

/** Enough to make the fixed growth of a process, above all its young generation, insignificant. */
const EXCHANGES = 4000
const WARM_UP = 200

export async function idle (peers: Peer[], rounds: number, limit?: number): Promise<Samples> {
  return freshRounds(peers, rounds, limit, 'idle exchanges', warmUp, measure)
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
