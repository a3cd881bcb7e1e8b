// Records which hooks of one app have run for each request.

import { setTimeout as sleep } from 'node:timers/promises'
import type { FastifyInstance, FastifyRequest } from 'fastify'

/** How often each hook ran, or something else happened. */
type Entry = Record<string, number>

export class Log {
  private readonly entries = new Map<string, Entry>()

  addHooks (app: FastifyInstance): void {
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

  /** The records of the first requests whose ids have the prefix, by their number. */
  entriesOf (prefix: string, requests: number): Record<string, string> {
    const found: Record<string, string> = {}
    for (const [id, entry] of this.entries) {
      const number = id.slice(prefix.length)
      if (id.startsWith(prefix) && Number(number) < requests) found[number] = Object.entries(entry).map(([what, count]) => count === 1 ? what : `${count} ${what}`).sort().join(', ')
    }
    return found
  }

  private note (request: FastifyRequest, what: string): void {
    // Exchanges are not compared.
    if (request.url === '/duplex' || request.url === '/hold') return
    let entry = this.entries.get(request.id)
    if (entry === undefined) this.entries.set(request.id, entry = {})
    entry[what] = (entry[what] ?? 0) + 1
  }
}

const STEP = 20

/** Waits until two logs agree. @returns the differences that are left at the time limit */
export async function differences (one: Log, other: Log, prefix: string, requests: number, limit: number): Promise<string[]> {
  const deadline = Date.now() + limit
  while (true) {
    const [withPlugin, without] = [one.entriesOf(prefix, requests), other.entriesOf(prefix, requests)]
    const differing = [...new Set([...Object.keys(withPlugin), ...Object.keys(without)])].filter((id) => withPlugin[id] !== without[id])
    if (differing.length === 0 || Date.now() > deadline) return differing.map((id) => `with the plugin "${withPlugin[id]}", without it "${without[id]}"`)
    await sleep(STEP)
  }
}
