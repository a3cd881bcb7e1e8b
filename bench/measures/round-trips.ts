// Round trips of messages over many open exchanges: how many per second, and how long they take.

import { talk } from '../client/talk.ts'
import type { Peer } from '../peers.ts'
import { type Samples, freshRounds } from '../rounds.ts'

const CONNECTIONS = 64

export async function roundTrips (peers: Peer[], rounds: number, seconds: number, limit?: number): Promise<Samples> {
  return freshRounds(peers, rounds, limit, 'round trips', async (server) => { await talk(server, CONNECTIONS, Math.max(seconds, 0.5)) }, async (server) => {
    const { messages, seconds: took, latencies } = await talk(server, CONNECTIONS, seconds)
    return { value: messages / took, p50: latencies[messages >> 1], p99: latencies[Math.floor(messages * 0.99)] }
  })
}
