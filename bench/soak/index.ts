// Many exchanges for a long time: `npm run soak -- --seconds 60 --connections 10000`. The server and the clients are
// separate processes on 127.0.0.1. It prints a table, and fails if a byte or an exchange is missing.

import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { markdownTable } from '../report.ts'
import type { ClientEvent, ClientReport, ClientTask, Counts, Memory } from './messages.ts'

const { values } = parseArgs({ options: { seconds: { type: 'string', default: '60' }, connections: { type: 'string', default: '10000' } } })
/** Duration of each of the two long parts. */
const seconds = Number(values.seconds)
const requested = Number(values.connections)
const connections = Math.min(requested, maxOpenFiles() - 100)
/** Client processes. With two, none needs more descriptors than the server. */
const CLIENTS = 2
const SHORT_CONNECTIONS = 32
const SAMPLES = 60
/** The heap may grow by at most so many bytes per exchange. With fewer than MIN_EXCHANGES, growth may be noise. */
const MAX_SLOPE = 20
const MIN_EXCHANGES = 100_000

const problems: string[] = []

function check (condition: boolean, problem: string): void {
  if (!condition) problems.push(problem)
}

/** How many files a process may open. Node raises this limit at its start as far as the system allows. */
function maxOpenFiles (): number {
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

  /** Closes the app. The clients are gone by then, so the process must exit by itself. */
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
      this.process.on('exit', (code) => { if (code !== 0) reject(new Error(`a client process exited with ${code}`)) })
    })
    this.process.send(task)
  }

  startTalking (): void {
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

// Measurements

const number = (value: number): string => Math.round(value).toLocaleString('en').replaceAll(',', ' ')
const kib = (bytes: number): string => `${(bytes / 1024).toFixed(1)} KiB`
const mib = (bytes: number): string => `${(bytes / 1024 ** 2).toFixed(1)} MiB`

interface Footprint { heap: number, external: number, rss: number }

/** Memory of the server for one idle exchange: the average over all that are open. */
async function measureIdle (path: string): Promise<Footprint> {
  const server = await new Server().start()
  const warmUp = startClients(server, 'hold', path, 100)
  await Promise.all(warmUp.map((client) => client.open))
  await stopAll(warmUp)
  const before = await server.memory()
  const clients = startClients(server, 'hold', path, connections)
  await Promise.all(clients.map((client) => client.open))
  const after = await server.memory()
  await stopAll(clients)
  await server.close()
  const each = (key: keyof Memory): number => (after[key] - before[key]) / connections
  return { heap: each('heap'), external: each('external'), rss: each('rss') }
}

async function measureTalk (): Promise<string[][]> {
  const server = await new Server().start()
  const clients = startClients(server, 'talk', '', connections)
  await Promise.all(clients.map((client) => client.open))
  const open = await server.counts()
  await server.memory()
  for (const client of clients) client.startTalking()
  const begun = Date.now()
  await sleep(seconds * 1000)
  const peak = await server.memory()
  const report = await stopAll(clients)
  const took = (Date.now() - begun) / 1000
  const counts = await server.close()

  check(open.started - open.finished - open.failed >= connections, `${open.started - open.finished - open.failed} exchanges were open at once`)
  check(counts.wrong === 0, `${counts.wrong} chunks of requests had wrong bytes`)
  check(counts.connections === 0, `${counts.connections} connections were left open`)
  check(counts.started === report.opened, `the clients opened ${report.opened} exchanges, the server counted ${counts.started}`)
  check(counts.finished === report.ended + report.halfClosed, `the clients completed ${report.ended + report.halfClosed} exchanges, the server counted ${counts.finished}`)
  check(counts.failed === report.cutOff + report.reset, `the clients broke off ${report.cutOff + report.reset} exchanges, the server counted ${counts.failed} failures`)
  return [
    ['open at once', number(connections)],
    ['time', `${number(took)} s`],
    ['exchanges', number(report.opened)],
    ['completed', number(report.ended)],
    ['completed, connection half-closed', number(report.halfClosed)],
    ['broken off by FIN', number(report.cutOff)],
    ['broken off by RST', number(report.reset)],
    ['messages', `${number(report.messages)} (${number(report.messages / took)}/s)`],
    ['bytes checked by the server', mib(counts.bytes)],
    ['bytes checked by the clients', mib(report.bytes)],
    ['heap and RSS of the server meanwhile', `${mib(peak.heap)}, ${mib(peak.rss)}`],
    ['longest turn of the event loop', `${number(peak.turn)} ms`],
    ['problems', problems.length === 0 ? 'none' : 'see below']
  ]
}

async function measureShort (): Promise<string[][]> {
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
  // In the first quarter code is still being compiled, and pools are being filled.
  const steady = samples.slice(SAMPLES / 4)
  const bytes = slope(steady.map(({ exchanges }) => exchanges), steady.map(({ heap }) => heap))
  check(counts.finished === report.ended && counts.started === report.opened && counts.failed === 0, `${report.opened} short exchanges were sent, ${report.ended} answered, and the server counted ${counts.finished}`)
  check(bytes < MAX_SLOPE || counts.finished < MIN_EXCHANGES, `the heap grows by ${bytes} bytes per exchange`)
  const heaps = steady.map(({ heap }) => heap)
  return [
    ['connections', number(SHORT_CONNECTIONS)],
    ['exchanges', `${number(report.ended)} (${number(report.ended / took)}/s)`],
    ['heap after collection, first and last sample', `${mib(samples[0].heap)}, ${mib(samples.at(-1)!.heap)}`],
    ['lowest and highest, after the first quarter', `${mib(Math.min(...heaps))}, ${mib(Math.max(...heaps))}`],
    ['slope, after the first quarter', `${bytes.toFixed(3)} bytes per exchange`],
    ['RSS, first and last sample', `${mib(samples[0].rss)}, ${mib(samples.at(-1)!.rss)}`]
  ]
}

/** Slope of the least-squares line. */
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
  if (connections < requested) console.log(`SKIPPED: ${requested - connections} of ${requested} connections, because a process may open only ${maxOpenFiles()} files\n`)
  const duplex = await measureIdle('/duplex')
  const ordinary = await measureIdle('/ordinary')
  console.log(markdownTable(
    [`one of ${number(connections)} idle exchanges`, 'heap', 'external', 'RSS'],
    ([['duplex route', duplex], ['ordinary route, streaming', ordinary]] as const).map(([name, { heap, external, rss }]) => [name, kib(heap), kib(external), kib(rss)])
  ) + '\n')
  console.log(markdownTable(['conversations', ''], await measureTalk()) + '\n')
  console.log(markdownTable(['short exchanges', ''], await measureShort()) + '\n')
  for (const problem of problems) console.log(`FAILED: ${problem}`)
  process.exitCode = problems.length === 0 ? 0 : 1
}

soak()
