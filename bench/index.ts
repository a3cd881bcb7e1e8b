// npm run bench: measures the plugin and its peers side by side in one run.

import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { chart } from './chart.ts'
import type { Direction } from './client/transfer.ts'
import { describeIsolation, describeMachine, isIsolated, runIsolated } from './isolation.ts'
import { bulk } from './measures/bulk.ts'
import { type Close, close } from './measures/close.ts'
import { exchanges } from './measures/exchanges.ts'
import { byItems, byLength, byOpenExchanges } from './measures/growth.ts'
import { idle } from './measures/idle.ts'
import { items } from './measures/items.ts'
import { micro } from './measures/micro.ts'
import { roundTrips } from './measures/round-trips.ts'
import { type Relayed, proxy } from './measures/proxy.ts'
import { type Routes, routes } from './measures/routes.ts'
import { type Options, readOptions } from './options.ts'
import { ITEM_PEERS, PEERS, type Peer, buildPeers, isAvailable } from './peers.ts'
import { reportClose, reportItems, reportLengths, reportMicro, reportOpen, reportRelayed, reportRoutes, reportTables } from './report.ts'
import { ORIGIN } from './proxies.ts'
import { type Results } from './results.ts'
import { Fleet } from './rounds.ts'
import { reportTargets } from './targets.ts'

const JSON_FILE = join(__dirname, 'results.json')

const SIZES: [number, string][] = [[64, '64 B'], [1024, '1 KiB'], [16384, '16 KiB'], [65536, '64 KiB']]

const MIB = 2 ** 20

async function run (options: Options): Promise<void> {
  const { only, full } = options
  const isChosen = (peer: Peer): boolean => isAvailable(peer) && isWanted(peer, options)
  let relayed: Relayed[] = []
  const peers = PEERS.filter(isChosen)
  const itemPeers = ITEM_PEERS.filter(isChosen)
  const results: Results = { machine: describeMachine(), isolation: describeIsolation(), peers: [...peers, ...itemPeers], columns: [] }
  console.log(`${results.machine}; ${results.isolation}\n`)

  if (only.has('bulk') || only.has('exchanges')) await compare(peers, results, options)
  if (only.has('roundtrips')) {
    results.columns.push({ id: 'round-trips', table: 'Echo', label: 'round trips', title: 'Round trips over 64 connections', unit: 'per s', rate: true, samples: await roundTrips(peers, options.rounds, options.seconds) })
  }
  if (only.has('items')) await compareItems(itemPeers, results, options)
  if (only.has('idle')) {
    results.columns.push({ id: 'idle', table: 'Echo', label: 'idle exchange', title: 'Memory of an idle open exchange', unit: 'KiB', rate: false, samples: await idle(peers, Math.min(options.rounds, 5)) })
  }
  if (only.has('proxy') && isThereOrigin()) {
    const through = await proxy(isChosen, { ...options, idleRounds: full ? 5 : 3 })
    results.peers.push(...through.peers)
    results.columns.push(...through.columns)
    relayed = through.relayed
  }
  if (results.columns.length > 0) console.log(reportTables(results) + '\n')
  if (relayed.length > 0) console.log(reportRelayed(relayed) + '\n')

  const plugin = peers.find(({ id }) => id === 'plugin')
  let ordinary: Routes[] = []
  if (only.has('routes')) {
    ordinary = await routes(4 * options.rounds)
    console.log(reportRoutes(ordinary) + '\n')
  }
  if (only.has('growth')) await showGrowth(plugin, itemPeers.find(({ id }) => id === 'items-yield'), options)
  let closed: Close[] = []
  if (only.has('close')) {
    closed = await close(full ? 50_000 : 5000)
    console.log(reportClose(closed) + '\n')
  }
  if (only.has('micro')) console.log(reportMicro(micro()) + '\n')

  if (options.check) console.log(reportTargets(results, ordinary, closed) + '\n')
  writeFileSync(JSON_FILE, JSON.stringify({ ...results, routes: ordinary, closed }, (_key, value) => value instanceof Map ? Object.fromEntries(value) : value, 2))
  if (options.chart !== null && results.columns.length > 0) writeFileSync(options.chart, chart(results))
}

function isWanted ({ id }: Peer, { peers }: Options): boolean {
  return peers === null || peers.has(id)
}

async function compare (peers: Peer[], { columns }: Results, { only, full, seconds, rounds }: Options): Promise<void> {
  const fleet = await Fleet.start(peers)
  const measureBulk = async (direction: Direction, connections: number, table: string): Promise<void> => {
    for (const [chunkSize, label] of SIZES) {
      const samples = await bulk(fleet, { direction, chunkSize, connections }, rounds, seconds)
      columns.push({ id: `${direction}-${chunkSize}${connections === 1 ? '' : `-${connections}`}`, table, label, title: `${table} in chunks of ${label}`, unit: 'MB/s', rate: true, samples })
    }
  }
  try {
    if (only.has('bulk')) await measureBulk('echo', 1, 'Echo')
    if (only.has('exchanges')) {
      columns.push({ id: 'exchanges', table: 'Echo', label: 'short exchanges', title: 'Short keep-alive exchanges', unit: 'per s', rate: true, samples: await exchanges(fleet, rounds, seconds) })
    }
    if (only.has('bulk') && full) {
      await measureBulk('echo', 8, 'Echo, 8 connections')
      await measureBulk('up', 1, 'Upload')
      await measureBulk('down', 1, 'Download')
    }
  } finally {
    await fleet.stop()
  }
}

async function compareItems (peers: Peer[], { columns }: Results, { seconds, rounds }: Options): Promise<void> {
  const fleet = await Fleet.start(peers)
  try {
    for (const [shape, label] of [['large', '16 KiB at a time'], ['single', 'a chunk per row']] as const) {
      const samples = await items(fleet, shape, rounds, seconds)
      columns.push({ id: `items-${shape}`, table: 'Items', label, title: `Items, ${label}`, unit: 'rows', rate: true, base: 'items-fastify', bound: 'items-limit', samples })
    }
  } finally {
    await fleet.stop()
  }
}

function isThereOrigin (): boolean {
  const isThere = isAvailable(ORIGIN)
  if (!isThere) console.log('SKIPPED: the proxies, whose origin is in Go')
  return isThere
}

async function showGrowth (plugin: Peer | undefined, itemPeer: Peer | undefined, { full, rounds }: Options): Promise<void> {
  const longest = full ? 10 * 1024 * MIB : 256 * MIB
  // The longest bodies take minutes, which average out what else the machine does.
  const lengthRounds = full ? Math.min(rounds, 3) : rounds
  if (plugin !== undefined) {
    console.log(reportLengths(plugin, await byLength(plugin, longest, lengthRounds)) + '\n')
    console.log(reportOpen(plugin, await byOpenExchanges(plugin, full ? 50_000 : 10_000, rounds, full ? 0.5 : 0.25)) + '\n')
  }
  if (itemPeer !== undefined) console.log(reportItems(itemPeer, await byItems(itemPeer, longest, lengthRounds)) + '\n')
}

const options = readOptions()
if (process.platform !== 'linux') {
  console.log('SKIPPED: the benchmark needs Linux, where it reads processor time and memory from /proc')
} else if (isIsolated) {
  run(options)
} else {
  if ([...options.only].some((measure) => measure !== 'micro')) buildPeers((peer) => isWanted(peer, options))
  process.exitCode = runIsolated()
}
