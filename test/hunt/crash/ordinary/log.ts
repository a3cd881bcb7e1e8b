// What the hooks and handlers of one app have seen of each request.

import { setTimeout as sleep } from 'node:timers/promises'
import type { FastifyInstance, FastifyRequest } from 'fastify'

/** How often a hook was called, or what else happened. */
type Entry = Record<string, number>

export class Log {
  private readonly entries = new Map<string, Entry>()

  keep (app: FastifyInstance): void {
    app.addHook('onRequest', async (request, reply) => {
      this.note(request, 'onRequest')
      reply.header('x-mark', request.id)
      request.raw.socket.once('close', () => this.note(request, 'closed'))
    })
    app.addHook('onResponse', async (request, reply) => this.note(request, `onResponse ${reply.statusCode}`))
    app.addHook('onRequestAbort', async (request) => this.note(request, 'onRequestAbort'))
    app.addHook('onTimeout', async (request) => this.note(request, 'onTimeout'))
    app.addHook('onError', async (request) => this.note(request, 'onError'))
    app.addHook('preHandler', async (request) => {
      this.note(request, 'preHandler')
      request.signal.addEventListener('abort', () => this.note(request, 'signal aborted'))
    })
  }

  /** The first so many requests whose ids begin so, by their number. */
  of (prefix: string, requests: number): Record<string, string> {
    const found: Record<string, string> = {}
    for (const [id, entry] of this.entries) {
      const number = id.slice(prefix.length)
      if (id.startsWith(prefix) && Number(number) < requests) found[number] = Object.entries(entry).map(([what, count]) => count === 1 ? what : `${count} ${what}`).sort().join(', ')
    }
    return found
  }

  private note (request: FastifyRequest, what: string): void {
    // Exchanges have rules of their own.
    if (request.url === '/duplex' || request.url === '/hold') return
    let entry = this.entries.get(request.id)
    if (entry === undefined) this.entries.set(request.id, entry = {})
    entry[what] = (entry[what] ?? 0) + 1
  }
}

const STEP = 20

/** @returns what differs between two logs, as soon as nothing does or the limit is over */
export async function differences (one: Log, other: Log, prefix: string, requests: number, limit: number): Promise<string[]> {
  const deadline = Date.now() + limit
  while (true) {
    const [here, there] = [one.of(prefix, requests), other.of(prefix, requests)]
    const differing = [...new Set([...Object.keys(here), ...Object.keys(there)])].filter((id) => here[id] !== there[id])
    if (differing.length === 0 || Date.now() > deadline) return differing.map((id) => `with the plugin "${here[id]}", without "${there[id]}"`)
    await sleep(STEP)
  }
}
