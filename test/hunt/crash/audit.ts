// Records which requests have reached a duplex route, and how often each hook ran for them. An id is `<case>.<number>`.

import { setImmediate as immediate } from 'node:timers/promises'
import type { FastifyInstance, FastifyRequest } from 'fastify'
import { settlesWithin } from './limits.ts'

/** Hooks that run at most once per request. onError may run more often, because an error in a hook is another error. */
const COUNTED = ['onRequest', 'onResponse', 'onRequestAbort', 'onTimeout'] as const
type Entry = Record<typeof COUNTED[number], number> & { url: string }

/** Turns of the event loop to wait for hooks that run twice. */
const TURNS = 10

/** How the ids of the requests of `takeCensus()` begin. */
export const CENSUS = 'census.'

export class Audit {
  /** Exchanges of the census that were admitted, refused because of `maxExchanges`, or failed. */
  readonly census = { admitted: 0, refused: 0, failed: 0 }
  private readonly entries = new Map<string, Entry>()
  private readonly waiting = new Set<() => void>()

  /** Must run before other hooks are added, because those may fail. */
  addHooks (app: FastifyInstance): void {
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

  /** Counts an exchange of the census that has reached its handler. */
  countAdmitted (): void {
    this.census.admitted++
    this.wake()
  }

  /** Waits until so many exchanges of the census were admitted or turned away. */
  async waitForCensus (total: number): Promise<void> {
    const { census } = this
    while (census.admitted + census.refused + census.failed < total) await this.nextChange()
  }

  /**
   * Waits until every request of a case, or of all cases if it is null, has ended.
   *
   * @returns the problems
   */
  async findOpen (number: number | null, limit: number): Promise<string[]> {
    const isOf = (id: string): boolean => number === null || id.startsWith(`${number}.`)
    const isOpen = (): boolean => [...this.entries].some(([id, { onResponse }]) => onResponse === 0 && isOf(id))
    const deadline = Date.now() + limit
    do {
      while (isOpen() && Date.now() < deadline) await settlesWithin(deadline - Date.now(), this.nextChange())
      // Meanwhile, another request of the same connection may begin.
      for (let turn = 0; turn < TURNS; turn++) await immediate()
    } while (isOpen() && Date.now() < deadline)
    const problems: string[] = []
    for (const [id, entry] of this.entries) {
      if (!isOf(id)) continue
      if (entry.onResponse === 0) problems.push(`no onResponse: ${entry.url} (${id})`)
      for (const name of COUNTED) {
        if (entry[name] > 1) problems.push(`${name} ran ${entry[name]} times: ${entry.url} (${id})`)
      }
    }
    return problems
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

  private nextChange (): Promise<void> {
    return new Promise((resolve) => { this.waiting.add(resolve) })
  }

  private wake (): void {
    for (const wake of this.waiting) wake()
    this.waiting.clear()
  }
}
