// What a run drives: an app with one exchange, its client, and the remote control of its handler; and what must hold at the end.

import assert from 'node:assert/strict'
import { setImmediate as immediate } from 'node:timers/promises'
import type { FastifyInstance } from 'fastify'
import type { Test } from 'tap'
import { Ledger } from '../../support/ledger.ts'
import type { Start } from '../../support/http1.ts'
import { type Served, resolvers } from '../../support/wire.ts'
import { type Outcome, type Peer, http2Peer, injectPeer, wirePeer } from './peers.ts'
import { Remote } from './remote.ts'
import { type Model, type Setup, isBlameless } from './state.ts'

const IDLE_TIMEOUT = 200
const DRAIN_LIMIT = 8192
const PLUGIN = { idleTimeout: IDLE_TIMEOUT, drainTimeout: 200, closeGrace: 200, drainLimit: DRAIN_LIMIT }

/** Milliseconds: whatever takes longer hangs. */
const LIMIT = 5000

/** As `Ledger` writes it: two would stand behind one another. */
const ONE_END = /^(completed \d+|errored \S+|errored .*|left)$/

/** Errors that nobody has handled, of all runs. */
const unhandled: unknown[] = []
process.on('unhandledRejection', (error) => { unhandled.push(error) })
process.on('uncaughtException', (error) => { unhandled.push(error) })

export class System {
  readonly remote = new Remote()
  readonly ledger = new Ledger()
  peer!: Peer
  commands = 0
  private served!: Served
  private closing: Promise<void> | null = null
  private readonly over = resolvers()
  private readonly cleanups: (() => unknown)[] = []
  /** Connections of which the server's end is open. */
  private connections = 0
  private onConnectionClose = (): void => {}
  /** How often onResponse has run, for each request. */
  private readonly responses = new Map<string, number>()
  private readonly kind: string

  private constructor (kind: string) {
    this.kind = kind
  }

  static async start (kind: string, start: Start, setup: Setup): Promise<System> {
    const system = new System(kind)
    const scope = { teardown: (cleanup: () => unknown) => { system.cleanups.push(cleanup) } } as Test
    system.served = await start(scope, (app) => system.addRoutes(scope, app, setup), {
      fastify: { ...system.ledger.options, ...(kind === 'h2c' ? { http2: true } : { forceCloseConnections: undefined }) },
      plugin: PLUGIN
    })
    if (kind === 'h2c') system.peer = await http2Peer(system.served.port, setup.request)
    else if (kind === 'inject') system.peer = await injectPeer(system.served.app, setup.request)
    else system.peer = wirePeer(await system.served.connect(), setup.request)
    return system
  }

  private addRoutes (scope: Test, app: FastifyInstance, { handler, slowHook }: Setup): void {
    const { ledger, over, remote } = this
    ledger.keep(scope, app)
    app.server.on('connection', (socket) => {
      this.connections++
      socket.on('close', () => {
        this.connections--
        this.onConnectionClose()
      })
    })
    app.addHook('onResponse', async ({ id }) => {
      this.responses.set(id, (this.responses.get(id) ?? 0) + 1)
      if (id === 'x') over.resolve()
    })
    if (slowHook) app.addHook('preHandler', async () => { for (let i = 0; i < 3; i++) await immediate() })
    const handlers = {
      async: async (...args: Parameters<Remote['run']>) => remote.run(...args),
      sync: (...args: Parameters<Remote['enter']>) => { remote.enter(...args) },
      generator: async function * (...args: Parameters<Remote['generate']>) { yield * remote.generate(...args) }
    }
    app.route({
      method: ['GET', 'POST'],
      url: '/x',
      duplex: { maxExchanges: 1 },
      handler: handlers[handler] as () => void,
      // The next exchange of the route: whether it is admitted is all that counts.
      preHandler: async ({ id }, reply) => { if (id === 'probe') return reply.send('admitted') }
    })
    app.get('/next', { duplex: true }, async function * ({ id }) { yield `this is ${id}` })
  }

  close (): Promise<void> {
    this.closing ??= this.served.app.close()
    return this.closing
  }

  /** Waits until the handler runs. @returns false if it will never */
  async handlerRuns (): Promise<boolean> {
    if (this.remote.hasEntered) return true
    await within('the handler runs, or the connection ends', Promise.race([this.remote.entered.promise, this.over.promise, this.peer.closed, this.connectionsClosed()]))
    return this.remote.hasEntered
  }

  private async connectionsClosed (): Promise<void> {
    while (this.connections > 0) await new Promise<void>((resolve) => { this.onConnectionClose = resolve })
  }

  /** Nobody does anything any more: checks that everything ends, and how. */
  async check (model: Model): Promise<void> {
    const { ledger, peer } = this
    const isGone = model.client === 'gone'
    const outcome = await within('a response, or the end of the connection', isGone && this.kind !== 'h2c' ? Promise.resolve(null) : peer.response())
    if (isGone && this.kind !== 'h2c') await within('the server notices that the client is gone', this.connectionsClosed())
    if (this.isRouted) await within('the exchange ends', this.over.promise)
    else assert(isGone || model.isClosing, 'the request was not routed')
    if (!isGone) this.checkOutcome(model, outcome)
    this.checkRead(model)
    if (!isGone || this.kind === 'h2c') await this.checkConnection(model, outcome)
    if (!model.isClosing && this.kind !== 'inject') await this.checkAdmission()
    await within('app.close()', this.close())
    peer.destroy()
    await within('all connections end', ledger.balance()) // the finer counts differ where Node writes the response
    for (const id of this.responses.keys()) {
      assert.equal(this.responses.get(id), 1, 'onResponse runs once')
      assert.match(ledger.end(id)!, ONE_END, 'one log line')
    }
    assert.deepEqual(unhandled.splice(0), [], 'unhandled errors')
  }

  get isRouted (): boolean {
    return this.remote.hasEntered || this.served.log.length > 0 || this.ledger.end('x') !== undefined
  }

  private checkOutcome (model: Model, outcome: Outcome): void {
    const { remote } = this
    const end = this.ledger.end('x') ?? 'not routed'
    const isLate = /IDLE|NOT_ENDED|SENT_LATE|CLOSING/.test(end) || /NOT_ENDED|SENT_LATE/.test(outcome?.body ?? '')
    if (isBlameless(model) && !isLate && model.response === 'ended') {
      assert(outcome?.isWhole && outcome.statusCode === 200, `the response has ended, and must arrive whole: ${show(outcome)}, ${end}`)
    }
    if (isBlameless(model) && !isLate && model.response === 'answered') {
      assert(outcome?.isWhole && outcome.statusCode === 200, `the answer must arrive whole: ${show(outcome)}, ${end}`)
    }
    if (outcome === null || !outcome.isWhole) return
    const { statusCode, body } = outcome
    if (statusCode !== 200) {
      const isExplained = {
        400: model.requestBody === 'malformed' || model.isTruncated,
        408: end.includes('408') || end.includes('IDLE'),
        500: !isBlameless(model) || /FST_ERR_DUPLEX_(NOT_ENDED|SENT_LATE)/.test(body),
        503: model.isClosing
      }[statusCode]
      assert(isExplained, `nobody has done anything for ${show(outcome)}, ${end}`)
    } else if (!remote.answers.includes(body)) {
      assert(remote.hasEnded, `the handler has not ended what looks whole: ${show(outcome)}, ${end}`)
      assert.equal(body, remote.written, 'the body is what was written')
      if (remote.trailersAreSet && model.response === 'ended') assert.equal(outcome.trailers['x-trailer'], 'yes', 'the trailers arrive')
    }
  }

  private checkRead (model: Model): void {
    const { read, readResult } = this.remote
    assert(read.length <= model.sent, 'nothing is read that was not sent')
    if (readResult === 'end' && !this.remote.isLeaving) {
      assert.equal(model.requestBody, 'complete', 'a body that is cut off is never a normal end')
      assert.equal(read.length, model.sent, 'the whole body is read')
    }
  }

  /** Is the next request on the connection answered, or the connection closed? */
  private async checkConnection (model: Model, outcome: Outcome): Promise<void> {
    const { kind, peer } = this
    if (kind !== 'h2c' && (outcome === null || !outcome.isWhole || outcome.closes || model.requestBody !== 'complete')) {
      if (model.hasPipelined) assert.equal(await within('the end of the connection', peer.response()), null, 'nothing is answered any more')
      await within('the end of the connection', peer.closed)
      assert.equal(peer.leftOver(), 0, 'no byte follows')
      return
    }
    if (!model.hasPipelined) {
      if (model.client === 'half-closed') {
        await within('the end of the connection', peer.closed)
        assert.equal(peer.leftOver(), 0, 'no byte follows')
        return
      }
      peer.next('/next', 'next')
    }
    const next = await within('an answer to the next request, or the end of the connection', peer.response())
    const mayClose = model.isClosing || model.response === 'destroyed' || model.handlerState === 'threw' || (kind === 'fallback' && model.client === 'half-closed')
    if (next === null) assert(mayClose, 'the next request is answered')
    else if (!(model.isClosing && next.statusCode === 503)) assert.deepEqual([next.statusCode, next.body, next.isWhole], [200, 'this is next', true], 'the next request is answered right')
    assert.equal(peer.leftOver(), 0, 'no byte follows')
  }

  /** `maxExchanges` counts this exchange no more. */
  private async checkAdmission (): Promise<void> {
    if (this.kind === 'h2c') {
      const probe = await http2Peer(this.served.port, 'none', 'probe')
      assert.equal((await within('the next exchange', probe.response()))?.body, 'admitted')
      probe.destroy()
      return
    }
    const wire = await this.served.connect()
    const { body } = await within('the next exchange', wire.request('GET /x HTTP/1.1\r\nHost: a\r\nX-Id: probe\r\nConnection: close\r\n\r\n'))
    assert.equal(body, 'admitted')
    wire.socket.destroy()
  }

  /** Whatever has failed. */
  stop (): void {
    this.peer?.destroy()
    const { server } = this.served.app
    if ('closeAllConnections' in server) server.closeAllConnections()
    this.close()
    for (const cleanup of this.cleanups) cleanup()
  }
}

function show (outcome: Outcome): string {
  if (outcome === null) return 'no response'
  const { statusCode, body, isWhole, closes } = outcome
  return `${statusCode} ${isWhole ? 'whole' : 'cut off'}${closes ? ', close' : ''}, ${body.length > 100 ? `${body.length} bytes` : JSON.stringify(body)}`
}

async function within<T> (what: string, promise: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((resolve, reject) => {
    timer = setTimeout(() => reject(new Error(`hangs: ${what}`)), LIMIT)
  })
  try {
    return await Promise.race([promise, late])
  } finally {
    clearTimeout(timer)
  }
}
