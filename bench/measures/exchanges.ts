// Short exchanges per second, on connections that are kept where the server keeps them.

import { type Short, exchange } from '../client/exchanges.ts'
import type { Fleet, Samples } from '../rounds.ts'

const CONNECTIONS = 16
const HELLO = Buffer.from('hello')
const SHORT: Short = { path: '/echo', content: HELLO, answer: HELLO }

export async function exchanges (fleet: Fleet, rounds: number, seconds: number): Promise<Samples> {
  return fleet.rounds(rounds, 'exchanges', async (server) => { await exchange(server, SHORT, CONNECTIONS, seconds) }, async (server) => {
    const done = await exchange(server, SHORT, CONNECTIONS, seconds)
    return { value: done.exchanges / done.seconds }
  })
}
