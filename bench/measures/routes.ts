// What the plugin costs an ordinary route of the same app: one per cent or less. Two processes of the same program differ
// by more, some by a fifth, for as long as they run. So many pairs of processes are measured, in a few short rounds each.

import { type ShortExchange, runExchanges } from '../client/exchanges.ts'
import { onNode } from '../peers.ts'
import { http1 } from '../client/http1.ts'
import { median } from '../rounds.ts'
import { Server } from '../server.ts'
import { CONNECTIONS, warmUp } from './exchanges.ts'

const PLAIN: ShortExchange = { path: '/plain', content: Buffer.alloc(0), response: Buffer.from('{"hello":"world"}') }
const SECONDS = 0.1
const ROUNDS = 6

export interface Routes {
  /** Exchanges per second of processor time with the plugin, divided by those without it. The median of the pairs. */
  ratio: number
  /** The 95 % confidence interval of the median. */
  from: number
  to: number
  pairs: number
}

export async function routes (pairs: number): Promise<Routes> {
  const ratios: number[] = []
  for (let pair = 0; pair < pairs; pair++) {
    const modes = pair % 2 === 0 ? ['with', 'without'] : ['without', 'with']
    const servers = await Promise.all(modes.map((mode) => Server.start(onNode(mode, mode, http1, 'routes.js', [mode]))))
    try {
      for (const server of servers) await warmUp(server, PLAIN)
      const roundRatios: number[] = []
      for (let round = 0; round < ROUNDS; round++) {
        const rates = new Map<string, number>()
        for (const server of round % 2 === 0 ? servers : [...servers].reverse()) rates.set(server.peer.id, await measureRate(server))
        roundRatios.push(rates.get('with')! / rates.get('without')!)
      }
      ratios.push(median(roundRatios))
    } finally {
      await Promise.all(servers.map((server) => server.stop()))
    }
  }
  return { ratio: median(ratios), ...confidence(ratios), pairs }
}

async function measureRate (server: Server): Promise<number> {
  const before = server.processorTime
  const { exchanges } = await runExchanges(server, PLAIN, CONNECTIONS, SECONDS)
  return exchanges / (server.processorTime - before)
}

/** From order statistics, which assume nothing about the distribution of the noise. */
function confidence (values: number[]): { from: number, to: number } {
  const sorted = [...values].sort((a, b) => a - b)
  const reach = Math.ceil(0.98 * Math.sqrt(values.length))
  const middle = (values.length - 1) / 2
  return { from: sorted[Math.max(0, Math.floor(middle - reach))], to: sorted[Math.min(values.length - 1, Math.ceil(middle + reach))] }
}
