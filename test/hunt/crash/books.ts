// Which requests have reached a duplex route, and how often each of their ends was told. An id is `<case>.<number>`.

import { setImmediate as immediate } from 'node:timers/promises'
import type { FastifyInstance, FastifyRequest } from 'fastify'
import { comesWithin } from './limits.ts'

/** At most once for each request. An error in a hook is another error, so that there may be several of those. */
const COUNTED = ['onRequest', 'onResponse', 'onRequestAbort', 'onTimeout'] as const
type Entry = Record<typeof COUNTED[number], number> & { url: string }

/** Turns of the event loop in which what comes twice has come. */
const TURNS = 10

/** Requests whose ids begin so are those of `census()`. */
export const CENSUS = 'census.'

export class Books {
  /** Exchanges that were let in, refused because there are too many, or failed, in the census. */
  readonly census = { held: 0, refused: 0, failed: 0 }
  private readonly entries = new Map<string, Entry>()
  private readonly waiting = new Set<() => void>()

  /** Before all other hooks, which may fail. */
  keep (app: FastifyInstance): void {
    app.addHook('onRequest', async (request) => {
      if ((request.routeOptions.config as { audited?: boolean }).audited) this.open(request)
    })
    app.addHook('onResponse', async (request) => this.count(request, 'onResponse'))
    app.addHook('onRequestAbort', async (request) => this.count(request, 'onRequestAbort'))
    app.addHook('onTimeout', async (request) => this.count(request, 'onTimeout'))
    app.addHook('onError', async (request, reply, error) => {
      if (request.id.startsWith(CENSUS)) this.census[error.code === 'FST_ERR_DUPLEX_TOO_MANY' ? 'refused' : 'failed']++
    })
  }

  /** An exchange of the census has reached its handler. */
  hold (): void {
    this.census.held++
    this.wake()
  }

  /** Waits until so many exchanges of the census have been let in, or not. */
  async counted (most: number): Promise<void> {
    const { census } = this
    while (census.held + census.refused + census.failed < most) await this.change()
  }

  /**
   * Waits until every request of a case has ended; of all cases if it is null.
   *
   * @returns what is wrong
   */
  async balance (number: number | null, limit: number): Promise<string[]> {
    const isOf = (id: string): boolean => number === null || id.startsWith(`${number}.`)
    const isOpen = (): boolean => [...this.entries].some(([id, { onResponse }]) => onResponse === 0 && isOf(id))
    const deadline = Date.now() + limit
    do {
      while (isOpen() && Date.now() < deadline) await comesWithin(deadline - Date.now(), this.change())
      // What is still under way may be another request.
      for (let turn = 0; turn < TURNS; turn++) await immediate()
    } while (isOpen() && Date.now() < deadline)
    const wrong: string[] = []
    for (const [id, entry] of this.entries) {
      if (!isOf(id)) continue
      if (entry.onResponse === 0) wrong.push(`no onResponse: ${entry.url} (${id})`)
      for (const name of COUNTED) {
        if (entry[name] > 1) wrong.push(`${entry[name]} times ${name}: ${entry.url} (${id})`)
      }
    }
    return wrong
  }

  private open (request: FastifyRequest): void {
    const entry = this.entries.get(request.id)
    if (entry !== undefined) {
      entry.onRequest++
      return
    }
    this.entries.set(request.id, { onRequest: 1, onResponse: 0, onRequestAbort: 0, onTimeout: 0, url: `${request.method} ${request.url}` })
  }

  private count (request: FastifyRequest, what: typeof COUNTED[number]): void {
    const entry = this.entries.get(request.id)
    if (entry === undefined) return
    entry[what]++
    this.wake()
  }

  private change (): Promise<void> {
    return new Promise((resolve) => { this.waiting.add(resolve) })
  }

  private wake (): void {
    for (const wake of this.waiting) wake()
    this.waiting.clear()
  }
}
