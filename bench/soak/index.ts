// Many exchanges for a long time: `npm run soak -- --seconds 60 --connections 10000`. Server and clients are processes of
// their own, on 127.0.0.1. Ends by itself, prints a table, and fails where a byte or an exchange is missing.

import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { markdownTable } from '../report.ts'
import type { ClientEvent, ClientReport, ClientTask, Counts, Memory } from './messages.ts'

const { values } = parseArgs({ options: { seconds: { type: 'string', default: '60' }, connections: { type: 'string', default: '10000' } } })
/** Of each of the two long parts. */
const seconds = Number(values.seconds)
const wanted = Number(values.connections)
const connections = Math.min(wanted, openFiles() - 100)
/** So that none needs more files or ports than the server. */
const CLIENTS = 2
const SHORT_CONNECTIONS = 32
const SAMPLES = 60
/** More bytes than this left behind by each of so many exchanges is no noise. */
const MAX_SLOPE = 20
const ENOUGH = 100_000

const problems: string[] = []

function check (condition: boolean, problem: string): void {
  if (!condition) problems.push(problem)
}

/** How many files a process may open; Node has raised it as far as it may. */
function openFiles (): number {
  const { userLimits } = process.report.getReport() as unknown as { userLimits?: { open_files: { soft: number | 'unlimited' } } }
  const soft = userLimits?.open_files.soft
  return typeof soft === 'number' ? soft : Infinity
}

// Processes

class Server {
  readonly process: ChildProcess
  port = 0

  constructor () {
    this.process = fork(join(__dirname, 'server.js'), { execArgv: ['--expose-gc'] })
  }

  async start (): Promise<this> {
    const [{ port }] = await once(this.process, 'message') as [{ port: number }]
    this.port = port
    return this
  }

  memory (): Promise<Memory> {
    return this.ask('memory') as Promise<Memory>
  }

  counts (): Promise<Counts> {
    return this.ask('counts') as Promise<Counts>
  }

  /** All connections are gone when all clients are; then it must have nothing left to do. */
  async close (): Promise<Counts> {
    const exit = once(this.process, 'exit')
    const counts = await this.ask('close') as Counts
    await exit
    return counts
  }

  private async ask (task: string): Promise<unknown> {
    this.process.send({ task })
    const [answer] = await once(this.process, 'message')
    return answer
  }
}

class Client {
  private readonly process = fork(join(__dirname, 'client.js'))
  private readonly done: Promise<ClientReport>
  readonly open: Promise<void>

  constructor (task: ClientTask) {
    let opened!: () => void
    this.open = new Promise((resolve) => { opened = resolve })
    this.done = new Promise((resolve, reject) => {
      this.process.on('message', (event: ClientEvent) => {
        if (event.event === 'open') opened()
        else resolve(event.report)
      })
      this.process.on('exit', (code) => { if (code !== 0) reject(new Error(`a client has ended with ${code}`)) })
    })
    this.process.send(task)
  }

  go (): void {
    this.process.send({ task: 'go' })
  }

  stop (): Promise<ClientReport> {
    this.process.send({ task: 'stop' })
    return this.done
  }
}

function startClients (server: Server, task: 'hold' | 'talk' | 'short', path: string, count: number): Client[] {
  return Array.from({ length: CLIENTS }, (_, index) => {
    return new Client({ task, path, port: server.port, connections: Math.ceil(count / CLIENTS), index, clients: CLIENTS })
  })
}

async function stopAll (clients: Client[]): Promise<ClientReport> {
  const [first, ...others] = await Promise.all(clients.map((client) => client.stop()))
  for (const other of others) {
    first.wrong.push(...other.wrong)
    for (const key of ['opened', 'ended', 'halfClosed', 'cutOff', 'reset', 'messages', 'bytes'] as const) first[key] += other[key]
  }
  for (const wrong of first.wrong.slice(0, 10)) problems.push(wrong)
  return first
}

// Parts

const number = (value: number): string => Math.round(value).toLocaleString('en').replaceAll(',', ' ')
const kib = (bytes: number): string => `${(bytes / 1024).toFixed(1)} KiB`
const mib = (bytes: number): string => `${(bytes / 1024 ** 2).toFixed(1)} MiB`

interface Footprint { heap: number, external: number, rss: number }

/** What one idle exchange costs the server, of those open at once. */
async function idleFootprint (path: string): Promise<Footprint> {
  const server = await new Server().start()
  const warm = startClients(server, 'hold', path, 100)
  await Promise.all(warm.map((client) => client.open))
  await stopAll(warm)
  const before = await server.memory()
  const clients = startClients(server, 'hold', path, connections)
  await Promise.all(clients.map((client) => client.open))
  const after = await server.memory()
  await stopAll(clients)
  await server.close()
  const each = (key: keyof Memory): number => (after[key] - before[key]) / connections
  return { heap: each('heap'), external: each('external'), rss: each('rss') }
}

async function conversation (): Promise<string[][]> {
  const server = await new Server().start()
  const clients = startClients(server, 'talk', '', connections)
  await Promise.all(clients.map((client) => client.open))
  const open = await server.counts()
  await server.memory()
  for (const client of clients) client.go()
  const begun = Date.now()
  await sleep(seconds * 1000)
  const peak = await server.memory()
  const report = await stopAll(clients)
  const took = (Date.now() - begun) / 1000
  const counts = await server.close()

  check(open.started - open.finished - open.failed >= connections, `${open.started - open.finished - open.failed} exchanges were open at once`)
  check(counts.wrong === 0, `${counts.wrong} pieces of requests had other bytes`)
  check(counts.connections === 0, `${counts.connections} connections were left`)
  check(counts.started === report.opened, `${report.opened} exchanges opened, ${counts.started} started`)
  check(counts.finished === report.ended + report.halfClosed, `${report.ended + report.halfClosed} ended well, ${counts.finished} finished`)
  check(counts.failed === report.cutOff + report.reset, `${report.cutOff + report.reset} broken off, ${counts.failed} failed`)
  return [
    ['open at once', number(connections)],
    ['time', `${number(took)} s`],
    ['exchanges', number(report.opened)],
    ['of them ended by the client', number(report.ended)],
    ['half-closed after the request', number(report.halfClosed)],
    ['ended within the body (FIN)', number(report.cutOff)],
    ['reset', number(report.reset)],
    ['messages', `${number(report.messages)} (${number(report.messages / took)}/s)`],
    ['bytes checked by the server', mib(counts.bytes)],
    ['bytes checked by the clients', mib(report.bytes)],
    ['heap, RSS of the server while they talk', `${mib(peak.heap)}, ${mib(peak.rss)}`],
    ['longest turn of its event loop', `${number(peak.turn)} ms`],
    ['lost, mixed, left open', problems.length === 0 ? 'none' : 'see below']
  ]
}

async function shortExchanges (): Promise<string[][]> {
  const server = await new Server().start()
  const clients = startClients(server, 'short', '', SHORT_CONNECTIONS)
  const begun = Date.now()
  const samples: { exchanges: number, heap: number, rss: number }[] = []
  for (let i = 0; i < SAMPLES; i++) {
    await sleep(seconds * 1000 / SAMPLES)
    const { heap, rss } = await server.memory()
    const { finished } = await server.counts()
    samples.push({ exchanges: finished, heap, rss })
  }
  const took = (Date.now() - begun) / 1000
  const report = await stopAll(clients)
  const counts = await server.close()
  // The code is compiled and the pools are filled in the beginning.
  const settled = samples.slice(SAMPLES / 4)
  const bytes = slope(settled.map(({ exchanges }) => exchanges), settled.map(({ heap }) => heap))
  check(counts.finished === report.ended && counts.started === report.opened && counts.failed === 0, `${report.opened} short exchanges, ${report.ended} answered, ${counts.finished} finished`)
  check(bytes < MAX_SLOPE || counts.finished < ENOUGH, `the heap grows by ${bytes} bytes per exchange`)
  const heaps = settled.map(({ heap }) => heap)
  return [
    ['connections', number(SHORT_CONNECTIONS)],
    ['exchanges', `${number(report.ended)} (${number(report.ended / took)}/s)`],
    ['heap after gc, first and last sample', `${mib(samples[0].heap)}, ${mib(samples.at(-1)!.heap)}`],
    ['lowest and highest, after the first quarter', `${mib(Math.min(...heaps))}, ${mib(Math.max(...heaps))}`],
    ['slope, after the first quarter', `${bytes.toFixed(3)} bytes per exchange`],
    ['RSS, first and last sample', `${mib(samples[0].rss)}, ${mib(samples.at(-1)!.rss)}`]
  ]
}

/** Least squares. */
function slope (xs: number[], ys: number[]): number {
  const mean = (values: number[]): number => values.reduce((sum, value) => sum + value, 0) / values.length
  const [x, y] = [mean(xs), mean(ys)]
  let above = 0
  let below = 0
  for (let i = 0; i < xs.length; i++) {
    above += (xs[i] - x) * (ys[i] - y)
    below += (xs[i] - x) ** 2
  }
  return above / below
}

async function soak (): Promise<void> {
  if (connections < wanted) console.log(`SKIPPED: ${wanted - connections} of ${wanted} connections, for a process may open ${openFiles()} files here\n`)
  const duplex = await idleFootprint('/duplex')
  const ordinary = await idleFootprint('/ordinary')
  console.log(markdownTable(
    [`an idle open exchange, of ${number(connections)}`, 'heap', 'external', 'RSS'],
    ([['duplex route', duplex], ['ordinary route, streaming', ordinary]] as const).map(([name, { heap, external, rss }]) => [name, kib(heap), kib(external), kib(rss)])
  ) + '\n')
  console.log(markdownTable(['conversations', ''], await conversation()) + '\n')
  console.log(markdownTable(['short exchanges', ''], await shortExchanges()) + '\n')
  for (const problem of problems) console.log(`FAILED: ${problem}`)
  process.exitCode = problems.length === 0 ? 0 : 1
}

soak()
