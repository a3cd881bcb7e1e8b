// KiB of memory for each open exchange that says nothing.

import { openTalks } from '../client/talk.ts'
import { connectionLimit } from '../isolation.ts'
import type { Peer } from '../peers.ts'
import { Fleet, type Measured, type Samples } from '../rounds.ts'
import type { Server } from '../server.ts'

/** So many that what a process keeps once it has grown, a young generation above all, does not count for much. */
const EXCHANGES = 4000
const WARM_UP = 200

/** Memory once grown is not given back: each round has new processes. */
export async function idle (peers: Peer[], rounds: number): Promise<Samples> {
  const samples: Samples = new Map()
  for (let round = 0; round < rounds; round++) {
    const fleet = await Fleet.start(peers)
    try {
      for (const [id, [sample]] of await fleet.rounds(1, 'idle exchanges', warmUp, measure)) {
        samples.set(id, [...samples.get(id) ?? [], sample])
      }
    } finally {
      await fleet.stop()
    }
  }
  return samples
}

async function warmUp (server: Server): Promise<void> {
  for (const talker of await openTalks(server, WARM_UP)) talker.close()
}

async function measure (server: Server): Promise<Measured> {
  const open = Math.min(EXCHANGES, connectionLimit())
  const before = await server.memory()
  const talkers = await openTalks(server, open)
  const after = await server.memory()
  for (const talker of talkers) talker.close()
  return { value: (after - before) / open }
}
