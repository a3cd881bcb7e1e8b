// The process under test. It has one app, and measures itself when asked.

import { randomUUID } from 'node:crypto'
import { readFileSync, readdirSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import Fastify, { type FastifyInstance } from 'fastify'
import duplex from '../../../lib/index.ts'
import { CLOSE_GRACE, DRAIN_TIMEOUT, IDLE_TIMEOUT } from './bounds.ts'
import { addDuplexRoutes } from './duplex-routes.ts'
import { release } from './release.ts'
import type { Address, AppConfig, FromServer, Peak, Sample, ToServer } from './messages.ts'
import { addOrdinaryRoutes, addPlainRoutes } from './plain-routes.ts'
import { TurnMeter } from './turn-meter.ts'

const config: AppConfig = JSON.parse(process.argv[2])
const turns = new TurnMeter()
const peak = { memory: 0, rss: 0 }
let inProgress = 0
let answered = 0
let app: FastifyInstance

async function start (): Promise<void> {
  app = Fastify(appOptions() as object) as unknown as FastifyInstance
  app.addHook('onRequest', (request, _reply, done) => {
    if (isCounted(request.url)) inProgress++
    done()
  })
  app.addHook('onResponse', (request, _reply, done) => {
    if (isCounted(request.url)) inProgress--
    answered++
    done()
  })
  if (config.kind === 'duplex') {
    await app.register(duplex, { idleTimeout: IDLE_TIMEOUT, drainTimeout: DRAIN_TIMEOUT, closeGrace: CLOSE_GRACE, maxExchanges: config.slots })
    addDuplexRoutes(app, config)
  } else {
    addPlainRoutes(app, config)
  }
  addOrdinaryRoutes(app, config)
  const path = join(tmpdir(), `hunt-${randomUUID()}.sock`)
  await app.listen(config.transport === 'unix' ? { path } : { port: 0, host: '127.0.0.1' })
  setInterval(updatePeak, 25).unref()
  const listening: Address = config.transport === 'unix' ? { path } : { port: (app.server.address() as AddressInfo).port, host: '127.0.0.1' }
  process.send!({ listening } satisfies FromServer)
}

/** Ordinary routes do not count: Fastify runs no onResponse hook for an ordinary response whose client has left. */
function isCounted (url: string): boolean {
  return !url.startsWith('/ordinary')
}

function appOptions (): object {
  const root = dirname(require.resolve('fastify-duplex/package.json'))
  const read = (name: string): Buffer => readFileSync(join(root, 'test/support/tls', name))
  return {
    ...(config.transport === 'tls' ? { https: { key: read('key.pem'), cert: read('cert.pem') } } : {}),
    ...(config.transport === 'http2' ? { http2: true } : {}),
    connectionTimeout: config.connectionTimeout,
    // Otherwise Fastify itself would wait for connections that clients hold.
    forceCloseConnections: config.transport !== 'http2',
    ...(config.routesLate ? { constraints: { later: LATER } } : {})
  }
}

/** A constraint that is derived in another turn of the event loop, so that requests are routed after Node's 'request' event. */
const LATER = {
  name: 'later',
  storage: () => {
    let only: unknown = null
    return { get: () => only, set: (_key: unknown, value: unknown) => { only = value } }
  },
  deriveConstraint: (_request: unknown, _context: unknown, done: (error: null, value: string) => void) => { setImmediate(done, null, 'yes') },
  validate: () => {}
}

function memoryUsage (): { memory: number, rss: number } {
  const { heapUsed, external, rss } = process.memoryUsage()
  return { memory: heapUsed + external, rss }
}

function updatePeak (): void {
  const { memory, rss } = memoryUsage()
  peak.memory = Math.max(peak.memory, memory)
  peak.rss = Math.max(peak.rss, rss)
}

function descriptors (): number | null {
  try {
    return readdirSync('/proc/self/fd').length
  } catch {
    return null
  }
}

async function sample (): Promise<Sample> {
  const { milliseconds } = turns
  const { gc } = globalThis as unknown as { gc: () => void }
  // Twice, with turns of the loop in between: the second collection frees what finalizers have released.
  for (let i = 0; i < 2; i++) {
    gc()
    await sleep(10)
  }
  const connections = await new Promise<number>((resolve) => { app.server.getConnections((_error, count) => resolve(count)) })
  const handles = process.getActiveResourcesInfo().filter((name) => /Wrap$/.test(name)).length
  const result = { ...memoryUsage(), longestTurn: milliseconds, descriptors: descriptors(), handles, connections, inProgress, answered }
  turns.reset()
  return result
}

function takePeak (): Peak {
  updatePeak()
  const result = { ...peak, longestTurn: turns.milliseconds, answered }
  peak.memory = peak.rss = 0
  turns.reset()
  return result
}

async function perform (task: ToServer['task']): Promise<unknown> {
  if (task === 'sample') return sample()
  if (task === 'peak') return takePeak()
  if (task === 'release') return release()
  if (task === 'resources') return process.getActiveResourcesInfo()
  await app.close()
  await sleep(100)
  // From now on only what is left of the app can keep the process alive.
  process.channel!.unref()
  return process.getActiveResourcesInfo()
}

process.on('message', async ({ id, task }: ToServer) => {
  const result = await perform(task)
  process.send!({ id, result: result ?? null } satisfies FromServer)
})

start()
