// Short exchanges per second, on connections that are kept where the server keeps them.

import type { Target } from '../client/connection.ts'
import { type Short, exchange } from '../client/exchanges.ts'
import type { Fleet, Samples } from '../rounds.ts'

export const CONNECTIONS = 16
const HELLO = Buffer.from('hello')
/** Until Node's compiler has done its work; by count, since a cold server takes its time. */
const WARM_UP = 10_000
export const SHORT: Short = { path: '/echo', content: HELLO, answer: HELLO }

export async function exchanges (fleet: Fleet, rounds: number, seconds: number): Promise<Samples> {
  return fleet.rounds(rounds, 'exchanges', async (server) => {
    if (server.protocol.exchange(SHORT.path, HELLO, 0) === null) return null
    return warmUp(server, SHORT)
  }, async (server) => {
    const done = await exchange(server, SHORT, CONNECTIONS, seconds)
    return { value: done.exchanges / done.seconds }
  })
}

export async function warmUp (target: Target, short: Short): Promise<void> {
  let count = 0
  while (count < WARM_UP) count += (await exchange(target, short, CONNECTIONS, 0.1)).exchanges
}
