// What the plugin costs the ordinary routes of the same app: one per cent or less. Two processes of the same program differ
// by more, some by a fifth, for as long as they run. So many pairs of processes are measured, in a few short rounds each.

import { setTimeout as sleep } from 'node:timers/promises'
import { type ShortExchange, runCounted, runExchanges } from '../client/exchanges.ts'
import { onNode } from '../peers.ts'
import { http1 } from '../client/http1.ts'
import { median } from '../rounds.ts'
import { Server } from '../server.ts'
import { CONNECTIONS, warmUp } from './exchanges.ts'

const PLAIN: ShortExchange = { path: '/plain', content: Buffer.alloc(0), response: Buffer.from('{"hello":"world"}') }
const SECONDS = 0.1
const ROUNDS = 6
/** Requests after which V8 has compiled the code of both servers. It has more to compile for the one with the plugin. */
const WARM_UP = 100_000

const MANY_ROUTES = 1000
/** The processor time of one request is too short for one reading of the clock: those around the thousandth are measured. */
const BEFORE_THOUSANDTH = 949
const AROUND_THOUSANDTH = 100
/** Milliseconds until the server has done what it does after a response, and the kernel has counted it. */
const SETTLED = 20

export interface Routes {
  what: string
  /** Work per second of processor time with the plugin, divided by that without it. The median of the pairs. */
  ratio: number
  /** The 95 % confidence interval of the median. */
  from: number
  to: number
  pairs: number
}

type Rate = (server: Server) => Promise<number>

export async function routes (pairs: number): Promise<Routes[]> {
  const warm = await compare('ordinary requests', pairs, ROUNDS, 0, (server) => warmUp(server, PLAIN, WARM_UP), measureRate)
  // What the start has left to do is not part of the first request.
  const first = await compare('the first request', pairs, 1, 0, async (server) => { await server.collect() }, (server) => measureCounted(server, 1))
  const thousandth = await compare('the thousandth request', pairs, 1, 0, (server) => runCounted(server, PLAIN, BEFORE_THOUSANDTH), (server) => measureCounted(server, AROUND_THOUSANDTH))
  const startUp = await compare(`start-up of an app with ${MANY_ROUTES} routes`, pairs, 1, MANY_ROUTES, async () => {}, async (server) => 1 / (await server.collect()).startUp!)
  return [warm, first, thousandth, startUp]
}

/** @param count of further routes */
async function compare (what: string, pairs: number, rounds: number, count: number, prepare: (server: Server) => Promise<void>, measure: Rate): Promise<Routes> {
  const ratios: number[] = []
  for (let pair = 0; pair < pairs; pair++) {
    const modes = pair % 2 === 0 ? ['with', 'without'] : ['without', 'with']
    const servers: Server[] = []
    try {
      for (const mode of modes) servers.push(await Server.start(onNode(mode, mode, http1, 'routes.js', [mode, String(count)])))
      for (const server of servers) await prepare(server)
      const roundRatios: number[] = []
      for (let round = 0; round < rounds; round++) {
        const rates = new Map<string, number>()
        for (const server of round % 2 === 0 ? servers : [...servers].reverse()) rates.set(server.peer.id, await measure(server))
        roundRatios.push(rates.get('with')! / rates.get('without')!)
      }
      ratios.push(median(roundRatios))
    } finally {
      await Promise.all(servers.map((server) => server.stop()))
    }
  }
  return { what, ratio: median(ratios), ...confidence(ratios), pairs }
}

async function measureCounted (server: Server, exchanges: number): Promise<number> {
  const before = server.processorTime
  await runCounted(server, PLAIN, exchanges)
  await sleep(SETTLED)
  return exchanges / (server.processorTime - before)
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
