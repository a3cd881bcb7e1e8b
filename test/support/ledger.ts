// Counts what one app reports of each request. Whatever became of its connection: each hook once, one log line with the end,
// one end on the diagnostics channels, and no connection left.

import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { setImmediate as immediate } from 'node:timers/promises'
import type { Socket } from 'node:net'
import type { FastifyInstance } from 'fastify'
import type { Test } from 'tap'
import type { ExchangeEvent } from '../../types/index.d.ts'
import type { Line } from './wire.ts'

const COUNTED = ['onRequest', 'onResponse', 'onRequestAbort', 'onTimeout', 'onError', 'start', 'head', 'finish', 'error', 'incoming request', 'request completed', 'request errored', 'stream closed prematurely'] as const
type Counted = typeof COUNTED[number]
type Entry = Record<Counted, number> & { end: string, socket: Socket | null }

export class Ledger {
  connections = 0
  /** Requests answered by Node's response, which does not report a client that leaves after its request. */
  readonly byNode = new Set<string>()
  private readonly entries = new Map<string, Entry>()
  private unsettled = 0
  private wake = (): void => {}
  private readonly wakers = new Map<string, () => void>()

  /** Each request must have a unique field `x-id`. */
  readonly options = {
    logger: { stream: { write: (text: string) => this.onLine(JSON.parse(text)) } },
    genReqId: (request: { headers: Record<string, unknown> }) => String(request.headers['x-id'])
  }

  keep (t: Test, app: FastifyInstance): void {
    app.addHook('onRequest', async (request) => {
      this.count(request.id, 'onRequest')
      this.entry(request.id).socket = request.raw.socket
      this.wakers.get(request.id)?.()
    })
    app.addHook('onResponse', async (request) => { this.count(request.id, 'onResponse') })
    app.addHook('onRequestAbort', async (request) => { this.count(request.id, 'onRequestAbort') })
    app.addHook('onTimeout', async (request) => { this.count(request.id, 'onTimeout') })
    app.addHook('onError', async (request) => { this.count(request.id, 'onError') })
    app.server.on('connection', (socket: Socket) => {
      this.connections++
      socket.on('close', () => {
        this.connections--
        this.wake()
      })
    })
    for (const name of ['start', 'head', 'finish', 'error'] as const) {
      const listener = (event: unknown): void => {
        const { id } = (event as ExchangeEvent).request
        if (this.entries.has(id)) this.count(id, name)
      }
      subscribe(`fastify-duplex.exchange.${name}`, listener)
      t.teardown(() => unsubscribe(`fastify-duplex.exchange.${name}`, listener))
    }
  }

  /** The server's end of a request's connection, once it has been routed. */
  async socket (id: string): Promise<Socket> {
    if (!this.entries.get(id)?.socket) await new Promise<void>((resolve) => { this.wakers.set(id, resolve) })
    return this.entries.get(id)!.socket!
  }

  /** How a request ended: `completed 200`, `errored FST_ERR_DUPLEX_IDLE`, `left`. Undefined: it has not, or never reached a route. */
  end (id: string): string | undefined {
    return this.entries.get(id)?.end || undefined
  }

  /**
   * Waits until all connections are gone and all requests have ended.
   *
   * @returns the requests whose counts are wrong
   */
  async balance (): Promise<string[]> {
    while (this.connections > 0 || this.unsettled > 0) await new Promise<void>((resolve) => { this.wake = resolve })
    // A second event would come late.
    for (let i = 0; i < 10; i++) await immediate()
    const wrong: string[] = []
    for (const [id, entry] of this.entries) {
      if (!isBalanced(entry, this.byNode.has(id))) wrong.push(`${id}: ${COUNTED.filter((what) => entry[what] > 0).map((what) => `${entry[what]} ${what}`).join(', ')}; ${entry.end}`)
    }
    return wrong
  }

  clear (): void {
    this.entries.clear()
    this.wakers.clear()
  }

  private onLine (line: Line & { reqId: string }): void {
    const { reqId, msg } = line
    if (!COUNTED.includes(msg as Counted)) return
    if (msg === 'request completed') this.entry(reqId).end += `completed ${line.res!.statusCode}`
    if (msg === 'stream closed prematurely') this.entry(reqId).end += 'left'
    if (msg === 'request errored') this.entry(reqId).end += `errored ${line.err!.code ?? line.err!.message}`
    this.count(reqId, msg as Counted)
  }

  private entry (id: string): Entry {
    let entry = this.entries.get(id)
    if (entry === undefined) {
      entry = { end: '', socket: null } as Entry
      for (const what of COUNTED) entry[what] = 0
      this.entries.set(id, entry)
      this.unsettled++
    }
    return entry
  }

  private count (id: string, what: Counted): void {
    const entry = this.entry(id)
    const before = hasEnded(entry)
    entry[what]++
    if (before || !hasEnded(entry)) return
    this.unsettled--
    this.wake()
  }
}

function hasEnded (entry: Entry): boolean {
  return entry.onResponse > 0 && entry['request completed'] + entry['request errored'] + entry['stream closed prematurely'] > 0
}

function isBalanced (entry: Entry, byNode: boolean): boolean {
  const errored = entry['request errored'] + entry['stream closed prematurely']
  return entry.onRequest === 1 && entry.onResponse === 1 && entry['incoming request'] === 1 && entry['request completed'] + errored === 1 &&
    // The head is the promise of one end; what Fastify answered has none.
    entry.start <= 1 && entry.head <= entry.start && entry.finish + entry.error <= entry.start && entry.finish + entry.error >= entry.head &&
    entry.error <= errored && entry.onRequestAbort <= 1 && (byNode || entry.onRequestAbort >= errored) && entry.onTimeout <= 1 && entry.onError <= 1
}
