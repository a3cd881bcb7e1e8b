// Round trips of messages over many open exchanges: how many per second, and how long they take.

import { talk } from '../client/talk.ts'
import type { Peer } from '../peers.ts'
import { type Samples, freshRounds } from '../rounds.ts'
import type { Server } from '../server.ts'

const CONNECTIONS = 64
/** Messages after which V8 has compiled the code. A count and not a time, because a cold server is slow. */
const WARM_UP = 20_000

export async function roundTrips (peers: Peer[], rounds: number, seconds: number, limit?: number): Promise<Samples> {
  return freshRounds(peers, rounds, limit, 'round trips', warmUp, async (server) => {
    const { messages, seconds: took, clocked, latencies } = await talk(server, CONNECTIONS, Math.max(seconds, 1), () => server.processorTime)
    return { value: messages / took, busy: clocked / took, p50: latencies[messages >> 1], p99: latencies[Math.floor(messages * 0.99)] }
  })
}

async function warmUp (server: Server): Promise<void> {
  let count = 0
  while (count < WARM_UP) count += (await talk(server, CONNECTIONS, 0.2)).messages
}
