// Proxies: the same measures as of servers, from the client through the proxy to one origin, per second of the proxy's processor
// time. And the share of the bytes that the plugin's proxy writes from the buffer they were read into.

import type { ShortExchange } from '../client/exchanges.ts'
import { PATTERN } from '../client/pattern.ts'
import { type Direction, transfer } from '../client/transfer.ts'
import type { Peer } from '../peers.ts'
import { PROXY, ORIGIN, proxies } from '../proxies.ts'
import type { Column } from '../results.ts'
import { Fleet, type Samples } from '../rounds.ts'
import { Server } from '../server.ts'
import { bulk } from './bulk.ts'
import { exchanges } from './exchanges.ts'
import { idle } from './idle.ts'
import { roundTrips } from './round-trips.ts'

/** Milliseconds after which a proxy that gives no result in a round is said to stall. */
const LIMIT = 30_000
const SIZES: [number, string][] = [[64, '64 B'], [1024, '1 KiB'], [16384, '16 KiB'], [65536, '64 KiB']]
const KIB = PATTERN.subarray(0, 1024)
const SHORT: ShortExchange = { path: '/short', content: KIB, response: KIB }
/** A proxy runs more code than a server: only then has V8 compiled it. */
const WARM_UP = 75_000
const RELAYED_LENGTH = 256 * 2 ** 20

export interface Relayed {
  direction: Direction
  /** For example `64 B`. */
  chunks: string
  /** Of the bytes of content, those that were not copied. */
  share: number
}

export interface ProxyOptions {
  seconds: number
  rounds: number
  idleRounds: number
}

/** @param isChosen whether a peer is to be measured */
export async function proxy (isChosen: (peer: Peer) => boolean, { seconds, rounds, idleRounds }: ProxyOptions): Promise<{ peers: Peer[], columns: Column[], relayed: Relayed[] }> {
  const origin = await Server.start(ORIGIN, 'client')
  const peers = proxies(origin.port).filter(isChosen)
  const fleet = await Fleet.start(peers, LIMIT)
  const columns: Column[] = []
  const add = (id: string, table: string, label: string, title: string, unit: string, samples: Samples): void => {
    columns.push({ id: `proxy-${id}`, table, label, title: `Proxies: ${title}`, unit, rate: unit !== 'KiB', base: 'proxy-fastify', bound: 'proxy-net', server: 'proxy', samples })
  }
  try {
    for (const [direction, what] of [['up', 'upload'], ['down', 'download'], ['echo', 'echo']] as const) {
      for (const [chunkSize, label] of SIZES) {
        const samples = await bulk(fleet, { direction, chunkSize, connections: 1 }, rounds, seconds)
        add(`${direction}-${chunkSize}`, `Through a proxy, ${what}`, label, `${what} in chunks of ${label}`, 'MB/s', samples)
      }
    }
    const table = 'Through a proxy'
    add('exchanges', table, 'short exchanges', 'short keep-alive exchanges', 'per s', await exchanges(fleet, rounds, Math.max(seconds, 0.5), SHORT, WARM_UP))
    await fleet.stop()
    add('round-trips', table, 'round trips', 'round trips over 64 connections', 'per s', await roundTrips(peers, rounds, seconds, LIMIT))
    add('idle', table, 'idle exchange', 'memory of an idle open exchange', 'KiB', await idle(peers, idleRounds, LIMIT))
    const own = peers.find(({ id }) => id === PROXY)
    return { peers, columns, relayed: own === undefined ? [] : await relayedShares(own) }
  } finally {
    await fleet.stop()
    await origin.stop()
  }
}

/** In a process of its own, since counting takes time. */
async function relayedShares (peer: Peer): Promise<Relayed[]> {
  const server = await Server.start({ ...peer, command: [...peer.command, 'count'] })
  try {
    const shares: Relayed[] = []
    for (const direction of ['up', 'down'] as const) {
      for (const [chunkSize, chunks] of SIZES) {
        const { relayed: before } = await server.collect()
        await transfer(server, { direction, chunkSize, length: RELAYED_LENGTH }, 1, false)
        const { relayed: after } = await server.collect()
        shares.push({ direction, chunks, share: (after! - before!) / RELAYED_LENGTH })
      }
    }
    return shares
  } finally {
    await server.stop()
  }
}
