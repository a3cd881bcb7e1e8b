// Short exchanges per second. A connection is reused as long as the server keeps it open.

import type { Target } from '../client/connection.ts'
import { type ShortExchange, runExchanges } from '../client/exchanges.ts'
import type { Fleet, Samples } from '../rounds.ts'

export const CONNECTIONS = 16
/** 1 KiB, as a line of JSON, so that routes of items can be compared. */
const KIB = Buffer.from(`"${'x'.repeat(1021)}"\n`)
/** Exchanges after which V8 has compiled the code. A count and not a time, because a cold server is slow. */
const WARM_UP = 30_000
export const SHORT: ShortExchange = { path: '/echo', content: KIB, response: KIB }

export async function exchanges (fleet: Fleet, rounds: number, seconds: number, short = SHORT, warmUpCount = WARM_UP): Promise<Samples> {
  return fleet.rounds(rounds, 'exchanges', async (server) => {
    if (server.protocol.encodeExchange(short.path, short.content, 0) === null) return null
    return warmUp(server, short, warmUpCount)
  }, async (server) => {
    const done = await runExchanges(server, short, CONNECTIONS, seconds)
    return { value: done.exchanges / done.seconds }
  })
}

export async function warmUp (target: Target, short: ShortExchange, atLeast = WARM_UP): Promise<void> {
  let count = 0
  while (count < atLeast) count += (await runExchanges(target, short, CONNECTIONS, 0.1)).exchanges
}
