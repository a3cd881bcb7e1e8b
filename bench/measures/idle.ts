// KiB of memory for each open exchange that says nothing.

import { openTalks } from '../client/talk.ts'
import { Fleet, type Samples } from '../rounds.ts'
import type { Peer } from '../peers.ts'

const EXCHANGES = 2000
const WARM_UP = 200

/** Memory once grown is not given back: each round has new processes. */
export async function idle (peers: Peer[], rounds: number): Promise<{ samples: Samples, failures: string[] }> {
  const samples: Samples = new Map()
  const failures: string[] = []
  for (let round = 0; round < rounds; round++) {
    const fleet = await Fleet.start(peers)
    try {
      const some = await fleet.rounds(1, 'idle exchanges', async (server) => {
        for (const talker of await openTalks(server, WARM_UP)) talker.close()
      }, async (server) => {
        const before = await server.memory()
        const talkers = await openTalks(server, EXCHANGES)
        const after = await server.memory()
        for (const talker of talkers) talker.close()
        return { value: (after - before) / EXCHANGES }
      })
      for (const [id, list] of some) samples.set(id, [...samples.get(id) ?? [], ...list])
    } finally {
      await fleet.stop()
    }
    failures.push(...fleet.failures)
  }
  return { samples, failures }
}
